"""Limits of the machine that would break a node silently: inotify instances.

systemd, journald and containerd each need some, all nodes run as the same root, and where they run
out containerd's CRI does not load or a service is not noticed to have ended. Raised where needed,
and put back when the lab goes down.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from moorage import commands
from moorage.actions import Action
from moorage.docker import engine
from moorage.errors import MoorageError
from moorage.files import private_folder, write_atomically
from moorage.output import Note

if TYPE_CHECKING:
    from moorage.settings import Settings

INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")
# What a node uses (measured: at most 7, and 11 with a kubelet), and what is left for others.
_PER_NODE = 12
_RESERVE = 32


@dataclass(frozen=True)
class Raise:
    """A limit that has to be raised for the nodes asked for."""

    before: int
    after: int

    @property
    def command(self) -> str:
        return f"sysctl -w fs.inotify.max_user_instances={self.after}"


def needed(new: int, used: int, limit: int) -> Raise | None:
    """What ``new`` nodes need beyond ``limit``, if ``used`` instances are in use. Pure."""
    wanted = used + _PER_NODE * new + _RESERVE
    return Raise(limit, wanted) if new and wanted > limit else None


def in_use(running: int) -> int:
    """How many instances root uses now, with ``running`` nodes of ours among them.

    Only root sees all of them; where we are not, it is what the nodes may use.
    """
    found = 0
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):  # a process that ended, or one that is not ours to see
            found += str(link.readlink()) == "anon_inode:inotify"
    return max(found, _PER_NODE * running)


def pending(new: int, running: int = 0, path: Path = INSTANCES) -> list[Action]:
    """What :func:`raise_them` would do for ``new`` nodes beside ``running`` ones."""
    change = _change(new, running, path)
    if change is None:
        return []
    through = ", through sudo" if commands.as_root() else ""
    return [
        Action(
            f"raise this machine's limit of inotify instances for {new + running} nodes{through}, "
            "until the lab goes down",
            asks=True,
            path=str(path),
            before=f"{change.before}\n",
            after=f"{change.after}\n",
        )
    ]


def raise_them(
    settings: Settings, new: int, running: int = 0, path: Path = INSTANCES
) -> list[Note]:
    """Raises what ``new`` nodes beside ``running`` ones need, remembering what it was before.

    Returns a note on it. Raises MoorageError with the command to type where it cannot be.
    """
    change = _change(new, running, path)
    if change is None:
        return []
    record = _record(settings)
    private_folder(record.parent)
    # Raised twice, what it was before is still what it was at first.
    before = _remembered(record).before if record.exists() else change.before
    text = json.dumps({"before": before, "after": change.after})
    write_atomically(record, text.encode())
    _write(path, change.after)
    if _read(path) < change.after:
        raise MoorageError(
            "low-limit",
            f"there are too few inotify instances for {new + running} nodes",
            cause=f"{path} is {change.before}, has to be {change.after}, and could not be raised",
            cure=f"on the engine's host: sudo {change.command}; or fewer nodes: --nodes",
            path=str(path),
        )
    return [Note(f"raised {path} from {change.before} to {change.after}")]


def restore(settings: Settings, path: Path = INSTANCES) -> list[Note]:
    """Puts back what was raised, unless somebody has changed it since. Returns a note if it did."""
    record = _record(settings)
    if not record.exists():
        return []
    change = _remembered(record)
    changed = _read(path) == change.after and change.before > 0
    if changed:
        _write(path, change.before)
    record.unlink(missing_ok=True)
    return [Note(f"{path} is {change.before} again")] if changed else []


def _change(new: int, running: int, path: Path) -> Raise | None:
    if not new or not engine.endpoint().local:  # another machine's limits are not ours to read
        return None
    return needed(new, in_use(running), _read(path))


def _write(path: Path, value: int) -> None:
    commands.run(["tee", str(path)], root=True, stdin=f"{value}\n".encode(), check=False)


def _read(path: Path) -> int:
    """The limit; a very high one where the kernel has none."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 1 << 30


def _remembered(record: Path) -> Raise:
    try:
        found = json.loads(record.read_text())
        return Raise(int(found["before"]), int(found["after"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Raise(0, -1)


def _record(settings: Settings) -> Path:
    # Beside the lab's folder, which goes away with the nodes.
    return settings.state / "limits.json"
