"""Many hosts at once, a bounded number at a time; one that fails does not stop the others.

Ctrl-C once: no further host is begun, and those under way come to their end. Ctrl-C twice: the
lines are cut; the agents there finish or put back by themselves.
"""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from agent.report import UNREACHABLE, Fault, HostResult
from moorage.errors import MoorageError
from moorage.fleet import errand, faults
from moorage.fleet.report import summary

if TYPE_CHECKING:
    from moorage.ui import UI

Event = dict[str, Any]


class Cuttable(Protocol):
    """What can be closed from another thread: a session."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class Outcome:
    """A host's result and the events that led to it."""

    result: HostResult
    events: tuple[Event, ...] = ()


class Line:
    """What the work on one host gets: where to tell events, and when to stop."""

    def __init__(self, name: str, rollout: Rollout) -> None:
        self.name = name
        self.events: list[Event] = []
        self._rollout = rollout

    def tell(self, event: Event) -> None:
        self.events.append(event)
        self._rollout.messages.put((self.name, event))

    @contextlib.contextmanager
    def open(self, session: Cuttable) -> Iterator[None]:
        """Holds ``session`` where a second Ctrl-C finds it. Raises Stopped where it is too late."""
        rollout = self._rollout
        with rollout.guard:
            if rollout.stopping:
                raise Stopped
            rollout.open[self.name] = session
            rollout.begun.add(self.name)
        try:
            yield
        finally:
            with rollout.guard:
                rollout.open.pop(self.name, None)


class Stopped(Exception):
    """The user stopped the run before this host was begun."""


# A host's name and its news; a signal has a number and no name.
Messages = queue.SimpleQueue[tuple[str, "Event | Outcome | int"]]

# One host's work. May raise MoorageError; ssh.Unreachable where nothing came about.
Work = Callable[[Line], HostResult]


class Rollout:
    """One run over hosts: ``works`` by name, in order, at most ``parallel`` at a time."""

    def __init__(self, works: Sequence[tuple[str, Work]], parallel: int) -> None:
        self.works = works
        self.messages: Messages = queue.SimpleQueue()
        self.guard = threading.Lock()
        self.open: dict[str, Cuttable] = {}
        self.begun: set[str] = set()
        self.stopping = False
        self._todo = deque(works)
        self._parallel = min(parallel, len(works))

    def run(self, ui: UI, title: str, *, dry_run: bool = False) -> tuple[list[Outcome], int]:
        """Does it all, telling the progress. Returns the outcomes in order, and what stopped it.

        That is the number of a signal, 0 for none. Threads are daemons: a host that hangs in a
        connect does not keep the program alive.
        """
        done: dict[str, Outcome] = {}
        stopped_by = 0
        for number in range(self._parallel):
            threading.Thread(target=self._worker, name=f"fleet-{number}", daemon=True).start()
        with _signals_as(self.messages), ui.progress(title) as update:
            update(done=0, total=len(self.works))
            while len(done) < len(self.works):
                name, message = self.messages.get()
                if isinstance(message, int):
                    if stopped_by:
                        self._cut(done)
                    else:
                        stopped_by = message
                        self._stop(ui, done)
                elif isinstance(message, Outcome):
                    done[name] = message
                    ui.note(summary(message.result, dry_run=dry_run))
                    update(done=len(done))
                elif message["event"] == "note":
                    ui.note(f"{name}: {message.get('message', '')}")
                elif text := describe(message):
                    update(text=f"{title}: {name}: {text}")
        return [done[name] for name, _ in self.works], stopped_by

    def _stop(self, ui: UI, done: dict[str, Outcome]) -> None:
        with self.guard:
            self.stopping = True
            waiting = [name for name, _ in self._todo]
            self._todo.clear()
        for name in waiting:
            done[name] = Outcome(errand.failed(name, faults.STOPPED))
        ui.warn(
            f"stopping: {len(self.works) - len(done)} hosts under way come to their end; "
            "Ctrl-C again cuts their lines"
        )

    def _cut(self, done: dict[str, Outcome]) -> None:
        with self.guard:
            sessions = list(self.open.values())
        with contextlib.suppress(queue.Empty):
            while True:  # whoever has just ended has a result of its own
                name, message = self.messages.get_nowait()
                if isinstance(message, Outcome):
                    done[name] = message
        for session in sessions:
            # A thread of its own: closing may wait for a line that is dead.
            threading.Thread(target=session.close, daemon=True).start()
        for name, _ in self.works:
            fault = faults.STOPPED_MIDWAY if name in self.begun else faults.STOPPED
            done.setdefault(name, Outcome(errand.failed(name, fault)))

    def _worker(self) -> None:
        while True:
            with self.guard:
                if not self._todo:
                    return
                name, work = self._todo.popleft()
            line = Line(name, self)
            result = _done(name, work, line)
            self.messages.put((name, Outcome(result, tuple(line.events))))


@contextlib.contextmanager
def _signals_as(messages: Messages) -> Iterator[None]:
    """Signals that stop a run come as messages, so that none breaks into the middle of another."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # SimpleQueue.put is made to be called from a handler: library/queue, "SimpleQueue Objects".
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in signals}
    try:
        for number in signals:
            signal.signal(number, lambda got, _frame: messages.put(("", got)))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _done(name: str, work: Work, line: Line) -> HostResult:
    from moorage.fleet.ssh import Unreachable

    try:
        return work(line)
    except Stopped:
        return errand.failed(name, faults.STOPPED)
    except MoorageError as problem:
        fault = Fault(problem.code, problem.message, cause=problem.cause, cure=problem.cure)
        status = UNREACHABLE if isinstance(problem, Unreachable) else "failed"
        return errand.failed(name, fault, status)
    except Exception as problem:  # a defect of ours on one host is not to hide the others' results
        fault = Fault(
            "defect",
            f"Moorage itself failed at this host: {type(problem).__name__}",
            cause=f"{problem} ({_place(problem)})",
            cure="please report it; the other hosts are not affected",
        )
        return errand.failed(name, fault)


def _place(problem: Exception) -> str:
    import traceback

    frames = traceback.extract_tb(problem.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "?"


# An agent's event -> a few words about it.
_WORDS: dict[str, str] = {
    "facts": "{runtime}",
    "change": "{path} {action}",
    "restart": "restarting {unit}",
    "verify": "{step} proved",
    "progress": "{message}",
}


def describe(event: Event) -> str:
    """An event of the agent in a few words; "" for one that is not worth them."""
    try:
        return _WORDS.get(event["event"], "").format(**event)
    except (KeyError, ValueError):
        return ""
