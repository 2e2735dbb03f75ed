"""From a plan to a node that pulls: recover, facts, changes, transaction, restarts, proof.

Each operation is a generator of events whose last is the result; it raises nothing a user can
cause. What a step is, :mod:`agent.engine.steps` decides; here it is carried out, and here is what
becomes of a failure.
"""

from __future__ import annotations

import contextlib
import difflib
import platform
import signal
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from agent.edit.change import SCRATCH, Change
from agent.engine import restarts, survey
from agent.engine.steps import Step, Steps, facts_event
from agent.engine.survey import Before
from agent.facts import Facts, gather
from agent.formats.proposal import NO_UNIT, Proof
from agent.journal import status
from agent.journal.ledger import Store
from agent.journal.lock import locked
from agent.journal.transaction import Restored, Transaction, disarm, nothing_left
from agent.node.disk import WRITE_CODES
from agent.node.host import TOOLS, WRITTEN_BY_TOOLS, Host
from agent.node.threads import Asked
from agent.node.tree import Tree
from agent.proof import decision
from agent.runtimes import table
from agent.wire.faults import AgentError, Interrupted, NotAtOnceError, RefusedError, TrustError
from agent.wire.plan import Plan, Registry, Verify
from agent.wire.report import (
    CHANGED,
    DIFFERS,
    FAILED,
    ROLLED_BACK,
    UNCHANGED,
    ChangeEvent,
    Event,
    ExplainEvent,
    Fault,
    FileChange,
    HistoryEvent,
    HostResult,
    NoteEvent,
    RestartEvent,
    ResultEvent,
    Unproven,
    VerifyEvent,
)
from agent.wire.version import __version__


class Prover(Protocol):
    """What :mod:`agent.proof.verify` offers; tests put their own in its place."""

    def ask_registry(self, plan: Plan, address: str | None = None) -> None: ...
    def cri_serves(self, socket_path: str) -> bool: ...
    def wait_for_cri(self, socket_path: str) -> None: ...
    def pull(self, proof: Proof, registry: Registry, verify: Verify, seconds: float) -> None: ...
    def trusts(self, proof: Proof, plan: Plan) -> None: ...
    def cannot(self, proof: Proof) -> str: ...


@dataclass
class Outcome:
    """The result in the making."""

    host: str = ""
    status: str = UNCHANGED
    changes: list[FileChange] = field(default_factory=list)
    restarts: list[str] = field(default_factory=list)
    verified: bool | None = None
    pull_seconds: float | None = None
    error: Fault | None = None
    stopped: tuple[str, ...] = ()
    unproven: tuple[Unproven, ...] = ()

    def result(self) -> HostResult:
        return HostResult(
            host=self.host,
            status=self.status,
            changes=tuple(self.changes),
            restarts=tuple(self.restarts),
            verified=self.verified,
            pull_seconds=self.pull_seconds,
            error=self.error,
            stopped=self.stopped,
            unproven=self.unproven,
        )


