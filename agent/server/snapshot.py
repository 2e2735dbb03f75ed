"""Answers a status from the loop itself, if nothing has to be run for it.

What is ours is a handful of files. The runtimes' versions take programs to find out, in a process
of its own; what it found counts for a minute, unless a program or a unit came or went meanwhile.
"""

from __future__ import annotations

import json
import os
import platform
import time

from agent.journal.ledger import Store
from agent.journal.status import standing
from agent.node.host import PATH, UNIT_FOLDERS
from agent.node.tree import Tree
from agent.wire.faults import AgentError
from agent.wire.report import UNCHANGED, HostResult, ResultEvent, StatusEvent, event_to_json

FACTS_SECONDS = 60.0
_FACTS = b'{"event": "facts"'


class Snapshot:
    """The last facts that an operation reported, and a status made with them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._folders = [
            os.path.join(store.root, folder.lstrip("/"))  # noqa: PTH118
            for folder in (*PATH.split(":"), *UNIT_FOLDERS)
        ]
        self._facts = b""
        self._time = 0.0
        self._seen: tuple[int, ...] = ()

    def hear(self, line: bytes) -> None:
        """Keeps the line if it has facts."""
        if line.startswith(_FACTS):
            self._facts, self._time, self._seen = line, time.monotonic(), self._times()

    def status(self) -> bytes | None:
        """The lines of a status; None if something has to be run, or fails, for it."""
        if not self._facts or time.monotonic() - self._time > FACTS_SECONDS:
            return None
        try:
            if self._seen != self._times() or self._store.waiting():
                return None
        except (AgentError, OSError):
            return None
        event = self.standing()
        if event is None:
            return None
        result = ResultEvent(HostResult(host=platform.node(), status=UNCHANGED))
        told = (json.dumps(event_to_json(one), ensure_ascii=False) for one in (event, result))
        return self._facts + "".join(f"{line}\n" for line in told).encode("utf-8", "replace")

    def standing(self) -> StatusEvent | None:
        """What of ours is here, read anew; None if it cannot be read."""
        tree = Tree(self._store.root)
        try:
            return standing(self._store, lambda path: tree.read(path).content, ())
        except (AgentError, OSError):
            return None

    def _times(self) -> tuple[int, ...]:
        """A package manager replaces a program by a rename, which is a change of its folder."""
        times = []
        for folder in self._folders:
            try:
                times.append(os.stat(folder).st_mtime_ns)  # noqa: PTH116
            except OSError:
                times.append(0)
        return tuple(times)
