"""Runs the core's operations, each in a process of its own, forked from the server.

The core is synchronous, and a fork has all its modules loaded already. A client that goes away
changes nothing: the operation comes to its end. SIGTERM to the server is handed on, and the core
rolls back. The node's lock is the core's; here only the number of processes is bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import platform
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import Any, Optional

from agent.node import pulse
from agent.node.memory import Memory
from agent.wire.faults import AgentError, Fault, Interrupted
from agent.wire.report import FAILED, Event, HostResult, ResultEvent, event_to_json

MOST = 4
# Begins the line with which a process hands on what it learned; no event begins so.
_LEARNED = b"learned "
Operation = Callable[[], Iterator[Event]]
# The events of an operation that needs no process of its own; None where it does.
AtOnce = Callable[[], Awaitable[Optional[list[Event]]]]
Note = Callable[[dict[str, Any], float], None]


class BusyError(AgentError):
    """As many operations as are allowed at once are under way."""

    def __init__(self) -> None:
        super().__init__(
            "busy",
            f"{MOST} operations are under way on this node",
            cause="clients ask for more than the node can do at once",
            cure="wait a moment, then run the same command again",
        )


class Work:
    """The operations under way."""

    def __init__(self, load: Callable[[], None], memory: Memory) -> None:
        """``load`` is called once, before the first; what one learns is known to the next."""
        self._load: Callable[[], None] | None = load
        self._memory = memory
        self._pids: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False
        # Held while a thread is at work beside the loop: no fork is made then.
        self.quiet = asyncio.Lock()

    @property
    def count(self) -> int:
        return len(self._tasks)

    def begin(
        self, operation: Operation, note: Note | None = None, at_once: AtOnce | None = None
    ) -> asyncio.Queue[bytes | None]:
        """Starts ``operation``; its lines come through the queue, and None after the last.

        ``note`` gets the result and the time of its end. Raises BusyError. The operation ends
        whether or not anyone takes the lines. Where ``at_once`` answers, it has no process.
        """
        if self._stopping or self.count >= MOST:
            raise BusyError
        if self._load is not None:
            self._load()
            self._load = None
        lines: asyncio.Queue[bytes | None] = asyncio.Queue()
        task = asyncio.ensure_future(self._run(operation, at_once, lines, note))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return lines

    async def _run(
        self,
        operation: Operation,
        at_once: AtOnce | None,
        lines: asyncio.Queue[bytes | None],
        note: Note | None,
    ) -> None:
        result: dict[str, Any] | None = None
        try:
            async for line in self._told(operation, at_once):
                if line.startswith(b'{"event": "result"'):
                    result = json.loads(line)
                lines.put_nowait(line)
        finally:
            if result is None:
                died = _line(_died())
                result = json.loads(died)
                lines.put_nowait(died)
            if note is not None:
                note(result, time.time())
            lines.put_nowait(None)

    async def _told(self, operation: Operation, at_once: AtOnce | None) -> AsyncIterator[bytes]:
        # What answers at once may do so in a thread, and a fork would copy the locks it holds.
        async with self.quiet:
            known = await at_once() if at_once is not None else None
            process = self._fork(operation) if known is None and not self._stopping else None
        if process is None:
            for event in known or [_stopped("SIGTERM")]:
                yield _line(event)
            return
        pid, reading = process
        try:
            async for line in _lines(reading):
                if line.startswith(_LEARNED):
                    self._memory.take(line[len(_LEARNED) :])
                else:
                    yield line
        finally:
            await _ended(pid)
            self._pids.discard(pid)

    def _fork(self, operation: Operation) -> tuple[int, int]:
        """(the process, the pipe that its lines come from)."""
        reading, writing = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            _child(operation, self._memory, writing)
        os.close(writing)
        self._pids.add(pid)
        return pid, reading

    async def stop(self, patience: float) -> None:
        """No new ones; those under way roll back or finish, within ``patience`` seconds."""
        self._stopping = True
        for pid in self._pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=patience)


async def events(lines: asyncio.Queue[bytes | None]) -> AsyncIterator[dict[str, Any]]:
    """What an operation reported, as objects."""
    while (line := await lines.get()) is not None:
        yield json.loads(line)


async def _lines(descriptor: int) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    # A line holds a diff; a configuration file is kilobytes, and 4 MiB its bound.
    reader = asyncio.StreamReader(limit=4 << 20)
    with os.fdopen(descriptor, "rb", 0) as pipe:
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), pipe
        )
        try:
            while line := await reader.readline():
                yield line
        finally:
            transport.close()


async def _ended(pid: int) -> None:
    """Waits for the process, which has closed its pipe: a moment, unless it was stopped."""
    while True:
        with contextlib.suppress(ChildProcessError):
            done, _ = os.waitpid(pid, os.WNOHANG)  # noqa: ASYNC222 (it does not wait)
            if done == 0:
                await asyncio.sleep(0.001)
                continue
        return


def _child(operation: Operation, memory: Memory, writing: int) -> None:
    """Never returns into the server's loop."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, _stop)
        gc.disable()  # it lives for one operation, and to walk objects would be to copy them
        pipe = os.dup2(writing, 3) if writing != 3 else writing
        os.closerange(4, _highest())
        try:
            with pulse.beside(partial(_write, pipe)) as write:
                for event in operation():
                    write(_line(event))
                if learned := memory.news():
                    write(_LEARNED + learned + b"\n")
            code = 0
        except AgentError as problem:
            _write(pipe, _line(_failed(problem.fault)))
        except Interrupted as problem:
            _write(pipe, _line(_stopped(str(problem))))
        except Exception as problem:
            said = Fault(
                "internal-error",
                f"{type(problem).__name__}: {problem}",
                cause="a defect of the agent",
                cure="report what journalctl -u moorage-agent says",
            )
            _write(pipe, _line(_failed(said)))
    finally:
        os._exit(code)


def _highest() -> int:
    import resource

    return min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 65536)


def _write(pipe: int, content: bytes) -> None:
    # The server is gone only where it was killed: the work is finished all the same.
    with contextlib.suppress(OSError):
        while content:
            content = content[os.write(pipe, content) :]


def _line(event: Event) -> bytes:
    return json.dumps(event_to_json(event), ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def _failed(fault: Fault) -> ResultEvent:
    return ResultEvent(HostResult(host=platform.node(), status=FAILED, error=fault))


def _stopped(by: str) -> ResultEvent:
    return _failed(Fault("interrupted", f"stopped by {by}; nothing was changed"))


def _died() -> ResultEvent:
    return _failed(
        Fault(
            "agent-died",
            "the operation ended without a result",
            cause="its process was killed: by hand, or for want of memory",
            cure="run the same command again; what was cut off is rolled back first",
        )
    )


def _stop(number: int, frame: object) -> None:
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    raise Interrupted(signal.Signals(number).name)
