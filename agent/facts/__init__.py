"""What this node is: runtimes, versions, files. Reads only; decides nothing.

Paths are those the node itself uses. ``Tree`` reads them below a root, links included, so a test
can lay out a node as a folder.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass

from agent.facts import containerd as _containerd
from agent.facts import docker as _docker
from agent.facts.containerd import Containerd
from agent.facts.docker import Docker
from agent.facts.tree import File, Tree
from agent.host import Host

__all__ = ["Containerd", "Docker", "Facts", "File", "Tree", "gather"]


@dataclass(frozen=True)
class Facts:
    """The node, as far as a plan can be about it.

    ``containerd`` is the usual one, ``further`` are those that run beside it.
    """

    nodename: str
    tree: Tree
    docker: Docker | None
    containerd: Containerd | None
    further: tuple[Containerd, ...] = ()

    @property
    def containerds(self) -> tuple[Containerd, ...]:
        return () if self.containerd is None else (self.containerd, *self.further)

    @property
    def runtime(self) -> str:
        """The runtimes in words, such as ``containerd 1.7.24``."""
        found: list[str] = []
        found += [f"containerd {one.version_text}" for one in self.containerds]
        if self.docker is not None:
            found.append(f"docker {self.docker.version}".strip())
        return ", ".join(found) or "none"


def gather(host: Host) -> Facts:
    """Look at the node. Costs a few short commands; changes nothing."""
    tree = Tree(host.root)
    containerds = _containerd.find(host, tree)
    return Facts(
        nodename=platform.node(),
        tree=tree,
        docker=_docker.find(host, tree),
        containerd=containerds[0] if containerds else None,
        further=containerds[1:],
    )
