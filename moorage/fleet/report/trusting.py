"""Which hosts trust a registry, by everything that was ever done here.

``trusting.json`` beside the logbooks has the sum of those that are gone; a logbook goes only after
it was added. So a folder of an earlier build needs no upgrade: its logbooks are still there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from agent.wire.report import FAILED, UNCHANGED
from moorage.errors import SPOILT
from moorage.files import content_of, locked_beside, private_folder, write_atomically
from moorage.fleet.inventory import Target
from moorage.fleet.inventory.targets import parse_names
from moorage.fleet.report import deeds, process
from moorage.fleet.report.deeds import Deed

_VERSION, _SUM = 1, "trusting.json"
TRUST, UNDO = "trust", "undo"


class HostStanding(NamedTuple):
    """How a host stands. ``changes``: of a trust that stand there, 0 if it does not trust;
    ``last``: the verb of the last deed, ``at``: when (seconds since 1970)."""

    target: Target
    changes: int
    last: str
    at: float


Hosts = dict[str, HostStanding]


def standings(folder: Path, registry: str) -> Hosts:
    """Every host that something was done on, by its name in results.

    Raises Refused (``trusting-unreadable``).
    """
    return _standings(folder).get(registry, {})


def being_trusted(folder: Path, registry: str) -> list[Target]:
    """The hosts of a rollout that another process is at, and that it has not come to yet.

    Raises Refused (``trusting-unreadable``).
    """
    found: list[Target] = []
    for path in _logbooks(folder):
        with deeds.read_whole(path):
            lines = deeds.events(path)
            if not _is_under_way(path, lines) or lines[0].get("command") != f"{TRUST} {registry}":
                continue
            done = {one["result"]["host"] for one in lines if "result" in one}
            hosts = map(deeds.target, lines[0]["hosts"])
            found += [one for one in hosts if one.name not in done]
    return found


def has_ended(path: Path) -> bool:
    """Whether no other process is at the rollout of a logbook any more. Raises Refused as above."""
    with deeds.read_whole(path):
        return not _is_under_way(path, deeds.events(path))


def keep(folder: Path, going: Sequence[Path]) -> None:
    """Adds logbooks that are about to go to the sum. Raises OSError, or Refused as above."""
    with locked_beside(folder / _SUM):
        folded, summed = _read(folder)
        for path in going:
            _fold(path, folded, summed)
        _write(folder, {name for name in folded if (folder / name).exists()}, summed)


def copy(folder: Path, to: Path) -> None:
    """All that says who trusts, for a backup; nothing if nothing was done yet. Raises OSError."""
    if not folder.exists():
        return
    private_folder(to)
    # Under the lock no logbook is added to the sum; one that was before goes whenever it likes.
    with locked_beside(folder / _SUM):
        for path in (*_logbooks(folder), folder / _SUM):
            content = content_of(path)
            if content is not None:
                write_atomically(to / path.name, content)


def take_over(folder: Path, backup: Path) -> None:
    """Adds what the folder of a backup says: of each host, what was noted last, here or there.

    The logbooks come along if none was begun here since, for who looks at them and for --resume.
    They count as added to the sum, which is written first: so this may be killed, and done again.
    Raises OSError, or Refused as above.
    """
    if not backup.exists():
        return
    private_folder(folder)
    with locked_beside(folder / _SUM):
        folded, summed = _read(folder)
        # What others are still at is added once it has come to its end.
        for path in takewhile(has_ended, _logbooks(folder)):
            _fold(path, folded, summed)
        here = _standings(folder)
        for about, hosts in _standings(backup).items():
            known = here.get(about, {})
            newer = {
                name: one
                for name, one in hosts.items()
                if name not in known or known[name].at < one.at
            }
            summed.setdefault(about, {}).update(newer)
        present = {path.name for path in _logbooks(folder)}
        theirs = _logbooks(backup) if present <= {path.name for path in _logbooks(backup)} else []
        coming = [path for path in theirs if path.name not in present]
        _write(folder, (folded & present) | {path.name for path in coming}, summed)
        for path in coming:
            write_atomically(folder / path.name, _ended(path))


def _standings(folder: Path) -> dict[str, Hosts]:
    """How all hosts stand, by registry."""
    while True:
        before = _read(folder)
        folded, found = set(before[0]), {about: dict(hosts) for about, hosts in before[1].items()}
        for path in _logbooks(folder):
            _fold(path, folded, found)
        # A logbook that goes meanwhile was added to the sum before: then that is another.
        if _read(folder) == before:
            return found


def _logbooks(folder: Path) -> list[Path]:
    """The logbooks that are there, oldest first."""
    return sorted(folder.glob("*.jsonl")) if folder.exists() else []


def _fold(path: Path, folded: set[str], summed: dict[str, Hosts]) -> None:
    """Adds a logbook to a sum, unless it was added before; one that is gone was."""
    if path.name not in folded:
        with deeds.read_whole(path):
            about, done = deeds.of(path)
        _add(summed.setdefault(about, {}), done)
        folded.add(path.name)


def _is_under_way(path: Path, lines: Sequence[Mapping[str, Any]]) -> bool:
    """Whether another process is at the rollout of this logbook."""
    if not lines or any("end" in one for one in lines):
        return False
    number = path.stem.rpartition("-")[2]
    return process.at_work(number, str(lines[0].get("process", "")), float(lines[0]["began"]))


def _ended(path: Path) -> bytes:
    """A logbook as it is restored. What was under way when it was kept is not, whoever has got the
    number of its process since."""
    content, lines = path.read_bytes(), deeds.events(path)
    if not lines or any("end" in one for one in lines):
        return content
    end = json.dumps({"end": deeds.RESTORED, "at": lines[-1].get("at", lines[0]["began"])})
    return content + (b"" if content.endswith(b"\n") else b"\n") + f"{end}\n".encode()


def _add(found: Hosts, done: Iterable[Deed]) -> None:
    for one in done:
        if one.result.ok or _kept(one):
            before = found[one.host].changes if one.host in found else 0
            changes = _after(before, one.verb, changed=one.result.status != UNCHANGED)
            target = one.target or parse_names([one.host])[0]
            found[one.host] = HostStanding(target, changes, one.verb, one.at)


def _kept(one: Deed) -> bool:
    """Whether a trust failed and stands: its proof met a fault that was not the trust's, such as an
    image that was not there yet. Pure."""
    return one.verb == TRUST and one.result.status == FAILED and bool(one.result.changes)


def _after(before: int, verb: str, *, changed: bool) -> int:
    """How many changes of a trust stand on a node after a deed: an undo takes one back. Pure."""
    if verb == TRUST:
        return before + (changed or not before)
    return max(before - 1, 0) if verb == UNDO else 0


def _read(folder: Path) -> tuple[set[str], dict[str, Hosts]]:
    """The logbooks that were added and may still be there, and the sum by registry."""
    path = folder / _SUM
    try:
        document = json.loads(path.read_bytes())
        if document["version"] != _VERSION:
            raise ValueError("it is of a later Moorage")
        registries: Mapping[str, Any] = document["registries"]
        summed = {about: _hosts(hosts) for about, hosts in registries.items()}
        return set(document["folded"]), summed
    except FileNotFoundError:
        return set(), {}
    except SPOILT as problem:
        raise deeds.unreadable(path, problem) from None


def _hosts(document: Mapping[str, Any]) -> Hosts:
    return {
        name: HostStanding(
            deeds.target(one["target"]), int(one["changes"]), str(one["last"]), float(one["at"])
        )
        for name, one in document.items()
    }


def _write(folder: Path, folded: set[str], summed: Mapping[str, Hosts]) -> None:
    registries = {
        about: {name: one._asdict() | {"target": asdict(one.target)} for name, one in hosts.items()}
        for about, hosts in summed.items()
        if about
    }
    document = {"version": _VERSION, "folded": sorted(folded), "registries": registries}
    write_atomically(folder / _SUM, f"{json.dumps(document, indent=1)}\n".encode())
