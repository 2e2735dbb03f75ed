"""What a part of a node proposes, how it is proved, and what is told of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from agent.edit.change import Change
from agent.node.host import Done


class Proposal(NamedTuple):
    """What one part needs. ``absent`` says why there is nothing to do it to.

    ``there``: the runtime is on the node all the same, so a person should hear why it is left out.
    """

    changes: tuple[Change, ...] = ()
    restarts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    absent: str = ""
    there: bool = False


class Trial(NamedTuple):
    """What a runtime's own program shall say of files before they are put in place.

    ``files``: name -> bytes, in a folder for which ``SCRATCH`` stands, in ``command`` too.
    ``verdict`` raises RefusedError if the answer is not good enough.
    """

    files: Mapping[str, bytes]
    command: tuple[str, ...]
    verdict: Callable[[Done], None]


class Proof(NamedTuple):
    """A way to prove trust on this node. ``kind`` says by whom the image is pulled: ``cri``,
    ``docker``, or what a runtime that pulls by a program declares (``proves``); or it is
    ``files``, TLS with the certificates that a program would read.

    ``socket`` is where the runtime listens, of one without a service the program; ``unit`` the
    service whose restart makes it pause; ``home`` that of the user who runs a rootless one;
    ``command`` the program that pulls and its words, of which IMAGE, AUTH and FROM of
    :mod:`agent.wire.runtimes.declaration` are filled in when it is run; ``roots`` the folders of
    its hosts.toml. Of ``files``: ``reads`` are the files, and folders whose every ``*.crt`` counts,
    ``name`` is the registry's, ``socket`` whose they are.
    """

    kind: str
    socket: str
    unit: str = ""
    home: str = ""
    roots: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    name: str = ""

    @property
    def detail(self) -> str:
        """Which runtime it is about, if it is not the one behind CRI."""
        if self.command:
            return self.command[0].rpartition("/")[2]
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

    A restart of the latter is refused before anything is touched (agent.engine.engine).
    """
    return unit or name + NO_UNIT


class Explained(NamedTuple):
    """A row of what `nodes.explain` shows: a strategy of a part, and whether it is the one taken.

    ``strategy`` names the row in the part's table (``docs/runtimes.md``, ``docs/containerd.md``),
    ``why`` says what on this node makes it apply, or keeps it from applying.
    """

    part: str
    strategy: str
    applies: bool
    why: str
