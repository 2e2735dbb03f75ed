"""Which nodes have a resident agent, and which certificates are good no more.

``certs/fleet/nodes.json`` (0600), beside the CA: the two are only of use together.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from moorage.errors import Refused, require_types
from moorage.files import locked_beside, private_folder, write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    from moorage.settings import Settings


NO_JUMP = "-"


@dataclass(frozen=True)
class Resident:
    """An agent that stays: the ``id`` in its certificate, its port, the certificate's ``serial``
    and end (seconds since 1970). ``address``: where it was reached last, "" if not straight.

    ``ssh_port``: of the SSH that it was adopted by, for behind one address another port may lead to
    another node; 0 for one of an earlier build, which noted none. ``usual_port``: none was said
    then, so that the host's name alone leads there.

    ``jump``: the SSH option by which an inventory had it reached through another machine, for one
    private address may be another node behind each; ``NO_JUMP`` if none did, "" for an agent of an
    earlier build.

    ``settling``: adopted then (seconds since 1970), and not met since; 0 for one that was met.
    """

    id: str
    port: int
    serial: str
    until: int
    address: str = ""
    ssh_port: int = 0
    usual_port: bool = False
    settling: int = 0
    jump: str = ""

    def is_at(self, ssh_port: int, jump: str) -> bool:
        """Whether it is on the node behind this port of its host, through the jump host that an
        inventory names with it; "" if none does: then it is the node that is known."""
        return self.ssh_port in (0, ssh_port) and (not jump or self.jump in ("", jump))

    def word(self, host: str) -> str:
        """How a user names the node of this host."""
        if self.usual_port or not self.ssh_port:
            return host
        return f"[{host}]:{self.ssh_port}" if ":" in host else f"{host}:{self.ssh_port}"


Document = dict[str, Any]


@dataclass
class _Change:
    """What one thread wants changed, and how that went."""

    make: Callable[[Document], None]
    problem: BaseException | None = None


@dataclass
class _Writers:
    """Changes of one file that wait for it to be written, and whoever writes."""

    waiting: list[_Change] = field(default_factory=list)
    guard: threading.Lock = field(default_factory=threading.Lock)
    turn: threading.Lock = field(default_factory=threading.Lock)


class Roster:
    """The file. A change reads it anew, under a lock: hosts are visited by many threads, and other
    commands go on beside this one. Those that wait for the lock meanwhile are written at once."""

    def __init__(self, settings: Settings) -> None:
        self._path = settings.certs_dir / "fleet" / "nodes.json"

    def residents(self) -> dict[str, Resident]:
        """By the host's name as the user gives it, without user and port; none that is revoked."""
        return dict(self._read()[1])

    def at(self, host: str, ssh_port: int, jump: str) -> Resident | None:
        """The agent on that very node (:meth:`Resident.is_at`); None if there is none."""
        found = self.residents().get(host)
        return found if found is not None and found.is_at(ssh_port, jump) else None

    def revoked(self) -> frozenset[str]:
        """The ids of agents that were forgotten: what they answer counts for nothing."""
        return frozenset(one["id"] for one in self._read()[0]["revoked"])

    def identity(self, host: str, asked: str) -> str:
        """The id for an agent that is adopted: its own where ``host`` is known by it, else new.

        A node may ask for any: for another's, to answer in its name, or for one that was forgotten.
        """
        known = self.residents().get(host)
        return asked if known is not None and known.id == asked else secrets.token_hex(16)

    @property
    def authority(self) -> str:
        """The SHA-256 of the CA that the agents obey, "" if none is noted."""
        return str(self._read()[0].get("authority", ""))

    def obey(self, authority: str) -> None:
        """Notes that CA."""
        self._change(lambda document: document.update(authority=authority))

    def known_as(self, identity: str) -> Resident | None:
        """The agent of that id, under whatever name; None for one that is revoked or not ours."""
        return next((one for one in self.residents().values() if one.id == identity), None)

    def put(
        self, host: str, resident: Resident, instead_of: str = "", *, known: bool = False
    ) -> None:
        """``host``'s agent; under its other names too. ``instead_of``: the id it had until now.

        ``known``: nothing if it is not ``host``'s any more: another command may have dropped it.
        """
        new = asdict(resident)

        def put(document: Document) -> None:
            nodes = document["nodes"]
            if known and nodes.get(host, {}).get("id") != resident.id:
                return
            for name, one in list(nodes.items()):
                if one["id"] == resident.id:
                    one |= {key: new[key] for key in ("port", "serial", "until", "settling")}
                elif one["id"] == instead_of:
                    del nodes[name]
            nodes[host] = new

        self._change(put)

    def drop(self, *hosts: str) -> None:
        """Their agents are gone, as was wished, under all their names."""
        nodes = self._read()[0]["nodes"]
        gone = {nodes[host]["id"] for host in hosts if host in nodes}

        def drop(document: Document) -> None:
            for name in [name for name, one in document["nodes"].items() if one["id"] in gone]:
                del document["nodes"][name]

        if gone:
            self._change(drop)

    def revoke(self, host: str) -> bool:
        """Ends the host's certificate for us. False if there was none."""
        found = False

        def revoke(document: Document) -> None:
            nonlocal found
            one = document["nodes"].pop(host, None)
            if one is not None:
                found = True
                document["revoked"].append(
                    {"host": host, **{name: one[name] for name in ("id", "serial", "until")}}
                )

        self._change(revoke)
        return found

    def _read(self) -> _Known:
        """The file, and whom it names that is not revoked: of the last time while it is the same.

        Neither is to be changed.
        """
        looks, known = self._looks(), _READ.get(self._path)
        if known is None or known[0] != looks or not looks[0]:
            known = looks, self._parsed()
            _READ[self._path] = known
        return known[1]

    def _looks(self) -> _Looks:
        try:
            found = self._path.stat()
        except OSError:
            return 0, 0, 0
        return found.st_mtime_ns, found.st_ino, found.st_size

    def _parsed(self) -> _Known:
        try:
            return _known(dict(json.loads(self._path.read_bytes())))
        except FileNotFoundError:
            return {"version": 1, "nodes": {}, "revoked": []}, {}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
            raise Refused(
                "roster-unreadable",
                f"{self._path} cannot be read",
                cause=f"it was changed from outside: {problem}",
                cure="put it back from a copy, or remove it and adopt the nodes again: "
                "inv nodes.adopt",
                path=str(self._path),
            ) from None

    def _change(self, make: Callable[[Document], None]) -> None:
        """Returns when it is on the disk. Whoever's turn it is writes for all that wait."""
        change, writers = _Change(make), _WRITERS[self._path]
        with writers.guard:
            writers.waiting.append(change)
        with writers.turn:
            with writers.guard:
                changes, writers.waiting = writers.waiting, []
            if changes:
                self._write(changes)
        if change.problem is not None:
            raise change.problem

    def _write(self, changes: Sequence[_Change]) -> None:
        try:
            private_folder(self._path.parent)
            with locked_beside(self._path):
                document = _copied(self._read()[0])
                for one in changes:
                    one.make(document)
                write_atomically(self._path, _spelled(document))
                _READ[self._path] = self._looks(), _known(document)
        except BaseException as problem:
            for one in changes:
                one.problem = problem


