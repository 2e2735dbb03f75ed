"""Follows many nodes: asks each repeatedly over a line that stays open, and reports changes.

A node out of reach is asked less and less often. Nothing grows with time: of each node the last
standing is kept, and of what has changed the last few lines.
"""

from __future__ import annotations

import heapq
import queue
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from agent.wire.faults import Fault
from moorage.errors import MoorageError, Refused
from moorage.fleet.errand import faults
from moorage.fleet.report import signals
from moorage.fleet.residents import residence
from moorage.fleet.state import table
from moorage.fleet.state.host import Ours, Standing, runtime_and_state
from moorage.fleet.watch.changes import NodeChange, changes, settled
from moorage.fleet.watch.connection import STATUS, Kept, WatchMeans

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from moorage.fleet.inventory import Target
    from moorage.fleet.residents.residence import Residents
    from moorage.fleet.rollout.operation import Reach
    from moorage.settings import Settings
    from moorage.ui import UI

    Show = Callable[[Sequence[str]], None]

# A resident agent drops a line on which nothing was asked for ten seconds; above that, each round
# is a handshake. A node without one runs a program for each question, so it is asked less often.
USUAL_SECONDS = 5.0
MOST_SECONDS = 3600.0
BY_SSH_SECONDS = 15.0
# A node out of reach is asked after so long at most.
SLOWEST_SECONDS = 300.0
# Of every pause, so that a thousand nodes are not asked in one moment.
JITTER = 0.1
AT_ONCE = 64
_SHOWN_NODES = 12


def seconds(text: str) -> float:
    """``--every``: from 1 to 3,600. Raises Refused."""
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 1 <= found <= MOST_SECONDS:
        raise Refused(
            "bad-interval",
            f"invalid --every={text}",
            cause="expected a number of seconds from 1 to 3600",
            cure="write it as --every=5",
        )
    return found


def pause(every: float, failures: int, *, by_agent: bool, jitter: float) -> float:
    """The seconds until a node is asked again; ``jitter``: from -1 to 1. Pure."""
    usual = every if by_agent or failures else max(every, BY_SSH_SECONDS)
    grown = min(usual * 2.0 ** min(failures, 16), max(SLOWEST_SECONDS, usual))
    return grown * (1 + JITTER * jitter)


@dataclass
class _Node:
    """One node that is followed; only the thread that has taken it from the heap touches it."""

    kept: Kept
    failures: int = 0


@dataclass(order=True)
class _Due:
    at: float
    place: int
    node: _Node = field(compare=False)


