"""Who relies on a folder of registries that counts by our doing alone.

A setting of ours that makes the folder count, and what was carried into it from elsewhere, stays
for them when the registry goes. Whatever lay there unread before us is as unread without us.
"""

from __future__ import annotations

from agent.edit.change import Ledger
from agent.formats.hosts_toml import CARRIED
from agent.node.tree import Tree


def others(tree: Tree, root: str, ledger: Ledger) -> tuple[str, ...]:
    """The names in ``root`` that came, or were edited by others, since the folder counts.

    ``ledger`` is what is ours there.
    """
    made = any(root in one.folders for one in ledger.values())
    since = min(
        (
            tree.changed(path)
            for path, one in ledger.items()
            if tree.read(path).content == one.after
        ),
        default=0,
    )
    return tuple(
        name
        for name in tree.names(root)
        if _came(tree, f"{root}/{name}", ledger, 0 if made else since)
        or _edited(tree, f"{root}/{name}/hosts.toml", ledger)
    )


def _came(tree: Tree, place: str, ledger: Ledger, since: int) -> bool:
    theirs = [name for name in tree.names(place) if f"{place}/{name}" not in ledger]
    times = [tree.changed(f"{place}/{name}") for name in theirs]
    return max(times, default=0) > since


def _edited(tree: Tree, path: str, ledger: Ledger) -> bool:
    mine = ledger.get(path)
    content = tree.read(path).content
    return (
        mine is not None
        and (mine.after or b"").startswith(CARRIED)
        and content is not None
        and content != mine.after
    )
