"""What runs at boot while a transaction is under way: a oneshot service that rolls it back.

A power loss between two steps must end in the old state before a runtime reads its half. The unit
stands only as long as the intent does: ``transaction.py`` has it written and taken away. It has no
condition: cut off just before the intent or just after the commit, it is itself what is left
over, and the boot that runs it clears it away.
Source: systemd.unit(5), systemd.service(5), and systemd.syntax(7) for the quoting.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Sequence

from agent.journal.ledger import Store
from agent.node.disk import make_folder, outside, sync_folder, write_new
from agent.wire.runtimes.declared import RUNTIMES

NAME = "moorage-recover.service"
UNIT = f"/etc/systemd/system/{NAME}"
# What `systemctl enable` would make: a link to the unit in the target that every boot reaches.
LINK = f"/etc/systemd/system/multi-user.target.wants/{NAME}"

# Everything that reads what a transaction may have left half-way; a name that is not there is no
# harm. The services a transaction is to restart come on top.
READERS = (*(name for one in RUNTIMES for name in one.services), "kubelet.service")


def unit_file(command: Sequence[str], services: Sequence[str]) -> bytes:
    """The unit that runs ``command`` before ``services`` and whatever else reads trust."""
    before = " ".join(dict.fromkeys([*READERS, *services]))
    words = " ".join(_quoted(word) for word in command)
    return (
        "# Written by Moorage for as long as a change is under way.\n"
        "[Unit]\n"
        "Description=Moorage: put back what an interrupted change left half-way\n"
        "RequiresMountsFor=/var/lib/moorage\n"
        "After=local-fs.target\n"
        f"Before={before}\n"
        "\n"
        "[Service]\n"
        "Type=oneshot\n"
        f"ExecStart={words}\n"
        "TimeoutStartSec=60\n"
        "\n"
        "[Install]\n"
        "WantedBy=multi-user.target\n"
    ).encode()


def arm(root: str, command: Sequence[str], services: Sequence[str]) -> str:
    """Have ``command`` run at the next boot. Returns why it cannot be, if /etc is fixed."""
    unit, link = outside(root, UNIT), outside(root, LINK)
    try:
        disarm(root)
        make_folder(link.parent, 0o755)
        write_new(unit, unit_file(command, services), 0o644)
        link.symlink_to(UNIT)
        sync_folder(link.parent)
        sync_folder(unit.parent)
    except OSError as problem:
        if problem.errno not in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR):
            raise
        return f"{UNIT} cannot be written ({os.strerror(problem.errno)})"
    return ""


def disarm(root: str) -> None:
    """Nothing is left to recover at boot. What cannot be taken away does nothing by itself."""
    for path in (outside(root, LINK), outside(root, UNIT)):
        with contextlib.suppress(OSError):
            path.unlink()
            sync_folder(path.parent)


def nothing_left(store: Store) -> bool:
    """Whether no agent left anything half-way: no journal, and no unit to recover at boot."""
    units = (outside(store.root, LINK), outside(store.root, UNIT))
    return store.pending() is None and not any(os.path.lexists(unit) for unit in units)


def _quoted(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + escaped.replace("%", "%%").replace("$", "$$") + '"'
