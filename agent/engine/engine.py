"""From a plan to a node that pulls: the operations, and the phases of those that change it.

Each operation is a generator of events whose last is the result; it raises nothing a user can
cause. The phases of a change stand one below the other in :meth:`Engine._changed`.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

from agent.engine import words
from agent.engine.back import WayBack
from agent.engine.looking import facts_event, still_waiting
from agent.engine.phases import Phases
from agent.engine.proving import ProofOutcome, Prover, Proving
from agent.facts import gather
from agent.journal import status
from agent.journal.boot import nothing_left
from agent.journal.ledger import Store
from agent.journal.lock import locked
from agent.node.host import Host
from agent.node.tree import Tree
from agent.runtimes import table
from agent.wire.faults import AgentError, Fault, Interrupted, NotAtOnceError, TrustError
from agent.wire.plan import Plan
from agent.wire.report import (
    CHANGED,
    DIFFERS,
    FAILED,
    ROLLED_BACK,
    UNCHANGED,
    Event,
    ExplainEvent,
    HistoryEvent,
    ImagesEvent,
    NoteEvent,
    ResultEvent,
)


class Engine:
    """The operations on one node."""

    def __init__(self, host: Host, prover: Prover | None = None) -> None:
        self._host = host
        self._store = Store(host.root)
        self._out = ProofOutcome(host=os.uname().nodename)
        self._notes: list[str] = []
        self._proving = Proving(self._store, self._out, host.real, prover)
        self._back = WayBack(host, self._store, self._out, self._notes, self._proving)

    # The operations

    def apply(self, plan: Plan, dry_run: bool = False) -> Iterator[Event]:
        """Bring the node into the plan's state and prove it, or put it back as it was."""
        return self._told(self._dry("apply", plan) if dry_run else self._changed("apply", plan))

    def unchanged(self, plan: Plan) -> list[Event] | None:
        """What :meth:`apply` reports of a node that is as planned and proves it; else None.

        Writes nothing, and runs nothing if the host is an ``Onlooker``; the caller keeps other
        agents away (``lock.unmoved``). Of a plan with a pull, which stays on the node, None.
        """
        if plan.verify is not None or not nothing_left(self._store):
            return None
        self._proving.writes_nothing = True

        def work() -> Iterator[Event]:
            phases = self._phases("apply", plan)
            yield from phases.look()
            yield from phases.decide()
            if not phases.step.idle:
                raise NotAtOnceError("there is something to do")
            yield from phases.prove()

        try:
            told = list(self._told(work()))
        except NotAtOnceError:
            return None
        return told if self._out.status == UNCHANGED else None

    def untrust(self, plan: Plan, dry_run: bool = False) -> Iterator[Event]:
        """Take the trust in the plan's registry away: the original bytes, or our lines out."""
        return self._told(self._dry("untrust", plan) if dry_run else self._changed("untrust", plan))

    def undo(self, plan: Plan, dry_run: bool = False) -> Iterator[Event]:
        """Take the last apply for the plan's registry back.

        Of the plan only the registry and the options count.
        """
        return self._told(self._dry("undo", plan) if dry_run else self._changed("undo", plan))

    def diff(self, plan: Plan) -> Iterator[Event]:
        """What differs from the plan, file by file; ``differs`` where anything does."""

        def work() -> Iterator[Event]:
            yield from self._dry("apply", plan)
            if self._out.status == CHANGED:
                self._out.status = DIFFERS

        return self._told(work())

    def explain(self, plan: Plan) -> Iterator[Event]:
        """Which strategies there are for this node, which are taken, and why."""

        def work() -> Iterator[Event]:
            facts = gather(self._host)
            yield facts_event(facts)
            yield ExplainEvent(tuple(one._asdict() for one in table.explain(facts, plan)))

        return self._told(work())

    def history(self) -> Iterator[Event]:
        """What was done here and when, newest first."""

        def work() -> Iterator[Event]:
            records = list(self._store.records())
            undone = {record.undoes: record.number for record in records}
            yield HistoryEvent(tuple(words.record(record, undone) for record in records))

        return self._told(work())

    def verify(self, plan: Plan) -> Iterator[Event]:
        """Prove the trust as it stands; changes nothing but the images on the node."""

        def work() -> Iterator[Event]:
            plan.require_ca()
            facts = gather(self._host, proving=True)
            yield facts_event(facts)
            yield from self._proving.prove(plan, facts)

        return self._told(work())

    def facts(self) -> Iterator[Event]:
        """Which runtimes are here, and nothing else."""

        def work() -> Iterator[Event]:
            yield facts_event(gather(self._host))

        return self._told(work())

    def images(self) -> Iterator[Event]:
        """Which images the runtimes of the node have, and which of them could not be asked."""

        def work() -> Iterator[Event]:
            from agent.engine import images  # with clients that no other operation needs

            facts = gather(self._host)
            yield facts_event(facts)
            found = images.look(self._host, facts)
            unasked = tuple(one._asdict() for one in found.unasked)
            yield ImagesEvent(found.names, unasked, int(time.time()))

        return self._told(work())

    def status(self) -> Iterator[Event]:
        """What of ours is on the node, and whether it is still as we left it."""

        def work() -> Iterator[Event]:
            with contextlib.suppress(AgentError):  # a runtime that is broken hides nothing of ours
                yield facts_event(gather(self._host))
            tree = Tree(self._host.root)
            yield status.standing(
                self._store,
                lambda path: tree.read(path).content,
                still_waiting(self._host, self._store.waiting()),
            )

        return self._told(work())

    def recover(
        self, wait: float = 10, boot: bool = False, stop_running: bool = False
    ) -> Iterator[Event]:
        """Roll back what an agent that was cut off left half-way; nothing if there is none.

        ``boot``: the services that read the files start after us, so none is waited for.
        ``stop_running``: their restart may stop what runs on them.
        """

        def work() -> Iterator[Event]:
            with locked(self._store, "recover", wait):
                yield from self._back.recovered(boot, stop_running)

        return self._told(work())

    # How an operation runs

    def _told(self, work: Iterator[Event]) -> Iterator[Event]:
        """The work's events, and the result whatever becomes of it."""
        try:
            yield from work
        except AgentError as problem:
            if self._out.status != ROLLED_BACK:
                self._out.status = FAILED
            if self._out.verified is None and isinstance(problem, TrustError):
                self._out.verified = False
            self._out.error = problem.fault
        except Interrupted as problem:
            if self._out.status != ROLLED_BACK:
                self._out.status = FAILED
            self._out.error = Fault(
                "interrupted",
                f"stopped by {problem}; the node is as it was before",
                cause="someone, or a lost connection, ended the run",
                cure="run it again",
            )
        for note in self._notes:
            yield NoteEvent(note)
        yield ResultEvent(self._out.result())

    def _phases(self, operation: str, plan: Plan) -> Phases:
        return Phases(operation, plan, self._host, self._store, self._out, self._back)

    def _changed(self, operation: str, plan: Plan) -> Iterator[Event]:
        """A change of the node, phase by phase."""
        phases = self._phases(operation, plan)
        with locked(self._store, operation, plan.options.lock_wait):
            yield from phases.recover()
            yield from phases.look(proving=operation == "apply")
            yield from phases.decide()
            if phases.step.idle:
                yield from phases.prove()
                return
            yield from phases.ask()
            with phases.way_back():
                yield from phases.begin()
                phases.stage()
                phases.judge()
                yield from phases.write()
                yield from phases.restart()
                yield from phases.prove()
                phases.commit()
            phases.done()
            self._back.refuse_what_stays_down()

    def _dry(self, operation: str, plan: Plan) -> Iterator[Event]:
        """What would be done: every change as a diff, nothing touched."""
        if not self._store.readable:
            yield NoteEvent(
                f"{self._store.folder} can be read only by root: what is ours here already is "
                "unknown"
            )
        if self._store.pending() is not None:
            yield NoteEvent("an interrupted run would be rolled back first (recover)")
        phases = self._phases(operation, plan)
        yield from phases.look()
        yield from phases.decide()
        yield from phases.foresee()
        self._out.status = UNCHANGED if phases.step.idle else CHANGED
        if phases.step.unread:
            raise AgentError(
                "not-root",
                f"not all of it could be looked at: {'; '.join(phases.step.unread)}",
                cause="this user may not read it",
                cure="run it through sudo",
            )
