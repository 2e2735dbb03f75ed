"""``--learn-host-keys``: shows host keys nobody has vouched for, asks, and writes them down."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from moorage.errors import MoorageError
from moorage.fleet.ssh import known_hosts
from moorage.fleet.ssh.session import NewKey, Unreachable, unknown_host_key

if TYPE_CHECKING:
    from moorage.fleet.ssh.routes import Route
    from moorage.ui import UI


def learn_host_keys(ui: UI, routes: Sequence[Route], parallel: int) -> list[NewKey]:
    """Adds what the user agrees to, to the first known_hosts file of each route.

    Asks once a round; a second round is needed where a new jump host stood before new nodes.
    Hosts that cannot be reached are left to the run that follows, which tells why. Raises Refused
    where the answer is no, and MoorageError where the file cannot be written.
    """
    learnt: list[NewKey] = []
    while True:
        new = _unknown(routes, parallel)
        if not new:
            return learnt
        ui.confirm(
            [
                f"trust {key.route.name} ({key.route.hostname} port {key.route.port}) "
                f"by its host key {key.kind} {key.fingerprint}"
                for key in new
            ],
            question="Are these the fingerprints of your nodes? (there: "
            "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub)",
        )
        for key in new:
            _write(key)
        learnt += new


def _unknown(routes: Sequence[Route], parallel: int) -> list[NewKey]:
    def look(route: Route) -> NewKey | None:
        try:
            return unknown_host_key(route)
        except Unreachable:
            return None

    with ThreadPoolExecutor(min(parallel, len(routes))) as pool:
        found = [key for key in pool.map(look, routes) if key is not None]
    unique: dict[tuple[str, int, str, bytes], NewKey] = {}  # a jump host stands before many nodes
    for key in found:
        route = key.route
        unique.setdefault((route.hostname, route.port, route.alias, key.blob), key)
    return list(unique.values())


def _write(key: NewKey) -> None:
    from moorage.files import append_line, private_folder

    route = key.route
    if not known_hosts.can_learn(route.known_hosts):
        raise MoorageError(
            "no-known-hosts",
            f"the host key of {route.name} cannot be kept",
            cause=f"UserKnownHostsFile is none for it in {route.source}",
            cure="set nodes.known_hosts in invoke.yaml to a file",
            host=route.name,
        )
    path = route.known_hosts[0]
    line = known_hosts.line_for(
        route.hostname,
        route.port,
        key.kind,
        key.blob,
        alias=route.alias,
        hashed=route.hash_known_hosts,
    )
    try:
        if not path.parent.exists():
            private_folder(path.parent)
        append_line(path, line)
    except OSError as problem:
        raise MoorageError(
            "known-hosts-unwritable",
            f"{path} cannot be written",
            cause=problem.strerror or str(problem),
            cure="correct its owner and mode, or name another file in nodes.known_hosts",
            path=str(path),
        ) from None
