"""What a scrape is told of a registry's door: real TLS on loopback, and doors that stay shut."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("aiohttp")

from agent.server.doors import Doors
from agent.server.metrics import Look
from agent.wire.plan import Registry
from tests.agent.authority import Authority

NAME = "my.registry.io"


class Door:
    """A listener that speaks TLS, or with ``pair`` None takes connections and says nothing."""

    def __init__(self, pair: Path | None) -> None:
        self.seen = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._context: ssl.SSLContext | None = None
        if pair is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(str(pair))
        self._lines: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                line, _ = self._listener.accept()
                self.seen += 1
                self._lines.append(line)
                if self._context is not None:
                    with suppress(OSError):
                        self._context.wrap_socket(line, server_side=True).recv(1)

    def close(self) -> None:
        self._listener.close()
        for line in self._lines:
            line.close()


@contextmanager
def door(tmp_path: Path, authority: Authority, days: float = 20) -> Iterator[tuple[Door, Registry]]:
    pair = tmp_path / "pair.pem"
    pair.write_bytes(b"".join(authority.issue(NAME, days=days)))
    with closing(Door(pair)) as made:
        yield made, Registry(NAME, made.port, "127.0.0.1", authority.pem)


def looked(*registries: Registry, times: int = 1) -> tuple[Look, ...]:
    async def look() -> tuple[Look, ...]:
        doors = Doors(asyncio.Lock())
        for _ in range(times):
            found = await doors.look(registries)
        return found

    return asyncio.run(look())


def test_a_door_tells_the_end_of_the_certificate_behind_it(tmp_path: Path) -> None:
    with door(tmp_path, Authority()) as (made, registry):
        (found,) = looked(registry, times=5)
        assert found.registry == registry.name
        assert found.ends is not None
        assert abs(found.ends - time.time() - 20 * 86400) < 60
        assert made.seen == 1  # once a minute, however often somebody scrapes


def test_a_certificate_of_another_ca_or_name_is_no_open_door(tmp_path: Path) -> None:
    with door(tmp_path, Authority()) as (_, registry):
        others = replace(registry, ca=Authority("another").pem)
        elsewhere = replace(registry, host="other.registry.io")
        assert [one.ends for one in looked(others, elsewhere)] == [None, None]


def test_an_ended_certificate_is_no_open_door(tmp_path: Path) -> None:
    with door(tmp_path, Authority(), days=-1) as (_, registry):
        assert looked(registry)[0].ends is None


def test_a_door_that_says_nothing_keeps_no_scrape_waiting(tmp_path: Path) -> None:
    with closing(Door(None)) as silent:
        began = time.monotonic()
        registry = Registry(NAME, silent.port, "127.0.0.1", Authority().pem)
        closed = replace(registry, port=1)
        unknown = replace(registry, host="no.such.invalid", address=None)
        assert [one.ends for one in looked(registry, closed, unknown)] == [None] * 3
        assert time.monotonic() - began < 5


def test_a_registry_without_tls_has_no_door() -> None:
    assert looked(Registry(NAME, 5000, "127.0.0.1", insecure="http")) == ()
