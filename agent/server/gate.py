"""Lets connections in: so many and no more, quickly, with the right certificate, and says who not.

aiohttp's low-level server speaks HTTP; what it leaves open is closed here. Each refusal is one line
of the log with the address it came from.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Any

from aiohttp.abc import AbstractAccessLogger
from aiohttp.web_request import BaseRequest
from aiohttp.web_response import StreamResponse
from aiohttp.web_server import Server

MOST_CONNECTIONS = 64
# One address may not take all the places: an operator's tunnel and its own connections are two.
MOST_FROM_ONE = 32
HANDSHAKE_SECONDS = 5.0
# From the connection, or the last answer, to the end of the next request's head.
HEAD_SECONDS = 10.0
# A refusal has so long to reach a client that is still sending.
GOODBYE_SECONDS = 0.1

log = logging.getLogger("moorage")


class Refusals(AbstractAccessLogger):
    """The access log: refused requests alone, and commands that change something."""

    def log(self, request: BaseRequest, response: StreamResponse, time: float) -> None:
        what = f"{request.method} {request.path!r}"
        if response.status >= 400:
            log.warning("refused %s: %s with %s", request.remote, what, response.status)
        elif request.method != "GET":
            log.info("%s: %s took %.2f seconds", request.remote, what, time)


class Http(Server):
    """aiohttp's server, with a bound on the time that a request's head may take."""

    def __init__(self, handler: Any) -> None:
        super().__init__(
            self._handle,
            access_log=log,
            access_log_class=Refusals,
            # Malformed requests reach the access log as refused; the traceback helps nobody.
            logger=_quiet(),
            keepalive_timeout=HEAD_SECONDS,
            lingering_time=0.0,
            tcp_keepalive=True,
            # No body of ours is compressed; one that says it is, is refused unread.
            auto_decompress=False,
            max_line_size=1024,
            max_field_size=4096,
        )
        self.on_lost: Callable[[str], None] = lambda name: None
        self.names: dict[Any, str] = {}
        self._inner = handler
        self._timers: dict[Any, asyncio.TimerHandle] = {}

    def connection_made(self, handler: Any, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self.names[handler] = _name(transport.get_extra_info("peername"))
        self._arm(handler, transport)

    def connection_lost(self, handler: Any, exc: BaseException | None = None) -> None:
        self._disarm(handler)
        super().connection_lost(handler, exc)
        self.on_lost(self.names.pop(handler, ""))

    async def _handle(self, request: BaseRequest) -> StreamResponse:
        self._disarm(request.protocol)
        try:
            answer: StreamResponse = await self._inner(request)
        finally:
            if request.transport is not None:
                self._arm(request.protocol, request.transport)
        if not request.content.is_eof() and request.transport is not None:
            # A refused body is read no further, and TLS does not wait for its sender's goodbye.
            with contextlib.suppress(RuntimeError):
                request.transport.pause_reading()
            asyncio.get_running_loop().call_later(GOODBYE_SECONDS, request.transport.abort)
        return answer

    def _arm(self, handler: Any, transport: asyncio.Transport) -> None:
        self._disarm(handler)
        loop = asyncio.get_running_loop()
        self._timers[handler] = loop.call_later(HEAD_SECONDS, _too_slow, transport)

    def _disarm(self, handler: Any) -> None:
        timer = self._timers.pop(handler, None)
        if timer is not None:
            timer.cancel()


def _too_slow(transport: asyncio.Transport) -> None:
    peer = transport.get_extra_info("peername")
    if not transport.is_closing():
        log.info("dropped %s: no whole request within %g s", _name(peer), HEAD_SECONDS)
    transport.abort()


class Gate:
    """The listening socket and the connections through it."""

    def __init__(self, http: Http, context: ssl.SSLContext) -> None:
        self.context = context
        self.refused = 0
        self._http = http
        http.on_lost = self._left
        self._open: dict[str, int] = {}
        self._greeting: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def listen(self, address: str, port: int) -> None:
        """Raises OSError if the port is in use."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._listener = socket.socket(family, socket.SOCK_STREAM)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            self._listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address != "::")
        self._listener.bind((address, port))
        self._listener.listen(128)
        self._listener.setblocking(False)

    async def serve(self) -> None:
        """For ever; cancelled, it lets no one else in."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    sock, peer = await loop.sock_accept(self._listener)
                except OSError:  # out of descriptors, or a client that was gone at once
                    await asyncio.sleep(0.05)
                    continue
                name = str(peer[0])
                if sum(self._open.values()) >= MOST_CONNECTIONS or (
                    self._open.get(name, 0) >= MOST_FROM_ONE
                ):
                    self._refuse(name, "too many connections")
                    sock.close()
                    continue
                self._open[name] = self._open.get(name, 0) + 1
                task = asyncio.ensure_future(self._greet(sock, name))
                self._greeting.add(task)
                task.add_done_callback(self._greeting.discard)
        finally:
            self._listener.close()

    async def _greet(self, sock: socket.socket, name: str) -> None:
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(
                self._http, sock, ssl=self.context, ssl_handshake_timeout=HANDSHAKE_SECONDS
            )
        except (OSError, asyncio.TimeoutError) as problem:
            with contextlib.suppress(OSError):
                sock.close()
            self._left(name)
            self._refuse(name, _why(problem))

    def _left(self, name: str) -> None:
        left = self._open.get(name, 0) - 1
        if left > 0:
            self._open[name] = left
        else:
            self._open.pop(name, None)

    def _refuse(self, name: str, why: str) -> None:
        self.refused += 1
        log.warning("refused %s: %s", name, why)


def _why(problem: BaseException) -> str:
    if isinstance(problem, asyncio.TimeoutError):
        return "no TLS handshake in time"
    if isinstance(problem, ssl.SSLCertVerificationError):
        return f"its certificate: {problem.verify_message}"
    if isinstance(problem, ssl.SSLError):
        return f"TLS: {(problem.reason or str(problem)).lower().replace('_', ' ')}"
    return f"the connection broke off in the handshake ({type(problem).__name__})"


def _quiet() -> logging.Logger:
    made = logging.getLogger("moorage.http")
    made.propagate = False
    made.addHandler(logging.NullHandler())
    made.setLevel(logging.CRITICAL)
    return made


def _name(peer: Any) -> str:
    return str(peer[0]) if isinstance(peer, tuple) else "?"
