"""Takes out of the cluster what is ours, found by our labels, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moorage.cluster import accounts, many, ours, paths
from moorage.cluster.refusals import ApiError
from moorage.errors import MoorageError

if TYPE_CHECKING:
    from moorage.cluster.api import Api
    from moorage.settings import Settings
    from moorage.ui import UI

# In this order: what makes others comes before what it makes, rights last.
KINDS = (
    "DaemonSet",
    "Deployment",
    "Pod",
    "Service",
    "Secret",
    "ConfigMap",
    "RoleBinding",
    "Role",
    "ClusterRoleBinding",
    "ClusterRole",
    "ValidatingAdmissionPolicyBinding",
    "ValidatingAdmissionPolicy",
    "ServiceAccount",
    "Namespace",
)


_GONE_SECONDS = 45.0


@dataclass(frozen=True)
class Thing:
    """One object of ours; ``detach``: it is somebody's ServiceAccount that names our Secret."""

    kind: str
    namespace: str
    name: str
    uid: str
    detach: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        return (
            f"{self.kind} {self.namespace}/{self.name}"
            if self.namespace
            else (f"{self.kind} {self.name}")
        )

    @property
    def action(self) -> str:
        if not self.detach:
            return f"delete {self.words}"
        return f"take {', '.join(self.detach)} out of {self.words}"


