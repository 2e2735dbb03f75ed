"""What was done on hosts, read from the logbooks (:mod:`moorage.fleet.report.logbook`)."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from agent.wire.report import HostResult
from moorage.errors import SPOILT, Refused, spoilt
from moorage.files import content_of
from moorage.fleet.inventory import Target
from moorage.fleet.inventory.targets import target_of

VERSION = 1
# Why a rollout ended, if no host did that: somebody stopped it, or it was under way in a backup.
STOPPED, RESTORED = "it was stopped", "restored from a backup"


class Deed(NamedTuple):
    """What was done on one host. ``verb``: trust, untrust or undo; ``host`` as results call it,
    ``address`` what was connected to, ``target`` all that was known of it; ``at``: seconds since
    1970 by this machine's clock."""

    verb: str
    host: str
    address: str
    result: HostResult
    at: float
    target: Target | None = None


def deeds(folder: Path, registry: str) -> list[Deed]:
    """Everything noted for one registry, oldest first.

    Raises Refused (``trusting-unreadable``).
    """
    found = []
    for path in sorted(folder.glob("*.jsonl")) if folder.exists() else []:
        with read_whole(path):
            about, noted = of(path)
            found += noted if about == registry else []
    return found


def of(path: Path) -> tuple[str, list[Deed]]:
    """The registry of one logbook ("" for a file that is none), and what was done by it.

    Raises one of ``SPOILT`` for a line that is none of a logbook's.
    """
    lines = events(path)
    if not lines:
        return "", []
    verb, _, about = str(lines[0].get("command", "")).rpartition(" ")
    hosts = {one.name: one for one in map(target, lines[0]["hosts"])}
    # Files of before 2026-11 have the time of their end only.
    ended = next((one["at"] for one in lines if "end" in one), lines[0]["began"])
    found = []
    for event in lines[1:]:
        if "result" in event and not event.get("before"):
            result = HostResult.from_json(event["result"])
            at = float(event.get("at", ended))
            where = hosts.get(result.host)
            address = where.host if where is not None else ""
            found.append(Deed(verb, result.host, address, result, at, where))
    return about, found


def target(document: dict[str, Any]) -> Target:
    """A host as a logbook has it. Raises what :func:`target_of` does."""
    return target_of(document)


def events(path: Path) -> list[dict[str, Any]]:
    """A logbook's lines, [] for a file that is none, or gone: the oldest go when one is begun.

    A last line cut off by a crash is left out.
    """
    found = []
    content = content_of(path) or b""
    for line in content.decode("utf-8", errors="replace").splitlines():
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(event, dict):
            found.append(event)
    return found if found and found[0].get("version") == VERSION else []


@contextmanager
def read_whole(path: Path) -> Iterator[None]:
    """Refuses a logbook of which something is not as we write it. One that is gone is not there."""
    try:
        yield
    except OSError:
        raise
    except SPOILT as problem:
        raise unreadable(path, problem) from None


def unreadable(path: Path, problem: Exception) -> Refused:
    """The refusal of a file of rollouts that something else has changed."""
    cure = (
        f"put its last good copy back; or rm {shlex.quote(str(path))}, and name every node "
        "that trusts by --hosts where it matters (certs.rotate-ca)"
    )
    return spoilt("trusting-unreadable", path, problem, cure)
