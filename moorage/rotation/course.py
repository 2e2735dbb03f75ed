"""Where the rotation of a CA stands, and what is to be done next. Pure.

Four phases: *both* hands out the old CA and the new one, *prove* has every member pull under the
new one, *switch* has the front serve a certificate of it, *drop* takes the old one away. Until the
switch, *abort* leads back. Each deed may be done again: a run that was killed goes on by doing once
more whatever is not noted as done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

BOTH, PROVE, SWITCH, DROP, ABORT, DONE = "both", "prove", "switch", "drop", "abort", "done"
PHASES = (BOTH, PROVE, SWITCH, DROP)
# What a member trusts.
OLD, NEW = "old", "new"
NODE, MACHINE, CLUSTER = "node", "machine", "cluster"

# Deeds. Those of the first row are this machine's own, the others go to members.
MAKE, SERVE, NARROW, WITHDRAW, FINISH = "make", "serve", "narrow", "withdraw", "finish"
HAND_OUT, PULL, TAKE, GIVE_BACK = "hand-out", "pull", "take", "give-back"
_LEADS_TO = {HAND_OUT: BOTH, TAKE: NEW, GIVE_BACK: OLD}


@dataclass(frozen=True)
class Member:
    """Who trusts the registry: a node, this machine's Docker, or a cluster's agents.

    ``holds``: ``old``, ``both`` or ``new``; ``proved``: it has pulled under the new CA; ``absent``:
    it did not answer the last time; ``why``: what kept the last deed from being done, "" for
    nothing; ``way``: how it is reached, as :mod:`moorage.rotation.members` notes it; ``touched``:
    a deed was begun on it, so that it may hold more than is known.
    """

    name: str
    kind: str = NODE
    holds: str = OLD
    proved: bool = False
    absent: bool = False
    why: str = ""
    way: str = ""
    touched: bool = False


@dataclass(frozen=True)
class State:
    """The whole of it. ``new``: the new CA's SHA-256, "" until it is made.

    ``narrowed``: one CA alone is handed out, the new one, or the old one after an abort.
    ``bridged``: the old CA vouches for the new one, so that a node which holds the old one alone
    pulls after the switch too. ``without``: members that are not waited for.
    ``began``: UTC, ISO 8601.
    """

    phase: str = BOTH
    new: str = ""
    bridged: bool = False
    narrowed: bool = False
    members: tuple[Member, ...] = ()
    without: frozenset[str] = frozenset()
    began: str = ""

    @property
    def may_abort(self) -> bool:
        """Whether the front still serves the old CA's certificate for sure."""
        return self.phase in (BOTH, PROVE, ABORT)


@dataclass(frozen=True)
class MemberOutcome:
    """What became of a deed on one member."""

    ok: bool
    absent: bool = False
    why: str = ""


@dataclass(frozen=True)
class RotationStep:
    """One deed; ``members``: on whom, () for one of this machine's own."""

    deed: str
    members: tuple[str, ...] = ()


Tried = frozenset[tuple[str, str]]


def next_step(state: State, tried: Tried = frozenset()) -> RotationStep | None:
    """What is to be done now; None if the rotation is done, or has to wait.

    ``tried``: deeds and members of this run; each is tried once a run.
    """
    if state.phase == DONE:
        return None
    if state.phase == ABORT and not state.narrowed:
        return RotationStep(WITHDRAW)
    if state.phase != ABORT and not state.new:
        return RotationStep(MAKE)
    if state.phase == SWITCH:
        return RotationStep(SERVE)
    for deed, due in _visits(state):
        left = tuple(one.name for one in due if (deed, one.name) not in tried)
        if left:
            return RotationStep(deed, left)
    if state.phase not in (DROP, ABORT) or blockers(state):
        return None
    return RotationStep(FINISH if state.narrowed else NARROW)


def _visits(state: State) -> tuple[tuple[str, list[Member]], ...]:
    """What is due on members, in this order: those that come late are brought up first."""
    if state.phase == ABORT:
        return ((GIVE_BACK, [one for one in state.members if one.touched]),)
    if state.narrowed:
        return ((TAKE, [one for one in state.members if one.holds != NEW]),)
    old = [one for one in state.members if one.holds == OLD]
    if state.phase == BOTH:
        return ((HAND_OUT, old),)
    return (HAND_OUT, old), (PULL, [m for m in state.members if m.holds == BOTH and not m.proved])


def advance(state: State) -> State:
    """The state at the end of a run's visits: in the next phase if nothing keeps it back."""
    if state.phase == BOTH and state.new:
        return replace(state, phase=PROVE)
    if state.phase == PROVE and not blockers(state):
        return replace(state, phase=SWITCH)
    return state


def blockers(state: State) -> tuple[Member, ...]:
    """The members that keep the rotation from its next phase; those of ``without`` never do."""
    if state.phase == DONE:
        return ()
    waited = [one for one in state.members if one.name not in state.without]
    if state.phase == ABORT:
        return tuple(one for one in waited if one.touched)
    if state.narrowed:
        return tuple(one for one in waited if one.holds != NEW)
    if state.phase == DROP:
        return tuple(one for one in waited if not one.proved)
    return tuple(one for one in waited if _blocks_the_switch(one, state.bridged))


def _blocks_the_switch(one: Member, bridged: bool) -> bool:
    """A node that is away needs no waiting for if what it holds lets it pull afterwards."""
    if one.holds == OLD:
        return not (one.absent and bridged)
    return not one.proved


def begun(state: State, step: RotationStep) -> State:
    """The state before a deed: what is cut off may have been done."""
    members = tuple(
        replace(one, touched=True) if one.name in step.members else one for one in state.members
    )
    return replace(state, members=members)


def done(
    state: State, step: RotationStep, outcomes: Mapping[str, MemberOutcome] | None = None
) -> State:
    """The state after a deed. ``outcomes``: by member, of a deed that goes to members."""
    if step.members:
        told = outcomes or {}
        members = tuple(
            _after(one, step.deed, told[one.name]) if one.name in told else one
            for one in state.members
        )
        return replace(state, members=members)
    if step.deed == SERVE:
        return replace(state, phase=DROP)
    if step.deed in (NARROW, WITHDRAW):
        return replace(state, narrowed=True)
    if step.deed == FINISH:
        return replace(state, phase=DONE)
    return state


def made(state: State, new: str, *, bridged: bool) -> State:
    """The new CA is there. ``new``: its SHA-256."""
    return replace(state, new=new, bridged=bridged)


def aborted(state: State) -> State:
    """On the way back; only for a state that :attr:`State.may_abort`."""
    return replace(state, phase=ABORT)


def to_come(state: State) -> tuple[RotationStep, ...]:
    """The deeds from here to the end, if everybody is reached and does what is asked."""
    steps: list[RotationStep] = []
    while state.phase != DONE:
        step = next_step(state)
        if step is None:
            after = advance(state)
            if after == state:
                break
            state = after
            continue
        steps.append(step)
        if step.deed == MAKE:
            state = made(state, "to be made", bridged=True)
        state = done(begun(state, step), step, {name: MemberOutcome(True) for name in step.members})
    return tuple(steps)


def _after(one: Member, deed: str, outcome: MemberOutcome) -> Member:
    told = replace(one, absent=outcome.absent, why=outcome.why)
    if not outcome.ok:
        return told
    if deed == PULL:
        return replace(told, proved=True)
    return replace(told, holds=_LEADS_TO[deed], touched=deed != GIVE_BACK)
