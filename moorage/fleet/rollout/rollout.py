"""Many hosts at once, a bounded number at a time; one that fails does not stop the others.

In waves where that is wished: a canary, then more and more, and a stop when too many fail.
Ctrl-C once: no further host is begun, and those under way come to their end. Ctrl-C twice: the
lines are cut; the agents there finish or put back by themselves.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from agent.wire.faults import Fault
from agent.wire.report import UNREACHABLE, HostResult
from moorage.errors import MoorageError
from moorage.fleet.errand import errand, faults
from moorage.fleet.report import signals, summary
from moorage.fleet.report.board import Board
from moorage.fleet.report.waves import Schedule, Wave

if TYPE_CHECKING:
    from moorage.ui import UI

Event = dict[str, Any]
_SHOW_SECONDS = 0.2


class Cuttable(Protocol):
    """What can be closed from another thread: a session."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class HostOutcome:
    """A host's result and the events that led to it."""

    result: HostResult
    events: tuple[Event, ...] = ()


class HostLine:
    """What the work on one host gets: where to tell events, and when to stop."""

    def __init__(self, name: str, rollout: Rollout) -> None:
        self.name = name
        self.events: list[Event] = []
        self._rollout = rollout

    @property
    def begun(self) -> bool:
        """Whether a session with the host ever came about."""
        return self.name in self._rollout.begun

    def tell(self, event: Event) -> None:
        self.events.append(event)
        self._rollout.messages.put((self.name, event))

    def rest(self, seconds: float) -> None:
        """Waits, unless the run is being stopped: see :meth:`Rollout.rest`."""
        self._rollout.rest(seconds)

    def go_on(self) -> None:
        """Raises Stopped where the run is being stopped, and this host was not begun."""
        if self._rollout.stopping and self.name not in self._rollout.begun:
            raise Stopped

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
Messages = queue.SimpleQueue[tuple[str, "Event | HostOutcome | int"]]

# One host's work. May raise MoorageError; ssh.Unreachable where nothing came about.
Work = Callable[[HostLine], HostResult]


