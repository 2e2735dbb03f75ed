"""Answers the host's name: the smallest thing that shows which node or pod served a request.

It stands alone in its image; nothing else of the repository is there.

    GET /         the host name, one line of text
    GET /healthz  ``ok``, for probes

``PORT`` (8080) and ``DELAY`` (seconds before each answer of ``/``, 0) come from the environment;
the delay is there to watch a slow request survive a rolling update.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys

import uvloop
from aiohttp import web

# Within a second of SIGTERM it is gone, whatever clients do; until then open requests are answered.
SHUTDOWN_SECONDS = 0.8


def make_app(*, delay: float = 0) -> web.Application:
    """The application. ``delay`` in seconds."""

    async def hostname(_request: web.Request) -> web.Response:
        if delay:
            await asyncio.sleep(delay)
        return web.Response(text=f"{socket.gethostname()}\n")

    async def healthz(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    app = web.Application(client_max_size=1 << 16)
    app.router.add_get("/", hostname)  # HEAD comes with it
    app.router.add_get("/healthz", healthz)
    return app


def from_environment(name: str, default: float, most: float) -> float:
    """The environment's ``name``; ends the program with a sentence where it is out of range."""
    text = os.environ.get(name, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = -1
    if not 0 <= value <= most:
        sys.exit(f"serve_hostname: {name} has to be a number from 0 to {most:g}, not {text!r}")
    return value


async def serve(app: web.Application, port: int) -> None:
    """Serves on every address until SIGTERM or Ctrl-C, then answers what is open and returns."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    # aiohttp grants a request its time twice, before and after it asks the handler to end; and
    # web.run_app would add a third, for tasks.
    runner = web.AppRunner(
        app, access_log=None, keepalive_timeout=30, shutdown_timeout=SHUTDOWN_SECONDS / 2
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, port=port).start()
        print(f"serve_hostname listens on port {port}", flush=True)  # noqa: T201
        await stop.wait()
    finally:
        await runner.cleanup()


def main() -> None:
    port = int(from_environment("PORT", 8080, 65535))
    delay = from_environment("DELAY", 0, 60)
    try:
        uvloop.run(serve(make_app(delay=delay), port))
    except OSError as problem:
        sys.exit(f"serve_hostname: port {port} cannot be had: {problem.strerror}")


if __name__ == "__main__":
    main()
