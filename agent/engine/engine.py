"""From a plan to a node that pulls: recover, facts, changes, transaction, restarts, proof.

Each operation is a generator of events whose last is the result; it raises nothing a user can
cause. What a step is, :mod:`agent.engine.steps` decides; here it is carried out, and here is what
becomes of a failure.
"""

from __future__ import annotations

import contextlib
import platform
import time
from collections.abc import Iterator
from functools import partial

from agent.edit.change import SCRATCH
from agent.engine import restarts, survey, words
from agent.engine.back import WayBack, undisturbed
from agent.engine.proving import Outcome, Prover, Proving
from agent.engine.steps import Step, Steps, facts_event
from agent.facts import gather
from agent.formats.proposal import NO_UNIT
from agent.journal import status
from agent.journal.ledger import Store
from agent.journal.lock import locked
from agent.journal.transaction import Transaction, nothing_left
from agent.node.host import TOOLS, WRITTEN_BY_TOOLS, Host
from agent.node.tree import Tree
from agent.runtimes import table
from agent.wire.faults import (
    AgentError,
    Fault,
    Interrupted,
    NotAtOnceError,
    RefusedError,
    TrustError,
)
from agent.wire.plan import Plan
from agent.wire.report import (
    CHANGED,
    DIFFERS,
    FAILED,
    ROLLED_BACK,
    UNCHANGED,
    Event,
    ExplainEvent,
    FileChange,
    HistoryEvent,
    ImagesEvent,
    NoteEvent,
    RestartEvent,
    ResultEvent,
)
from agent.wire.version import __version__


