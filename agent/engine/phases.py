"""The phases of an operation, in the order in which :mod:`agent.engine.engine` lists them.

Up to ``ask`` nothing is touched. From ``begin`` on there is a journal, and what goes wrong is put
back by it (:meth:`Phases.way_back`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial

from agent.edit.change import SCRATCH
from agent.engine import looking, restarts, steps, survey, words
from agent.engine.back import WayBack, undisturbed
from agent.engine.looking import Seen
from agent.engine.proving import ProofOutcome, Proving
from agent.engine.steps import Step
from agent.facts import Facts, gather
from agent.formats.proposal import NO_UNIT
from agent.journal.ledger import Store
from agent.journal.transaction import Transaction
from agent.node.host import DROP_INS, TOOLS, WRITTEN_BY_TOOLS, Host
from agent.runtimes import table
from agent.wire.faults import AgentError, RefusedError, TrustError
from agent.wire.plan import Plan
from agent.wire.report import CHANGED, Event, FileChange, NoteEvent, RestartEvent
from agent.wire.version import __version__


class Phases:
    """Of one operation on one node: each yields its events as they happen, or has none."""

    facts: Facts
    seen: Seen
    step: Step
    transaction: Transaction | None = None

    def __init__(
        self, operation: str, plan: Plan, host: Host, store: Store, out: ProofOutcome, back: WayBack
    ) -> None:
        self._operation = operation
        self._plan = plan
        self._host = host
        self._store = store
        self._out = out
        self._back = back
        self._proving: Proving = back.proving
        self._in_proof = False
        self._serving: list[str] = []  # where CRI has come back after the restart

    def recover(self) -> Iterator[Event]:
        """What an earlier agent left half-way is put back first."""
        yield from self._back.recovered(stop_running=self._plan.options.stop_running)

    def look(self, *, proving: bool = False) -> Iterator[Event]:
        """Everything that is read before the decision. ``proving``: a proof will follow."""
        if self._operation == "apply":
            self._plan.require_ca()
        self.facts = gather(self._host, proving=proving)
        yield looking.facts_event(self.facts)
        self.seen = looking.look(self._operation, self._host, self._store, self.facts, self._plan)

    def decide(self) -> Iterator[Event]:
        """What is to be done, of what was seen alone."""
        seen = self.seen
        self.step = seen.step or steps.decide(self._operation, seen.facts, self._plan, seen.noted)
        for note in self.step.notes:
            yield NoteEvent(note)
        if self.step.refusal is not None:
            raise RefusedError.of(self.step.refusal)

    def ask(self) -> Iterator[Event]:
        """The registry, the service manager, and what nobody has agreed to: refused beforehand."""
        if self._applies and self.step.plan.options.preflight and self._proving.possible:
            address = self.step.plan.registry.address
            yield from self._proving.timed(
                "registry",
                lambda: self._proving.prover.ask_registry(self.step.plan, address),
                "beforehand",
            )
        self._refuse_without_manager()
        _refuse_without_unit(self._now)
        if self._applies:
            self._refuse_what_was_down()
        before = self._back.before = survey.look(self._host, self.facts, self._now)
        if not self.step.plan.options.stop_running:
            restarts.refuse(before.foreseen, self._operation)

    @contextlib.contextmanager
    def way_back(self) -> Iterator[None]:
        """Whatever is raised in the phases from here on leads back to the state before.

        What was proved to be no fault of the trust stays: the change is right.
        """
        try:
            yield
        except BaseException as problem:
            with undisturbed():
                failed = isinstance(problem, AgentError) and not isinstance(problem, TrustError)
                if self._in_proof and failed:
                    self.commit()
                    self.done()
                else:
                    self._back.roll_back(self.transaction, problem, self.facts)
            raise

    def begin(self) -> Iterator[Event]:
        """The intent is on disk, and every byte that will go."""
        step, before = self.step, self._back.before
        self.transaction = Transaction.begin(
            self._store,
            step.operation,
            step.plan.registry.name,
            step.changes,
            starts=before.starts,
            waiting={
                unit: self._back.start_of(unit)
                for unit in (*self._later, *self.seen.noted.waiting)
                if unit not in self._now and not unit.endswith(NO_UNIT)
            },
            ledgers=step.ledgers,
            remove_folders=step.remove_folders,
            undoes=step.undoes,
            run=step.plan.options.run if step.operation == "undo" else "",
            agent=__version__,
            at_boot=self._host.boot_command,
            along=before.foreseen.along,
            agreed=step.plan.options.stop_running,
            written=[WRITTEN_BY_TOOLS[unit] for unit in self._now if unit in WRITTEN_BY_TOOLS],
        )
        if self.transaction.unguarded:
            yield NoteEvent(
                "a power loss from here on is mended by the next run, not at boot: "
                + self.transaction.unguarded
            )

    def stage(self) -> None:
        """Each new file lies beside the one that it will replace."""
        self._begun.stage()

    def judge(self) -> None:
        """The parts' own programs say what they make of the changed files."""
        registry = self.step.plan.registry
        for part in table.at_work(self.facts):
            for trial in part.judge(self.facts, self.step.changes, registry, self._applies):
                folder = str(self._begun.scratch(trial.files))
                command = [word.replace(SCRATCH, folder) for word in trial.command]
                command[0] = self._host.outside(command[0])
                trial.verdict(self._host.run(command, brief=True))

    def write(self) -> Iterator[Event]:
        """The new files are in their places."""
        self._begun.write()
        for one in self.step.changes:
            yield words.change_event(one)

    def restart(self) -> Iterator[Event]:
        """The services that read them are up again, or wait for somebody to restart them."""
        if self._now:
            self._begun.restarting()
        for unit in self._now:
            yield RestartEvent(unit, words.stopped_by(unit, self._back.before))
            try:
                if unit in self._current:
                    self._host.restart_current(unit)
                else:
                    self._host.restart(unit)
            except AgentError as problem:
                raise TrustError.of(problem.fault) from None
        for proof in self._back.paused(self.facts, self._now):
            yield from self._proving.timed(
                "cri", partial(self._proving.prover.wait_for_cri, proof.socket)
            )
            self._serving.append(proof.socket)
        if self._now:
            self._back.start_again()
        for unit in self._later:
            yield NoteEvent(f"prepared; a restart of {unit} is waiting for you")

    def prove(self) -> Iterator[Event]:
        """The node trusts the registry, and serves; of what takes trust away there is no proof."""
        if self._applies:
            self._in_proof = True
            yield from self._proving.prove(
                self.step.plan, self.facts, waiting=self._later, serving=self._serving
            )

    def commit(self) -> None:
        """The new state is the state."""
        self._begun.commit()

    def done(self) -> None:
        """The result has what was done."""
        self._out.status = CHANGED
        self._out.changes = [FileChange(one.path, one.action) for one in self.step.changes]
        self._out.restarts = list(self._now)

    def foresee(self) -> Iterator[Event]:
        """In place of all from ``ask`` on: what they would change, restart and stop."""
        for one in self.step.changes:
            yield words.change_event(one)
            self._out.changes.append(FileChange(one.path, one.action))
        before = survey.look(self._host, self.facts, self.step.restarts)
        for unit in self.step.restarts:
            yield RestartEvent(unit, words.stopped_by(unit, before))
            self._out.restarts.append(unit)
        for said in restarts.words(before.foreseen):
            yield NoteEvent(said)

    # Small things

    @property
    def _applies(self) -> bool:
        return self._operation == "apply"

    @property
    def _now(self) -> tuple[str, ...]:
        """The services to restart in this run."""
        return self.step.restarts if self.step.plan.options.restart else ()

    @property
    def _later(self) -> tuple[str, ...]:
        return () if self.step.plan.options.restart else self.step.restarts

    @property
    def _current(self) -> tuple[str, ...]:
        """The services whose files systemd has read: it was asked, and none was written since."""
        written = any(one.path.startswith(f"{DROP_INS}/") for one in self.step.changes)
        return () if written else self._back.before.current

    @property
    def _begun(self) -> Transaction:
        assert self.transaction is not None  # noqa: S101 - begin comes first
        return self.transaction

    def _refuse_what_was_down(self) -> None:
        """A runtime that did not serve before cannot show that it does afterwards."""
        for proof in self._back.paused(self.facts, self._now):
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

    def _refuse_without_manager(self) -> None:
        services = [unit for unit in self._now if unit not in TOOLS]
        if services and not self._host.restarts:
            raise RefusedError(
                "no-service-manager",
                f"{services[0]} must be restarted, and neither systemd nor OpenRC is at work here",
                cause="this agent restarts services only through one of the two",
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
