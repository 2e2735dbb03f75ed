"""Limits of the machine that would break a node silently: inotify instances.

systemd, journald and containerd each need some, all nodes run as the same root, and where they run
out containerd's CRI does not load or a service is not noticed to have ended. Raised where needed,
and put back when the lab goes down.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from moorage import commands
from moorage.actions import Action
from moorage.errors import MoorageError
from moorage.files import private_folder, write_atomically

if TYPE_CHECKING:
    from moorage.settings import Settings
    from moorage.ui import UI

INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")
# What the rest of the machine's root may use, and what a node does (measured: at most 7).
_RESERVE = 48
_PER_NODE = 10


@dataclass(frozen=True)
class Raise:
    """A limit that has to be raised for the nodes asked for."""

    before: int
    after: int

    @property
    def command(self) -> str:
        return f"sysctl -w fs.inotify.max_user_instances={self.after}"


def needed(nodes: int, limit: int) -> Raise | None:
    """What ``nodes`` nodes need beyond ``limit``. Pure."""
    wanted = _RESERVE + _PER_NODE * nodes
    return Raise(limit, wanted) if wanted > limit else None


def pending(nodes: int, path: Path = INSTANCES) -> list[Action]:
    """What :func:`raise_them` would do for so many nodes."""
    change = needed(nodes, _read(path))
    if change is None:
        return []
    through = ", through sudo" if commands.as_root() else ""
    return [
        Action(
            f"raise this machine's limit of inotify instances for {nodes} nodes{through}, until "
            "the lab goes down",
            asks=True,
            path=str(path),
            before=f"{change.before}\n",
            after=f"{change.after}\n",
        )
    ]


def raise_them(settings: Settings, ui: UI, nodes: int, path: Path = INSTANCES) -> None:
    """Raises what so many nodes need, remembering what it was before.

    Raises MoorageError with the command to type where it cannot be.
    """
    change = needed(nodes, _read(path))
    if change is None:
        return
    record = _record(settings)
    private_folder(record.parent)
    # Raised twice, what it was before is still what it was at first.
    before = _remembered(record).before if record.exists() else change.before
    text = json.dumps({"before": before, "after": change.after})
    write_atomically(record, text.encode())
    ui.note(f"raising {path} from {change.before} to {change.after}")
    _write(path, change.after)
    if _read(path) < change.after:
        raise MoorageError(
            "low-limit",
            f"{nodes} nodes need {change.after} inotify instances, and there are {change.before}",
            cause=f"{path} could not be raised",
            cure=f"on the engine's host: sudo {change.command}; or fewer nodes: --nodes",
            path=str(path),
        )


def restore(settings: Settings, ui: UI, path: Path = INSTANCES) -> bool:
    """Puts back what was raised, unless somebody has changed it since. Returns whether it did."""
    record = _record(settings)
    if not record.exists():
        return False
    change = _remembered(record)
    changed = _read(path) == change.after and change.before > 0
    if changed:
        _write(path, change.before)
        ui.note(f"{path} is {change.before} again")
    record.unlink(missing_ok=True)
    return changed


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
