"""The lab: throw-away nodes in Docker, with systemd, sshd and containerd, for trying and testing.

A node is a container labelled as ours, ``moorage-lab1`` and so on, reached over SSH as ``lab1``
with the key and the host keys in ``.moorage/lab/``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lab.lifecycle import build, down, nodes, pending, up
    from lab.machines.access import need_node, ssh_command, ssh_config
    from lab.machines.node import LabNode

__all__ = [
    "LabNode",
    "build",
    "down",
    "need_node",
    "nodes",
    "pending",
    "ssh_command",
    "ssh_config",
    "up",
]

_HOMES = {
    "machines.access": ("need_node", "ssh_command", "ssh_config"),
    "lifecycle": ("build", "down", "nodes", "pending", "up"),
    "machines.node": ("LabNode",),
}


def __getattr__(name: str) -> Any:
    """Loads a public name when it is first asked for (PEP 562).

    Every command checks ``lab.nodes`` in the settings with ``lab.mix``; only the lab's own pay for
    the rest.
    """
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
