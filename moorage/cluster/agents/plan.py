"""The one plan that all agents of a cluster share."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

from moorage.errors import Refused

if TYPE_CHECKING:
    from moorage.cluster.diagnosis.nodes import ClusterNode
    from moorage.settings import Settings


def make_plan(settings: Settings, nodes: Sequence[ClusterNode]) -> bytes:
    """The one plan for all nodes. Raises Refused if they would need different addresses."""
    from moorage.fleet.rollout import plans
    from moorage.fleet.rollout.operation import proof
    from moorage.pki import registry as pki
    from moorage.registry.logins import client_pair

    plan = plans.make(
        settings,
        ca=pki.ca_pem(settings),
        client=client_pair.read(settings),
        address=_address(settings, nodes),
        verify=proof(settings, None),
    )
    return plans.wire(plan)


def _address(settings: Settings, nodes: Sequence[ClusterNode]) -> str | None:
    from moorage.fleet.rollout.plans import registry_address

    found = {registry_address(settings, _towards(node.address)) for node in nodes}
    found.discard("")
    if len(found) > 1:
        raise Refused(
            "many-addresses",
            "the nodes reach this machine by different addresses",
            cause=f"they are {', '.join(sorted(found))}, and the agents share one plan",
            cure="set registry.address in invoke.yaml to one that all nodes reach",
        )
    return found.pop() if found else None


def _towards(address: str) -> str:
    """This machine's own address on the way to ``address``; a UDP connect sends nothing."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            return str(probe.getsockname()[0])
    except OSError:
        return ""
