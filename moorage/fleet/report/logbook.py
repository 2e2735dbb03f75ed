"""What a rollout has done so far, on disk as it happens: the state that ``--resume`` goes on from.

One file a rollout, a JSON line an event, each on disk (fsync) before the next host counts. A killed
operator leaves a file without an ``end`` line; hosts without a result are done again, which is
harmless, for an apply that changes nothing is one that does nothing.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from agent.wire.report import HostResult
from moorage.errors import MoorageError, Refused
from moorage.files import append_line, private_folder
from moorage.fleet.inventory import Target
from moorage.fleet.report import deeds, process, trusting

if TYPE_CHECKING:
    from moorage.settings import Settings

KEPT = 20


@dataclass(frozen=True)
class Unfinished:
    """A rollout that was stopped: its hosts in order, and the results so far by name."""

    path: Path
    command: str
    hosts: tuple[Target, ...]
    done: dict[str, HostResult]
    ended: str
    run: str = ""

    @property
    def settled(self) -> frozenset[str]:
        """Hosts that need not be gone to again."""
        return frozenset(name for name, result in self.done.items() if result.ok)


def folder(settings: Settings) -> Path:
    """Where rollouts are noted as they happen."""
    return settings.state / "rollouts"


class Logbook:
    """The file of one rollout under way. ``command``: what it does, as ``trust my.registry.io``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def begin(cls, folder: Path, command: str, hosts: Sequence[Target], run: str = "") -> Logbook:
        """A new file in ``folder``; the oldest of more than ``KEPT`` go. Raises MoorageError.

        ``run``: what the nodes know an undo by, that is not to be done twice.
        """
        private_folder(folder)
        now = time.time_ns()
        seconds = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now // 10**9))
        stamp = f"{seconds}.{now % 10**9:09}"  # the order of names is that of time
        book = cls(folder / f"{stamp}-{os.getpid()}.jsonl")
        book._write(
            {
                "version": deeds.VERSION,
                "command": command,
                "run": run,
                "began": time.time(),
                "process": process.mark(),
                "hosts": [asdict(host) for host in hosts],
            }
        )
        _forget(folder)
        return book

    def result(self, result: HostResult) -> None:
        self._write({"result": result.to_json(), "at": time.time()})

    def settled_before(self, result: HostResult) -> None:
        """What the run before this one did, and has noted: it is no second deed."""
        self._write({"result": result.to_json(), "at": time.time(), "before": True})

    def end(self, why: str) -> None:
        """``why`` is "" if every host was gone to."""
        self._write({"end": why, "at": time.time()})

    def _write(self, document: dict[str, Any]) -> None:
        try:
            append_line(self.path, json.dumps(document, ensure_ascii=False) + "\n")
        except OSError as problem:
            raise MoorageError(
                "logbook",
                f"{self.path} cannot be written: {problem.strerror}",
                cause="the rollout must not go on without saying what it has done",
                cure="make room, or correct the folder's rights; then: inv nodes.trust --resume",
                path=str(self.path),
            ) from None


def _forget(folder: Path) -> None:
    """The oldest of more than ``KEPT`` go, once it is kept elsewhere who trusts by them.

    One that another process is still at stays until its end, and so do those after it: what was
    done is added in its order.
    """
    with contextlib.suppress(OSError, Refused):  # then they stay
        old = list(takewhile(trusting.has_ended, sorted(folder.glob("*.jsonl"))[:-KEPT]))
        if old:
            trusting.keep(folder, old)
            for path in old:
                path.unlink(missing_ok=True)


def newest(folder: Path, command: str) -> Unfinished:
    """The last rollout of this kind, which must not have come to its end. Raises Refused."""
    for path in sorted(folder.glob("*.jsonl"), reverse=True) if folder.exists() else []:
        with deeds.read_whole(path):
            found = _read(path)
        if found is None or found.command != command:
            continue
        # One that was killed or stopped behind its last host has nothing left either.
        if all(host.name in found.settled for host in found.hosts):
            break
        return found
    raise Refused(
        "nothing-to-resume",
        f"there is no unfinished rollout of {command!r}",
        cause="the last one finished on every host, or none was started in this folder",
        cure="begin one: the same command with --hosts or --inventory and without --resume",
    )


class Past(NamedTuple):
    """One rollout in short. ``began``: seconds since 1970; ``ended``: None while it runs, or if it
    was killed; "" if every host was visited, else why it stopped."""

    command: str
    began: float
    hosts: int
    counts: dict[str, int]
    ended: str | None


def past(folder: Path) -> list[Past]:
    """Every rollout noted in ``folder``, newest first. Raises Refused (``trusting-unreadable``)."""
    paths = sorted(folder.glob("*.jsonl"), reverse=True) if folder.exists() else []
    found = []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # the oldest go when a new one is begun
            status = path.stat()
            with deeds.read_whole(path):
                found.append(_in_short(path, status.st_mtime_ns, status.st_size))
    return [one for one in found if one is not None]


@functools.lru_cache(maxsize=4 * KEPT)
def _in_short(path: Path, changed: int, size: int) -> Past | None:
    """A rollout in short, read again only if its file has another time or size."""
    del changed, size
    events = deeds.events(path)
    if not events:
        return None
    latest = {one["result"]["host"]: one["result"] for one in events if "result" in one}
    counts = Counter(str(one["status"]) for one in latest.values())
    ended = next((str(one["end"]) for one in events if "end" in one), None)
    first = events[0]
    return Past(first["command"], first["began"], len(first["hosts"]), dict(counts), ended)


def note(
    folder: Path, command: str, hosts: Sequence[Target], results: Sequence[HostResult]
) -> None:
    """A whole run at once, of what went another way than by the fleet's rollout."""
    book = Logbook.begin(folder, command, hosts)
    for result in results:
        book.result(result)
    book.end("")


def _read(path: Path) -> Unfinished | None:
    """A logbook, or None for a file that is none."""
    events = deeds.events(path)
    if not events:
        return None
    done: dict[str, HostResult] = {}
    ended = "it was killed"
    for event in events[1:]:
        if "result" in event:
            result = HostResult.from_json(event["result"])
            done[result.host] = result
        elif "end" in event:
            ended = str(event["end"])
    hosts = tuple(map(deeds.target, events[0]["hosts"]))
    run = str(events[0].get("run", ""))
    return Unfinished(path, str(events[0]["command"]), hosts, done, ended, run)