class Engine:
    """The operations on one node."""

    def __init__(self, host: Host, prover: Prover | None = None) -> None:
        self._host = host
        self._store = Store(host.root)
        self._steps = Steps(host, self._store)
        self._out = Outcome(host=platform.node())
        self._notes: list[str] = []
        self._proving = Proving(self._store, self._out, host.real, prover)
        self._back = WayBack(host, self._store, self._out, self._notes, self._proving)

    # The operations

    def apply(self, plan: Plan, dry_run: bool = False) -> Iterator[Event]:
        """Bring the node into the plan's state and prove it, or put it back as it was."""
        if dry_run:
            return self._told(self._dry(self._steps.applied(plan)))
        return self._told(self._under_lock("apply", plan, self._steps.applied(plan, proving=True)))

    def unchanged(self, plan: Plan) -> list[Event] | None:
        """What :meth:`apply` tells of a node that is as planned and proves it; else None.

        Writes nothing, and runs nothing where the host is an ``Onlooker``; the caller keeps other
        agents away (``lock.unmoved``). Of a plan with a pull, which stays on the node, None.
        """
        if plan.verify is not None or not nothing_left(self._store):
            return None
        self._proving.writes_nothing = True

        def work() -> Iterator[Event]:
            for step in self._steps.applied(plan):
                if not isinstance(step, Step):
                    yield step
                elif step.changes or step.restarts:
                    raise NotAtOnceError("there is something to do")
                else:
                    yield from self._proving.prove(step.plan, step.facts)

        try:
            told = list(self._told(work()))
        except NotAtOnceError:
            return None
        return told if self._out.status == UNCHANGED else None

    def untrust(self, plan: Plan, dry_run: bool = False) -> Iterator[Event]:
        """Take the trust in the plan's registry away: the original bytes, or our lines out."""
        if dry_run:
            return self._told(self._dry(self._steps.untrusted(plan)))
        return self._told(self._under_lock("untrust", plan, self._steps.untrusted(plan)))

    def undo(self, plan: Plan, dry_run: bool = False) -> Iterator[Event]:
        """Take the last apply of this node back, whichever registry it was for.

        Of the plan only the options count.
        """
        if dry_run:
            return self._told(self._dry(self._steps.undone(plan)))
        return self._told(self._under_lock("undo", plan, self._steps.undone(plan)))

    def diff(self, plan: Plan) -> Iterator[Event]:
        """What differs from the plan, file by file; ``differs`` where anything does."""

        def work() -> Iterator[Event]:
            yield from self._dry(self._steps.applied(plan))
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
            undone = {record.get("undoes"): record["number"] for record in records}
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
                self._store, lambda path: tree.read(path).content, self._steps.still_waiting()
            )

        return self._told(work())

    def recover(
        self, wait: float = 10, boot: bool = False, stop_running: bool = False
    ) -> Iterator[Event]:
        """Roll back what an agent that was cut off left half-way; nothing where there is none.

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

    def _under_lock(
        self, operation: str, plan: Plan, steps: Iterator[Event | Step]
    ) -> Iterator[Event]:
        with locked(self._store, operation, plan.options.lock_wait):
            yield from self._back.recovered(stop_running=plan.options.stop_running)
            for step in steps:
                if isinstance(step, Step):
                    yield from self._carry_out(step)
                else:
                    yield step

    def _dry(self, steps: Iterator[Event | Step]) -> Iterator[Event]:
        """What would be done: every change as a diff, nothing touched."""
        if not self._store.readable:
            yield NoteEvent(
                f"{self._store.folder} is root's to read: what is ours here already is not known"
            )
        if self._store.pending() is not None:
            yield NoteEvent("an interrupted run would be rolled back first (recover)")
        for step in steps:
            if not isinstance(step, Step):
                yield step
                continue
            for one in step.changes:
                yield words.change_event(one)
                self._out.changes.append(FileChange(one.path, one.action))
            yield from self._would_restart(step)
            self._out.status = CHANGED if step.changes or step.restarts else UNCHANGED
        if self._steps.unread:
            raise AgentError(
                "not-root",
                f"not all of it could be looked at: {'; '.join(self._steps.unread)}",
                cause="this user may not read it",
                cure="run it through sudo",
            )

    def _would_restart(self, step: Step) -> Iterator[Event]:
        """The restarts of a dry run, and what they would stop."""
        before = survey.look(self._host, step.facts, step.restarts)
        for unit in step.restarts:
            yield RestartEvent(unit, words.stopped_by(unit, before))
            self._out.restarts.append(unit)
        for said in restarts.words(before.foreseen):
            yield NoteEvent(said)

    # Doing

    def _carry_out(self, step: Step) -> Iterator[Event]:
        apply = step.operation == "apply"
        if not step.changes and not step.restarts:
            if apply:
                yield from self._proving.prove(step.plan, step.facts)
            return
        if apply and step.plan.options.preflight and self._proving.possible:
            address = step.plan.registry.address
            yield from self._proving.timed(
                "registry",
                lambda: self._proving.prover.ask_registry(step.plan, address),
                "beforehand",
            )
        now = step.restarts if step.plan.options.restart else ()
        later = () if step.plan.options.restart else step.restarts
        self._refuse_without_manager(now)
        _refuse_without_unit(now)
        if apply:
            self._refuse_what_was_down(step, now)
        before = self._back.before = survey.look(self._host, step.facts, now)
        if not step.plan.options.stop_running:
            restarts.refuse(before.foreseen, step.operation)
        transaction: Transaction | None = None
        proving = False
        try:
            transaction = Transaction.begin(
                self._store,
                step.operation,
                step.plan.registry.name,
                step.changes,
                starts=before.starts,
                waiting={
                    unit: self._back.start_of(unit)
                    for unit in (*later, *self._steps.still_waiting())
                    if unit not in now and not unit.endswith(NO_UNIT)
                },
                ledgers=step.ledgers,
                remove_folders=step.remove_folders,
                undoes=step.undoes,
                run=step.plan.options.run if step.operation == "undo" else "",
                agent=__version__,
                at_boot=self._host.boot_command,
                along=before.foreseen.along,
                agreed=step.plan.options.stop_running,
                written=[WRITTEN_BY_TOOLS[unit] for unit in now if unit in WRITTEN_BY_TOOLS],
            )
            if transaction.unguarded:
                yield NoteEvent(
                    "a power loss from here on is mended by the next run, not at boot: "
                    + transaction.unguarded
                )
            transaction.stage()
            self._judge_candidate(step, transaction)
            transaction.write()
            for one in step.changes:
                yield words.change_event(one)
            yield from self._restart(transaction, now, step)
            for unit in later:
                yield NoteEvent(f"prepared; a restart of {unit} is waiting for you")
            if apply:
                proving = True
                yield from self._proving.prove(step.plan, step.facts, waiting=later)
            transaction.commit()
        except BaseException as problem:
            with undisturbed():
                if (
                    proving
                    and isinstance(problem, AgentError)
                    and not isinstance(problem, TrustError)
                ):
                    assert transaction is not None  # noqa: S101
                    transaction.commit()
                    self._note_done(step, now)
                else:
                    self._back.roll_back(transaction, problem, step)
            raise
        self._note_done(step, now)
        self._back.refuse_what_stays_down()

    def _note_done(self, step: Step, restarted: tuple[str, ...]) -> None:
        self._out.status = CHANGED
        self._out.changes = [FileChange(one.path, one.action) for one in step.changes]
        self._out.restarts = list(restarted)

    def _judge_candidate(self, step: Step, transaction: Transaction) -> None:
        """Let the parts' own programs say what they make of the changed files."""
        registry, applying = step.plan.registry, step.operation == "apply"
        for part in table.at_work(step.facts):
            for trial in part.judge(step.facts, step.changes, registry, applying):
                folder = str(transaction.scratch(trial.files))
                command = [word.replace(SCRATCH, folder) for word in trial.command]
                command[0] = self._host.outside(command[0])
                trial.verdict(self._host.run(command, brief=True))

    def _restart(
        self, transaction: Transaction, units: tuple[str, ...], step: Step
    ) -> Iterator[Event]:
        if not units:
            return
        transaction.restarting()
        for unit in units:
            yield RestartEvent(unit, words.stopped_by(unit, self._back.before))
            try:
                self._host.restart(unit)
            except AgentError as problem:
                raise TrustError.of(problem.fault) from None
        for proof in self._back.paused(step.facts, units):
            yield from self._proving.timed(
                "cri", partial(self._proving.prover.wait_for_cri, proof.socket)
            )
        self._back.start_again()

    # Small things

    def _refuse_what_was_down(self, step: Step, units: tuple[str, ...]) -> None:
        """A runtime that did not serve before cannot show that it does afterwards."""
        for proof in self._back.paused(step.facts, units):
            if self._proving.prover.cri_serves(proof.socket):
                continue
            try:
                self._proving.prover.wait_for_cri(proof.socket)
            except TrustError as problem:
                raise RefusedError(
                    "cri-down-before",
                    f"nothing was touched: CRI did not serve here before ({problem})",
                    cause="something in the runtime's configuration keeps its CRI from loading",
                    cure=f"read why, and mend that first: journalctl -u {proof.unit} -n 50",
                ) from None

    def _refuse_without_manager(self, units: tuple[str, ...]) -> None:
        services = [unit for unit in units if unit not in TOOLS]
        if services and not self._host.restarts:
            raise RefusedError(
                "no-service-manager",
                f"{services[0]} must be restarted, and neither systemd nor OpenRC is at work here",
                cause="this agent restarts services through one of the two alone",
                cure="apply with restart: false, then restart it by hand",
            )


def _refuse_without_unit(units: tuple[str, ...]) -> None:
    """A runtime that somebody started by hand can be restarted by nobody else."""
    for unit in units:
        if unit.endswith(NO_UNIT):
            name = unit[: -len(NO_UNIT)].rpartition(" ")[2]
            raise RefusedError(
                "no-unit",
                f"nothing was touched: {name} runs here, must be restarted, and no service runs it",
                cause="it was started by hand or by a script, so there is no unit to restart",
                cure=f"prepare it (inv nodes.trust --no-restart), then restart {name} as it was "
                "started, and prove it: inv nodes.verify",
            )
