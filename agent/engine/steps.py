"""What one transaction shall do: facts, a plan and our notes in, a :class:`Step` out.

Nothing is changed here. What a part of the node needs is its module's to say
(agent.runtimes.table).
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from agent.edit.change import Change, Known, Ledger, Ledgers, Owned, once
from agent.facts import Facts, gather
from agent.formats.proposal import Proposal
from agent.journal import rivals, undoing, withdrawal
from agent.journal.ledger import Store
from agent.journal.transaction import KEEP, missing_folders
from agent.journal.withdrawal import Withdrawal
from agent.node.host import Host
from agent.node.tree import Tree
from agent.runtimes import table
from agent.wire.faults import RefusedError
from agent.wire.plan import Plan, Registry
from agent.wire.report import Event, FactsEvent, NoteEvent
from agent.wire.version import __version__


class Step(NamedTuple):
    """All that one transaction does."""

    operation: str
    plan: Plan
    facts: Facts
    changes: tuple[Change, ...]
    restarts: tuple[str, ...]
    ledgers: Ledgers
    remove_folders: tuple[str, ...] = ()
    undoes: int | None = None


class Steps:
    """The ways to a step on one node: what there is to tell on the way, then the step itself.

    ``unread`` has what this user may not look at. Each raises AgentError for what is refused.
    """

    def __init__(self, host: Host, store: Store) -> None:
        self._host = host
        self._store = store
        self.unread: list[str] = []

    def _proposed(self, facts: Facts, plan: Plan, owned: Ledger) -> dict[str, Proposal]:
        proposals = {}
        for part in table.chosen(plan):
            try:
                proposals[part] = table.propose(part, facts, plan, owned)
            except RefusedError as problem:
                # Only a look can come here without root; it tells of the other parts all the same.
                if problem.code != "file-unreadable" or os.geteuid() == 0:
                    raise
                self.unread.append(str(problem))
        return proposals

    def applied(self, plan: Plan, *, proving: bool = False) -> Iterator[Event | Step]:
        """Into the plan's state. ``proving``: it is to be proved there, not only looked at."""
        plan.require_ca()
        facts = gather(self._host, proving=proving)
        yield facts_event(facts)
        ledgers = self._store.ledgers()
        owned = Known(facts.tree, ledgers.get(plan.registry.name, {}))
        proposals = self._proposed(facts, plan, owned)
        _require_runtime(proposals)
        for part, proposal in proposals.items():
            if proposal.absent and proposal.there:
                yield NoteEvent(f"{part}: {proposal.absent}")
            for note in proposal.notes:
                yield NoteEvent(note)
        changes = once(one for proposal in proposals.values() for one in proposal.changes)
        for note in rivals.notes(
            changes, owned, list(self._store.records()), _times(facts, changes)
        ):
            yield NoteEvent(note)
        wanted = [unit for proposal in proposals.values() for unit in proposal.restarts]
        restarts = tuple(dict.fromkeys([*wanted, *self.still_waiting()]))
        yield Step(
            operation="apply",
            plan=plan,
            facts=facts,
            changes=changes,
            restarts=restarts,
            ledgers=_ledgers_with(ledgers, plan.registry, changes, facts.tree),
        )

    def untrusted(self, plan: Plan) -> Iterator[Event | Step]:
        """Out of it: the original bytes, or our lines out."""
        facts = gather(self._host)
        yield facts_event(facts)
        ledgers = self._store.ledgers()
        if ledgers.get(plan.registry.name):
            taken = withdrawal.of_registry(facts, ledgers, plan.registry)
        elif not self._store.numbers():
            taken = withdrawal.of_forgotten(facts, plan.registry)
        else:
            taken = withdrawal.Withdrawal((), ledgers)
        if not taken.changes and not ledgers.get(plan.registry.name):
            yield NoteEvent(f"nothing on this node is ours for {plan.registry.name}")
        yield from self._taken(plan, facts, "untrust", taken)

    def undone(self, plan: Plan) -> Iterator[Event | Step]:
        """Back to before the last apply, whichever registry it was for; none where none stands."""
        facts = gather(self._host)
        yield facts_event(facts)
        records = list(self._store.records())
        if undoing.is_done(records, plan.options.run):
            yield NoteEvent("this run has taken its apply back already")
            return
        last = undoing.last_apply(records)
        if last is None:
            yield NoteEvent("no apply of ours stands on this node: there is nothing to take back")
            return
        name, number = last["registry"], last["number"]
        if name != plan.registry.name:
            plan = replace(plan, registry=withdrawal.registry_of(name))
        yield NoteEvent(f"takes back what was done for {name} on {last['time']} (number {number})")
        before = next((one for one in records if one["number"] < number), None)
        if before is None and number > 1:
            raise RefusedError(
                "history-too-short",
                f"what was ours before number {number} is not known any more",
                cause=f"only the last {KEEP} changes are kept",
                cure="take all of the trust away instead: inv nodes.untrust",
            )
        ledgers = self._store.ledgers()
        earlier = self._store.ledgers_of(before).get(name, {}) if before else {}
        if earlier:
            taken = withdrawal.of_apply(
                facts, plan.registry, ledgers, last, earlier, self._store.read_blob
            )
        else:
            taken = withdrawal.of_registry(facts, ledgers, plan.registry)
        yield from self._taken(plan, facts, "undo", taken, number)

    def _taken(
        self, plan: Plan, facts: Facts, operation: str, taken: Withdrawal, undoes: int | None = None
    ) -> Iterator[Event | Step]:
        for note in taken.notes:
            yield NoteEvent(note)
        changes = once(taken.changes)
        yield Step(
            operation=operation,
            plan=plan,
            facts=facts,
            changes=changes,
            restarts=withdrawal.restarts(facts, changes),
            ledgers=taken.ledgers,
            remove_folders=taken.folders,
            undoes=undoes,
        )

    def still_waiting(self) -> Iterator[str]:
        """Services whose restart an earlier run put off and no one has made up for since."""
        for unit, start in self._store.waiting().items():
            if self._host.start_of(unit) == start:
                yield unit


