"""A node in memory that several registries are trusted on: what is decided is done at once.

Stands in for the disk and the journal, so that thousands of sequences of operations take seconds.
What the transaction itself promises is in test_transaction, and in tests/faults.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from agent.edit.change import Ledgers, Owned
from agent.engine.looking import _noted
from agent.engine.steps import Step, decide
from agent.facts import Facts, proxies
from agent.journal.ledger import Store, as_json, digest_of
from agent.journal.record import Record, RecordedFile
from agent.node.host import Host
from agent.node.tree import File, Tree
from agent.runtimes import table
from agent.wire.faults import AgentError, RefusedError
from agent.wire.plan import Plan, Registry

Edit = Callable[["bytes | None", int], bytes]


class Kept(NamedTuple):
    """A file: its bytes, its mode, and when it was last changed."""

    content: bytes
    mode: int = 0o644
    changed: int = 0


class Disk(Tree):
    """Files and folders by their paths; none is a link."""

    def __init__(self, files: Mapping[str, Kept], folders: frozenset[str]) -> None:
        super().__init__()
        self.files = dict(files)
        self.folders = folders

    def read(self, path: str) -> File:
        found = self.files.get(path)
        return File(path, path, None if found is None else found.content)

    def names(self, folder: str) -> tuple[str, ...]:
        inside = (one for one in (*self.files, *self.folders) if one.startswith(f"{folder}/"))
        return tuple(sorted({one[len(folder) + 1 :].partition("/")[0] for one in inside}))

    def exists(self, path: str) -> bool:
        return path in self.files or path in self.folders

    def written(self, path: str) -> float | None:
        return float(self.files[path].changed) if path in self.files else None

    def changed(self, path: str) -> int:
        found = self.files.get(path)
        return 1 if found is None else found.changed

    def real(self, path: str) -> str:
        return path

    def outside(self, path: str) -> Path:
        raise LookupError(path)

    @classmethod
    def of(cls, root: Path) -> Disk:
        """What lies below a folder."""
        every = [(f"/{path.relative_to(root)}", path) for path in root.rglob("*")]
        return cls(
            {
                name: Kept(path.read_bytes(), path.stat().st_mode & 0o7777)
                for name, path in every
                if path.is_file() and not name.startswith("/var/lib/moorage")
            },
            frozenset(name for name, path in every if path.is_dir()),
        )


BLOBS: dict[str, bytes] = {}


@dataclass(frozen=True)
class Notes(Store):
    """The state folder."""

    finished: tuple[Record, ...] = ()

    def records(self) -> Iterator[Record]:
        return iter(self.finished)

    def read_blob(self, digest: str | None) -> bytes | None:
        return None if digest is None else BLOBS[digest]


@dataclass(frozen=True, eq=False)
class Node:
    """A moment of a node's life; ``finished`` newest first."""

    disk: Disk
    finished: tuple[Record, ...] = ()

    @property
    def ledgers(self) -> Ledgers:
        store = Notes(finished=self.finished)
        return store.ledgers_of(self.finished[0]) if self.finished else {}

    def states(self, registry: str) -> dict[str, str]:
        """What a status tells of a registry's files: as-left, changed or missing."""
        ledger = self.finished[0].ledger if self.finished else {}
        return {
            file.path: _state(file.after, self.disk.read(file.path).content)
            for file in ledger.get(registry, ())
        }

    @cached_property
    def looks(self) -> tuple[object, ...]:
        """All that what comes next depends on."""
        files = tuple(sorted((path, *one[:2]) for path, one in self.disk.files.items()))
        places = {one.number: place for place, one in enumerate(self.finished)}
        told = tuple(
            (one.operation, one.registry, one.changes, places.get(one.undoes or 0), _held(one))
            for one in self.finished
        )
        return files, self.disk.folders, told


def _held(record: Record) -> frozenset[object]:
    return frozenset((name, *files) for name, files in record.ledger.items())


def _state(left: str | None, content: bytes | None) -> str:
    if content is None:
        return "as-left" if left is None else "missing"
    return "as-left" if digest_of(content) == left else "changed"


class Shape(NamedTuple):
    """A kind of node: its runtimes, and the files that both registries write into.

    ``edit`` is what an operator does to each of ``shared`` by hand.
    """

    facts: Facts
    shared: tuple[str, ...]
    edit: Edit
    units: tuple[str, ...] = ()

    def now(self, disk: Disk) -> Facts:
        """The facts, as the files are now; containerd dumps its file as it is."""
        facts = self.facts._replace(tree=disk)
        if self.units:
            facts = facts._replace(proxied=proxies.find(disk, (), list(self.units)))
        if facts.containerd is not None:
            config = disk.read(facts.containerd.config.path)
            merged = config.content if config.content is not None else facts.containerd.merged
            facts = facts._replace(
                containerd=facts.containerd._replace(config=config, merged=merged)
            )
        return facts


