"""Looks at all that a step is decided from, and makes values of it."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from agent.engine.steps import Noted, Step, decide
from agent.facts import Facts
from agent.facts.seen import Noting
from agent.journal import undoing
from agent.journal.ledger import Store
from agent.journal.record import Record
from agent.node.host import Host
from agent.wire.faults import AgentError
from agent.wire.plan import Plan
from agent.wire.report import FactsEvent
from agent.wire.version import __version__


class Seen(NamedTuple):
    """What a step is decided from: no file is opened and no program run for it any more.

    ``step`` is the step itself, since it was decided to see what that asks; None if it is refused.
    """

    facts: Facts
    noted: Noted
    step: Step | None


def look(operation: str, host: Host, store: Store, facts: Facts, plan: Plan) -> Seen:
    """Read our notes, and whatever the decision asks of ``facts``. Raises AgentError."""
    noted = _noted(operation, host, store, plan)
    noting, step = Noting(facts), None
    with contextlib.suppress(AgentError):  # the decision itself says it
        step = decide(operation, noting.facts, plan, noted)
    return Seen(noting.seen(), noted, step)


def _noted(operation: str, host: Host, store: Store, plan: Plan) -> Noted:
    records = tuple(itertools.islice(store.records(), 1 if operation == "untrust" else None))
    noted = Noted(
        records=records,
        waiting=tuple(still_waiting(host, records[0].waiting)) if records else (),
        all_readable=os.geteuid() == 0,
    )
    if operation != "undo":
        return noted._replace(ledgers=store.ledgers_of(records[0]) if records else {})
    last = undoing.last_apply(records, plan.registry.name)
    if last is None or undoing.is_done(records, plan.options.run):
        return noted
    try:
        return _with_apply(store, noted, last)
    except AgentError as problem:
        return noted._replace(damage=problem.fault)


def _with_apply(store: Store, noted: Noted, last: Record) -> Noted:
    """With what an undo of ``last`` puts back. Raises AgentError for bytes that are not there."""
    before = undoing.before(noted.records, last)
    if undoing.too_short(before, last):
        return noted
    noted = noted._replace(ledgers=store.ledgers_of(noted.records[0]))
    earlier = store.ledgers_of(before, last.registry) if before is not None else {}
    if not earlier.get(last.registry):
        return noted
    digests = {digest for one in last.changes for digest in (one.before, one.after)}
    return noted._replace(earlier=earlier, blobs={one: store.read_blob(one) for one in digests})


def still_waiting(host: Host, put_off: Mapping[str, str]) -> Iterator[str]:
    """Services whose restart an earlier run ``put_off`` and no one has made up for since."""
    for unit, start in put_off.items():
        if host.start_of(unit) == start:
            yield unit


def facts_event(facts: Facts) -> FactsEvent:
    """Whom we are talking to, as every operation reports it first."""
    return FactsEvent(
        host=facts.nodename,
        runtime=facts.runtime,
        python=".".join(map(str, sys.version_info[:3])),
        agent=__version__,
    )
