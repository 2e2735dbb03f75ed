"""What a change would stop on nodes, and whether the user has agreed to it: asked here alone.

An agent that would stop running containers, or services bound to a runtime, refuses first and
touches nothing. Who agrees, by ``--yes``, ``nodes.confirm: false`` or an answer, has it sent again
with the agreement in its plan; so an agent from before that never sees the field.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from moorage.errors import Refused

if TYPE_CHECKING:
    from agent.wire.report import HostResult
    from moorage.fleet.report import FleetReport
    from moorage.settings import Settings

CODE = "restart-stops-running"
_PREFIX = "nothing was touched: "


def given(settings: Settings, *, yes: bool) -> bool:
    """Whether the user has agreed beforehand; ``yes``: by ``--yes``."""
    return yes or not settings.nodes.confirm


def wanted(result: HostResult) -> bool:
    """Whether a node was left untouched for want of an agreement."""
    return result.error is not None and result.error.code == CODE


def stops(results: Sequence[HostResult]) -> list[str]:
    """What would stop on these nodes, a sentence fragment each, for the one question about all."""
    return [_stops(result) for result in results]


def refusal(report: FleetReport) -> Refused | None:
    """Return the error of a run in which nothing but an agreement was missing, else None."""
    failed = [result for result in report.hosts if not result.ok]
    if not failed or not all(wanted(result) for result in failed):
        return None
    names = ", ".join(result.host for result in failed)
    return Refused(
        "not-confirmed",
        f"left untouched: {names}",
        cause="a restart there would stop what runs (named above), and nobody has agreed to it",
        cure="run the same command again with --yes, or with --no-restart if it has one",
    )


def _stops(result: HostResult) -> str:
    message = result.error.message if result.error is not None else ""
    return f"{result.host}: {message.removeprefix(_PREFIX)}"
