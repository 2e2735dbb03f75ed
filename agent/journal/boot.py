"""What runs at boot while a transaction is under way: a oneshot service that rolls it back.

A power loss between two steps must end in the old state before a runtime reads its half. The unit
stands only as long as the intent does; ``transaction.py`` writes it and takes it away again. It has
no condition: cut off just before the intent or just after the commit, it is itself what is left
over, and the boot that runs it clears it away.
Source: systemd.unit(5), systemd.service(5), and systemd.syntax(7) for the quoting.
"""

from __future__ import annotations

from collections.abc import Sequence

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


def _quoted(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + escaped.replace("%", "%%").replace("$", "$$") + '"'
