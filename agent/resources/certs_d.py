"""Folders of hosts.toml files that are not the ones of a node's own containerd.

MicroK8s, k0s and nerdctl read them by containerd's code, so what goes in is decided in one place.
"""

from __future__ import annotations

from agent.facts import Tree
from agent.plan import Plan
from agent.resources import Change, Ledger
from agent.resources.containerd import hosts_toml


def changes(part: str, tree: Tree, root: str, plan: Plan, owned: Ledger) -> tuple[Change, ...]:
    """The registry's folder below a root, and one for each registry it mirrors."""
    found: list[Change] = []
    for registry in plan.registry.each:
        place = hosts_toml.folder(tree, [root], registry.name)
        found += hosts_toml.changes(tree, place, registry, owned)
    for mirror in plan.mirrors:
        found += hosts_toml.mirror_changes(tree, [root], plan.registry, mirror, owned)
    return tuple(one._replace(part=part) for one in found)


def is_of_a_registry(path: str) -> bool:
    return path.endswith((".crt", "/hosts.toml"))
