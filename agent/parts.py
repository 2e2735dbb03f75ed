"""The parts of a node as a table: which module decides, what must be restarted, how it is proved.

A plan names parts; the engine knows them by this table alone. ``proxy`` is no part a plan can
name: it looks after the runtimes that are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from agent.facts import Facts
from agent.plan import Plan, Registry
from agent.resources import (
    Change,
    Finding,
    Ledger,
    Owned,
    Proof,
    Proposal,
    buildkit,
    containerd,
    crio,
    docker,
    hosts,
    k0s,
    k3s,
    microk8s,
    nerdctl,
    podman,
    proxy,
    system_store,
)


class Resource(Protocol):
    """What a part's module offers; all of it pure."""

    def propose(self, facts: Facts, plan: Plan, owned: Ledger) -> Proposal: ...
    def strip(self, owned: Owned, content: bytes, registry: Registry) -> bytes | None: ...
    def explain(self, facts: Facts, plan: Plan) -> tuple[Finding, ...]: ...


def _no_restart(facts: Facts, changes: tuple[Change, ...]) -> tuple[str, ...]:
    return ()


def _no_proof(facts: Facts) -> tuple[Proof, ...]:
    return ()


def _of_one_registry(item: Owned) -> bool:
    return False


def _nothing_left(facts: Facts, item: Owned, registry: Registry) -> tuple[Change, ...]:
    return ()


def _nothing(facts: Facts, registry: Registry) -> tuple[Change, ...]:
    return ()


def _for_no_one(facts: Facts, item: Owned, ledger: Ledger) -> str:
    return ""


@dataclass(frozen=True)
class Part:
    """A row. ``runtime``: one that pulls images, so that a node without any is refused.

    ``restarts`` tells the services that read the changed files at their start alone, ``proofs`` how
    pulls are made with it, ``shared`` whether a file holds one setting that serves all registries,
    ``left`` what goes from such a file with one of them,
    ``kept`` why such a setting must stay although the registry goes, ``forgotten`` what is ours by
    its marks alone, where the state folder is lost.
    """

    resource: Resource
    runtime: bool = True
    restarts: Callable[[Facts, tuple[Change, ...]], tuple[str, ...]] = _no_restart
    proofs: Callable[[Facts], tuple[Proof, ...]] = _no_proof
    shared: Callable[[Owned], bool] = _of_one_registry
    left: Callable[[Facts, Owned, Registry], tuple[Change, ...]] = _nothing_left
    kept: Callable[[Facts, Owned, Ledger], str] = _for_no_one
    forgotten: Callable[[Facts, Registry], tuple[Change, ...]] = _nothing


def _containerd_proofs(facts: Facts) -> tuple[Proof, ...]:
    return tuple(
        Proof("cri", found.socket, found.unit.name if found.unit is not None else "")
        for found in facts.containerds
        if containerd.serves_kubelets(found)
    )


TABLE: dict[str, Part] = {
    hosts.PART: Part(hosts, runtime=False, forgotten=hosts.forgotten),
    docker.PART: Part(
        docker, restarts=docker.restarts, proofs=docker.proofs, forgotten=docker.forgotten
    ),
    containerd.PART: Part(
        containerd,
        restarts=containerd.restarts,
        proofs=_containerd_proofs,
        shared=containerd.serves_all,
        left=containerd.left,
        kept=containerd.kept_for_others,
        forgotten=containerd.forgotten,
    ),
    crio.PART: Part(crio, restarts=crio.restarts, proofs=crio.proofs),
    podman.PART: Part(podman, proofs=podman.proofs),
    k3s.PART: Part(k3s, restarts=k3s.restarts, proofs=k3s.proofs),
    microk8s.PART: Part(microk8s, proofs=microk8s.proofs),
    k0s.PART: Part(
        k0s,
        restarts=k0s.restarts,
        proofs=k0s.proofs,
        shared=lambda item: k0s.is_configuration(item.path),
    ),
    buildkit.PART: Part(buildkit, restarts=buildkit.restarts),
    nerdctl.PART: Part(nerdctl),
    system_store.PART: Part(system_store, runtime=False, restarts=system_store.restarts),
    proxy.PART: Part(proxy, runtime=False, restarts=proxy.restarts),
}


def chosen(plan: Plan) -> tuple[str, ...]:
    """The names of the parts a plan is about, in the table's order."""
    runtimes = any(TABLE[name].runtime for name in plan.parts if name in TABLE)
    return tuple(name for name in TABLE if name in plan.parts or (name == proxy.PART and runtimes))


def proofs(facts: Facts, plan: Plan) -> tuple[Proof, ...]:
    """How pulls are made on this node with the parts of the plan."""
    return tuple(proof for name in chosen(plan) for proof in TABLE[name].proofs(facts))


def explain(facts: Facts, plan: Plan) -> tuple[Finding, ...]:
    """What each part of the plan would do on this node, and why."""
    return tuple(
        finding for name in chosen(plan) for finding in TABLE[name].resource.explain(facts, plan)
    )
