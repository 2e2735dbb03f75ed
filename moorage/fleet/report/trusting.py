"""Which hosts trust a registry, by everything that was ever done here.

``trusting.json`` beside the logbooks has the sum of those that are gone; a logbook goes only after
it was added. So a folder of an earlier build needs no upgrade: its logbooks are still there.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from agent.wire.report import FAILED, UNCHANGED
from moorage.errors import SPOILT, spoilt
from moorage.files import locked_beside, private_folder, write_atomically
from moorage.fleet.inventory import Target
from moorage.fleet.inventory.targets import parse_names
from moorage.fleet.report import deeds
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
    folded, summed = _read(folder)
    found = dict(summed.get(registry, {}))
    for path in sorted(folder.glob("*.jsonl")) if folder.exists() else []:
        if path.name not in folded:
            about, done = deeds.of(path)
            _add(found, done if about == registry else ())
    return found


def being_trusted(folder: Path, registry: str) -> list[Target]:
    """The hosts of a rollout that another process is at, and that it has not come to yet."""
    found = []
    for path in sorted(folder.glob("*.jsonl")) if folder.exists() else []:
        lines = deeds.events(path)
        if not lines or lines[0].get("command") != f"{TRUST} {registry}":
            continue
        if any("end" in one for one in lines) or not _at_work(path, float(lines[0]["began"])):
            continue
        done = {one["result"]["host"] for one in lines if "result" in one}
        hosts = map(deeds.target, lines[0]["hosts"])
        found += [one for one in hosts if one.name not in done]
    return found


def keep(folder: Path, going: Sequence[Path]) -> None:
    """Adds logbooks that are about to go to the sum. Raises OSError, or Refused as above."""
    with locked_beside(folder / _SUM):
        folded, summed = _read(folder)
        for path in going:
            if path.name in folded:
                continue
            try:
                about, done = deeds.of(path)
            except FileNotFoundError:  # another process has added it, and taken it away
                continue
            _add(summed.setdefault(about, {}), done)
            folded.add(path.name)
        _write(folder, {name for name in folded if (folder / name).exists()}, summed)


def copy(folder: Path, to: Path) -> None:
    """All that says who trusts, for a backup; nothing if nothing was done yet. Raises OSError."""
    if not folder.exists():
        return
    private_folder(to)
    with locked_beside(folder / _SUM):
        for path in (*folder.glob("*.jsonl"), *folder.glob(_SUM)):
            write_atomically(to / path.name, path.read_bytes())


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


def _at_work(path: Path, began: float) -> bool:
    """Whether the process that began a logbook runs, and no other by its number (proc(5))."""
    number = path.stem.rpartition("-")[2]
    try:
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
        boot = time.time() - float(Path("/proc/uptime").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return False
    started = boot + int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return number != str(os.getpid()) and started <= began + 1


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
        cure = (
            f"put its last good copy back; or rm {path}, and name every node that trusts by "
            "--hosts where it matters (certs.rotate-ca)"
        )
        raise spoilt("trusting-unreadable", path, problem, cure) from None


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
