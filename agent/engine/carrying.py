"""Carries a verb out: the engine's method of that name, and what the node is held to afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from agent.journal import desired
from agent.wire.report import Event
from agent.wire.verbs import HOLDS, LETS_GO, Verb

if TYPE_CHECKING:
    from agent.engine.engine import Engine
    from agent.journal.ledger import Store
    from agent.wire.plan import Plan


def carry_out(
    engine: Engine,
    store: Store,
    verb: Verb,
    plan: Plan | None = None,
    *,
    dry_run: bool = False,
    **flags: bool,
) -> Iterator[Event]:
    """The events of ``verb``. ``plan``: for a verb that takes one. ``flags``: of that method."""
    method: Callable[..., Iterator[Event]] = getattr(engine, verb.name)
    if plan is None:
        return method(**flags)
    if dry_run:
        return method(plan, dry_run=True)
    events = method(plan)
    if verb.then == HOLDS:
        return desired.applied(store, plan, events)
    if verb.then == LETS_GO:
        return desired.untrusted(store, plan, events, wholly=verb.name == "untrust")
    return events