def facts_event(facts: Facts) -> FactsEvent:
    """Whom we are talking to, as every operation tells it first."""
    return FactsEvent(
        host=facts.nodename,
        runtime=facts.runtime,
        python=platform.python_version(),
        agent=__version__,
    )


def _require_runtime(proposals: dict[str, Proposal]) -> None:
    asked = [part for part in proposals if table.TABLE[part].runtime]
    if asked and all(proposals[part].absent for part in asked):
        why = "; ".join(proposals[part].absent for part in asked)
        raise RefusedError(
            "no-runtime",
            f"no container runtime to set up here: {why}",
            cause="neither a Docker Engine nor a containerd that serves CRI was found",
            cure="install one (apt-get install containerd), or leave this host out of nodes.trust",
        )


def _ledgers_with(
    ledgers: Ledgers, registry: Registry, changes: tuple[Change, ...], tree: Tree
) -> Ledgers:
    """The ledgers once the changes are made: before us stays what it was before us."""
    mine: dict[str, Owned] = dict(ledgers.get(registry.name, {}))
    known_before = Known(tree, mine)
    for one in changes:
        old = known_before.get(one.path)
        before, folders = one.before, missing_folders(tree.root, one)
        if old is not None:
            folders = (*old.folders, *(path for path in folders if path not in old.folders))
        if old is not None and one.before == old.after:
            before = old.before
        elif one.before is not None:
            known = old or Owned(one.part, one.path, one.before, None)
            before = table.TABLE[one.part].resource.strip(known, one.before, registry)
        part, path = (one.part, one.path) if old is None else (old.part, old.path)
        mine[path] = Owned(part, path, before, one.after, folders)
    return {**ledgers, registry.name: mine}


def _times(facts: Facts, changes: tuple[Change, ...]) -> dict[str, float]:
    """When each file that is to change was last written, in seconds."""
    times = {}
    for one in changes:
        with contextlib.suppress(OSError):
            times[one.path] = facts.tree.outside(one.path).stat().st_mtime
    return times
