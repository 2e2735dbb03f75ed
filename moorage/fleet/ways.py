"""How each host is reached: where its agent was met last, as the lab says, or as OpenSSH would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from moorage.fleet import inventory, openssh
from moorage.fleet.roster import Roster

if TYPE_CHECKING:
    from moorage.fleet.inventory import Target
    from moorage.settings import Settings


@dataclass(frozen=True)
class Lab:
    """The lab's nodes, in the order of their numbers."""

    in_order: tuple[str, ...]
    hosts: openssh.LabHosts


def lab_hosts(settings: Settings) -> Lab | None:
    """The lab's nodes, by the OpenSSH configuration it keeps while it is up. Asks no engine."""
    from paramiko import SSHConfig

    from moorage import lab

    path = lab.ssh_config(settings)
    if not path.exists():
        return None
    found = SSHConfig.from_path(str(path)).get_hostnames()
    names = sorted((name for name in found if "*" not in name), key=_by_number)
    if not names:
        return None
    return Lab(tuple(names), openssh.LabHosts(frozenset(names), path))


def _by_number(name: str) -> tuple[str, int]:
    stem = name.rstrip("0123456789")
    return stem, int(name[len(stem) :] or 0)


def to(
    settings: Settings, hosts: Sequence[str | Target], *, by_agents: bool = False
) -> tuple[openssh.Route, ...]:
    """The ways to ``hosts``, in their order.

    ``by_agents``: a resident agent is looked for where it was met last, before OpenSSH is asked.
    Raises Refused for bad names and for what OpenSSH would refuse.
    """
    targets = inventory.targets_of(hosts)
    residents = Roster(settings).residents() if by_agents else {}
    known: dict[Target, openssh.Route] = {}
    for target in targets:
        resident = residents.get(target.host)
        if resident is not None and resident.address:
            known[target] = openssh.remembered(target, resident.address, resident.port)
    others = [target for target in targets if target not in known]
    if others:
        lab = lab_hosts(settings)
        found = openssh.routes(
            others, settings.nodes, lab.hosts if lab else None, settings.state / "ssh"
        )
        known |= zip(others, found, strict=True)
    routes = tuple(known[target] for target in targets)
    openssh.require_each_once(routes)
    return routes
