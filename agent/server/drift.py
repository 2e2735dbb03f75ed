"""Puts back what others undid: cloud-init, a package upgrade, a colleague.

A change of a file of ours is noticed at once (inotify) or within seconds, and the plan is applied
again through the same engine, with the same promises. Who undoes it again and again is let win:
after ``FIGHTS`` times within ``WINDOW`` seconds it stops, and says so, until the next apply. What
an operation that was killed left half-way is rolled back here too.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import time
from collections.abc import Callable
from typing import Any

from agent.journal import desired
from agent.journal.ledger import Store
from agent.journal.lock import holder
from agent.node.watch import FileWatch
from agent.server.work import BusyError, Operation, Work, events
from agent.wire.faults import AgentError
from agent.wire.plan import Plan

# A change often is several: written, renamed, its mode set.
SETTLE_SECONDS = 0.5
SLOW_SECONDS = 30.0
# Where inotify cannot be had, a look at size and times of a handful of files.
POLL_SECONDS = 2.0
FIGHTS = 5
WINDOW = 600.0
SLOWEST_RETRY = 300.0

log = logging.getLogger("moorage")


class Patience:
    """How long to wait before putting back, and when to give in. Times are seconds. Pure."""

    def __init__(self) -> None:
        self.healed: list[float] = []
        self.failed = 0

    def pause(self, now: float) -> float | None:
        """The wait before the next try; None: no more of them."""
        lately = [when for when in self.healed if now - when < WINDOW]
        if len(lately) >= FIGHTS:
            return None
        fights = 0.0 if len(lately) < 2 else 2.0 ** len(lately)
        failures = 0.0 if not self.failed else min(5.0 * 2 ** (self.failed - 1), SLOWEST_RETRY)
        return max(fights, failures)

    def heal(self, now: float) -> None:
        self.healed = [when for when in self.healed if now - when < WINDOW] + [now]
        self.failed = 0


class Drift:
    """Watches the files in the node's ledger."""

    def __init__(
        self,
        store: Store,
        work: Work,
        apply: Callable[[Plan], Operation],
        recover: Operation,
        note: Callable[[str, dict[str, Any], float], None],
    ) -> None:
        self._store = store
        self._work = work
        self._apply = apply
        self._recover = recover
        self._note = note
        self._patience = Patience()
        self._wake = asyncio.Event()
        self._forgotten = asyncio.Event()
        self._watch = FileWatch(self._wake.set)
        self._fine: str = ""
        self._stamp: tuple[object, ...] = ()
        self._paths: tuple[str, ...] = ()
        self._task: asyncio.Task[None] | None = None
        self.state = "watching"
        self.times = 0
        self.error = ""
        self.last_files: tuple[str, ...] = ()
        self.last_time = 0

    def to_json(self) -> dict[str, Any]:
        """``state``: watching, healing, failing or stopped; ``healed``: times since the start."""
        return {
            "state": self.state,
            "healed": self.times,
            "lately": len(self._patience.healed),
            "last_time": self.last_time,
            "last_files": list(self.last_files),
            "error": self.error,
            "inotify": self._watch.works,
        }

    def begin(self) -> None:
        self._task = asyncio.ensure_future(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._watch.stop()

    def reset(self) -> None:
        """An operator has spoken: past fights are forgotten."""
        self._patience = Patience()
        self._fine, self._stamp = "", ()
        self.state, self.error = "watching", ""
        self._forgotten.set()
        self._wake.set()

    async def _run(self) -> None:
        self._watch.begin()
        while True:
            try:
                pause = await self._round()
            except (AgentError, OSError) as problem:
                self._fail(str(problem))
                pause = self._patience.pause(time.monotonic()) or SLOW_SECONDS
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wake.wait(), pause)
                await asyncio.sleep(SETTLE_SECONDS)
            self._wake.clear()

    async def _round(self) -> float:
        """One look, and what follows from it. Returns the seconds until the next."""
        if self._store.pending() is not None and holder(self._store) is None:
            await self._roll_back()
        usual = SLOW_SECONDS if self._watch.works else POLL_SECONDS
        stamp = self._stamped()
        if stamp == self._stamp:
            return usual
        self._paths, drifted, looks = _look(self._store)
        self._watch.on(self._paths)
        if not drifted or looks == self._fine:
            # Of the files as they were before the look, so that a later change counts.
            self._stamp = stamp if stamp == self._stamped() else ()
            if self.state not in ("watching", "stopped"):
                self.state, self.error = "watching", ""
            return SLOW_SECONDS if self._watch.works else POLL_SECONDS
        if self.state == "stopped":
            return SLOW_SECONDS
        if self._work.count:
            return 1.0  # the files may be changing by our own doing
        pause = self._patience.pause(time.monotonic())
        if pause is None:
            self.state = "stopped"
            self.error = f"undone again and again: {', '.join(drifted)}"
            log.warning("stopped putting back what is %s", self.error)
            return SLOW_SECONDS
        if pause:
            self.state = "failing" if self._patience.failed else "healing"
            self._forgotten.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._forgotten.wait(), pause)
                return 0.0
        await self._heal(drifted, looks)
        return 0.2

    def _stamped(self) -> tuple[object, ...]:
        """Whether anything was written since: the times of our files and of our notes of them.

        A change time cannot be set back (inode(7)), whatever a program does to the other times.
        """
        found: list[object] = []
        for path in (*self._paths, str(self._store.history)):
            try:
                status = os.stat(path)  # noqa: PTH116 (every two seconds, where inotify is missing)
                found.append((status.st_ino, status.st_size, status.st_ctime_ns, status.st_dev))
            except OSError:
                found.append(path)
        return tuple(found)

    async def _roll_back(self) -> None:
        """What a killed operation left, as the next one would do it, without waiting for one."""
        with contextlib.suppress(BusyError):
            async for event in events(self._work.begin(self._recover)):
                if event["event"] == "note":
                    log.warning("%s", event["message"])
                elif event["event"] == "result" and event["error"] is not None:
                    raise AgentError(**event["error"])

    async def _heal(self, drifted: tuple[str, ...], looks: str) -> None:
        self.state = "healing"
        changed = False
        for plan in desired.plans(self._store):
            result: dict[str, Any] = {}
            try:
                lines = self._work.begin(self._apply(plan))
            except BusyError:
                return
            async for event in events(lines):
                if event["event"] == "result":
                    result = event
            code = (result["error"] or {}).get("code")
            if code == "locked":
                return
            self._note("drift", result, time.time())
            if result["changes"]:
                changed = True
                self.times += 1
                self.last_time, self.last_files = int(time.time()), drifted
                self._patience.heal(time.monotonic())
                names = ", ".join(one["path"] for one in result["changes"])
                log.warning("put back %s", names)
            if code is not None and not result["changes"]:
                self._fail(f"{code}: {result['error']['message']}")
                return
        if not changed:
            # The engine finds nothing to do: what differs beside ours is somebody's to have.
            self._fine = looks
        self.state, self.error = "watching", ""

    def _fail(self, why: str) -> None:
        if why != self.error:
            log.warning("cannot put back what drifted: %s", why)
        self.state, self.error = "failing", why
        self._patience.failed += 1


def _look(store: Store) -> tuple[tuple[str, ...], tuple[str, ...], str]:
    """(our files, those that are not as we left them, a digest of how they all are now)."""
    paths: list[str] = []
    drifted: list[str] = []
    looks = hashlib.sha256()
    for registry, owned in store.ledgers().items():
        for item in owned.values():
            path = os.path.join(store.root, item.path.lstrip("/"))  # noqa: PTH118
            content: bytes | None = None
            with contextlib.suppress(OSError), open(path, "rb") as file:  # noqa: PTH123
                content = file.read()
            paths.append(path)
            state = b"-" if content is None else hashlib.sha256(content).digest()
            looks.update(f"{registry} {item.path} ".encode() + state)
            if content != item.after:
                drifted.append(item.path)
    return tuple(paths), tuple(drifted), looks.hexdigest()
