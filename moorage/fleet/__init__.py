"""The fleet: make nodes trust the registry, prove it, look at it, take it away.

Every function here takes hosts as the user names them and gives one report, whatever happened to
the single host. Only bad input and a missing prerequisite on this side are raised, as Refused or
MoorageError, and then no host was touched.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from moorage.fleet.report import FleetReport
from moorage.fleet.report.waves import Policy
from moorage.fleet.rollout.this_machine import (
    pending_this_machine,
    trust_this_machine,
    trusts_anothers,
    untrust_this_machine,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from agent.wire.report import HostResult
    from moorage.fleet.inventory import Target
    from moorage.fleet.inventory.selection import Selection
    from moorage.fleet.rollout import operation
    from moorage.fleet.rollout.operation import Reach
    from moorage.settings import Settings
    from moorage.ui import UI

__all__ = [
    "FleetReport",
    "Policy",
    "Rollout",
    "adopt",
    "choose_hosts",
    "diff",
    "explain",
    "forget",
    "history",
    "pending_this_machine",
    "recover",
    "release",
    "replace_operator",
    "status",
    "trust",
    "trust_this_machine",
    "trusts_anothers",
    "undo",
    "unfinished",
    "untrust",
    "untrust_this_machine",
    "upgrade",
    "verify",
]


def choose_hosts(
    settings: Settings,
    hosts: str | None = None,
    selection: Selection | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> tuple[Target, ...]:
    """The hosts a command is about: what ``selection`` (or ``hosts``, its first part) says.

    Where it says nothing: those of the settings, else the lab's. ``tell``: gets what is to be said
    of hosts that are left out. Raises Refused for a bad or an empty list, and if there is nothing
    to choose from.
    """
    from dataclasses import replace

    from moorage.errors import Refused
    from moorage.fleet.inventory.ansible_program import ask
    from moorage.fleet.inventory.selection import Selection, pick
    from moorage.fleet.ssh.routing import chosen, lab_hosts

    selection = selection or Selection(hosts)
    if not selection.names_any:
        if settings.nodes.hosts:
            selection = replace(selection, hosts=",".join(settings.nodes.hosts))
        elif (lab := lab_hosts(settings)) is not None:
            selection = replace(selection, hosts=",".join(lab.in_order))
        else:
            raise Refused(
                "no-hosts",
                "there is no host to work on",
                cause="--hosts was not given, nodes.hosts in invoke.yaml is empty, no lab is up",
                cure="inv lab.up, or name your nodes: --hosts=node1,node2",
            )
    return chosen(settings, pick(selection, settings.nodes.groups, _bytes_of, ask), tell)


def _bytes_of(path: str) -> bytes:
    """A file of hosts, or standard input for ``-``. Raises Refused."""
    import sys
    from pathlib import Path

    from moorage.errors import Refused

    try:
        return sys.stdin.buffer.read() if path == "-" else Path(path).expanduser().read_bytes()
    except OSError as problem:
        raise Refused(
            "bad-inventory",
            f"{path}: the inventory cannot be read",
            cause=problem.strerror or str(problem),
            cure="give a file of hosts, an OpenSSH configuration, or an Ansible inventory",
            path=path,
        ) from None


@dataclass(frozen=True)
class Rollout:
    """How a change goes over many hosts. ``resume``: go on with the last one of its kind."""

    policy: Policy = field(default_factory=Policy)
    resume: bool = False


def unfinished(settings: Settings, verb: str) -> tuple[Target, ...]:
    """The hosts of the last ``trust``, ``untrust`` or ``undo`` that was stopped. Raises Refused."""
    from moorage.fleet.report import logbook

    return logbook.newest(logs(settings), f"{verb} {settings.registry_name}").hosts


def logs(settings: Settings) -> Path:
    """Where rollouts are noted as they happen."""
    return settings.state / "rollouts"


def _in_waves(
    settings: Settings,
    ui: UI,
    hosts: Sequence[str | Target],
    what: operation.Operation,
    reach: Reach | None,
    rollout: Rollout | None,
) -> FleetReport:
    """A change on all hosts, written into a logbook, so that it can be gone on with."""
    from dataclasses import replace

    from moorage.fleet import inventory
    from moorage.fleet.report import logbook
    from moorage.fleet.rollout import operation

    verb = what.words[0].replace("apply", "trust")
    command = f"{verb} {settings.registry_name}"
    rollout = rollout or Rollout()
    targets = inventory.targets_of(hosts)
    if what.dry_run:
        return operation.run(settings, ui, targets, what, reach)
    before: dict[str, HostResult] = {}
    if rollout.resume:
        earlier = logbook.newest(logs(settings), command)
        what = replace(what, run=earlier.run)
        before = {name: earlier.done[name] for name in earlier.settled}
        why = earlier.ended or "it came to its end"
        ui.note(f"{len(before)} of {len(earlier.hosts)} nodes are done; the last run: {why}")
    left = [target for target in targets if target.name not in before]

    def begin() -> logbook.Logbook:
        book = logbook.Logbook.begin(logs(settings), command, targets, what.run)
        for result in before.values():
            book.result(result)
        return book

    report = operation.run(settings, ui, left, what, reach, operation.Pace(rollout.policy, begin))
    if not before:
        return report
    results = before | {result.host: result for result in report.hosts}
    return replace(report, hosts=tuple(results[target.name] for target in targets))


def trust(
    settings: Settings,
    ui: UI,
    hosts: Sequence[str | Target],
    *,
    dry_run: bool = False,
    image: str | None = None,
    verify: bool = True,
    restart: bool = True,
    replace: bool = False,
    reach: Reach | None = None,
    rollout: Rollout | None = None,
) -> FleetReport:
    """Makes ``hosts`` trust the registry and proves it by a pull of ``image`` (None: the demo's).

    ``verify`` False: no pull. ``restart`` False: a restart that is needed waits, and is named.
    Where ``nodes.resident`` is set the agent stays. ``replace``: a hosts entry of somebody else's
    is replaced. ``dry_run``: only the diffs.
    ``rollout``: in which waves; None lets the number of hosts decide.
    """
    from moorage.fleet.residents import residence
    from moorage.fleet.rollout import operation

    pull = operation.proof(settings, image) if verify else None
    report = _in_waves(
        settings,
        ui,
        hosts,
        operation.Operation(
            title="would trust" if dry_run else "trust",
            words=("apply", "--dry-run") if dry_run else ("apply",),
            ca=operation.ca(settings),
            pull=pull,
            restart=restart,
            replace=replace,
            needs_address=True,
            stay=settings.nodes.resident and not dry_run,
        ),
        reach,
        rollout,
    )
    if dry_run and settings.nodes.resident:
        residence.foretell(settings, ui, hosts, report.hosts)
    elif not settings.nodes.resident and not dry_run:
        residence.remind(settings, ui, hosts, report.hosts)
    return report


def untrust(
    settings: Settings,
    ui: UI,
    hosts: Sequence[str | Target],
    *,
    dry_run: bool = False,
    restart: bool = True,
    reach: Reach | None = None,
    rollout: Rollout | None = None,
) -> FleetReport:
    """Takes the trust in the registry away from ``hosts``; their files are as they were before."""
    from moorage.fleet.residents import residence
    from moorage.fleet.rollout import operation

    report = _in_waves(
        settings,
        ui,
        hosts,
        operation.Operation(
            title="would untrust" if dry_run else "untrust",
            words=("untrust", "--dry-run") if dry_run else ("untrust",),
            ca=operation.ca_if_any(settings),
            restart=restart,
        ),
        reach,
        rollout,
    )
    if not dry_run:
        residence.remind(settings, ui, hosts, report.hosts)
    return report


def verify(
    settings: Settings,
    ui: UI,
    hosts: Sequence[str | Target],
    *,
    image: str | None = None,
    reach: Reach | None = None,
) -> FleetReport:
    """Proves on ``hosts`` that they trust the registry, by a pull. Changes nothing else."""
    from moorage.fleet.rollout import operation

    return operation.run(
        settings,
        ui,
        hosts,
        operation.Operation(
            title="verify",
            words=("verify",),
            ca=operation.ca(settings),
            pull=operation.proof(settings, image),
        ),
        reach,
    )


def status(
    settings: Settings, ui: UI, hosts: Sequence[str | Target], *, reach: Reach | None = None
) -> FleetReport:
    """How ``hosts`` stand, all asked at once: ``states``.

    Not ok where one could not be asked, a file of ours is not as it was left, drift cannot be put
    back, or an operation was cut off.
    """
    from moorage.fleet.rollout import operation
    from moorage.fleet.state import table

    what = operation.Operation(title="status", words=("status",))
    report = operation.run(settings, ui, hosts, what, reach)
    return table.judged(report, table.ours(settings))


def diff(
    settings: Settings, ui: UI, hosts: Sequence[str | Target], *, reach: Reach | None = None
) -> FleetReport:
    """What differs from the plan on ``hosts``, file by file: ``diffs``. Not ok where any does."""
    from moorage.fleet.rollout import operation

    what = operation.Operation(
        title="compare", words=("diff",), ca=operation.ca(settings), needs_address=True
    )
    return operation.run(settings, ui, hosts, what, reach)


def explain(
    settings: Settings, ui: UI, hosts: Sequence[str | Target], *, reach: Reach | None = None
) -> FleetReport:
    """What is found on ``hosts``, which strategies are taken and why: ``findings``."""
    from moorage.fleet.rollout import operation

    what = operation.Operation(
        title="explain", words=("explain",), ca=operation.ca_if_any(settings), needs_address=True
    )
    return operation.run(settings, ui, hosts, what, reach)


def history(
    settings: Settings, ui: UI, hosts: Sequence[str | Target], *, reach: Reach | None = None
) -> FleetReport:
    """What was done on ``hosts`` and when: ``histories``."""
    from moorage.fleet.rollout import operation

    what = operation.Operation(title="history", words=("history",))
    return operation.run(settings, ui, hosts, what, reach)


def undo(
    settings: Settings,
    ui: UI,
    hosts: Sequence[str | Target],
    *,
    dry_run: bool = False,
    restart: bool = True,
    reach: Reach | None = None,
    rollout: Rollout | None = None,
) -> FleetReport:
    """Takes the last apply of each of ``hosts`` back, whichever registry it was for."""
    import secrets

    from moorage.fleet.rollout import operation

    what = operation.Operation(
        title="would undo" if dry_run else "undo",
        words=("undo", "--dry-run") if dry_run else ("undo",),
        ca=operation.ca_if_any(settings),
        restart=restart,
        run=secrets.token_hex(16),
    )
    return _in_waves(settings, ui, hosts, what, reach, rollout)


def recover(
    settings: Settings, ui: UI, hosts: Sequence[str | Target], *, reach: Reach | None = None
) -> FleetReport:
    """Rolls back on ``hosts`` what an interrupted run left half-way; nothing where none did."""
    from moorage.fleet.rollout import operation

    what = operation.Operation(title="recover", words=("recover",))
    return operation.run(settings, ui, hosts, what, reach)


def adopt(
    settings: Settings,
    ui: UI,
    hosts: Sequence[str | Target],
    *,
    port: int | None = None,
    loopback: bool = False,
    reach: Reach | None = None,
) -> FleetReport:
    """Makes the agent stay on ``hosts`` as a service that only this folder's operator commands.

    ``port``: None for ``nodes.agent_port``. ``loopback``: it listens for the node itself alone, and
    is reached through SSH. Raises Refused where the fleet's CA cannot be used.
    """
    from moorage.fleet.residents import residence
    from moorage.fleet.rollout import operation
    from moorage.pki.authority import Authority

    Authority.open(settings)
    chosen = settings.nodes.agent_port if port is None else port
    return operation.run(
        settings,
        ui,
        hosts,
        operation.Operation(
            title="adopt",
            words=("reside",),
            visit=lambda visit, _: residence.adopt(settings, visit, port=chosen, loopback=loopback),
        ),
        reach,
    )


def release(
    settings: Settings, ui: UI, hosts: Sequence[str | Target], *, reach: Reach | None = None
) -> FleetReport:
    """Takes the resident agent off ``hosts``, whole; their trust in the registry stays."""
    from moorage.fleet.residents import residence
    from moorage.fleet.rollout import operation

    return operation.run(
        settings,
        ui,
        hosts,
        operation.Operation(
            title="release",
            words=("release",),
            visit=lambda visit, _: residence.release(settings, visit),
        ),
        reach,
    )


def forget(
    settings: Settings,
    ui: UI,
    hosts: Sequence[str | Target],
    *,
    offline: bool = False,
    reach: Reach | None = None,
) -> dict[str, str]:
    """Revokes the agents on ``hosts``: no command of this folder believes one of them any more.

    That needs no node, which may be lost. Afterwards each is gone to over SSH, once, and its agent
    taken away where it answers; ``offline`` leaves the nodes alone. Returns for each host what
    became of its agent: no-agent, left-alone, not-reached or released.
    """
    from moorage.fleet import inventory
    from moorage.pki.roster import Roster

    roster = Roster(settings)
    targets = inventory.targets_of(hosts)
    known = {target.name: roster.revoke(target.host) for target in targets}
    became = {name: "left-alone" if there else "no-agent" for name, there in known.items()}
    if not offline:
        left = [target for target in targets if known[target.name]]
        became |= _take_away(settings, ui, left, reach)
    return became


def upgrade(
    settings: Settings,
    ui: UI,
    hosts: Sequence[str | Target],
    *,
    downgrade: bool = False,
    reach: Reach | None = None,
) -> FleetReport:
    """Gives the resident agents on ``hosts`` the archive of this folder; one that does not answer
    with it goes back to its own, and one that is newer keeps its own without ``downgrade``."""
    from moorage.fleet.residents import residence
    from moorage.fleet.rollout import operation

    return operation.run(
        settings,
        ui,
        hosts,
        operation.Operation(
            title="upgrade",
            words=("upgrade",),
            visit=lambda visit, residents: residence.upgrade(
                settings, residents, visit, downgrade=downgrade
            ),
        ),
        reach,
    )


def replace_operator(settings: Settings) -> int:
    """A new key and certificate for the operator; returns its generation.

    Each agent refuses the earlier one from the first time on that it meets this one.
    """
    from moorage.pki.authority import Authority

    return Authority.open(settings).replace_operator()


def _take_away(
    settings: Settings, ui: UI, hosts: Sequence[Target], reach: Reach | None
) -> dict[str, str]:
    """What becomes of agents that were forgotten: ``released`` where the node answers over SSH,
    else ``not-reached``. Each is tried once; nothing is raised, for what counts is done."""
    from dataclasses import replace

    from moorage.errors import MoorageError
    from moorage.fleet.residents import residence
    from moorage.fleet.rollout import operation

    if not hosts:
        return {}
    once = replace(settings, nodes=replace(settings.nodes, retries=0))
    what = operation.Operation(
        title="release",
        words=("release",),
        visit=lambda visit, _: residence.release(settings, visit),
    )
    try:
        results = operation.run(once, ui, hosts, what, reach).hosts
    except MoorageError as problem:
        ui.warn(f"no node was gone to: {problem.message}")
        return {host.name: "not-reached" for host in hosts}
    return {one.host: "released" if one.ok else "not-reached" for one in results}
