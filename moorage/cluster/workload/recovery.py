"""After a cure: pods that only a new pod helps are replaced, and every one is waited for.

"Cured" is said of pods that are there and have their images, not of pods that are on their way.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from moorage.cluster.api import ours, paths
from moorage.cluster.diagnosis import examine, owners
from moorage.cluster.diagnosis.examine import Report
from moorage.cluster.symptoms import causes
from moorage.cluster.symptoms.stages import SCHEDULING, has_images, stage
from moorage.cluster.symptoms.stuck import Stuck, containers, sandbox

if TYPE_CHECKING:
    from moorage.cluster.api.client import Api
    from moorage.cluster.diagnosis.diagnosis import Group
    from moorage.output import Progress
    from moorage.settings import Settings

# The kubelet waits at most so long before it pulls again by itself.
# https://kubernetes.io/docs/concepts/containers/images/#imagepullbackoff
BACK_OFF = 330.0
_POLL = 1.0
# The causes of a pod that fails again are asked for so often, in seconds.
_ASK_AGAIN = 5.0


def made_anew(one: Stuck) -> bool:
    """Whether the pod is deleted to get a fresh pull: its owner, or we, make it again. Pure.

    One that runs beside the stuck container is left alone (a native sidecar does no work of its
    own), and so is a pod that nobody replaces, or whose Job would fail by it: these wait for the
    kubelet's next try. For a sandbox that is seconds away.
    """
    if one.of_sandbox or one.runs or one.mirror or one.ephemeral or one.last_try:
        return False
    return owners.replaces(one) or (one.ours and not one.owner)


def waits_in_vain(group: Group, one: Stuck) -> bool:
    """Whether no cure of ours helps this very pod: what it lacks is written when it is made."""
    written = {cause.code for cause in (causes.NO_SECRET, causes.NOT_NAMED, causes.NOT_FOR_THESE)}
    lacks = group.code in written and not one.secrets
    return lacks and not made_anew(one)


# -- deleting ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Revived:
    """What :func:`revive` did: the pods it ``deleted``; the uids of all that were there ``before``
    in their namespaces."""

    deleted: tuple[Stuck, ...] = ()
    before: frozenset[str] = frozenset()


def revive(api: Api, settings: Settings, report: Report) -> Revived:
    """Deletes the pods whose cure was run and that are made anew; remakes ours."""
    curable = [one for group in report.groups if group.fix for one in group.stuck]
    chosen = {one.name: one for one in curable if made_anew(one)}
    before = frozenset(
        pod["metadata"]["uid"]
        for namespace in sorted({one.namespace for one in chosen.values()})
        for pod in api.items(paths.all_of("Pod", namespace), "list pods")
    )
    deleted = [chosen[name] for name in sorted(chosen) if _deleted(api, settings, chosen[name])]
    return Revived(tuple(deleted), before)


def _deleted(api: Api, settings: Settings, one: Stuck) -> bool:
    path = paths.one("Pod", one.pod, one.namespace)
    live = api.find(path, f"read pod {one.name}")
    if live is None or live["metadata"]["uid"] != one.uid or not containers(live):
        return False  # it is another one by now, or it has got its image
    # Where no container ever ran there is nothing to end gracefully; a sidecar is.
    grace = None if one.sidecar else 0
    api.delete(path, f"delete pod {one.name}", uid=one.uid, grace=grace)
    if not one.owner:
        _remake(api, settings, live)
    return True


def _remake(api: Api, settings: Settings, live: dict[str, Any]) -> None:
    """A pod of ours without an owner: as it was, from its own spec."""
    from moorage.cluster.api import manifests

    metadata = live["metadata"]
    secrets = (live["spec"].get("imagePullSecrets") or [{}])[0]
    node = (live["spec"].get("nodeSelector") or {}).get("kubernetes.io/hostname", "")
    to = manifests.Fit(
        metadata["namespace"],
        metadata["name"],
        live["spec"]["containers"][0]["image"],
        secrets.get("name", settings.kubernetes.secret),
        ours.labels(settings, "workload"),
        node=node,
    )
    document = manifests.fit(manifests.read(settings.root / "k8s"), to)[0]
    api.apply(paths.of(document), document, f"write {paths.words(document)}")


# -- waiting ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Seen:
    """The pods of one look. ``waiting``: who has not its images yet, in words, beside ``stuck``;
    ``before``: those of them that wait for their sandbox."""

    pods: int
    ready: int
    stuck: tuple[Stuck, ...]
    waiting: tuple[str, ...]
    before: tuple[Stuck, ...] = ()


class _Concerned:
    """The pods that a cure was run for, and those that take their places."""

    def __init__(self, api: Api, stuck: Sequence[Stuck], revived: Revived) -> None:
        self._api = api
        self.names = {one.name for one in stuck}
        self.uids = {one.uid for one in stuck}
        self._bare = {one.name for one in stuck if not one.owner}
        self._owners = {(one.namespace, one.owner) for one in stuck if one.owner}
        self._revived = revived

    def look(self) -> _Seen:
        by_owner: dict[tuple[str, str], list[dict[str, Any]]] = {one: [] for one in self._owners}
        pods: list[dict[str, Any]] = []
        for pod in self._alive():
            owner = self._owner_of(pod)
            if owner is not None:
                by_owner[owner].append(pod)
            if owner is not None or _name(pod) in self._bare:
                pods.append(pod)
        stuck = tuple(one for pod in pods for one in containers(pod))
        held = {one.name for one in stuck}
        late = [pod for pod in pods if _name(pod) not in held and not has_images(pod)]
        missing = [
            f"{owner} in {namespace} has yet to make {count} of its pods"
            for (namespace, owner), found in sorted(by_owner.items())
            if (count := self._short(namespace, owner, found))
        ]
        return _Seen(
            len(pods),
            len(pods) - len(held) - len(late),
            stuck,
            (*map(_lateness, late), *missing),
            tuple(one for pod in late if (one := sandbox(pod)) is not None),
        )

    def _alive(self) -> Iterable[dict[str, Any]]:
        for namespace in sorted({name.partition("/")[0] for name in self.names}):
            for pod in self._api.items(paths.all_of("Pod", namespace), "list pods"):
                if not pod["metadata"].get("deletionTimestamp"):
                    yield pod

    def _owner_of(self, pod: Mapping[str, Any]) -> tuple[str, str] | None:
        metadata = pod["metadata"]
        for one in metadata.get("ownerReferences") or ():
            key = (metadata["namespace"], f"{one['kind']}/{one['name']}")
            if key in self._owners:
                return key
        return None

    def _short(self, namespace: str, owner: str, pods: Sequence[Mapping[str, Any]]) -> int:
        """How many pods are still to be made in the place of those that were deleted."""
        short = owners.short(self._api, namespace, owner, pods)
        if short is not None:
            return short
        deleted = self._revived.deleted
        gone = [one for one in deleted if (one.namespace, one.owner) == (namespace, owner)]
        new = [pod for pod in pods if pod["metadata"]["uid"] not in self._revived.before]
        return max(0, len(gone) - len(new))


def _name(pod: Mapping[str, Any]) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


def _lateness(pod: Mapping[str, Any]) -> str:
    found = stage(pod)
    if found.name == SCHEDULING:
        return f"{_name(pod)} has no node yet" + (f": {found.waits}" if found.waits else "")
    return f"{_name(pod)} has not pulled every image yet"


def wait(
    api: Api,
    settings: Settings,
    progress: Progress,
    report: Report,
    revived: Revived = Revived(),
    seconds: float = BACK_OFF,
) -> Report:
    """Waits until the pods of the cured causes have their images; what is still stuck then.

    ``revived``: what :func:`revive` did. In the end ``waiting`` of the report names what is not
    there yet and makes no complaint.
    """
    cured = [group for group in report.groups if group.fix]
    stuck = [one for group in cured for one in group.stuck if not waits_in_vain(group, one)]
    if not stuck:
        return Report((), 0)
    concerned = _Concerned(api, stuck, revived)
    deadline = time.monotonic() + seconds
    asked = 0.0
    with progress(f"wait for {len(concerned.names)} pods") as update:
        while True:
            seen = concerned.look()
            update(done=seen.ready, total=seen.pods or 1)
            if not seen.stuck and not seen.waiting:
                return Report((), seen.pods)
            late = time.monotonic() >= deadline
            fails = any(_fails_again(one, concerned.uids) for one in seen.stuck)
            if late or (fails and time.monotonic() - asked >= _ASK_AGAIN):
                stuck_now = (*seen.stuck, *(seen.before if late else ()))
                found = examine.explain(api, settings, stuck_now, seen.pods)
                asked = time.monotonic()
                if late or any(_hopeless(group, concerned.uids) for group in found.groups):
                    return replace(found, waiting=seen.waiting)
            time.sleep(_POLL)


def _fails_again(one: Stuck, before: set[str]) -> bool:
    """A new pod that fails again, in words that are not known to pass."""
    return one.uid not in before and bool(one.words) and not causes.classify(one.words).passing


def _hopeless(group: Group, before: set[str]) -> bool:
    """Whether a new pod fails for a reason that waiting does not cure.

    Only the whole diagnosis tells: a 401 passes where the Secret is right and came late.
    """
    return not group.passing and any(_fails_again(one, before) for one in group.stuck)


# -- what is left -----------------------------------------------------------------------------


def still(report: Report, after: Report) -> Report:
    """``after``, with those causes of ``report`` that no cure of ours was run for. Pure."""
    vain = []
    for group in report.groups:
        advised: dict[str, list[Stuck]] = {}
        for one in group.stuck if group.fix else ():
            if waits_in_vain(group, one):
                advised.setdefault(_advice_kind(one), []).append(one)
        for lost in advised.values():
            cure = advice(lost[0])
            vain.append(replace(group, stuck=tuple(lost), cure=cure, fix=""))
    left = (*(group for group in report.groups if not group.fix), *vain)
    return replace(after, groups=(*after.groups, *left), pods_seen=report.pods_seen)


_DELETE = "kubectl delete pod -n {one.namespace} {one.pod}"
# Why a pod that lacks its Secret is not deleted by us -> what makes it anew.
_ADVICE = {
    "ephemeral": "an ephemeral container pulls with the Secrets that its pod was made with; when"
    f" the pod may end: {_DELETE}, then kubectl debug in the new one",
    "last_try": "{one.owner} would count a deleted pod as its last failure; make the Job again:"
    " kubectl delete job -n {one.namespace} {job}, then apply its manifest again",
    "runs": f"another of its containers runs; when that may end: {_DELETE}; {{one.owner}} makes"
    " the pod again, with the Secret",
    "other": f"make the pod again, as {{one.owner}} allows: {_DELETE}",
    "bare": f"make the pod again, since nobody else will: {_DELETE}, then apply its manifest again",
}


def _advice_kind(one: Stuck) -> str:
    if one.ephemeral:
        return "ephemeral"
    if one.last_try:
        return "last_try"
    if owners.replaces(one):
        return "runs"
    return "other" if one.owner else "bare"


def advice(one: Stuck) -> str:
    """What to do for a pod that gets no Secret as long as it lives. Pure."""
    return _ADVICE[_advice_kind(one)].format(one=one, job=one.owner.partition("/")[2])
