"""The service itself: from its settings on the disk to its last answer."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import hashlib
import logging
import os
import signal
import ssl
import sys

from agent.resident import keys, notify, settling, upgrade
from agent.resident.home import Home
from agent.server import tls
from agent.server.app import App, settle
from agent.server.gate import Gate, Http
from agent.wire.faults import AgentError

log = logging.getLogger("moorage")


def run(root: str) -> int:
    """Serves until SIGTERM. 0: told to stop; 1: it cannot serve, and the log says why."""
    logging.basicConfig(
        handlers=[_handler()], level=logging.INFO, format="%(levelname)s %(message)s", force=True
    )
    _have_one_heap()
    try:
        return _new_loop().run_until_complete(_serve(root))
    except AgentError as problem:
        log.critical("%s: %s; %s", problem.fault.message, problem.fault.cause, problem.fault.cure)
        return 1


def _handler() -> logging.Handler:
    """Where the log goes: systemd reads stderr; OpenRC does not, and its service says so."""
    with contextlib.suppress(OSError):
        if "MOORAGE_SYSLOG" in os.environ:
            from logging.handlers import SysLogHandler

            made = SysLogHandler("/dev/log", SysLogHandler.LOG_DAEMON)
            made.ident = "moorage-agent: "
            return made
    return logging.StreamHandler(sys.stderr)


def _have_one_heap() -> None:
    """Threads come and go here: glibc would give each a heap, and 2 KB of it were lost each time.

    Source: mallopt(3), M_ARENA_MAX, whose number is -8 in malloc.h.
    """
    with contextlib.suppress(OSError, AttributeError):  # musl has one heap, and no mallopt
        ctypes.CDLL(None).mallopt(-8, 1)


def _new_loop() -> asyncio.AbstractEventLoop:
    """uvloop's where the node has it; nothing is missing without."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    made: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return made


async def _serve(root: str) -> int:
    home = Home(root)
    settings = home.settings()
    if settings is None:
        raise AgentError(
            "not-resident",
            "no agent is to reside on this node",
            cause=f"{home.folder} is not there",
            cure="inv nodes.adopt --hosts=NODE",
        )
    keys.settle(home)
    _require_programs()
    code: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def end(with_code: int) -> None:
        if not code.done():
            code.set_result(with_code)

    def reload() -> None:
        gate.context = tls.context(home)

    archive = home.archive.read_bytes() if home.archive.exists() else b""
    app = App(root, settings, digest=hashlib.sha256(archive).hexdigest(), reload=reload)
    del archive
    try:
        gate = Gate(Http(app.handle), tls.context(home))
    except (ssl.SSLError, OSError) as problem:
        raise AgentError(
            "bad-certificate",
            f"the agent's key or certificate cannot be used: {problem}",
            cause="it was changed from outside, or never written whole",
            cure="inv nodes.adopt --hosts=NODE makes them again",
        ) from None
    app.refused = lambda: gate.refused
    try:
        gate.listen(settings.listen, settings.port)
    except OSError as problem:
        raise AgentError(
            "port-in-use",
            f"port {settings.port} at {settings.listen} cannot be listened on: {problem.strerror}",
            cause="another program has it, or the address does not belong to this node",
            cure="inv nodes.adopt --hosts=NODE --port=ANOTHER",
        ) from None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end, 0)
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
    serving = asyncio.ensure_future(gate.serve())
    beating = asyncio.ensure_future(_heartbeat())
    app.drift.begin()
    if upgrade.on_trial(home):
        loop.call_later(upgrade.TRIAL_SECONDS, lambda: end(1) if upgrade.on_trial(home) else None)
    settle()
    settling.serves(home)
    log.info("serving on %s port %d (process %d)", settings.listen, settings.port, os.getpid())
    notify.tell("READY=1")
    ended = await code
    notify.tell("STOPPING=1")
    for task in (serving, beating):
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    await app.close()
    log.info("stopped")
    return ended


def _require_programs() -> None:
    """Programs are started with /dev/null as their input; a sandbox may have hidden it."""
    try:
        os.close(os.open(os.devnull, os.O_RDWR))
    except OSError as problem:
        raise AgentError(
            "no-dev-null",
            f"{os.devnull} cannot be opened here: {problem.strerror}",
            cause="this node hides it from services, or it is not what it should be (ls -l)",
            cure="leave the node without a resident agent (--once), or mend /dev/null",
        ) from None


async def _heartbeat() -> None:
    """Tells the watchdog that the loop turns."""
    seconds = notify.watchdog_seconds()
    while seconds:
        notify.tell("WATCHDOG=1")
        await asyncio.sleep(seconds)
