"""Each part of a node that can hold trust: one module, one place, the same three verbs.

``propose(facts, plan, owned)`` tells the changes that bring the part into the plan's state;
``strip(owned, content, registry)`` tells a file without our own lines, where others edited
it since; ``explain(facts, plan)`` tells which strategies there are, which one is taken, and why.
All are pure: ``transaction.py`` alone writes.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from agent.node.tree import File, Tree
from agent.wire.faults import RefusedError

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


class Proposal(NamedTuple):
    """What one part needs. ``absent`` says why there is nothing to do it to.

    ``there``: the runtime is on the node all the same, so a person should hear why it is left out.
    """

    changes: tuple[Change, ...] = ()
    restarts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    absent: str = ""
    there: bool = False


class Proof(NamedTuple):
    """A way to prove trust on this node. ``kind`` says by whom the image is pulled: ``cri``,
    ``docker``, ``podman``, ``nerdctl`` or ``buildctl``; or it is ``files``, TLS with the
    certificates that a program would read.

    ``socket`` is where the runtime listens, of ``podman`` and ``nerdctl`` the program; ``unit`` the
    service whose restart makes it pause; ``home`` that of the user who runs a rootless one;
    ``program`` the client that asks at ``socket``; ``roots`` the folders of its hosts.toml. Of
    ``files``: ``reads`` are the files, and folders whose every ``*.crt`` counts, ``name`` is the
    registry's, ``socket`` whose they are.
    """

    kind: str
    socket: str
    unit: str = ""
    home: str = ""
    roots: tuple[str, ...] = ()
    program: str = ""
    reads: tuple[str, ...] = ()
    name: str = ""

    @property
    def detail(self) -> str:
        """Which runtime it is about, where it is not the one behind CRI."""
        if self.kind == "podman":
            return self.socket.rpartition("/")[2]
        return {"cri": "", "files": self.socket}.get(self.kind, self.kind)

    @property
    def pulls(self) -> bool:
        return self.kind != "files"

    @property
    def key(self) -> tuple[object, ...]:
        """Two proofs with one key are one: ``/var/run`` is ``/run``."""
        socket = self.socket[4:] if self.socket.startswith("/var/run/") else self.socket
        return self.kind, socket, self.reads, self.name


NO_UNIT = " that no service runs"


def unit_of(name: str, unit: str) -> str:
    """What must be restarted for a runtime that runs: a service, or words that say there is none.

    A restart of the latter is refused before anything is touched (agent.engine).
    """
    return unit or name + NO_UNIT


class Finding(NamedTuple):
    """A row of what `nodes.explain` tells: a strategy of a part, and whether it is the one taken.

    ``strategy`` names the row in the part's table (``docs/runtimes.md``, ``docs/containerd.md``),
    ``why`` says what on this node makes it apply, or keeps it from applying.
    """

    part: str
    strategy: str
    applies: bool
    why: str


class Known(Mapping[str, Owned]):
    """What is ours, looked up by any path that leads to the file: a folder may be a link."""

    def __init__(self, tree: Tree, ledger: Ledger) -> None:
        self._tree = tree
        self._ledger = ledger
        self._files = {tree.real(path): one for path, one in ledger.items()}

    def __getitem__(self, path: str) -> Owned:
        return self._ledger[path] if path in self._ledger else self._files[self._tree.real(path)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._ledger)

    def __len__(self) -> int:
        return len(self._ledger)


def once(changes: Iterable[Change]) -> tuple[Change, ...]:
    """The changes with each file once, whichever path leads to it; the first one counts."""
    files: dict[str, Change] = {}
    for one in changes:
        files.setdefault(one.target, one)
    return tuple(files.values())


def change(part: str, file: File, after: bytes | None, mode: int = 0o644) -> tuple[Change, ...]:
    """The change from a file as it was found, or nothing where it is right already."""
    if file.content == after:
        return ()
    return (Change(part, file.path, file.target, file.content, after, mode),)


def readable(file: File) -> bytes | None:
    """A file's bytes, None where there is none; refuses one that is there and cannot be read."""
    if not file.problem:
        return file.content
    dangling = "does not exist" in file.problem
    raise RefusedError(
        "dangling-link" if dangling else "file-unreadable",
        f"{file.path} cannot be edited: {file.problem}",
        cause=file.problem,
        cure=f"remove or repair the link: ls -l {file.path}"
        if dangling
        else f"look at it on the node: ls -l {file.path}",
    )


_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----\r?\n?", re.DOTALL)


def certificates(content: bytes | None) -> frozenset[bytes]:
    """The certificates in a PEM file, in DER, so that two spellings of one compare equal."""
    found = set()
    for body in _BLOCK.findall(content or b""):
        try:
            found.add(base64.b64decode(b"".join(body.split()), validate=True))
        except binascii.Error:
            continue
    return frozenset(found)


def without_certificates(content: bytes, ours: frozenset[bytes]) -> bytes:
    """A PEM file without the given certificates; every other byte stays."""
    return _BLOCK.sub(lambda block: b"" if certificates(block[0]) <= ours else block[0], content)


def pem(der: bytes) -> bytes:
    """A certificate in PEM, as OpenSSL writes it."""
    text = base64.b64encode(der).decode("ascii")
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return "\n".join(
        ["-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", ""]
    ).encode()
