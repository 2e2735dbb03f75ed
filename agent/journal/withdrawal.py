"""What taking away would change: a registry's trust, or one apply alone. Pure.

Where a file is as we left it the bytes before us come back; where somebody else has changed it
since, our own lines go and theirs stay. A file with lines of several registries belongs to all of
them: each knows it as it was before the first of them came, and as the last of their operations
left it. The one that goes takes its own lines; with the last one the bytes before us come back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from agent.edit.change import Change, Ledger, Ledgers, Owned, OwnedPaths, change, readable
from agent.facts import Facts
from agent.journal import undoing
from agent.journal.record import Record
from agent.node.tree import Tree
from agent.runtimes import table
from agent.wire.plan import HTTP, Registry


class Withdrawal(NamedTuple):
    """The changes, what is ours afterwards, the folders we made that may go, and what to say."""

    changes: tuple[Change, ...]
    ledgers: Ledgers
    folders: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def of_registry(facts: Facts, ledgers: Ledgers, registry: Registry) -> Withdrawal:
    """All that is ours for a registry, and what an earlier withdrawal had to keep."""
    owned, others = _divided(ledgers, registry.name)
    owners = OwnedPaths(facts.tree, {}, others)
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
        changes.extend(_taken_back(facts, item, registry, owners.sharing(item.path)))
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
    ledgers = followed(others, registry.name, changes, facts.tree)
    return Withdrawal(tuple(changes), ledgers, tuple(folders), tuple(notes))


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
    others = {one: dict(ledger) for one, ledger in ledgers.items() if one != name}
    changes: list[Change] = []
    notes: list[str] = []
    folders: list[str] = []
    for entry in reversed(record.changes):
        path = entry.path
        known = Owned(entry.part, path, blobs[entry.before], blobs[entry.after])
        kept = table.TABLE[entry.part].kept(facts, known, OwnedPaths(facts.tree, mine))
        if kept:
            notes.append(kept)
            continue
        part = table.TABLE[entry.part]
        heir = _heir(known, others)
        if heir is not None and part.kept(facts, known, OwnedPaths(facts.tree, {})):
            notes.append(f"{path} stays as it is: {heir} needs it too")
            continue
        file = facts.tree.read(path)
        now = readable(file)
        wanted: bytes | None
        if now == known.after:
            wanted = known.before
        elif now is None or known.after is None:  # somebody else took it away, or made it anew
            wanted = now
        elif path not in earlier:
            left = part.left(facts, known, registry) if heir is not None else ()
            wanted = left[0].after if left else part.resource.strip(known, now, registry)
        else:
            latest = mine.get(path, known)
            merged = _merged(known, now, registry, latest, earlier[path])
            wanted = now if merged is None else merged
            if merged is None and latest.after == now:
                notes.append(f"{path} keeps what is in it: another registry's is in the same line")
            elif merged is None:
                notes.append(f"{path} is left alone: someone else changed our own lines in it")
        changes.extend(change(entry.part, file, wanted, entry.mode))
        gone = mine.pop(path, None)
        if path in earlier:
            mine[path] = _as_before(earlier[path], gone, known, now, wanted)
        elif gone is not None:
            folders += [one for one in gone.folders if not _inherited(one, others)]
    after_all = followed({**others, name: mine}, name, changes, facts.tree)
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


def before_us(
    registry: Registry, one: Change, old: Owned | None, others: Mapping[str, Owned]
) -> bytes | None:
    """What stood in a file before any registry of ours, by what one more apply found there.

    ``old``: what is ours of it for the ``registry`` already; ``others``: for other ones.
    """
    for known in (*([old] if old else []), *others.values()):
        if known.after == one.before:
            return known.before
    content = one.before
    if content is not None:
        known = old or Owned(one.part, one.path, one.before, None)
        content = table.TABLE[one.part].resource.strip(known, content, registry)
    return _bare(content, others)


def followed(
    ledgers: Ledgers, registry: str, changes: Iterable[Change], tree: Tree
) -> dict[str, Ledger]:
    """The ledgers after ``changes`` for ``registry``: what was as left to another one, still is."""
    found = dict(ledgers)
    others = _others(ledgers, registry, tree)
    for one in changes:
        for name, old in others.sharing(one.path).items():
            if old.after == one.before and one.after is not None:
                found[name] = {**found[name], old.path: old._replace(after=one.after)}
    return found


def apart(ledgers: Ledgers, tree: Tree) -> Ledgers:
    """The ledgers of an agent of before, which took other registries' lines for what was there."""
    found = dict(ledgers)
    for name, ledger in ledgers.items():
        others = _others(ledgers, name, tree)
        for path, item in ledger.items():
            owners = others.sharing(path)
            if not owners or _bare(item.before, owners) == item.before:
                continue
            before = item.before
            for other, earlier in owners.items():
                if earlier.after == item.before:  # nobody else came between the two
                    before = earlier.before
                    left = earlier._replace(after=item.after)
                    found[other] = {**found[other], left.path: left}
            found[name] = {**found[name], path: item._replace(before=_bare(before, owners))}
    return found


def _others(ledgers: Ledgers, name: str, tree: Tree) -> OwnedPaths:
    return OwnedPaths(tree, {}, {one: own for one, own in ledgers.items() if one != name})


def _bare(content: bytes | None, owners: Mapping[str, Owned]) -> bytes | None:
    """A file without what these registries have in it."""
    for name, item in owners.items():
        strip = table.TABLE[item.part].resource.strip
        # Without a port in its name it is at 443, or at 80 without TLS.
        plain = () if ":" in name else (Registry(name, 80, insecure=HTTP),)
        for registry in (registry_of(name), *plain):
            content = content if content is None else strip(item, content, registry)
    return content


def _merged(
    known: Owned, now: bytes, registry: Registry, latest: Owned, earlier: Owned
) -> bytes | None:
    """A file that others changed since, with one apply's edit taken back; None if they are at odds.

    Where the part's own values tell what came with that apply, no lines have to be matched: so it
    is after other registries of ours, and in a file of values alone after anybody.
    """
    before, after = known.before or b"", known.after or b""
    part = table.TABLE[known.part]
    tells = not part.shared(known) and part.resource.strip(known, before, registry) == before
    if tells and latest.after == now:
        return part.resource.strip(known, now, registry)
    merged = undoing.without(before, after, now)
    if merged is None and tells and part.resource.strip(earlier, before, registry) != before:
        return part.resource.strip(known, now, registry)
    return merged


def _as_before(
    earlier: Owned, latest: Owned | None, known: Owned, now: bytes | None, wanted: bytes | None
) -> Owned:
    """What is ours of a file once an apply is taken back; ``known`` is what that one did.

    It is as left if it was so before that apply, and nobody but us has changed it since.
    """
    if latest is None:
        return earlier
    earlier = earlier._replace(folders=latest.folders)
    if earlier.after == known.before and latest.after == now:
        return earlier._replace(before=latest.before, after=wanted)
    return earlier


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


def _taken_back(
    facts: Facts, item: Owned, registry: Registry, others: Mapping[str, Owned]
) -> tuple[Change, ...]:
    """The change that takes one of our files back: the original where it is as we left it.

    ``others``: the registries that have something in it too, unless a hand has taken that out.
    """
    file = facts.tree.read(item.path)
    content = readable(file)
    if content is None:
        return ()
    if content == item.after and not others:
        return change(item.part, file, item.before)
    stripped = table.TABLE[item.part].resource.strip(item, content, registry)
    if content == item.after and _bare(stripped, others) == stripped:
        return change(item.part, file, item.before)
    return change(item.part, file, stripped)
