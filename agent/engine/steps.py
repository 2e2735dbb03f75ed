"""What one transaction shall do: facts, a plan and our notes in, a :class:`Step` out. Pure.

Nothing is looked at here: :mod:`agent.engine.looking` did, and all that it saw is in the arguments.
What a part of the node needs is its module's to say (agent.runtimes.table).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from agent.edit.change import Change, Ledgers, Owned, OwnedPaths, once
from agent.facts import Facts
from agent.formats.proposal import Proposal
from agent.journal import rivals, undoing, withdrawal
from agent.journal.blobs import KEEP
from agent.journal.record import Record
from agent.journal.withdrawal import Withdrawal
from agent.node.tree import Tree
from agent.runtimes import table
from agent.wire.faults import Fault, RefusedError
from agent.wire.plan import Plan, Registry


class Noted(NamedTuple):
    """What our notes on the node say, as far as an operation is about it.

    ``records`` newest first, of an untrust the newest alone; ``ledgers`` what is ours now;
    ``waiting`` the services whose restart was put off and that have not been restarted since;
    ``all_readable`` whether this user may look at every file. Of an undo, ``earlier`` is what was
    ours before the apply that it takes back, ``blobs`` are the bytes of that one by digest, and
    ``damage`` is why they cannot be read.
    """

    records: tuple[Record, ...] = ()
    ledgers: Ledgers = MappingProxyType({})
    waiting: tuple[str, ...] = ()
    all_readable: bool = True
    earlier: Ledgers = MappingProxyType({})
    blobs: Mapping[str | None, bytes | None] = MappingProxyType({})
    damage: Fault | None = None


class Step(NamedTuple):
    """All that one transaction does.

    ``notes`` are to be told before it; ``refusal`` is why it is not to be taken at all, ``unread``
    what keeps a look from telling all of it.
    """

    operation: str
    plan: Plan
    changes: tuple[Change, ...] = ()
    restarts: tuple[str, ...] = ()
    ledgers: Ledgers = MappingProxyType({})
    remove_folders: tuple[str, ...] = ()
    undoes: int | None = None
    notes: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    refusal: Fault | None = None

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self.changes and not self.restarts


def decide(operation: str, facts: Facts, plan: Plan, noted: Noted) -> Step:
    """The step of an apply, an untrust or an undo. Raises RefusedError for what is not understood.

    Equal values make equal steps. ``facts`` of :meth:`agent.facts.seen.Noting.seen` open no file.
    """
    noted = noted._replace(ledgers=withdrawal.apart(noted.ledgers, facts.tree))
    return _DECISIONS[operation](facts, plan, noted)


def _applied(facts: Facts, plan: Plan, noted: Noted) -> Step:
    """Into the plan's state."""
    others = {name: one for name, one in noted.ledgers.items() if name != plan.registry.name}
    owned = OwnedPaths(facts.tree, noted.ledgers.get(plan.registry.name, {}), others)
    proposals, unread = _proposed(facts, plan, owned, noted)
    _require_runtime(proposals)
    told: list[str] = []
    for part, proposal in proposals.items():
        if proposal.absent and proposal.there:
            told.append(f"{part}: {proposal.absent}")
        told += proposal.notes
    changes = once(one for proposal in proposals.values() for one in proposal.changes)
    told += rivals.notes(changes, owned, noted.records, _times(facts.tree, changes))
    wanted = [unit for proposal in proposals.values() for unit in proposal.restarts]
    return Step(
        operation="apply",
        plan=plan,
        changes=changes,
        restarts=tuple(dict.fromkeys([*wanted, *noted.waiting])),
        ledgers=_ledgers_with(noted.ledgers, plan.registry, changes, facts.tree, owned),
        notes=tuple(told),
        unread=unread,
    )


def _untrusted(facts: Facts, plan: Plan, noted: Noted) -> Step:
    """Out of it: the original bytes, or our lines out."""
    ours = noted.ledgers.get(plan.registry.name)
    if ours:
        taken = withdrawal.of_registry(facts, noted.ledgers, plan.registry)
    elif not noted.records:
        taken = withdrawal.of_forgotten(facts, plan.registry)
    else:
        taken = Withdrawal((), noted.ledgers)
    nothing = f"nothing on this node is ours for {plan.registry.name}"
    notes = () if taken.changes or ours else (nothing,)
    return _taken("untrust", facts, plan, taken, notes)