class Engine:
    """The operations on one node."""

    def __init__(self, host: Host, prover: Prover | None = None) -> None:
        self._host = host
        self._store = Store(host.root)
        self._steps = Steps(host, self._store)
        self._given = prover
        self._out = Outcome(host=platform.node())
        self._notes: list[str] = []
        self._before = Before()
        self._down: tuple[str, ...] = ()  # services that ran before a restart and do not now
        self._writes_nothing = False

    @property
    def _prover(self) -> Prover:
        if self._given is None:
            from agent.proof import verify

            self._given = verify
        return self._given

    @property
    def _can_prove(self) -> bool:
        """A file tree that is no running node has nothing to prove it by."""
        return self._host.real or self._given is not None

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
        self._writes_nothing = True

        def work() -> Iterator[Event]:
            for step in self._steps.applied(plan):
                if not isinstance(step, Step):
                    yield step
                elif step.changes or step.restarts:
                    raise NotAtOnceError("there is something to do")
                else:
                    yield from self._prove(step.plan, step.facts)

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
            yield HistoryEvent(tuple(_told_record(record, undone) for record in records))

        return self._told(work())

    def verify(self, plan: Plan) -> Iterator[Event]:
        """Prove the trust as it stands; changes nothing but the images on the node."""

        def work() -> Iterator[Event]:
            plan.require_ca()
            facts = gather(self._host, proving=True)
            yield facts_event(facts)
            yield from self._prove(plan, facts)

        return self._told(work())

    def look(self) -> Iterator[Event]:
        """The facts alone."""

        def work() -> Iterator[Event]:
            yield facts_event(gather(self._host))

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
                yield from self._recovered(boot, stop_running)

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
            yield from self._recovered(stop_running=plan.options.stop_running)
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
                yield _change_event(one)
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
            yield RestartEvent(unit, _stopped_by(unit, before))
            self._out.restarts.append(unit)
        for words in restarts.words(before.foreseen):
            yield NoteEvent(words)

    # Doing

    def _carry_out(self, step: Step) -> Iterator[Event]:
        apply = step.operation == "apply"
        if not step.changes and not step.restarts:
            if apply:
                yield from self._prove(step.plan, step.facts)
            return
        if apply and step.plan.options.preflight and self._can_prove:
            address = step.plan.registry.address
            yield from self._timed(
                "registry", lambda: self._prover.ask_registry(step.plan, address), "beforehand"
            )
        now = step.restarts if step.plan.options.restart else ()
        later = () if step.plan.options.restart else step.restarts
        self._refuse_without_manager(now)
        _refuse_without_unit(now)
        if apply:
            self._refuse_what_was_down(step, now)
        before = self._before = survey.look(self._host, step.facts, now)
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
                    unit: self._start_of(unit)
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
                yield _change_event(one)
            yield from self._restart(transaction, now, step)
            for unit in later:
                yield NoteEvent(f"prepared; a restart of {unit} is waiting for you")
            if apply:
                proving = True
                yield from self._prove(step.plan, step.facts, waiting=later)
            transaction.commit()
        except BaseException as problem:
            with _undisturbed():
                if (
                    proving
                    and isinstance(problem, AgentError)
                    and not isinstance(problem, TrustError)
                ):
                    assert transaction is not None  # noqa: S101
                    transaction.commit()
                    self._note_done(step, now)
                else:
                    self._roll_back(transaction, problem, step)
            raise
        self._note_done(step, now)
        self._refuse_what_stays_down()

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
                words = [word.replace(SCRATCH, folder) for word in trial.command]
                words[0] = self._host.outside(words[0])
                trial.verdict(self._host.run(words, brief=True))

    def _restart(
        self, transaction: Transaction, units: tuple[str, ...], step: Step
    ) -> Iterator[Event]:
        if not units:
            return
        transaction.restarting()
        for unit in units:
            yield RestartEvent(unit, _stopped_by(unit, self._before))
            try:
                self._host.restart(unit)
            except AgentError as problem:
                raise TrustError(*_parts(problem)) from None
        for proof in self._paused(step.facts, units):
            yield from self._timed("cri", partial(self._prover.wait_for_cri, proof.socket))
        self._start_again()

    def _start_again(self, along: Sequence[str] = ()) -> None:
        """What ran before the restart runs again, or the result says what does not.

        ``along``: services that ran when an earlier agent began.
        """
        bound = tuple(dict.fromkeys((*self._before.foreseen.along, *along)))
        self._down = survey.start_again(self._host, bound)
        self._out.stopped = (*self._down, *survey.down(self._before))
        if self._out.stopped:
            self._notes.append(f"not running since the restart: {', '.join(self._out.stopped)}")

    def _refuse_what_stays_down(self) -> None:
        """A service that the restart has taken down for good: the change is right, the node not."""
        if not self._down:
            return
        names = " ".join(self._down)
        raise AgentError(
            "stays-down",
            f"{names} ran before the restart, and does not start again",
            cause=f"it is bound to {', '.join(self._before.starts)}, and was restarted along",
            cure=f"read why: journalctl -u {self._down[0]} -n 50; then: systemctl start {names}",
        )

    def _paused(self, facts: Facts, units: tuple[str, ...]) -> Iterator[Proof]:
        """The runtimes whose CRI must come back after these restarts."""
        for part in table.at_work(facts) if units and self._can_prove else ():
            for proof in part.proofs(facts):
                if proof.kind == "cri" and proof.unit in units:
                    yield proof

    def _roll_back(
        self, transaction: Transaction | None, problem: BaseException, step: Step
    ) -> None:
        """Put everything back. ``problem`` is what led to it, and is raised again afterwards."""
        transaction = transaction or Transaction.pending(self._store)
        if transaction is None:
            return
        touched = [one["path"] for one in transaction.intent["changes"]]
        try:
            restored = transaction.rollback(self._start_of)
            self._restart_after_rollback(restored, step.facts)
            transaction.forget()
        except (AgentError, OSError) as second:
            raise _not_put_back(problem, second, touched) from None
        if restored.files or restored.restarts:
            self._out.status = ROLLED_BACK
            self._out.restarts = list(restored.restarts)
            self._notes.append(_rollback_words(restored))

    def _restart_after_rollback(
        self, restored: Restored, facts: Facts | None, along: Sequence[str] = ()
    ) -> None:
        for unit in restored.restarts:
            self._host.restart(unit)
        for proof in self._paused(facts, restored.restarts) if facts is not None else ():
            self._prover.wait_for_cri(proof.socket)
        if restored.restarts:
            self._start_again(along)

    def _recovered(self, boot: bool = False, stop_running: bool = False) -> Iterator[Event]:
        transaction = Transaction.pending(self._store)
        if transaction is None:
            disarm(self._store.root)
            return
        operation = transaction.intent["operation"]
        due = () if boot else transaction.due(self._start_of)
        facts = gather(self._host) if due else None
        before = self._before = survey.look(self._host, facts, due)
        if not (stop_running or transaction.agreed):
            restarts.refuse(before.foreseen, "recover")
        try:
            restored = transaction.rollback(self._start_of)
        except AgentError as problem:
            raise _still_half_way(f"an interrupted {operation}", problem) from None
        if boot:
            restored = restored._replace(restarts=self._restarted_at_boot(restored.restarts))
        else:
            self._restart_after_rollback(restored, facts, transaction.along)
        transaction.forget()
        yield NoteEvent(f"an interrupted {operation} was rolled back: {_rollback_words(restored)}")
        self._out.status = CHANGED
        self._out.changes = list(restored.files)
        self._refuse_what_stays_down()

    def _restarted_at_boot(self, units: tuple[str, ...]) -> tuple[str, ...]:
        """Those that have started before us with the undone files, told to restart on their own.

        They are ordered behind us, so to wait for them would be to wait for ourselves; those that
        are still to come read the files that are put back.
        """
        running = tuple(unit for unit in units if self._start_of(unit))
        for unit in running:
            self._host.restart_later(unit)
        return running

    # Proving

    def _prove(self, plan: Plan, facts: Facts, waiting: Collection[str] = ()) -> Iterator[Event]:
        """TLS by name, CRI, and a proof a runtime; what has none is told in the result."""
        if not self._can_prove:
            self._out.unproven = decision.of_a_tree(facts, plan).unproven
            return
        decided = decision.decide(facts, plan, waiting, self._prover.cannot)
        serving = () if waiting else tuple(_sockets(facts, plan))
        # Both answers take a few milliseconds to come, and neither needs the other.
        asked = {one: Asked(partial(self._prover.cri_serves, one)) for one in serving}
        yield from self._timed("registry", lambda: self._prover.ask_registry(plan))
        for one in serving:
            if not asked[one].answer():
                yield from self._timed("cri", partial(self._prover.wait_for_cri, one))
        for proof in decided.proofs:
            if not proof.pulls:
                trusts = partial(self._prover.trusts, proof, plan)
                yield from self._timed("files", trusts, proof.detail)
        yield from self._pulled(plan, [proof for proof in decided.proofs if proof.pulls])
        self._out.unproven = decided.unproven
        self._out.verified = decided.verified
        if not self._writes_nothing:
            pulling = plan.verify is not None
            status.note_unproven(self._store, plan.registry.name, decided.unproven, pulling)

    def _pulled(self, plan: Plan, proofs: Sequence[Proof]) -> Iterator[Event]:
        verify = plan.verify
        if verify is None or not proofs:
            return
        began = time.monotonic()
        for proof in proofs:
            pull = partial(self._prover.pull, proof, plan.registry, verify)
            yield from self._timed("pull", partial(pull, plan.options.pull_timeout), proof.detail)
        self._out.pull_seconds = round(time.monotonic() - began, 3)
        status.note_pull(self._store, plan.registry.name, verify.image, self._out.pull_seconds)

    def _timed(self, step: str, prove: Callable[[], None], detail: str = "") -> Iterator[Event]:
        began = time.monotonic()
        try:
            prove()
        except AgentError as problem:
            self._out.verified = False
            seconds = round(time.monotonic() - began, 3)
            yield VerifyEvent(step, ok=False, seconds=seconds, detail=problem.code)
            raise
        yield VerifyEvent(step, True, round(time.monotonic() - began, 3), detail)

    # Small things

    def _start_of(self, unit: str) -> str:
        return self._host.start_of(unit)

    def _refuse_what_was_down(self, step: Step, units: tuple[str, ...]) -> None:
        """A runtime that did not serve before cannot show that it does afterwards."""
        for proof in self._paused(step.facts, units):
            if self._prover.cri_serves(proof.socket):
                continue
            try:
                self._prover.wait_for_cri(proof.socket)
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


