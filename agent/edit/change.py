"""One file as it is and as it shall be, and what of the node's files is ours."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import NamedTuple

from agent.node.tree import File, Tree
from agent.wire.faults import RefusedError

HEADER = "# Written by Moorage; `nodes.untrust` takes it away.\n"  # of a file that is ours alone
SCRATCH = "@moorage-scratch@"  # stands for the folder of files that are only to be looked at


class Change(NamedTuple):
    """One file as it is and as it shall be; None stands for no file.

    ``path`` is the file's name, ``target`` where its bytes are after all links.
    """

    part: str
    path: str
    target: str
    before: bytes | None
    after: bytes | None
    mode: int = 0o644

    @property
    def action(self) -> str:
        if self.before is None:
            return "created"
        return "removed" if self.after is None else "edited"

    def missing_folders(self, exists: Callable[[str], bool]) -> tuple[str, ...]:
        """The folders it needs that do not exist yet, outermost first."""
        chain: list[str] = []
        folder = PurePosixPath(self.target).parent
        while self.after is not None and not exists(str(folder)):
            chain.insert(0, str(folder))
            folder = folder.parent
        return tuple(chain)


class Owned(NamedTuple):
    """A file we changed for a registry: as it was before us, as we left it, the folders we made.

    ``kept``: the trust is gone, and the file stays for others who rely on it.
    """

    part: str
    path: str
    before: bytes | None
    after: bytes | None
    folders: tuple[str, ...] = ()
    kept: bool = False


# What is ours for one registry, by path; and for all of them, by the registry's name.
Ledger = Mapping[str, Owned]
Ledgers = Mapping[str, Ledger]


class OwnedPaths(Mapping[str, Owned]):
    """What is ours, looked up by any path that leads to the file: a folder may be a link.

    ``others``: what is ours for other registries.
    """

    def __init__(self, tree: Tree, ledger: Ledger, others: Ledgers = MappingProxyType({})) -> None:
        self._tree = tree
        self._ledger = ledger
        self._others = {name: OwnedPaths(tree, one) for name, one in others.items()}
        self._files = {tree.real(path): one for path, one in ledger.items()}

    def __getitem__(self, path: str) -> Owned:
        return self._ledger[path] if path in self._ledger else self._files[self._tree.real(path)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._ledger)

    def __len__(self) -> int:
        return len(self._ledger)

    def sharing(self, path: str) -> dict[str, Owned]:
        """The other registries that have something in a file, and what each knows of it."""
        found = ((name, known.get(path)) for name, known in self._others.items())
        return {name: one for name, one in found if one is not None}


def sharing(owned: Ledger, path: str) -> dict[str, Owned]:
    """:meth:`OwnedPaths.sharing` of a ledger that may know of no other registries."""
    return owned.sharing(path) if isinstance(owned, OwnedPaths) else {}


def once(changes: Iterable[Change]) -> tuple[Change, ...]:
    """The changes with each file once, whichever path leads to it; the first one counts."""
    files: dict[str, Change] = {}
    for one in changes:
        files.setdefault(one.target, one)
    return tuple(files.values())


def change(part: str, file: File, after: bytes | None, mode: int = 0o644) -> tuple[Change, ...]:
    """The change from a file as it was found, or nothing if it is right already."""
    if file.content == after:
        return ()
    return (Change(part, file.path, file.target, file.content, after, mode),)


def readable(file: File) -> bytes | None:
    """A file's bytes, None if there is none; refuses one that is there and cannot be read."""
    if not file.problem:
        return file.content
    dangling = "does not exist" in file.problem
    raise RefusedError(
        "dangling-link" if dangling else "file-unreadable",
        f"{file.path} cannot be edited: {file.problem}",
        cause=file.problem,
        cure=f"remove or repair the link: ls -l {shlex.quote(file.path)}"
        if dangling
        else f"look at it on the node: ls -l {shlex.quote(file.path)}",
    )
