"""Settings and secrets -> the plan that a node's agent carries out. Pure."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from moorage.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.wire.client_pair import ClientPair
    from agent.wire.plan import Plan, Verify
    from moorage.settings import Settings

THIS_MACHINE_PARTS = ("hosts", "docker")


@dataclass(frozen=True)
class SentPlan:
    """A plan as an agent reads it, and the seconds of silence to bear from one at work on it."""

    body: bytes = field(repr=False)
    patience: float


def make(
    settings: Settings,
    *,
    ca: str | None,
    address: str | None,
    verify: Verify | None = None,
    parts: Sequence[str] = (),
    restart: bool = True,
    replace: bool = False,
    run: str = "",
    stop_running: bool = False,
    client: ClientPair | None = None,
) -> Plan:
    """The desired state of one node.

    ``ca`` is PEM; None if trust is taken away or only looked at, as is ``client``, what a
    registry is shown that asks its clients for a certificate. ``address`` is the one that the
    node's hosts file shall give the registry. ``parts``: () for what the settings' ``nodes`` say,
    which is then heeded in all else too. Raises Refused if the plan would not pass the agent's
    own check, as with another registry's image.
    """
    from agent.wire.faults import PlanError
    from agent.wire.plan import DEFAULT_PARTS, Mirror, Options, Plan, Registry
    from moorage.references import below
    from moorage.settings import NodesSettings

    wanted = NodesSettings() if parts else settings.nodes
    chosen = tuple(parts) or wanted.parts or DEFAULT_PARTS
    if wanted.system_store and "system" not in chosen:
        chosen = (*chosen, "system")
    plan = Plan(
        registry=Registry(
            host=settings.registry.host,
            port=settings.registry.port,
            address=address,
            ca=ca,
            names=wanted.names,
            insecure=wanted.insecure or None,
            client=client,
        ),
        parts=chosen,
        mirrors=tuple(
            Mirror(of, wanted.mirror_fallback, below(settings.nodes.mirror_path, of))
            for of in wanted.mirrors
        ),
        verify=verify,
        options=Options(
            restart=restart,
            replace=replace,
            fix_proxy=wanted.fix_proxy,
            run=run,
            stop_running=stop_running,
        ),
    )
    try:
        return Plan.parse(wire(plan))
    except PlanError as problem:
        raise Refused.of(problem.fault) from None


def wire(plan: Plan) -> bytes:
    """The plan as the agent reads it. It carries the login: for a pipe, never for a log."""
    return json.dumps(plan.to_json()).encode()


def sent(plan: Plan) -> SentPlan:
    """The plan for all hosts that get the same."""
    return SentPlan(wire(plan), patience(plan))


def patience(plan: Plan) -> float:
    """The seconds of silence that an agent at work on ``plan`` may need, and a margin."""
    return plan.options.pull_timeout + plan.options.lock_wait + 60.0


def found_by_dns(settings: Settings) -> bool:
    """Whether nodes find the registry's address themselves, without an entry in their hosts file.

    One of somebody else's is not on this machine, so this machine's address says nothing of it.
    """
    return settings.registry.external and settings.registry.address == "auto"


def registry_address(settings: Settings, local: str) -> str:
    """The registry's address as a node shall know it; "" if it cannot be guessed, or DNS has it.

    ``local`` is this machine's own address on the way to that node, "" if there is none.
    """
    registry = settings.registry
    if found_by_dns(settings):
        return ""
    if registry.address != "auto":
        return registry.address
    if not ipaddress.ip_address(registry.listen).is_unspecified:
        return registry.listen
    address = _usable(local)
    return "" if address is None else str(address)


def this_machines_address(settings: Settings) -> str | None:
    """The registry's address as this machine itself shall know it; None if DNS has it."""
    if settings.registry.external:
        return registry_address(settings, "") or None
    listen = ipaddress.ip_address(settings.registry.listen)
    if not listen.is_unspecified:
        return str(listen)
    return "127.0.0.1" if listen.version == 4 else "::1"


def _usable(local: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(local)
    except ValueError:  # "" and fe80::1%eth0
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    address = mapped or address
    return None if address.is_loopback or address.is_link_local else address
