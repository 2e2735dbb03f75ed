"""Looks at the registries' doors for a scrape: whether TLS stands from here, and until when.

A look is made when somebody scrapes, once a minute at most, and is a handshake without a request:
it needs no login. What is not reached within two seconds is told as not reached.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Sequence

from agent.server.metrics import Look
from agent.wire.plan import Registry

SECONDS = 60.0
PATIENCE = 2.0
# ssl.VERIFY_X509_PARTIAL_CHAIN has its name since Python 3.10.
_PARTIAL_CHAIN = ssl.VerifyFlags(0x80000)


class Doors:
    """The last look at each registry. ``quiet``: held while a name is looked up, which takes a
    thread, so that no fork copies the locks it holds."""

    def __init__(self, quiet: asyncio.Lock) -> None:
        self._quiet = quiet
        self._looks: tuple[Look, ...] = ()
        self._time = float("-inf")
        self._names: tuple[str, ...] = ()
        self._looking = asyncio.Lock()

    async def look(self, registries: Sequence[Registry]) -> tuple[Look, ...]:
        """A look of this minute at each that has TLS."""
        async with self._looking:
            names = tuple(one.name for one in registries)
            if names != self._names or time.monotonic() - self._time > SECONDS:
                found = await asyncio.gather(
                    *(self._door(one) for one in registries if not one.plain_http)
                )
                self._looks, self._names, self._time = tuple(found), names, time.monotonic()
            return self._looks

    async def _door(self, registry: Registry) -> Look:
        ends = None
        with contextlib.suppress(OSError, ValueError, asyncio.TimeoutError):
            address = registry.address or await self._resolved(registry.host)
            ends = await asyncio.wait_for(_ends(registry, address), PATIENCE)
        return Look(registry.name, ends)

    async def _resolved(self, name: str) -> str:
        async with self._quiet:
            looked_up = asyncio.get_running_loop().getaddrinfo(name, None)
            return str((await asyncio.wait_for(looked_up, PATIENCE))[0][4][0])


async def _ends(registry: Registry, address: str) -> int:
    """When the certificate that the registry shows ends. Raises OSError or ValueError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags |= _PARTIAL_CHAIN
    if registry.ca:
        context.load_verify_locations(cadata=registry.ca)
    else:
        context.load_default_certs()
    if registry.client is not None:
        registry.client.present(context)
    _, writer = await asyncio.open_connection(
        address, registry.port, ssl=context, server_hostname=registry.host
    )
    shown = writer.get_extra_info("peercert")
    writer.transport.abort()
    return int(ssl.cert_time_to_seconds(shown["notAfter"]))