class Watch:
    """The nodes, the threads that ask them, and the one that reports."""

    def __init__(
        self,
        settings: Settings,
        ui: UI,
        hosts: Sequence[str | Target],
        reach: Reach | None = None,
        every: float = USUAL_SECONDS,
    ) -> None:
        """Raises Refused for what no node could be asked with."""
        from moorage.archive import quick_archive
        from moorage.fleet.rollout.operation import Reach
        from moorage.fleet.ssh import routing

        reach = reach or Reach()
        routes = routing.to(settings, hosts)
        if reach.learn_host_keys:
            from moorage.fleet.ssh.learn import learn_host_keys

            learn_host_keys(ui, routes, settings.nodes.parallel)
        archive = quick_archive(settings.state)
        means = WatchMeans(
            archive,
            STATUS.words if settings.nodes.resident else (*STATUS.words, "--once"),
            threading.BoundedSemaphore(settings.nodes.parallel),
            reach.sudo_password,
        )
        self._settings = settings
        self._ui = ui
        self._every = every
        self._own = Ours.of(settings, archive)
        self._routes = routes
        self._residents: Residents = residence.Residents(settings, routes=routes)
        self._nodes = [_Node(Kept(route, means)) for route in routes]
        self._due = [_Due(0.0, place, node) for place, node in enumerate(self._nodes)]
        self._wake = threading.Condition()
        self._ended = False
        self._news: queue.SimpleQueue[Standing | int] = queue.SimpleQueue()
        self._last: dict[str, Standing] = {}
        self._answered: dict[str, Standing] = {}
        self._refusal = ""

    def run(self) -> dict[str, Any]:
        """Until Ctrl-C (or SIGTERM), which is no failure. Returns the last standings."""
        count = len(self._nodes)
        title = f"watch {count} node{'' if count == 1 else 's'}, every {self._every:g} s"
        with signals.heard(self._news.put):
            self._begin()
            with self._shown(title) as show:
                self._tell_news(title, show)
            self._end()
        return {"ok": True, "nodes": {host: _plain(one) for host, one in self._last.items()}}

    @contextmanager
    def _shown(self, title: str) -> Iterator[Show]:
        """The live board; none where nobody watches both streams."""
        if self._ui.is_live:
            with self._ui.board(title) as show:
                yield show
        else:
            self._ui.note(f"{title} ...")
            yield lambda _lines: None

    def follow(self, hear: Callable[[Standing], None]) -> None:
        """Hands on each standing as it comes, in the caller's thread, until :meth:`stop`."""
        self._begin()
        while not isinstance(news := self._news.get(), int):
            hear(news)
            self._look_for_other_commands()
        self._end()

    def _begin(self) -> None:
        for number in range(min(AT_ONCE, len(self._nodes))):
            threading.Thread(target=self._ask, name=f"watch-{number}", daemon=True).start()

    # -- telling, in the main thread -----------------------------------------------------------

    def _tell_news(self, title: str, show: Show) -> None:
        shown, first = 0.0, True
        while True:
            try:
                news = self._news.get(timeout=0.5)
            except queue.Empty:
                news = None
            if isinstance(news, int):
                return
            if news is not None:
                self._hear(news)
            if first and len(self._last) == len(self._nodes):
                first = False
                self._ui.note(self._sum())
            if time.monotonic() - shown > 0.25:
                shown = time.monotonic()
                show(self._board(title))
                self._look_for_other_commands()

    def _hear(self, now: Standing) -> None:
        before, answered = self._last.get(now.host), self._answered.get(now.host)
        now = settled(now, answered)
        for change in changes(before, now, self._own, answered):
            self._tell(now, change)
        self._last[now.host] = now
        if now.fault is None:
            self._answered[now.host] = now

    def _tell(self, node: Standing, change: NodeChange) -> None:
        line = f"{node.host}: {change.message}"
        if self._ui.is_live:
            self._ui.say(f"{time.strftime('%H:%M:%S')}  {line}")
        else:
            self._ui.show(line)
        self._ui.event(
            {"event": "change", "time": time.time(), "host": node.host, **asdict(change),
             "node": _plain(node)}
        )  # fmt: skip

    def _sum(self) -> str:
        return table.summary(list(self._last.values()), self._own, time.time())

    def _board(self, title: str) -> list[str]:
        """The sum and the nodes that are not in order; what has changed stands above."""
        bad = [one for one in self._last.values() if not one.good]
        lines = [title, self._sum() if self._last else "asking"]
        for one in bad[:_SHOWN_NODES]:
            words = one.fault.message if one.fault else one.files_words()
            more = "; ".join(part for part in (words, one.drift_words()) if part != "-" and part)
            lines.append(f"  {one.host}  {more or one.interrupted}")
        if len(bad) > _SHOWN_NODES:
            lines.append(f"  and {len(bad) - _SHOWN_NODES} more")
        return lines

    def _look_for_other_commands(self) -> None:
        """A node adopted, released or forgotten meanwhile; an operator's new certificate."""
        if residence.looks(self._settings) == self._residents.looks:
            return
        try:
            self._residents = residence.Residents(self._settings, routes=self._routes)
        except MoorageError as problem:  # asked on with what is known
            if problem.message != self._refusal:
                self._refusal = problem.message
                self._ui.error(problem)

    # -- asking, in threads --------------------------------------------------------------------

    def _ask(self) -> None:
        while True:
            due = self._next()
            if due is None:
                return
            node = due.node
            standing = _asked(node.kept, self._residents)
            node.failures = node.failures + 1 if standing.fault is not None else 0
            self._news.put(standing)
            wait = pause(
                self._every,
                node.failures,
                by_agent=node.kept.by_agent,
                jitter=random.uniform(-1, 1),  # noqa: S311 - it spreads load, and keeps no secret
            )
            with self._wake:
                heapq.heappush(self._due, _Due(time.monotonic() + wait, due.place, node))
                self._wake.notify()

    def _next(self) -> _Due | None:
        """The node whose turn it is, taken out of the heap; None at the end."""
        with self._wake:
            while not self._ended:
                wait = self._due[0].at - time.monotonic() if self._due else None
                if wait is not None and wait <= 0:
                    return heapq.heappop(self._due)
                self._wake.wait(wait)
        return None

    def _end(self) -> None:
        with self._wake:
            self._ended = True
            self._wake.notify_all()

        def close() -> None:
            for node in self._nodes:
                node.kept.close()

        # A thread of its own: closing may wait for a line that is dead.
        closing = threading.Thread(target=close, daemon=True)
        closing.start()
        closing.join(2)

    def stop(self) -> None:
        """From another thread: as Ctrl-C."""
        self._news.put(int(signal.SIGINT))


def _asked(kept: Kept, residents: Residents) -> Standing:
    """How the node stands now, or why it cannot be asked."""
    name = kept.route.name
    try:
        result, events = kept.ask(residents)
    except MoorageError as problem:
        return Standing(name, fault=faults.of(problem))
    except Exception as problem:  # a defect of ours at one node is not to end the others' watch
        words = f"Moorage itself failed at this node: {type(problem).__name__}"
        return Standing(name, fault=Fault("defect", words, str(problem), "please report it"))
    return Standing.of(result, *runtime_and_state(events))


def _plain(standing: Standing) -> dict[str, Any]:
    fault = standing.fault
    return {**asdict(standing), "fault": None if fault is None else fault.to_json()}
