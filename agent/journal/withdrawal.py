"""What taking away would change: a registry's trust, or one apply alone. Pure.

Where a file is as we left it the bytes before us come back; where somebody else has changed it
since, our own lines go and theirs stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from agent.edit.change import Change, Ledger, Ledgers, Owned, OwnedPaths, change, readable
from agent.facts import Facts
from agent.journal import undoing
from agent.journal.record import Record
from agent.node.tree import Tree
from agent.runtimes import table
from agent.wire.plan import Registry


class Withdrawal(NamedTuple):
    """The changes, what is ours afterwards, the folders we made that may go, and what to say."""

    changes: tuple[Change, ...]
    ledgers: Ledgers
    folders: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def of_registry(facts: Facts, ledgers: Ledgers, registry: Registry) -> Withdrawal:
    """All that is ours for a registry, and what an earlier withdrawal had to keep."""
    owned, others = _divided(ledgers, registry.name)
    stays: dict[str, Owned] = {}
    changes: list[Change] = []
    folders: list[str] = []
    notes: list[str] = []
    for item in reversed(list(owned.values())):
        heir = _heir(item, others)
        if heir is not None:
            left = table.TABLE[item.part].left(facts, item, registry)
            others[heir] = {item.path: _after(item, left), **others[heir]}
            changes.extend(left)
            continue
        kept = table.TABLE[item.part].kept(facts, item, OwnedPaths(facts.tree, owned))
        if kept:
            notes.append(kept)
            left = table.TABLE[item.part].left(facts, item, registry)
            stays = {item.path: _after(item, left)._replace(kept=True), **stays}
            changes.extend(left)
            continue
        changes.extend(_taken_back(facts, item, registry))
        for folder in reversed(item.folders):
            if not _inherited(folder, others) and folder not in folders:
                folders.append(folder)
    # An outer folder comes before those in it.
    folders = _there(facts.tree, folders)
    if stays:
        first = next(iter(stays))
        made = (*stays[first].folders, *folders)
        stays[first] = stays[first]._replace(folders=tuple(dict.fromkeys(made)))
        others[registry.name] = stays
    return Withdrawal(tuple(changes), others, tuple(folders), tuple(notes))


def of_forgotten(facts: Facts, registry: Registry) -> Withdrawal:
    """What is ours by its marks alone, on a node whose state folder is lost."""
    changes: dict[str, Change] = {}
    for part in table.TABLE.values():
        for one in part.forgotten(facts, registry):
            changes.setdefault(one.path, one)
    notes = ("the agent's notes are not there: what has our marks is taken away",)
    return Withdrawal(tuple(changes.values()), {}, notes=notes if changes else ())


def of_apply(
    facts: Facts,
    registry: Registry,
    ledgers: Ledgers,
    record: Record,
    earlier: Ledger,
    blobs: Mapping[str | None, bytes | None],
) -> Withdrawal:
    """What one apply did to files that were ours before it too; ``earlier``: what was ours then.

    ``blobs``: the bytes of its files by their digests.
    """
    name = registry.name
    mine = dict(ledgers.get(name, {}))
    changes: list[Change] = []
    notes: list[str] = []
    folders: list[str] = []
    for entry in reversed(record.changes):
        path = entry.path
        before, after = blobs[entry.before], blobs[entry.after]
        known = Owned(entry.part, path, before, after)
        kept = table.TABLE[entry.part].kept(facts, known, OwnedPaths(facts.tree, mine))
        if kept:
            notes.append(kept)
            continue
        file = facts.tree.read(path)
        now = readable(file)
        wanted: bytes | None
        if now == after:
            wanted = before
        elif now is None or after is None:  # somebody else took it away, or made it anew
            wanted = now
        elif path not in earlier:
            wanted = table.TABLE[entry.part].resource.strip(known, now, registry)
        else:
            merged = undoing.without(before or b"", after, now)
            wanted = now if merged is None else merged
            if merged is None:
                notes.append(f"{path} is left alone: someone else changed our own lines in it")
        changes.extend(change(entry.part, file, wanted, entry.mode))
        if path in earlier:
            mine[path] = earlier[path]
        else:
            gone = mine.pop(path, None)
            folders += gone.folders if gone is not None else ()
    after_all = {**ledgers, name: mine}
    return Withdrawal(tuple(changes), after_all, tuple(_there(facts.tree, folders)), tuple(notes))


def restarts(facts: Facts, changes: tuple[Change, ...]) -> tuple[str, ...]:
    """The services that read the changed files at their start alone."""
    units: list[str] = []
    for name, part in table.TABLE.items():
        if mine := tuple(one for one in changes if one.part == name):
            units += part.restarts(facts, mine)
    return tuple(dict.fromkeys(units))


def registry_of(name: str) -> Registry:
    """A registry by the name a record knows it by."""
    host, _, port = name.partition(":")
    return Registry(host, int(port or 443))


def _heir(item: Owned, others: Ledgers) -> str | None:
    """Another registry that still needs the one setting we made for all, if any."""
    if not table.TABLE[item.part].shared(item):
        return None
    return next(
        (name for name, one in others.items() if any(o.part == item.part for o in one.values())),
        None,
    )


def _there(tree: Tree, folders: list[str]) -> list[str]:
    """The folders that still are some, each once; one that became a link is somebody else's."""
    found = []
    for one in folders:
        above, _, name = one.rpartition("/")
        if tree.exists(one) and tree.real(one) == f"{tree.real(above).rstrip('/')}/{name}":
            found.append(tree.real(one))
    return sorted(dict.fromkeys(found))


def _divided(ledgers: Ledgers, name: str) -> tuple[dict[str, Owned], dict[str, dict[str, Owned]]]:
    """What goes with a registry, and what is other registries'.

    What stayed when an earlier one went is looked at anew: those who relied on it may be gone.
    """
    owned: dict[str, Owned] = {}
    others: dict[str, dict[str, Owned]] = {}
    for other, ledger in ledgers.items():
        if other != name:
            owned.update({path: one for path, one in ledger.items() if one.kept})
            living = {path: one for path, one in ledger.items() if not one.kept}
            others.update({other: living} if living else {})
    return {**owned, **ledgers.get(name, {})}, others


def _after(item: Owned, changes: tuple[Change, ...]) -> Owned:
    """A file of ours as a change leaves it; one that others edited stays known as edited."""
    known = {one.path: one.after for one in changes if one.before == item.after}
    return item._replace(after=known.get(item.path, item.after), kept=False)


def _inherited(folder: str, others: dict[str, dict[str, Owned]]) -> bool:
    """Whether another registry's files are in a folder we made; then it goes with the last."""
    for ledger in others.values():
        for path, one in ledger.items():
            if path.startswith(f"{folder}/"):
                if folder not in one.folders:
                    ledger[path] = one._replace(folders=(folder, *one.folders))
                return True
    return False


def _taken_back(facts: Facts, item: Owned, registry: Registry) -> tuple[Change, ...]:
    """The change that takes one of our files back: the original where it is as we left it."""
    file = facts.tree.read(item.path)
    content = readable(file)
    if content is None:
        return ()
    if content == item.after:
        return change(item.part, file, item.before)
    stripped = table.TABLE[item.part].resource.strip(item, content, registry)
    return change(item.part, file, stripped)
