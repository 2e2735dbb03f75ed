"""The way back: services up again after a restart, a rollback, and what an earlier run left."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator, Sequence

from agent.engine import restarts, survey, words
from agent.engine.proving import ProofOutcome, Proving
from agent.engine.survey import Before
from agent.facts import Facts, gather
from agent.formats.proposal import Proof
from agent.journal.boot import disarm
from agent.journal.ledger import Store
from agent.journal.transaction import Restored, Transaction
from agent.node.host import Host
from agent.runtimes import table
from agent.wire.faults import AgentError
from agent.wire.report import CHANGED, ROLLED_BACK, Event, NoteEvent


class WayBack:
    """One node's; ``before`` is how it was before its services were restarted."""

    def __init__(
        self, host: Host, store: Store, out: ProofOutcome, notes: list[str], proving: Proving
    ) -> None:
        self._host = host
        self._store = store
        self._out = out
        self._notes = notes
        self.proving = proving
        self.before = Before()
        self.down: tuple[str, ...] = ()  # services that ran before a restart and do not now

    def start_again(self, along: Sequence[str] = ()) -> None:
        """What ran before the restart runs again, or the result says what does not.

        ``along``: services that ran when an earlier agent began.
        """
        bound = tuple(dict.fromkeys((*self.before.foreseen.along, *along)))
        self.down = survey.start_again(self._host, bound)
        self._out.stopped = (*self.down, *survey.down(self.before))
        if self._out.stopped:
            self._notes.append(f"not running since the restart: {', '.join(self._out.stopped)}")

    def refuse_what_stays_down(self) -> None:
        """A service that the restart has taken down for good: the change is right, the node not."""
        if not self.down:
            return
        names = " ".join(self.down)
        raise AgentError(
            "stays-down",
            f"{names} ran before the restart, and does not start again",
            cause=f"it is bound to {', '.join(self.before.starts)}, and was restarted along",
            cure=f"read why: journalctl -u {self.down[0]} -n 50; then: systemctl start {names}",
        )

    def paused(self, facts: Facts, units: tuple[str, ...]) -> Iterator[Proof]:
        """The runtimes whose CRI must come back after these restarts."""
        for part in table.at_work(facts) if units and self.proving.possible else ():
            for proof in part.proofs(facts):
                if proof.kind == "cri" and proof.unit in units:
                    yield proof

    def roll_back(
        self, transaction: Transaction | None, problem: BaseException, facts: Facts
    ) -> None:
        """Put everything back. ``problem`` is what led to it, and is raised again afterwards."""
        transaction = transaction or Transaction.pending(self._store)
        if transaction is None:
            return
        touched = [one["path"] for one in transaction.intent["changes"]]
        try:
            restored = transaction.rollback(self.start_of)
            self._restart_after_rollback(restored, facts)
            transaction.forget()
        except (AgentError, OSError) as second:
            raise words.not_put_back(problem, second, touched) from None
        if restored.files or restored.restarts:
            self._out.status = ROLLED_BACK
            self._out.restarts = list(restored.restarts)
            self._notes.append(words.rolled_back(restored))

    def _restart_after_rollback(
        self, restored: Restored, facts: Facts | None, along: Sequence[str] = ()
    ) -> None:
        for unit in restored.restarts:
            self._host.restart(unit)
        for proof in self.paused(facts, restored.restarts) if facts is not None else ():
            self.proving.prover.wait_for_cri(proof.socket)
        if restored.restarts:
            self.start_again(along)

    def recovered(self, boot: bool = False, stop_running: bool = False) -> Iterator[Event]:
        transaction = Transaction.pending(self._store)
        if transaction is None:
            disarm(self._store.root)
            return
        operation = transaction.intent["operation"]
        due = () if boot else transaction.due(self.start_of)
        facts = gather(self._host) if due else None
        before = self.before = survey.look(self._host, facts, due)
        if not (stop_running or transaction.agreed):
            restarts.refuse(before.foreseen, "recover")
        try:
            restored = transaction.rollback(self.start_of)
        except AgentError as problem:
            raise words.still_half_way(f"an interrupted {operation}", problem) from None
        if boot:
            restored = restored._replace(restarts=self._restarted_at_boot(restored.restarts))
        else:
            self._restart_after_rollback(restored, facts, transaction.along)
        transaction.forget()
        yield NoteEvent(
            f"an interrupted {operation} was rolled back: {words.rolled_back(restored)}"
        )
        self._out.status = CHANGED
        self._out.changes = list(restored.files)
        self.refuse_what_stays_down()

    def _restarted_at_boot(self, units: tuple[str, ...]) -> tuple[str, ...]:
        """Those that have started before us with the undone files, told to restart on their own.

        They are ordered behind us, so to wait for them would be to wait for ourselves; those that
        are still to come read the files that are put back.
        """
        running = tuple(unit for unit in units if self.start_of(unit))
        for unit in running:
            self._host.restart_later(unit)
        return running

    def start_of(self, unit: str) -> str:
        return self._host.start_of(unit)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """No signal ends a rollback half-way: those that come wait until it is done."""
    waiting = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    old = signal.pthread_sigmask(signal.SIG_BLOCK, waiting)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)
