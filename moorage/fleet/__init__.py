"""The fleet: make nodes trust the registry, prove it, look at it, take it away.

Every function here takes hosts as the user names them and gives one report, whatever happened to
the single host. Only bad input and a missing prerequisite on this side are raised, as Refused or
MoorageError, and then no host was touched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from moorage.fleet.report import FleetReport
from moorage.fleet.this_machine import (
    pending_this_machine,
    trust_this_machine,
    untrust_this_machine,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from moorage.fleet.operation import Reach
    from moorage.settings import Settings
    from moorage.ui import UI

__all__ = [
    "FleetReport",
    "choose_hosts",
    "pending_this_machine",
    "status",
    "trust",
    "trust_this_machine",
    "untrust",
    "untrust_this_machine",
    "verify",
]


def choose_hosts(settings: Settings, hosts: str | None) -> tuple[str, ...]:
    """The hosts a command is about: ``a,b,c``; None: those of the settings, else the lab's.

    Raises Refused for a bad or an empty list, and where there is nothing to choose from.
    """
    from moorage.errors import Refused
    from moorage.fleet import inventory
    from moorage.fleet.operation import lab_hosts

    if hosts is not None:
        return tuple(target.name for target in inventory.parse_hosts(hosts))
    if settings.nodes.hosts:
        return tuple(target.name for target in inventory.parse_names(settings.nodes.hosts))
    lab = lab_hosts(settings)
    if lab is None:
        raise Refused(
            "no-hosts",
            "there is no host to work on",
            cause="--hosts was not given, nodes.hosts in invoke.yaml is empty, and no lab is up",
            cure="inv lab.up, or name your nodes: --hosts=node1,node2",
        )
    return lab.in_order


def trust(
    settings: Settings,
    ui: UI,
    hosts: Sequence[str],
    *,
    dry_run: bool = False,
    image: str | None = None,
    verify: bool = True,
    restart: bool = True,
    replace: bool = False,
    reach: Reach | None = None,
) -> FleetReport:
    """Makes ``hosts`` trust the registry and proves it by a pull of ``image`` (None: the demo's).

    ``verify`` False: no pull. ``restart`` False: a restart that is needed waits, and is named.
    ``replace``: a hosts entry of somebody else's is replaced. ``dry_run``: only the diffs.
    """
    from moorage.fleet import operation

    pull = operation.proof(settings, image) if verify else None
    return operation.run(
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
        ),
        reach,
    )


def untrust(
    settings: Settings,
    ui: UI,
    hosts: Sequence[str],
    *,
    dry_run: bool = False,
    restart: bool = True,
    reach: Reach | None = None,
) -> FleetReport:
    """Takes the trust in the registry away from ``hosts``; their files are as they were before."""
    from moorage.fleet import operation

    return operation.run(
        settings,
        ui,
        hosts,
        operation.Operation(
            title="would untrust" if dry_run else "untrust",
            words=("untrust", "--dry-run") if dry_run else ("untrust",),
            restart=restart,
        ),
        reach,
    )


def verify(
    settings: Settings,
    ui: UI,
    hosts: Sequence[str],
    *,
    image: str | None = None,
    reach: Reach | None = None,
) -> FleetReport:
    """Proves on ``hosts`` that they trust the registry, by a pull. Changes nothing else."""
    from moorage.fleet import operation

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
    settings: Settings, ui: UI, hosts: Sequence[str], *, reach: Reach | None = None
) -> FleetReport:
    """What the agent keeps on ``hosts``, and whether it is still as it left it: ``states``."""
    from moorage.fleet import operation

    return operation.run(
        settings, ui, hosts, operation.Operation(title="status", words=("status",)), reach
    )
