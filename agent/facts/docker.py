"""Facts about a Docker Engine."""

from __future__ import annotations

import re
from dataclasses import dataclass

from agent.facts.tree import Tree
from agent.host import Host


@dataclass(frozen=True)
class Docker:
    """A Docker Engine; ``version`` is empty where only its folder shows that it is there."""

    version: str = ""


def find(host: Host, tree: Tree) -> Docker | None:
    for program in ("dockerd", "docker"):
        binary = host.which(program)
        if binary is not None:
            shown = host.run([host.outside(binary), "--version"])
            version = re.search(r"\d+\.\d+\.\d+", shown.out)
            return Docker(version[0] if version else "")
    # Snap and static installs keep their programs elsewhere; the folder tells.
    return Docker() if tree.exists("/run/docker.sock") or tree.exists("/etc/docker") else None