def _sockets(facts: Facts, plan: Plan) -> Iterator[str]:
    """Where CRI has to serve with the parts of the plan, each once."""
    here = (name for name in table.chosen(plan) if table.is_here(name, facts))
    found = (proof for name in here for proof in table.TABLE[name].proofs(facts))
    yield from dict.fromkeys(proof.socket for proof in found if proof.kind == "cri")


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


def _told_record(record: dict[str, Any], undone: dict[Any, int]) -> dict[str, Any]:
    """A finished transaction as `history` tells it."""
    return {
        "number": record["number"],
        "time": record["time"],
        "operation": record["operation"],
        "registry": record["registry"],
        "by": record.get("by", ""),
        "from": record.get("from", ""),
        "agent": record["agent"],
        "changes": [{"path": one["path"], "action": one["action"]} for one in record["changes"]],
        "restarts": list(record["starts"]),
        "undone_by": undone.get(record["number"]),
    }


def _stopped_by(unit: str, before: Before) -> tuple[str, ...]:
    """What a restart stops beside a service, in words; what several stop, the first one's."""
    first = next(iter(before.starts), "")
    return restarts.words(before.foreseen) if unit == first else ()


def _change_event(one: Change) -> ChangeEvent:
    return ChangeEvent(path=one.path, action=one.action, diff=_diff(one))


