"""Takes out of the cluster what is ours, found by our labels, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from moorage.cluster.api import many, ours, paths
from moorage.cluster.api.refusals import ApiError
from moorage.cluster.login import accounts, strangers
from moorage.errors import MoorageError
from moorage.output import PartFailure, Parts, Update, Warn, unheard

if TYPE_CHECKING:
    from moorage.cluster.api.client import Api
    from moorage.settings import Settings

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


# A pod's own half minute to end, and what a kubelet needs on top on a busy node: 45 were too few.
_GONE_SECONDS = 90.0


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
class RemovalOutcome:
    """What became of one thing: ``removed``, ``gone`` before, ``kept`` or ``leaving`` (``why``),
    ``failed``."""

    thing: Thing
    status: str
    error: MoorageError | None = None
    why: str = ""

    @property
    def is_away(self) -> bool:
        """Whether nothing of it is left."""
        return self.status in ("removed", "gone")

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


def remove(api: Api, found: Found, update: Update = unheard) -> list[RemovalOutcome]:
    """Removes it, kind by kind; what fails is in its outcome, and the others go on."""
    attached = [one for one in found.things if one.detach]
    own = [one for one in found.things if not one.detach]
    batches = [attached, *([one for one in own if one.kind == kind] for kind in KINDS)]
    outcomes: list[RemovalOutcome] = []
    for batch in batches:
        outcomes += many.each(batch, lambda one: _remove(api, one), parallel=api.parallel)
        update(done=len(outcomes), total=len(found.things))
    return _once_gone(api, outcomes)


def failures(outcomes: Sequence[RemovalOutcome]) -> Parts:
    """What is not away, and why."""
    for one in outcomes:
        if one.error:
            yield PartFailure(one.error)
        if one.why:
            yield Warn(f"{one.status}: {one.thing.words}: {one.why}")


def _once_gone(api: Api, outcomes: Sequence[RemovalOutcome]) -> list[RemovalOutcome]:
    """Pods end their programs first, and a namespace its content: "removed" shall be true."""
    deadline = time.monotonic() + _GONE_SECONDS
    return [
        replace(one, status="leaving", why=why)
        if one.status == "removed" and (why := _what_holds(api, one.thing, deadline))
        else one
        for one in outcomes
    ]


def _what_holds(api: Api, thing: Thing, deadline: float) -> str:
    """Why a thing that was deleted is still there at the deadline; "" for one that is gone."""
    if thing.kind not in ("Pod", "Namespace") or thing.detach:
        return ""
    path = paths.one(thing.kind, thing.name, thing.namespace)
    while True:
        live = api.find(path, f"read {thing.words}")
        if live is None or live["metadata"]["uid"] != thing.uid:
            return ""
        if time.monotonic() >= deadline:
            return f"it was deleted and is still there; {_last_word(live)}"
        time.sleep(0.5)


def _last_word(live: Mapping[str, Any]) -> str:
    """What keeps an object that is being deleted. Pure."""
    conditions = (live.get("status") or {}).get("conditions") or ()
    said = [
        one["message"] for one in conditions
        if one.get("status") == "True" and one.get("type", "").endswith("Remaining")
    ]  # fmt: skip
    holders = live["metadata"].get("finalizers") or ()
    return "; ".join(said) or (
        f"finalizers: {', '.join(holders)}" if holders else "nothing in it says what holds it"
    )


def _remove(api: Api, thing: Thing) -> RemovalOutcome:
    path = paths.one(thing.kind, thing.name, thing.namespace)
    try:
        if thing.detach:
            changed = [
                name
                for name in thing.detach
                if accounts.detach(api, thing.namespace, [thing.name], name)
            ]
            return RemovalOutcome(thing, "removed" if changed else "gone")
        others = strangers.within(api, thing.name) if thing.kind == "Namespace" else []
        if others:
            more = f" and {len(others) - 1} more" if len(others) > 1 else ""
            return RemovalOutcome(
                thing, "kept", None, f"it holds what is not ours: {others[0]}{more}"
            )
        there = api.delete(path, thing.action, uid=thing.uid)
    except ApiError as problem:
        if problem.status == 409:  # another object of that name: not the one we saw
            return RemovalOutcome(thing, "gone")
        return RemovalOutcome(thing, "failed", problem)
    return RemovalOutcome(thing, "removed" if there else "gone")
