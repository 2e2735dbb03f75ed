"""Which proof each part of a node gets, and which part has none: the one place that decides. Pure.

The rule: a node is verified if every runtime that serves images there has pulled by itself, or has
shown its trust by what counts as much. Whatever is left comes with the reason, and keeps
``verified`` from being true (docs/runtimes.md, "How trust is proven").
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

from agent.facts import Facts
from agent.formats.proposal import Proof
from agent.node.host import RELOAD
from agent.runtimes import table
from agent.wire.plan import Plan
from agent.wire.report import Unproven

NO_IMAGE = "no image was pulled, since the plan names none; only TLS by name was proven"
NO_NODE = "this is a file tree, not a running node"
NOTHING_RUNS = "it does not run, or does not serve a kubelet, and nothing else here pulls images"
NO_RUNTIME = "there is no container runtime here"


class Decision(NamedTuple):
    """The proofs to make, and the parts that none of them would show anything of."""

    proofs: tuple[Proof, ...] = ()
    unproven: tuple[Unproven, ...] = ()

    @property
    def verified(self) -> bool | None:
        """What the result says once all the proofs are made."""
        return None if self.unproven else True


def _can_all(proof: Proof) -> str:
    return ""


def decide(
    facts: Facts,
    plan: Plan,
    waiting: Collection[str] = (),
    cannot: Callable[[Proof], str] = _can_all,
) -> Decision:
    """How each part of the plan that is in use on this node is proven.

    ``waiting`` are the services whose restart is put off; ``cannot`` tells why whoever proves
    cannot make a proof, "" for one that it can.
    """
    late = {unit[len(RELOAD) :] if unit.startswith(RELOAD) else unit for unit in waiting}
    proofs: dict[tuple[object, ...], Proof] = {}
    unproven: list[Unproven] = []
    used = False
    here = [name for name in table.chosen(plan) if table.is_here(name, facts)]
    for name in here:
        part = table.TABLE[name]
        pulls, further = part.proofs(facts), part.further(facts, plan)
        doubts = list(part.doubts(facts, plan))
        used = used or (part.runtime and bool(pulls or doubts))
        for proof in (*pulls, *further):
            why = _why_not(proof, plan, late, bool(further)) or cannot(proof)
            if not why:
                proofs.setdefault(proof.key, proof)
            elif why != _NOT_NEEDED:
                doubts.append(why)
        unproven += [Unproven(name, why) for why in dict.fromkeys(doubts)]
    return Decision(tuple(proofs.values()), (*unproven, *(() if used else _idle(facts, plan))))


def of_a_tree(facts: Facts, plan: Plan) -> Decision:
    """Of a node that is laid out as files nothing can be proven."""
    here = [name for name in table.chosen(plan) if table.is_there(name, facts)]
    return Decision((), tuple(Unproven(name, NO_NODE) for name in here))


_NOT_NEEDED = "a proof without a pull does"


def _why_not(proof: Proof, plan: Plan, late: Collection[str], spared: bool) -> str:
    """Why a proof is not made; "" for one that is."""
    if proof.unit and proof.unit in late:
        return f"a restart of {proof.unit} is waiting"
    if plan.verify is None and proof.pulls:
        return _NOT_NEEDED if spared else NO_IMAGE
    return ""


def _idle(facts: Facts, plan: Plan) -> tuple[Unproven, ...]:
    """What to say where no runtime of the plan is in use; nothing of a plan that names none."""
    asked = [name for name in table.chosen(plan) if table.TABLE[name].runtime]
    there = [name for name in asked if table.is_there(name, facts)]
    if there:
        return tuple(Unproven(name, NOTHING_RUNS) for name in there)
    return (Unproven(asked[0], NO_RUNTIME),) if asked else ()
