"""Folders of hosts.toml files that are not the ones of a node's own containerd.

MicroK8s, k0s and nerdctl read them by containerd's code, so what goes in is decided in one place.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.edit.change import Change, Ledger
from agent.edit.toml import TomlError, at, parse
from agent.formats import hosts_toml
from agent.node.tree import Tree
from agent.wire.plan import Plan


def changes(part: str, tree: Tree, root: str, plan: Plan, owned: Ledger) -> tuple[Change, ...]:
    """The registry's folder below a root, and one for each registry it mirrors."""
    found: list[Change] = []
    for registry in plan.registry.spellings:
        place = hosts_toml.folder(tree, [root], registry.name)
        found += hosts_toml.changes(tree, place, registry, owned)
    for mirror in plan.mirrors:
        found += hosts_toml.mirror_changes(tree, [root], plan.registry, mirror, owned, found)
    return tuple(one._replace(part=part) for one in found)


def doubts(tree: Tree, roots: Sequence[str], plan: Plan) -> tuple[str, ...]:
    """Why a pull shows nothing: a hosts.toml that counts has ``skip_verify`` for the registry."""
    found = []
    for registry in () if plan.registry.plain_http else plan.registry.spellings:
        path = f"{hosts_toml.folder(tree, list(roots), registry.name)}/hosts.toml" if roots else ""
        try:
            tables = parse(tree.read(path).content or b"") if path else {}
        except TomlError:
            continue
        hosts = [tables, *(at(tables, "host") or {}).values()]
        if any(isinstance(one, dict) and one.get("skip_verify") is True for one in hosts):
            found.append(f"{path} has skip_verify: no certificate is verified there; take it out")
    return tuple(found)


def is_of_a_registry(path: str) -> bool:
    return path.endswith((".crt", ".cert", ".key", "/hosts.toml"))