@dataclass(frozen=True)
class Found:
    """What is ours; ``others``: registries of other Moorages in this cluster; ``unseen``: kinds
    that we may not list."""

    things: tuple[Thing, ...]
    others: tuple[str, ...] = ()
    unseen: tuple[ApiError, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What became of one thing: ``removed``, ``gone`` before, ``kept`` (``why``), ``failed``."""

    thing: Thing
    status: str
    error: MoorageError | None = None
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.thing.kind,
            "namespace": self.thing.namespace,
            "name": self.thing.name,
            "action": self.thing.action,
            "status": self.status,
            "why": self.why,
            "error": self.error.to_json() if self.error else None,
        }


def find(api: Api, settings: Settings, namespaces: Sequence[str] = (), *, part: str = "") -> Found:
    """Everything of ours for this registry, everywhere or in these namespaces.

    ``part``: only what carries this word in ``moorage.dev/part``, and what lies beside it.
    """
    selector = f"{ours.MANAGED_BY}=moorage,{ours.PART}" + (f"={part}" if part else "")
    mine = ours.registry_label(settings.registry_name)
    things: list[Thing] = []
    others: set[str] = set()
    unseen: list[ApiError] = []
    for kind in KINDS:
        everywhere = not paths.KINDS[kind].namespaced
        if everywhere and namespaces:
            continue
        for namespace in namespaces or ("",):
            try:
                listed = list(
                    api.items(
                        paths.all_of(kind, namespace),
                        f"list {paths.KINDS[kind].plural}",
                        selector=selector,
                    )
                )
            except ApiError as problem:
                if problem.status not in (403, 404):
                    raise
                if problem.status == 403:  # 404: this API server does not know the kind
                    unseen.append(problem)
                continue
            for document in listed:
                registry = ours.labels_of(document).get(ours.REGISTRY, mine)
                if document["metadata"].get("deletionTimestamp"):
                    continue  # it is going already
                if registry == mine:
                    things.append(_thing(kind, document))
                else:
                    others.add(registry)
    attached = [] if part else _attached(api, namespaces, things, unseen)
    return Found((*attached, *things), tuple(sorted(others)), tuple(unseen))


def _attached(
    api: Api, namespaces: Sequence[str], things: Sequence[Thing], unseen: list[ApiError]
) -> list[Thing]:
    """ServiceAccounts that our Secrets were attached to. They have no label of ours: they are
    somebody else's, and only one line in them is ours."""
    secrets = {(one.namespace, one.name) for one in things if one.kind == "Secret"}
    own = {(one.namespace, one.name) for one in things if one.kind == "ServiceAccount"}
    found = []
    for namespace in namespaces or ("",):
        try:
            for account in api.items(
                paths.all_of("ServiceAccount", namespace), "list serviceaccounts"
            ):
                metadata = account["metadata"]
                marked = (metadata.get("annotations") or {}).get(ours.ATTACHED, "").split(",")
                place = metadata["namespace"]
                names = tuple(
                    name for name in marked if name and _is_ours(api, secrets, place, name)
                )
                if names and (place, metadata["name"]) not in own:
                    found.append(_thing("ServiceAccount", account, names))
        except ApiError as problem:
            if problem.status != 403:
                raise
            unseen.append(problem)
    return found


def _is_ours(api: Api, secrets: set[tuple[str, str]], namespace: str, name: str) -> bool:
    """Of this registry: the Secret is among ours, or already gone (an earlier run was stopped)."""
    if (namespace, name) in secrets:
        return True
    return api.find(paths.one("Secret", name, namespace), "read Secrets") is None


def _thing(kind: str, document: Mapping[str, Any], detach: tuple[str, ...] = ()) -> Thing:
    metadata = document["metadata"]
    namespace = metadata.get("namespace", "")
    return Thing(kind, namespace, metadata["name"], metadata["uid"], detach)


def remove(api: Api, ui: UI, found: Found) -> list[Outcome]:
    """Removes it, kind by kind; what fails is told, and the others go on."""
    attached = [one for one in found.things if one.detach]
    own = [one for one in found.things if not one.detach]
    batches = [attached, *([one for one in own if one.kind == kind] for kind in KINDS)]
    outcomes: list[Outcome] = []
    with ui.progress(f"remove {len(found.things)} objects") as update:
        for batch in batches:
            outcomes += many.each(batch, lambda one: _remove(api, one), parallel=api.parallel)
            update(done=len(outcomes), total=len(found.things))
        _wait_until_gone(api, [one.thing for one in outcomes if one.status == "removed"])
    return outcomes


def _wait_until_gone(api: Api, things: Sequence[Thing]) -> None:
    """Pods end their programs first, and a namespace its content: "removed" shall be true."""
    deadline = time.monotonic() + _GONE_SECONDS
    for thing in things:
        if thing.kind not in ("Pod", "Namespace") or thing.detach:
            continue
        path = paths.one(thing.kind, thing.name, thing.namespace)
        while time.monotonic() < deadline:
            live = api.find(path, f"read {thing.words}")
            if live is None or live["metadata"]["uid"] != thing.uid:
                break
            time.sleep(0.5)


def _remove(api: Api, thing: Thing) -> Outcome:
    path = paths.one(thing.kind, thing.name, thing.namespace)
    try:
        if thing.detach:
            changed = [
                name
                for name in thing.detach
                if accounts.detach(api, thing.namespace, [thing.name], name)
            ]
            return Outcome(thing, "removed" if changed else "gone")
        strangers = _strangers(api, thing.name) if thing.kind == "Namespace" else []
        if strangers:
            return Outcome(thing, "kept", None, f"it holds what is not ours: {strangers[0]}")
        there = api.delete(path, thing.action, uid=thing.uid)
    except ApiError as problem:
        if problem.status == 409:  # another object of that name: not the one we saw
            return Outcome(thing, "gone")
        return Outcome(thing, "failed", problem)
    return Outcome(thing, "removed" if there else "gone")


# What Kubernetes itself puts into every namespace.
_BY_KUBERNETES = frozenset((("ServiceAccount", "default"), ("ConfigMap", "kube-root-ca.crt")))


def _strangers(api: Api, namespace: str) -> list[str]:
    """What is in a namespace of ours and is not ours: deleting it would take these along."""
    found = []
    for kind in ("Pod", "Service", "Deployment", "DaemonSet", "Secret", "ConfigMap"):
        for one in api.items(paths.all_of(kind, namespace), f"look into {namespace}"):
            metadata = one["metadata"]
            by_kubernetes = (
                (kind, metadata["name"]) in _BY_KUBERNETES
                or one.get("type") == "kubernetes.io/service-account-token"
                or bool(metadata.get("ownerReferences"))
            )
            if not ours.is_ours(one) and not by_kubernetes:
                found.append(f"{kind} {metadata['name']}")
    return found