def _undone(facts: Facts, plan: Plan, noted: Noted) -> Step:
    """Back to before the last apply for the plan's registry; nothing if none stands."""
    if undoing.is_done(noted.records, plan.options.run):
        return Step("undo", plan, notes=("this run has taken its apply back already",))
    name = plan.registry.name
    last = undoing.last_apply(noted.records, name)
    if last is None:
        return Step("undo", plan, notes=(_nothing_stands(name, noted.records),))
    number = last.number
    notes = (f"takes back what was done for {name} on {last.time} (number {number})",)
    short = undoing.too_short(undoing.before(noted.records, last), last)
    if refusal := _too_short(number) if short else noted.damage:
        return Step("undo", plan, notes=notes, refusal=refusal)
    earlier = noted.earlier.get(name, {})
    if earlier:
        taken = withdrawal.of_apply(facts, plan.registry, noted.ledgers, last, earlier, noted.blobs)
    else:
        taken = withdrawal.of_registry(facts, noted.ledgers, plan.registry)
    return _taken("undo", facts, plan, taken, notes, number)


_DECISIONS: dict[str, Callable[[Facts, Plan, Noted], Step]] = {
    "apply": _applied,
    "untrust": _untrusted,
    "undo": _undone,
}


def _proposed(
    facts: Facts, plan: Plan, owned: OwnedPaths, noted: Noted
) -> tuple[dict[str, Proposal], tuple[str, ...]]:
    """What each part needs; and, for one who may not read everything, what could not be read."""
    proposals: dict[str, Proposal] = {}
    unread: list[str] = []
    for part in table.chosen(plan):
        try:
            proposals[part] = table.propose(part, facts, plan, owned)
        except RefusedError as problem:
            # Only a look can come here without root; it tells of the other parts all the same.
            if problem.code != "file-unreadable" or noted.all_readable:
                raise
            unread.append(str(problem))
    return proposals, tuple(unread)


def _taken(
    operation: str,
    facts: Facts,
    plan: Plan,
    taken: Withdrawal,
    notes: tuple[str, ...],
    undoes: int | None = None,
) -> Step:
    changes = once(taken.changes)
    return Step(
        operation=operation,
        plan=plan,
        changes=changes,
        restarts=withdrawal.restarts(facts, changes),
        ledgers=taken.ledgers,
        remove_folders=taken.folders,
        undoes=undoes,
        notes=(*notes, *taken.notes),
    )


def _nothing_stands(name: str, records: tuple[Record, ...]) -> str:
    others = " and ".join(one for one in undoing.standing(records) if one != name)
    if not others:
        return "no apply of ours is in effect on this node: there is nothing to take back"
    nothing = f"no apply for {name} is in effect on this node: there is nothing to take back"
    return f"{nothing}; an undo for {others} takes back what was done for it"


def _too_short(number: int) -> Fault:
    return Fault(
        "history-too-short",
        f"what was ours before number {number} is no longer known",
        cause=f"only the last {KEEP} changes are kept",
        cure="take all of the trust away instead: inv nodes.untrust",
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
    ledgers: Ledgers,
    registry: Registry,
    changes: tuple[Change, ...],
    tree: Tree,
    owned: OwnedPaths,
) -> Ledgers:
    """The ledgers once the changes are made: before us stays what it was before us."""
    mine: dict[str, Owned] = dict(ledgers.get(registry.name, {}))
    for one in changes:
        old = owned.get(one.path)
        folders = one.missing_folders(tree.exists)
        if old is not None:
            folders = (*old.folders, *(path for path in folders if path not in old.folders))
        before = withdrawal.before_us(registry, one, old, owned.sharing(one.path))
        part, path = (one.part, one.path) if old is None else (old.part, old.path)
        mine[path] = Owned(part, path, before, one.after, folders)
    return withdrawal.followed({**ledgers, registry.name: mine}, registry.name, changes, tree)


def _times(tree: Tree, changes: tuple[Change, ...]) -> dict[str, float]:
    """When each file that is to change was last written, in seconds."""
    times = {one.path: tree.written(one.path) for one in changes}
    return {path: time for path, time in times.items() if time is not None}
