"""What `inv up --kubernetes` does beside the rest: the lab as a cluster, and a pod in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moorage.actions import Action
from moorage.errors import MoorageError, Refused
from moorage.walk.phase import Phase, Walk

if TYPE_CHECKING:
    from moorage.cluster.api.client import Api
    from moorage.cluster.login.secrets import Place, SecretWish
    from moorage.cluster.workload.deploy import Workload


def _programs_pending(walk: Walk) -> list[Action]:
    from lab.kubernetes.programs import binaries

    hosts = walk.settings.nodes.hosts
    if hosts:
        raise Refused(
            "hosts-of-yours",
            "up --kubernetes makes a cluster of the lab's nodes, and no lab is made here",
            cause=f"nodes.hosts in invoke.yaml names {', '.join(hosts[:3])}",
            cure="inv lab.up --kubernetes makes one beside them; for a cluster of yours: inv up, "
            "then inv k8s.secret and inv k8s.deploy",
        )
    return binaries.pending(walk.settings)


def _programs(walk: Walk) -> bool:
    from lab import kubernetes
    from lab.kubernetes.programs import binaries

    missing = bool(binaries.pending(walk.settings))
    kubernetes.fetch(walk.settings, walk.client, walk.ui)
    return missing


def _cluster_pending(walk: Walk) -> list[Action]:
    from lab import kubernetes

    return kubernetes.pending_cluster(walk.settings)


def _cluster(walk: Walk) -> bool:
    import lab
    from lab import kubernetes

    nodes = lab.nodes(walk.settings, walk.client)
    walk.cluster = kubernetes.up(walk.settings, walk.client, walk.ui, nodes)
    return walk.cluster.changed


def _workload_pending(walk: Walk) -> list[Action]:
    from moorage.cluster.login import secrets
    from moorage.cluster.workload import deploy

    kubernetes, wanted = walk.settings.kubernetes, _wanted(walk)
    login = Action(f"put the login into {kubernetes.namespaces[0]} as Secret {kubernetes.secret}")
    run = Action(f"run {wanted.fit.name} in the cluster from {wanted.fit.image}")
    if _cluster_pending(walk):
        return [login, run]
    try:
        api = _api(walk)
        there = secrets.stands(api, _place(walk), _wish(walk))
        steps = deploy.plan(api, walk.settings, wanted)
    except MoorageError:  # what stands cannot be asked; the walk itself tells why
        return [login, run]
    changed = any(step.action != deploy.UNCHANGED for step in steps)
    return [*([] if there else [login]), *([run] if changed else [])]


def _workload(walk: Walk) -> bool:
    from moorage.cluster.login import secrets
    from moorage.cluster.workload import deploy

    api, wanted = _api(walk), _wanted(walk)
    outcome = secrets.apply(api, walk.ui, [_place(walk)], _wish(walk))[0]
    if outcome.error is not None:
        raise outcome.error
    walk.ui.note(f"Secret {outcome.place}: {outcome.status}")
    steps = deploy.plan(api, walk.settings, wanted)
    walk.workload = wanted
    walk.deployed = deploy.carry_out(api, walk.settings, walk.ui, wanted, steps)
    return walk.deployed.changed or outcome.changed


def _api(walk: Walk) -> Api:
    from lab import kubernetes
    from moorage.cluster.login import access

    kubeconfig = str(kubernetes.kubeconfig_path(walk.settings))
    return access.connect(walk.settings, kubeconfig=kubeconfig)


def _place(walk: Walk) -> Place:
    from moorage.cluster.login.secrets import Place

    kubernetes = walk.settings.kubernetes
    return Place(kubernetes.namespaces[0], kubernetes.secret)


def _wish(walk: Walk) -> SecretWish:
    from moorage.cluster.login import login, secrets

    return secrets.wish(walk.settings, login.read(walk.settings, ""))


def _wanted(walk: Walk) -> Workload:
    from moorage.cluster.workload import deploy

    return deploy.tutorial(walk.settings)


PROGRAMS = Phase("Kubernetes' programs", _programs_pending, _programs)
CLUSTER = Phase("cluster", _cluster_pending, _cluster)
WORKLOAD = Phase("pod", _workload_pending, _workload)
