"""What a verb is about to do to nodes, said before the first is touched, and asked once.

What a restart would stop on a single node only its agent can tell: it refuses first, by name, and
:mod:`moorage.fleet.report.agreement` asks for that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moorage.fleet.rollout.operation import Wish
    from moorage.settings import Settings

_NAMED = 20  # hosts; of more, their number
_DOES = {
    "trust": "make {hosts} trust {registry}",
    "untrust": "take the trust in {registry} away from {hosts}",
    "undo": "take back the last change on {hosts}",
    "adopt": "install the agent as a service on {hosts}",
    "release": "stop the agent on {hosts} and take it away; the trust stays",
    "upgrade": "replace the agent on {hosts} by this folder's, and restart its service; runtimes "
    "and containers run on",
}
_MAY_RESTART = frozenset(("trust", "untrust", "undo"))
_RESTARTS = (
    "restart the runtimes there that read changed settings only at their start; if that would "
    "stop running containers, the node is left alone until you agree to it by name"
)
_STAYS = (
    "leave a service of root there (moorage-agent) that listens on {where}, accepts only "
    "certificates of this fleet, and puts back what drifts"
)


@dataclass(frozen=True)
class Announced:
    """One verb on its nodes. ``port`` is where an agent will listen, None if none is to stay."""

    verb: str
    restarts: bool = False
    port: int | None = None
    loopback: bool = False


def change_of(verb: str, settings: Settings, wish: Wish) -> Announced | None:
    """What a verb will do, None for one that changes nothing, or is only rehearsed. Pure."""
    if verb not in _DOES or wish.dry_run:
        return None
    stays = verb == "adopt" or (verb == "trust" and settings.nodes.resident)
    return Announced(
        verb,
        restarts=verb in _MAY_RESTART and wish.restart,
        port=(wish.port or settings.nodes.agent_port) if stays else None,
        loopback=wish.loopback,
    )


def actions(registry: str, hosts: Sequence[str], change: Announced) -> list[str]:
    """What will be done, a sentence fragment each. Pure."""
    told = [_DOES[change.verb].format(hosts=named(hosts), registry=registry)]
    if change.restarts:
        told.append(_RESTARTS)
    if change.port is not None:
        place = "127.0.0.1, port" if change.loopback else "port"
        told.append(_STAYS.format(where=f"{place} {change.port}"))
    return told


def named(hosts: Sequence[str]) -> str:
    """``3 nodes (a, b, c)``; of more than 20, their number and the first. Pure."""
    names = ", ".join(hosts[:_NAMED])
    more = len(hosts) - _NAMED
    of = f"{len(hosts)} nodes" if len(hosts) > 1 else "1 node"
    return f"{of} ({names}{f' and {more} more' if more > 0 else ''})"
