"""The parts of a node as a table: which module decides, what must be restarted, how it is proved.

A plan names parts; the engine knows them by this table alone. The runtimes' rows are collected
from their files in this folder (:mod:`agent.wire.regenerate`). ``proxy`` is no part a plan can
name: it looks after the runtimes that are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from typing import Any, NamedTuple, Protocol

from agent.edit.change import Change, Ledger, Owned
from agent.facts import Facts
from agent.formats.proposal import Explained, Proof, Proposal, Trial
from agent.system import hosts, proxy
from agent.wire.plan import Plan, Registry
from agent.wire.runtimes.declaration import Declaration
from agent.wire.runtimes.declared import RUNTIMES


class Resource(Protocol):
    """What a part's module offers; all of it pure."""

    def propose(self, facts: Facts, plan: Plan, owned: Ledger) -> Proposal: ...
    def strip(self, owned: Owned, content: bytes, registry: Registry) -> bytes | None: ...
    def explain(self, facts: Facts, plan: Plan) -> tuple[Explained, ...]: ...


def _no_restart(facts: Facts, changes: tuple[Change, ...]) -> tuple[str, ...]:
    return ()


def _no_proof(facts: Facts) -> tuple[Proof, ...]:
    return ()


def _nothing_further(facts: Facts, plan: Plan) -> tuple[Proof, ...]:
    return ()


def _no_doubts(facts: Facts, plan: Plan) -> tuple[str, ...]:
    return ()


def _of_one_registry(item: Owned) -> bool:
    return False


def _nothing_left(facts: Facts, item: Owned, registry: Registry) -> tuple[Change, ...]:
    return ()


def _nothing(facts: Facts, registry: Registry) -> tuple[Change, ...]:
    return ()


def _nowhere(facts: Facts) -> bool:
    return False


def _everywhere(facts: Facts) -> bool:
    return True


def _for_no_one(facts: Facts, item: Owned, ledger: Ledger) -> str:
    return ""


def _no_trial(
    facts: Facts, changes: Sequence[Change], registry: Registry, applying: bool
) -> Iterable[Trial]:
    return ()


class Part(NamedTuple):
    """A row. ``runtime``: one that pulls images, so that a node without any is refused.

    ``needs``: the runtimes of which one has to be on the node; none named: the module decides.

    ``there`` tells of a part without needs whether it is on the node, at work or not,
    ``restarts`` tells the services that read the changed files at their start alone, ``proofs`` how
    pulls are made with it, ``further`` which proofs need no pull, ``doubts`` why a pull would show
    nothing of its trust or cannot be made, ``shared`` whether a file holds one setting that serves
    all registries, ``left`` what goes from such a file with one of them,
    ``kept`` why such a setting must stay although the registry goes, ``forgotten`` what is ours by
    its marks alone, where the state folder is lost, ``judge`` what its own program shall say of the
    changes before they are made.
    """

    resource: Resource
    runtime: bool = True
    needs: tuple[str, ...] = ()
    there: Callable[[Facts], bool] = _nowhere
    restarts: Callable[[Facts, tuple[Change, ...]], tuple[str, ...]] = _no_restart
    proofs: Callable[[Facts], tuple[Proof, ...]] = _no_proof
    further: Callable[[Facts, Plan], tuple[Proof, ...]] = _nothing_further
    doubts: Callable[[Facts, Plan], tuple[str, ...]] = _no_doubts
    shared: Callable[[Owned], bool] = _of_one_registry
    left: Callable[[Facts, Owned, Registry], tuple[Change, ...]] = _nothing_left
    kept: Callable[[Facts, Owned, Ledger], str] = _for_no_one
    forgotten: Callable[[Facts, Registry], tuple[Change, ...]] = _nothing
    judge: Callable[[Facts, Sequence[Change], Registry, bool], Iterable[Trial]] = _no_trial


class _Late:
    """A part's module, loaded when the part is first at work: few nodes have more than two."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, decision: str) -> Any:
        return getattr(import_module(self._name), decision)

    def later(self, decision: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            return getattr(self, decision)(*arguments)

        return call

    def part(self, decides: Iterable[str], **says: Any) -> Part:
        """The module's row; ``decides``: which of the optional decisions it has."""
        rows: dict[str, Any] = {name: self.later(name) for name in decides}
        resource: Any = self
        return Part(resource, **says, **rows)


def _part(declared: Declaration) -> Part:
    """A runtime's row."""
    if declared.usual:
        import_module(f"agent.runtimes.{declared.name}")
    late = _Late(f"agent.runtimes.{declared.name}")
    needs = tuple(kind.name for kind in declared.kinds)
    return late.part(declared.decides, needs=needs)


TABLE: dict[str, Part] = {
    hosts.PART: Part(hosts, runtime=False, there=_everywhere, forgotten=hosts.forgotten),
    **{declared.name: _part(declared) for declared in RUNTIMES},
    "system": _Late("agent.system.system_store").part(
        ("restarts", "further"), runtime=False, there=_everywhere
    ),
    proxy.PART: Part(proxy, runtime=False, restarts=proxy.restarts, shared=proxy.shared),
}


def chosen(plan: Plan) -> tuple[str, ...]:
    """The names of the parts a plan is about, in the table's order."""
    runtimes = any(TABLE[name].runtime for name in plan.parts if name in TABLE)
    return tuple(name for name in TABLE if name in plan.parts or (name == proxy.PART and runtimes))


def is_here(name: str, facts: Facts) -> bool:
    """Whether one of the runtimes that a part needs is on the node; true of one that needs none."""
    return _is_here(TABLE[name], facts)


def is_there(name: str, facts: Facts) -> bool:
    """Whether the part itself is on the node, at work or not."""
    return TABLE[name].there(facts) if not TABLE[name].needs else is_here(name, facts)


def at_work(facts: Facts) -> tuple[Part, ...]:
    """The parts whose runtime is on the node, and those that need none."""
    return tuple(part for part in TABLE.values() if _is_here(part, facts))


def _is_here(part: Part, facts: Facts) -> bool:
    return not part.needs or any(name in facts.others for name in part.needs)


def propose(name: str, facts: Facts, plan: Plan, owned: Ledger) -> Proposal:
    """What the part ``name`` needs. Raises RefusedError for a state that is not understood."""
    part = TABLE[name]
    if not _is_here(part, facts):
        return Proposal(absent=f"there is no {' or '.join(part.needs)} here")
    return part.resource.propose(facts, plan, owned)


def explain(facts: Facts, plan: Plan) -> tuple[Explained, ...]:
    """What each part of the plan would do on this node, and why."""
    return tuple(
        finding for name in chosen(plan) for finding in TABLE[name].resource.explain(facts, plan)
    )