# By the file: what was read of it last, and who changes it.
_Looks = tuple[int, int, int]
_Known = tuple[Document, dict[str, Resident]]
_READ: dict[Path, tuple[_Looks, _Known]] = {}
_WRITERS: defaultdict[Path, _Writers] = defaultdict(_Writers)
# One node's entry, so that of a thousand the one that changed is made anew.
_Entry = tuple[tuple[str, Any], ...]
_ENTRIES = 1 << 16


def _known(document: Document) -> _Known:
    """Raises TypeError, and what a document of another shape makes of it."""
    gone = {one["id"] for one in document["revoked"]}
    found = {host: _resident(tuple(one.items())) for host, one in document["nodes"].items()}
    return document, {host: one for host, one in found.items() if one.id not in gone}


def _copied(document: Document) -> Document:
    nodes = {host: dict(one) for host, one in document["nodes"].items()}
    return {**document, "nodes": nodes, "revoked": list(document["revoked"])}


def _spelled(document: Document) -> bytes:
    """JSON with a line per node."""
    rest = {key: one for key, one in document.items() if key != "nodes"}
    nodes = (_line(host, tuple(one.items())) for host, one in document["nodes"].items())
    lines = ",\n ".join(nodes)
    return f'{json.dumps(rest)[:-1]}, "nodes": {{\n {lines}\n}}}}\n'.encode()


@lru_cache(_ENTRIES)
def _line(host: str, entry: _Entry) -> str:
    return f"{json.dumps(host)}: {json.dumps(dict(entry))}"


@lru_cache(_ENTRIES)
def _resident(entry: _Entry) -> Resident:
    """Raises TypeError for anything else."""
    made = Resident(**dict(entry))
    require_types(made)
    return made
