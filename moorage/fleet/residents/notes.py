"""What is said of the agents that stay, after a change of their nodes' trust."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from moorage.fleet.inventory import targets_of
from moorage.fleet.inventory.ranges import fold
from moorage.fleet.ssh import routing

if TYPE_CHECKING:
    from agent.wire.report import HostResult
    from moorage.fleet.inventory import Target
    from moorage.settings import Settings


def reminder(
    settings: Settings, hosts: Sequence[str | Target], results: Sequence[HostResult]
) -> str:
    """After an untrust, or a trust that leaves no agent: those that are there stay."""
    staying = _of_those_done(settings, hosts, results, with_agent=True)
    if not staying:
        return ""
    return f"the agent stays on {fold(staying)}; inv nodes.release takes it away"


def foretold(
    settings: Settings, hosts: Sequence[str | Target], results: Sequence[HostResult]
) -> str:
    """After the dry run of a trust: the service is made by its end, so no diff of it is there."""
    new = _of_those_done(settings, hosts, results, with_agent=False)
    words = "as the service moorage-agent; --once: none"
    return f"an agent would stay on {fold(new)}, {words}" if new else ""


def _of_those_done(
    settings: Settings,
    hosts: Sequence[str | Target],
    results: Sequence[HostResult],
    *,
    with_agent: bool,
) -> list[str]:
    done = {result.host for result in results if result.ok}
    targets = [target for target in targets_of(hosts) if target.name in done]
    staying = routing.with_agent(settings, targets)
    return [target.name for target in targets if (target in staying) == with_agent]
