"""The settings that are paths: a leading ``~`` stands for a home folder in each, as in a shell."""

from __future__ import annotations

import os

from moorage.files import user_path

PATHS = frozenset((
    "engine.data",
    "registry.data", "registry.ca", "registry.client_cert", "registry.client_key",
    "certs.dir",
    "lab.kubernetes_binaries",
    "nodes.ssh_config", "nodes.known_hosts",
    "upkeep.backup", "upkeep.passphrase_file", "upkeep.textfile",
))  # fmt: skip
# Several, separated as in PATH.
LISTS = frozenset(("kubernetes.kubeconfig",))


def expanded(place: str, value: str, origin: str = "") -> str:
    """The value at ``place`` with home folders in the place of ``~`` and ``~user``.

    A place that is no path has its value as it is. ``origin``: what names it. Raises Refused
    (``no-home``).
    """
    parts = value.split(os.pathsep) if place in LISTS else [value]
    if place not in PATHS | LISTS:
        return value
    return os.pathsep.join(
        str(user_path(part, origin)) if part.startswith("~") else part for part in parts
    )