class Rollout:
    """One run over hosts: ``works`` by name, wave by wave, at most ``parallel`` at a time.

    ``told`` hears of every outcome as it comes. ``halted`` says afterwards why it was stopped
    because of failures, "" if it was not.
    """

    def __init__(
        self,
        works: Sequence[tuple[str, Work]],
        parallel: int,
        plan: Schedule | None = None,
        told: Callable[[HostOutcome], None] = lambda _: None,
    ) -> None:
        self.works = works
        self.messages: Messages = queue.SimpleQueue()
        self.guard = threading.Lock()
        self.open: dict[str, Cuttable] = {}
        self.begun: set[str] = set()
        self._stopping = threading.Event()
        self.halted = ""
        self._plan = plan or Schedule((Wave("", 0, len(works)),), None)
        self._todo: deque[tuple[str, Work]] = deque()
        self._later = deque(self._plan.waves)
        self._wave = self._plan.waves[0]
        self._failed = self._failed_in_wave = 0
        self._parallel = parallel
        self._told = told

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    def rest(self, seconds: float) -> None:
        """Waits before another attempt; not at all once the run is being stopped."""
        self._stopping.wait(seconds)

    def run(
        self, ui: UI, title: str, *, dry_run: bool = False, quiet: bool = False
    ) -> tuple[list[HostOutcome], int]:
        """Does it all, telling the progress. Returns the outcomes in order, and what stopped it.

        That is the number of a signal, 0 for none. ``quiet``: only failures get a line each.
        Threads are daemons: a host that hangs in a connect does not keep the program alive.
        """
        self._ui = ui
        done: dict[str, HostOutcome] = {}
        stopped_by = 0
        shown = 0.0
        board = Board(title, len(self.works))
        with signals.heard(lambda got: self.messages.put(("", got))), ui.board(title) as show:
            wave = self._next_wave(board)
            while len(done) < len(self.works):
                if time.monotonic() - shown >= _SHOW_SECONDS:
                    shown = time.monotonic()
                    show(board.lines(shown))
                try:
                    name, message = self.messages.get(timeout=0.5)
                except queue.Empty:
                    continue
                if isinstance(message, int):
                    if stopped_by:
                        self._cut(done)
                    else:
                        stopped_by = message
                        self._stop(done, faults.STOPPED)
                        ui.warn("Ctrl-C again cuts their lines")
                elif isinstance(message, HostOutcome):
                    done[name] = message
                    board.ended(name, message.result.status)
                    if not (quiet and message.result.ok):
                        ui.note(summary(message.result, dry_run=dry_run))
                    if ui.as_lines:
                        ui.event({"event": "result", **message.result.to_json()})
                    self._told(message)
                    wave = self._after(board, wave, done)
                else:
                    self._hear(board, name, message)
        if not any(outcome.result.error == faults.halted(self.halted) for outcome in done.values()):
            self.halted = ""  # the last host was one failure too many: nobody was left out
        return [done[name] for name, _ in self.works], stopped_by

    def _next_wave(self, board: Board) -> Wave:
        wave = self._later.popleft()
        works = wave.of(self.works)
        if len(self._plan.waves) > 1:
            board.wave = wave.title
            self._ui.note(f"{wave.title}: {len(works)} node{'s' if len(works) > 1 else ''}")
        with self.guard:
            self._wave, self._failed_in_wave = wave, 0
            self._todo.extend(works)
        for number in range(min(self._parallel, len(works))):
            threading.Thread(target=self._worker, name=f"fleet-{number}", daemon=True).start()
        return wave

    def _after(self, board: Board, wave: Wave, done: dict[str, HostOutcome]) -> Wave:
        """Whether to stop, or to begin the next wave, now that one more host is done."""
        if self.stopping:
            return wave
        if self.halted:
            if len(done) < len(self.works):
                self._stop(done, faults.halted(self.halted))
        elif self._later and all(name in done for name, _ in wave.of(self.works)):
            return self._next_wave(board)
        return wave

    def _hear(self, board: Board, name: str, event: Event) -> None:
        now = time.monotonic()
        if event["event"] == "begun":
            board.begun(name, now)
            return
        self._ui.event({"host": name, **event})
        if event["event"] == "note":
            self._ui.note(f"{name}: {event.get('message', '')}")
        elif text := describe(event):
            board.heard(name, text, now)

    def _stop(self, done: dict[str, HostOutcome], fault: Fault) -> None:
        """Begins no further host; those that were not begun get ``fault``."""
        with self.guard:
            self._stopping.set()
            later = [name for wave in self._later for name, _ in wave.of(self.works)]
            waiting = [name for name, _ in self._todo] + later
            self._todo.clear()
            self._later.clear()
        for name in waiting:
            done[name] = HostOutcome(errand.failed(name, fault))
        self._ui.warn(
            f"stopping{': ' + self.halted if self.halted else ''}: "
            f"{len(self.works) - len(done)} hosts under way come to their end, "
            f"{len(waiting)} are not begun"
        )

    def _cut(self, done: dict[str, HostOutcome]) -> None:
        with self.guard:
            sessions = list(self.open.values())
        with contextlib.suppress(queue.Empty):
            while True:  # whoever has just ended has a result of its own
                name, message = self.messages.get_nowait()
                if isinstance(message, HostOutcome):
                    done[name] = message
        for session in sessions:
            # A thread of its own: closing may wait for a line that is dead.
            threading.Thread(target=session.close, daemon=True).start()
        for name, _ in self.works:
            fault = faults.STOPPED_MIDWAY if name in self.begun else faults.STOPPED
            done.setdefault(name, HostOutcome(errand.failed(name, fault)))

    def _worker(self) -> None:
        while True:
            with self.guard:
                if not self._todo or self.halted:
                    return
                name, work = self._todo.popleft()
            line = HostLine(name, self)
            self.messages.put((name, {"event": "begun"}))
            result = _done(name, work, line)
            if not result.ok:
                self._count_failure()
            self.messages.put((name, HostOutcome(result, tuple(line.events))))

    def _count_failure(self) -> None:
        """Here and not where results are shown: no worker begins another host in between."""
        with self.guard:
            self._failed += 1
            self._failed_in_wave += 1
            why = self._plan.verdict(self._wave, self._failed_in_wave, self._failed)
            self.halted = self.halted or why


def _done(name: str, work: Work, line: HostLine) -> HostResult:
    from moorage.fleet.ssh.session import Unreachable

    try:
        return work(line)
    except Stopped:  # before another attempt, it may be, at a node whose line broke
        return errand.failed(name, faults.STOPPED_MIDWAY if line.begun else faults.STOPPED)
    except MoorageError as problem:
        fault = faults.of(problem)
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
