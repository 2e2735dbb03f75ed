"""The result in the making, and the proofs that go into it, as events."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from agent.facts import Facts
from agent.formats.proposal import Proof
from agent.journal import status
from agent.journal.ledger import Store
from agent.node.threads import Awaited
from agent.proof import decision
from agent.runtimes import table
from agent.wire.faults import AgentError, Fault
from agent.wire.plan import Plan, Registry, Verify
from agent.wire.report import UNCHANGED, Event, FileChange, HostResult, Unproven, VerifyEvent


class Prover(Protocol):
    """What :mod:`agent.proof.verify` offers; tests put their own in its place."""

    def ask_registry(self, plan: Plan, address: str | None = None) -> None: ...
    def cri_serves(self, socket_path: str) -> bool: ...
    def wait_for_cri(self, socket_path: str) -> None: ...
    def pull(self, proof: Proof, registry: Registry, verify: Verify, seconds: float) -> None: ...
    def trusts(self, proof: Proof, plan: Plan) -> None: ...
    def cannot(self, proof: Proof) -> str: ...


@dataclass
class ProofOutcome:
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


class Proving:
    """Proves a plan on a node, and notes in the outcome what was proved and what was not.

    ``real``: whether this is the node itself and no tree of files; ``given``: who makes the proofs.
    """

    def __init__(self, store: Store, out: ProofOutcome, real: bool, given: Prover | None) -> None:
        self._store = store
        self._out = out
        self._real = real
        self._given = given
        self.writes_nothing = False

    @property
    def prover(self) -> Prover:
        if self._given is None:
            from agent.proof import verify

            self._given = verify
        return self._given

    @property
    def possible(self) -> bool:
        """A file tree that is no running node has nothing to prove it by."""
        return self._real or self._given is not None

    def prove(
        self,
        plan: Plan,
        facts: Facts,
        waiting: Collection[str] = (),
        serving: Collection[str] = (),
    ) -> Iterator[Event]:
        """TLS by name, CRI, and a proof a runtime; what has none is named in the result.

        ``waiting``: services whose restart is put off; ``serving``: where CRI was just proved.
        """
        if not self.possible:
            self._out.unproven = decision.of_a_tree(facts, plan).unproven
            return
        decided = decision.decide(facts, plan, waiting, self.prover.cannot)
        unasked = () if waiting else [one for one in _sockets(facts, plan) if one not in serving]
        # Both answers take a few milliseconds to come, and neither needs the other.
        asked = {one: Awaited(partial(self.prover.cri_serves, one)) for one in unasked}
        yield from self.timed("registry", lambda: self.prover.ask_registry(plan))
        for one in unasked:
            if not asked[one].answer():
                yield from self.timed("cri", partial(self.prover.wait_for_cri, one))
        for proof in decided.proofs:
            if not proof.pulls:
                trusts = partial(self.prover.trusts, proof, plan)
                yield from self.timed("files", trusts, proof.detail)
        yield from self._pulled(plan, [proof for proof in decided.proofs if proof.pulls])
        self._out.unproven = decided.unproven
        self._out.verified = decided.verified
        if not self.writes_nothing:
            pulling = plan.verify is not None
            status.note_unproven(self._store, plan.registry.name, decided.unproven, pulling)

    def _pulled(self, plan: Plan, proofs: Sequence[Proof]) -> Iterator[Event]:
        verify = plan.verify
        if verify is None or not proofs:
            return
        began = time.monotonic()
        for proof in proofs:
            pull = partial(self.prover.pull, proof, plan.registry, verify)
            yield from self.timed("pull", partial(pull, plan.options.pull_timeout), proof.detail)
        self._out.pull_seconds = round(time.monotonic() - began, 3)
        status.note_pull(self._store, plan.registry.name, verify.image, self._out.pull_seconds)

    def timed(self, step: str, prove: Callable[[], None], detail: str = "") -> Iterator[Event]:
        began = time.monotonic()
        try:
            prove()
        except AgentError as problem:
            self._out.verified = False
            seconds = round(time.monotonic() - began, 3)
            yield VerifyEvent(step, ok=False, seconds=seconds, detail=problem.code)
            raise
        yield VerifyEvent(step, True, round(time.monotonic() - began, 3), detail)


def _sockets(facts: Facts, plan: Plan) -> Iterator[str]:
    """Where CRI has to serve with the parts of the plan, each once."""
    here = (name for name in table.chosen(plan) if table.is_here(name, facts))
    found = (proof for name in here for proof in table.TABLE[name].proofs(facts))
    yield from dict.fromkeys(proof.socket for proof in found if proof.kind == "cri")