def wanted(shape: Shape, node: Node, operation: str, plan: Plan) -> Step:
    """The step. Raises AgentError for one that is refused."""
    store = Notes(finished=node.finished)
    noted = _noted(operation, _NoHost(), store, plan)
    step = decide(operation, shape.now(node.disk), plan, noted)
    if step.refusal is not None:
        raise RefusedError.of(step.refusal)
    return step


class _NoHost(Host):
    def __init__(self) -> None:
        pass


def needs(shape: Shape, node: Node, plan: Plan) -> frozenset[str]:
    """The files that an apply would change; what refuses it, if it is refused."""
    try:
        return frozenset(one.path for one in wanted(shape, node, "apply", plan).changes)
    except AgentError as problem:
        return frozenset({problem.code})


def done(node: Node, step: Step) -> Node:
    """The node after a step, as the transaction leaves it."""
    if step.idle:
        return node
    disk = Disk(node.disk.files, node.disk.folders)
    number = node.finished[0].number + 1 if node.finished else 1
    modes = {path: one.mode for path, one in disk.files.items()}
    for one in step.changes:
        there = disk.files.get(one.target)
        assert (there.content if there else None) == one.before, one.path
        disk.folders |= frozenset(one.missing_folders(disk.exists))
        if one.after is None:
            del disk.files[one.target]
        else:
            mode = there.mode if there else one.mode
            disk.files[one.target] = Kept(one.after, mode, number + 1)
    for folder in reversed(step.remove_folders):
        if not disk.names(folder):
            disk.folders -= {folder}
    for content in _contents(step):
        BLOBS[digest_of(content)] = content
    document: dict[str, Any] = {
        "number": number, "operation": step.operation, "registry": step.plan.registry.name,
        "time": "", "agent": "", "undoes": step.undoes, "starts": {}, "waiting": {},
        "ledger": as_json(step.ledgers),
        "changes": [
            {
                "part": one.part, "path": one.path, "action": one.action, "metadata": None,
                "before": None if one.before is None else digest_of(one.before),
                "after": None if one.after is None else digest_of(one.after),
                "mode": modes.get(one.target, one.mode),
            }
            for one in step.changes
        ],
    }  # fmt: skip
    record = Record.of(json.loads(json.dumps(document)))
    return Node(disk, (record, *node.finished))


def _contents(step: Step) -> Iterator[bytes]:
    for one in step.changes:
        yield from (content for content in (one.before, one.after) if content is not None)
    for ledger in step.ledgers.values():
        for owned in ledger.values():
            yield from (one for one in (owned.before, owned.after) if one is not None)


def by_hand(shape: Shape, node: Node, number: int) -> Node:
    """The node after an operator has added something of their own to each shared file."""
    files = {path: node.disk.read(path).content for path in shape.shared}
    return put(node, {path: shape.edit(there, number) for path, there in files.items()}, number)


def put(node: Node, files: Mapping[str, bytes | None], number: int) -> Node:
    """The node after somebody else has written these files, or taken them away."""
    disk = Disk(node.disk.files, node.disk.folders)
    for path, content in files.items():
        there = disk.files.pop(path, None)
        if content is not None:
            disk.folders |= frozenset(_above(path))
            disk.files[path] = Kept(content, there.mode if there else 0o644, 1000 + number)
    return Node(disk, node.finished)


def of_before(node: Node, registries: Mapping[str, Registry]) -> Node:
    """The node as an agent left it that knew of one registry at a time, and only applied.

    What it found in a file, but for the registry's own lines, is what was there before it.
    """
    ledgers: dict[str, dict[str, Owned]] = {}
    for record in reversed(node.finished):
        mine = ledgers.setdefault(record.registry, {})
        for one in record.changes:
            before, after = (None if it is None else BLOBS[it] for it in (one.before, one.after))
            old = mine.get(one.path)
            if old is not None and old.after == before:
                before = old.before
            elif before is not None:
                strip = table.TABLE[one.part].resource.strip
                known = old or Owned(one.part, one.path, before, None)
                before = strip(known, before, registries[record.registry])
            folders = node.ledgers[record.registry][one.path].folders
            mine[one.path] = Owned(one.part, one.path, before, after, folders)
    for ledger in ledgers.values():
        for owned in ledger.values():
            BLOBS.update({digest_of(it): it for it in owned[2:4] if it is not None})
    files = {
        name: tuple(
            RecordedFile(
                one["part"], one["path"], one["before"], one["after"], tuple(one["folders"])
            )
            for one in told
        )
        for name, told in as_json(ledgers).items()
    }
    return Node(node.disk, (node.finished[0]._replace(ledger=files), *node.finished[1:]))


def _above(path: str) -> list[str]:
    folders = []
    while path := path.rpartition("/")[0]:
        folders.append(path)
    return folders
