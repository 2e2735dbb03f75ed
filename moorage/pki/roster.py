"""Which nodes have a resident agent, and which certificates are good no more.

``certs/fleet/nodes.json`` (0600), beside the CA: the two are only of use together.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from moorage.errors import Refused, require_types
from moorage.files import locked_beside, private_folder, write_atomically

if TYPE_CHECKING:
    from moorage.settings import Settings


@dataclass(frozen=True)
class Resident:
    """An agent that stays: the ``id`` in its certificate, its port, the certificate's ``serial``
    and end (seconds since 1970). ``address``: where it was reached last, "" if not straight.

    ``ssh_port``: of the SSH that it was adopted by, for behind one address another port may lead to
    another node; 0 for one of an earlier build, which noted none. ``usual_port``: none was said
    then, so that the host's name alone leads there.
    """

    id: str
    port: int
    serial: str
    until: int
    address: str = ""
    ssh_port: int = 0
    usual_port: bool = False

    def is_at(self, ssh_port: int) -> bool:
        """Whether it is on the node behind this port of its host."""
        return self.ssh_port in (0, ssh_port)

    def word(self, host: str) -> str:
        """How a user names the node of this host."""
        if self.usual_port or not self.ssh_port:
            return host
        return f"[{host}]:{self.ssh_port}" if ":" in host else f"{host}:{self.ssh_port}"


class Roster:
    """The file. Each change reads it anew, under a lock: hosts are visited by many threads."""

    def __init__(self, settings: Settings) -> None:
        self._path = settings.certs_dir / "fleet" / "nodes.json"

    def residents(self) -> dict[str, Resident]:
        """By the host's name as the user gives it, without user and port; none that is revoked."""
        document = self._read()
        gone = {one["id"] for one in document["revoked"]}
        found = {host: _resident(one) for host, one in document["nodes"].items()}
        return {host: one for host, one in found.items() if one.id not in gone}

    def at(self, host: str, ssh_port: int) -> Resident | None:
        """The agent on the node behind this SSH port of the host; None if there is none."""
        found = self.residents().get(host)
        return found if found is not None and found.is_at(ssh_port) else None

    def revoked(self) -> frozenset[str]:
        """The ids of agents that were forgotten: what they answer counts for nothing."""
        return frozenset(one["id"] for one in self._read()["revoked"])

    def identity(self, host: str, asked: str) -> str:
        """The id for an agent that is adopted: its own where ``host`` is known by it, else new.

        A node may ask for any: for another's, to answer in its name, or for one that was forgotten.
        """
        known = self.residents().get(host)
        return asked if known is not None and known.id == asked else secrets.token_hex(16)

    @property
    def authority(self) -> str:
        """The SHA-256 of the CA that the agents obey, "" where none is noted."""
        return str(self._read().get("authority", ""))

    def obey(self, authority: str) -> None:
        """Notes that CA."""
        with self._changed() as document:
            document["authority"] = authority

    def known_as(self, identity: str) -> Resident | None:
        """The agent of that id, under whatever name; None for one that is revoked or not ours."""
        return next((one for one in self.residents().values() if one.id == identity), None)

    def put(self, host: str, resident: Resident, instead_of: str = "") -> None:
        """``host``'s agent; under its other names too. ``instead_of``: the id it had until now."""
        new = asdict(resident)
        with self._changed() as document:
            nodes = document["nodes"]
            for name, one in list(nodes.items()):
                if one["id"] == resident.id:
                    one |= {key: new[key] for key in ("port", "serial", "until")}
                elif one["id"] == instead_of:
                    del nodes[name]
            nodes[host] = new

    def drop(self, *hosts: str) -> None:
        """Their agents are gone, as was wished, under all their names."""
        nodes = self._read()["nodes"]
        gone = {nodes[host]["id"] for host in hosts if host in nodes}
        if not gone:
            return
        with self._changed() as document:
            for name in [name for name, one in document["nodes"].items() if one["id"] in gone]:
                del document["nodes"][name]

    def revoke(self, host: str) -> bool:
        """Ends the host's certificate for us. False where there was none."""
        with self._changed() as document:
            found = document["nodes"].pop(host, None)
            if found is not None:
                document["revoked"].append(
                    {"host": host, **{name: found[name] for name in ("id", "serial", "until")}}
                )
        return found is not None

    def _read(self) -> dict[str, Any]:
        try:
            document = json.loads(self._path.read_bytes())
            for one in document["nodes"].values():
                _resident(one)
            for one in document["revoked"]:
                one["id"]
        except FileNotFoundError:
            return {"version": 1, "nodes": {}, "revoked": []}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
            raise Refused(
                "roster-unreadable",
                f"{self._path} cannot be read",
                cause=f"it was changed from outside: {problem}",
                cure="put it back from a copy, or remove it and adopt the nodes again: "
                "inv nodes.adopt",
                path=str(self._path),
            ) from None
        return dict(document)

    @contextmanager
    def _changed(self) -> Iterator[dict[str, Any]]:
        private_folder(self._path.parent)
        with locked_beside(self._path):
            document = self._read()
            yield document
            write_atomically(self._path, json.dumps(document, indent=1).encode())


def _resident(document: dict[str, Any]) -> Resident:
    """Raises TypeError for anything else."""
    made = Resident(**document)
    require_types(made)
    return made
