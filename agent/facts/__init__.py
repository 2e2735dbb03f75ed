"""What this node is: runtimes, versions, files. Reads only; decides nothing.

Paths are those the node itself uses. ``Tree`` reads them below a root, links included, so a test
can lay out a node as a folder.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from agent.facts import containerd as _containerd
from agent.facts import docker as _docker
from agent.facts import runtimes as _runtimes
from agent.facts.containerd import Containerd
from agent.facts.daemons import running
from agent.facts.docker import Docker
from agent.facts.names import Names
from agent.facts.proxies import Proxied
from agent.facts.proxies import find as _proxies
from agent.facts.runtimes import Runtime
from agent.node.host import Host
from agent.node.tree import Tree

__all__ = ["Containerd", "Docker", "Facts", "Names", "Proxied", "Runtime", "gather"]


class Facts(NamedTuple):
    """The node, as far as a plan can be about it.

    ``containerd`` is the usual one, ``further`` are those that run beside it.
    """

    nodename: str
    tree: Tree
    docker: Docker | None
    containerd: Containerd | None
    further: tuple[Containerd, ...] = ()
    rootless: tuple[Docker, ...] = ()
    others: Mapping[str, Runtime] = MappingProxyType({})
    proxied: tuple[Proxied, ...] = ()
    names: Names = Names()

    @property
    def containerds(self) -> tuple[Containerd, ...]:
        return () if self.containerd is None else (self.containerd, *self.further)

    @property
    def dockers(self) -> tuple[Docker, ...]:
        """All Docker Engines, the system's own first."""
        return (*(() if self.docker is None else (self.docker,)), *self.rootless)

    @property
    def runtime(self) -> str:
        """The runtimes in words, such as ``containerd 1.7.24``."""
        found: list[str] = []
        found += [f"containerd {one.version_text}" for one in self.containerds]
        if self.docker is not None:
            found.append(f"docker {self.docker.version}".strip())
        found += [f"docker {one.version} (rootless)".replace("  ", " ") for one in self.rootless]
        found += list(self.others)
        return ", ".join(found) or "none"


def _is_inside(one: Containerd, others: Mapping[str, Runtime]) -> bool:
    """Whether a containerd is another runtime's own child: k3s's may have its files anywhere."""
    units = {other.unit for other in others.values() if other.running and other.unit}
    return one.unit is not None and one.unit.name in units


def gather(host: Host, *, proving: bool = False) -> Facts:
    """Look at the node. Costs a few short commands; changes nothing.

    ``proving``: for an operation that asks CRI later on.
    """
    tree = Tree(host.root, host.longest)
    daemons = running(host, {_containerd.PROGRAM, _docker.PROGRAM, *_runtimes.DAEMONS})
    containerds = _containerd.find(host, tree, daemons, proving=proving)
    dockers = _docker.find(host, tree, daemons)
    others = _runtimes.find(host, tree, daemons)
    containerds = tuple(one for one in containerds if not _is_inside(one, others))
    units = [one.unit for one in dockers if one.unit]
    units += [one.unit for one in others.values() if one.unit]
    units += [one.unit.name for one in containerds if one.unit is not None]
    return Facts(
        nodename=os.uname().nodename,
        tree=tree,
        docker=next((one for one in dockers if not one.home), None),
        containerd=containerds[0] if containerds else None,
        further=containerds[1:],
        rootless=tuple(one for one in dockers if one.home),
        others=others,
        proxied=_proxies(tree, daemons, units),
        names=Names(host),
    )
