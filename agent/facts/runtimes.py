"""Facts about the runtimes that bring their own way of being configured, by their declarations.

One that runs is known by its process, and its service by the process's control group, whatever
both are called and wherever they are. One that does not run is known by its program, its folder,
or a service that would start it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from agent.facts.daemons import Daemon
from agent.node.host import Host, Process, Unit
from agent.node.tree import Tree
from agent.wire.runtimes.declaration import Kind
from agent.wire.runtimes.declared import RUNTIMES


class Runtime(NamedTuple):
    """One of them: the program found, the service that runs it ("" for none), how it is called.

    ``environment`` has of its variables those that say where its configuration is; ``client`` is
    the program that asks it for something, where that is another.
    """

    name: str
    binary: str = ""
    unit: str = ""
    running: bool = False
    argv: tuple[str, ...] = ()
    environment: Mapping[str, str] = MappingProxyType({})
    client: str = ""


KINDS = tuple(kind for declared in RUNTIMES for kind in declared.kinds)
DAEMONS = tuple(kind.daemon for kind in KINDS if kind.daemon)


def find(host: Host, tree: Tree, daemons: Sequence[Daemon] = ()) -> dict[str, Runtime]:
    """Those that are on the node, by name; ``daemons`` are the programs at work there."""
    found = {}
    for kind in KINDS:
        runtime = _running(host, kind, daemons) or _idle(host, tree, kind)
        if runtime is not None:
            found[kind.name] = runtime._replace(client=_client(host, tree, kind, runtime))
    return found


def _client(host: Host, tree: Tree, kind: Kind, found: Runtime) -> str:
    """The kind's client, beside its program or on the usual paths; "" for none."""
    beside = f"{found.binary.rpartition('/')[0]}/{kind.client}"
    if not kind.client:
        return ""
    return beside if tree.exists(beside) else host.which(kind.client) or ""


def service(host: Host, daemon: Daemon, *programs: str) -> Unit | None:
    """The service whose restart starts this very process anew; None if none is.

    A control group alone does not tell: whatever cron, sshd or a user's own manager has started is
    in theirs. The unit is the one if it is named after the program, if it starts it, or if the
    process is its main one; else one that starts the program and is active.
    """
    if any(program in daemon.unit for program in programs):
        # A tree that is laid out may have the process alone.
        spare = None if host.real else Unit(daemon.unit, active=True, argv=daemon.argv)
        return host.unit_of(Process(daemon.pid, daemon.argv, daemon.unit)) or spare
    told = host.unit(daemon.unit) if daemon.unit else None
    if told is not None and (_starts(told, programs) or daemon.pid == told.main):
        return told
    return next((unit for unit in host.services(*programs) if unit.active), None)


def _starts(unit: Unit, programs: Sequence[str]) -> bool:
    return bool(unit.argv) and unit.argv[0].rpartition("/")[2] in programs


def _running(host: Host, kind: Kind, daemons: Sequence[Daemon]) -> Runtime | None:
    live = [one for one in daemons if kind.daemon and one.program == kind.daemon and one.uid == 0]
    live = [one for one in live if _serves(kind, one.argv[1] if one.argv[1:] else "")]
    if not live:
        return None
    daemon = min(live, key=lambda one: kind.verbs.index(one.argv[1]) if kind.verbs else 0)
    unit = service(host, daemon, kind.daemon)
    return Runtime(
        kind.name,
        daemon.argv[0] if daemon.argv[0].startswith("/") else host.which(kind.daemon) or "",
        unit.name if unit is not None else "",
        True,
        _argv(host, kind, daemon, unit),
        {key: daemon.environment[key] for key in kind.tells if key in daemon.environment},
    )


def _serves(kind: Kind, first: str) -> bool:
    """Whether a program that is told ``first`` is the daemon, and not its client or a look."""
    return first in kind.verbs if kind.verbs else not first or first.startswith("-")


def _argv(host: Host, kind: Kind, daemon: Daemon, unit: Unit | None) -> tuple[str, ...]:
    """How it was called. A title has no options: those are the unit's to tell, unless that starts
    a script."""
    if unit is None or len(daemon.argv) > 2:
        return daemon.argv
    told = host.unit(unit.name)
    return told.argv if told is not None and _starts(told, (kind.daemon,)) else daemon.argv


def _idle(host: Host, tree: Tree, kind: Kind) -> Runtime | None:
    """One that is installed, and has no process; a laid-out tree counts as a node in service."""
    programs = [host.which(program) for program in kind.programs]
    binary = next((program for program in programs if program), "")
    here = bool(binary) or bool(kind.folder and tree.exists(kind.folder))
    known = (host.unit(name) for name in kind.units) if here else ()
    units = [unit for unit in known if unit is not None]
    units = units or list(host.services(kind.daemon) if kind.daemon else ())
    if not here and not units:
        return None
    unit = next((one for one in units if one.active), units[0] if units else None)
    if unit is None:
        usual = kind.units[0] if kind.units and not host.real else ""
        return Runtime(kind.name, binary, usual, running=not host.real)
    binary = binary or (unit.argv[0] if unit.argv else "")
    # Of MicroK8s, whose process has a name that others have too, the unit alone tells.
    running = unit.active if not kind.daemon else False
    return Runtime(kind.name, binary, unit.name, running or not host.real, unit.argv)
