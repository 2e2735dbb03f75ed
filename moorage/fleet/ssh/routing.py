"""How each host is reached: where its agent was met last, as the lab says, or as OpenSSH would."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from moorage.fleet import inventory
from moorage.fleet.ssh.routes import (
    LabHosts,
    Route,
    passed,
    place,
    remembered,
    require_each_once,
    routes,
)
from moorage.pki.roster import NO_JUMP, Roster

if TYPE_CHECKING:
    from moorage.fleet.inventory import Target
    from moorage.fleet.inventory.selection import Picked
    from moorage.pki.roster import Resident
    from moorage.settings import Settings


@dataclass(frozen=True)
class Lab:
    """The lab's nodes, in the order of their numbers."""

    in_order: tuple[str, ...]
    hosts: LabHosts


def lab_hosts(settings: Settings) -> Lab | None:
    """The lab's nodes, by the OpenSSH configuration it keeps while it is up. Asks no engine."""
    import lab

    path = lab.ssh_config(settings)
    if not path.exists():
        return None
    from paramiko import SSHConfig

    found = SSHConfig.from_path(str(path)).get_hostnames()
    names = sorted((name for name in found if "*" not in name), key=_by_number)
    if not names:
        return None
    return Lab(tuple(names), LabHosts(frozenset(names), path))


def _by_number(name: str) -> tuple[str, int]:
    stem = name.rstrip("0123456789")
    return stem, int(name[len(stem) :] or 0)


def chosen(
    settings: Settings, picked: Picked, tell: Callable[[str], None] = lambda _: None
) -> tuple[Target, ...]:
    """The hosts that are set up, of those that were picked.

    An inventory that says how to reach hosts may name one machine twice, which is one host then.
    And it names the machines that lead to others: such a one is left out, and ``tell`` gets the
    words for it, if no word of the user's stands for it alone.
    """
    described = [host for host in picked.hosts if host in picked.described]
    found = dict(zip(described, ways(settings, described), strict=True))
    through = _passed(found.values())
    jumps = frozenset(host for host, route in found.items() if _end(route) in through)
    meant = frozenset(host for word in picked.by_word if word <= jumps for host in word)
    for host in sorted(jumps - meant, key=picked.hosts.index):
        tell(_left_out(host.name, through[_end(found[host])]))
    return _distinct([host for host in picked.hosts if host not in jumps - meant], found)


def _distinct(hosts: Sequence[Target], ways: Mapping[Target, Route]) -> tuple[Target, ...]:
    """Each machine of an OpenSSH configuration under its first name.

    Two names of an Ansible inventory are two hosts, or a slip of the hand: that is refused later.
    """
    found: dict[object, Target] = {}
    for host in hosts:
        by_name = host not in ways or not host.ssh_config or host.ssh_args
        found.setdefault(host if by_name else place(ways[host]), host)
    return tuple(found.values())


def _end(route: Route) -> tuple[str, int]:
    return route.hostname.lower(), route.port


def _passed(routes: Iterable[Route]) -> dict[tuple[str, int], list[str]]:
    """Machine -> the hosts that are reached through it."""
    found: dict[tuple[str, int], list[str]] = {}
    for route in routes:
        for machine in passed(route)[:-1]:
            found.setdefault(machine, []).append(route.name)
    return found


def _left_out(name: str, behind: Sequence[str]) -> str:
    from moorage.fleet.inventory import ranges

    return (
        f"{name} is left out: it is the way to {ranges.fold(behind)[:200]}; to work on it too, "
        f"add --hosts={name}"
    )


def to(
    settings: Settings, hosts: Sequence[str | Target], *, by_agents: bool = False
) -> tuple[Route, ...]:
    """The ways to ``hosts``, in their order.

    ``by_agents``: a resident agent is looked for where it was met last, before OpenSSH is asked.
    Raises Refused for bad names and for what OpenSSH would refuse.
    """
    targets = inventory.targets_of(hosts)
    known = _met(settings, targets) if by_agents else {}
    others = [target for target in targets if target not in known]
    known |= zip(others, ways(settings, others), strict=True)
    found = tuple(known[target] for target in targets)
    require_each_once(found)
    return found


def _met(settings: Settings, targets: Sequence[Target]) -> dict[Target, Route]:
    """The hosts whose agents were met, as far as no configuration has to be read to know the host.

    Where two of them would be asked at one place, only OpenSSH knows whether they are one node.
    """
    residents = Roster(settings).residents()
    met: dict[Target, Route] = {}
    for target in targets:
        resident = residents.get(target.host)
        if resident is not None and resident.address and _surely(resident, target):
            met[target] = remembered(target, resident.address, resident.port)
    at = Counter(map(place, met.values()))
    return {target: route for target, route in met.items() if at[place(route)] == 1}


def _surely(resident: Resident, target: Target) -> bool:
    if target.jump and target.jump != resident.jump:
        return False
    if target.usual_port:
        return resident.usual_port or not resident.ssh_port
    if not target.port:
        return not resident.ssh_port
    return resident.is_at(target.port, target.jump)


def of_agent(host: str, resident: Resident) -> Target:
    """The node of an agent that the roster knows by this host."""
    word = resident.word(host)
    through = (resident.jump,) if resident.jump not in ("", NO_JUMP) else ()
    port = 0 if word == host else resident.ssh_port
    return inventory.Target(word, host, port=port, ssh_args=through)


def with_agent(settings: Settings, targets: Sequence[Target]) -> dict[Target, Resident]:
    """The agent that stays on each, by the SSH port that OpenSSH would take; only those with one.

    Raises Refused if an unusable configuration alone could tell.
    """
    residents = Roster(settings).residents()
    found = {one: residents[one.host] for one in targets if one.host in residents}
    unsure = [one for one, resident in found.items() if not _surely(resident, one)]
    elsewhere = {
        one
        for one, route in zip(unsure, ways(settings, unsure), strict=True)
        if not found[one].is_at(route.port, one.jump)
    }
    return {one: resident for one, resident in found.items() if one not in elsewhere}


def ways(settings: Settings, targets: Sequence[Target]) -> tuple[Route, ...]:
    """As OpenSSH would go, or as the lab says; two of them may lead to one node.

    Raises Refused for what OpenSSH would refuse.
    """
    if not targets:
        return ()
    lab = lab_hosts(settings)
    return routes(targets, settings.nodes, lab.hosts if lab else None, settings.state / "ssh")