def _diff(one: Change) -> str:
    before, after = (
        (content or b"").decode("utf-8", "replace").splitlines(keepends=True)
        for content in (one.before, one.after)
    )
    lines = difflib.unified_diff(
        before,
        after,
        one.path if one.before is not None else "/dev/null",
        one.path if one.after is not None else "/dev/null",
    )
    ended = (
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
    )
    return "".join(ended)


def _rollback_words(restored: Restored) -> str:
    paths = ", ".join(one.path for one in restored.files)
    words = f"put back {paths}" if paths else "no file had changed"
    if restored.foreign:
        words += f"; left alone, since someone else changed them: {', '.join(restored.foreign)}"
    if restored.restarts:
        words += f"; restarted {', '.join(restored.restarts)}"
    return words


def _not_put_back(
    problem: BaseException, second: AgentError | OSError, touched: list[str]
) -> AgentError:
    """Return the error for a change that failed, and whose rollback failed as well."""
    if isinstance(second, AgentError) and second.code in WRITE_CODES:
        return _still_half_way(f"{problem}; the change", second)
    return AgentError(
        "rollback-failed",
        f"{problem}; and putting it back failed: {second}",
        cause=f"not all of these are as they were: {', '.join(touched)}",
        cure="mend what the message says, then: nodes.recover",
    )


def _still_half_way(what: str, problem: AgentError) -> AgentError:
    """Return the error for a rollback that waits until a file can be written again."""
    code, message, cause, cure = _parts(problem)
    cure = cure.replace(", then run again", "")
    return AgentError(
        code,
        f"{what} is not put back yet: {message}",
        cause,
        cure=f"{cure}, then: inv nodes.recover (any other run puts it back first as well)",
    )


def _parts(problem: AgentError) -> tuple[str, str, str, str]:
    fault = problem.fault
    return fault.code, fault.message, fault.cause, fault.cure


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """No signal ends a rollback half-way: those that come wait until it is done."""
    waiting = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    old = signal.pthread_sigmask(signal.SIG_BLOCK, waiting)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)
