"""The lab: throw-away nodes in Docker, with systemd, sshd and containerd, for trying and testing.

A node is a container labelled as ours, ``moorage-lab1`` and so on, reached over SSH as ``lab1``
with the key and the host keys in ``.moorage/lab/``.
"""

from __future__ import annotations

from moorage.lab.access import need_node, ssh_command, ssh_config
from moorage.lab.lifecycle import down, nodes, pending, up
from moorage.lab.node import LabNode

__all__ = [
    "LabNode",
    "down",
    "need_node",
    "nodes",
    "pending",
    "ssh_command",
    "ssh_config",
    "up",
]
