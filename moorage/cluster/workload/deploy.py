"""Brings the demo workload into the cluster: looked at first, then written, then waited for."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moorage.cluster.api import manifests, ours, paths
from moorage.cluster.api.refusals import ApiError, nothing_changed_yet
from moorage.cluster.symptoms.stages import stage
from moorage.cluster.workload import waiting
from moorage.errors import MoorageError, Refused
from moorage.output import Diff, Note, Parts

if TYPE_CHECKING:
    from moorage.cluster.api.client import Api
    from moorage.cluster.diagnosis.examine import Report
    from moorage.settings import Settings
    from moorage.ui import UI

CREATED, UPDATED, REPLACED, UNCHANGED = "created", "updated", "replaced", "unchanged"
_GONE_SECONDS = 60.0
_ACCOUNT_SECONDS = 10.0


@dataclass(frozen=True)
class Workload:
    """What is wanted: ``kind`` is a key of ``manifests.WORKLOADS``."""

    kind: str
    fit: manifests.Fit
    replace: bool = False
    timeout: float = 180.0


def tutorial(settings: Settings) -> Workload:
    """The pod of the tutorial, as the settings name it."""
    kubernetes = settings.kubernetes
    fit = manifests.Fit(
        kubernetes.namespaces[0],
        kubernetes.pod,
        settings.image_reference,
        kubernetes.secret,
        ours.labels(settings, "workload"),
    )
    return Workload("pod", fit)


@dataclass(frozen=True)
class DeployStep:
    """One object: what is there, what it would become, and so what is done."""

    document: dict[str, Any]
    action: str
    live: dict[str, Any] | None = None
    why: str = ""

    @property
    def words(self) -> str:
        return paths.words(self.document)


@dataclass(frozen=True)
class Deployed:
    """How it went. ``answer``: what serve_hostname said, "" if nobody could ask it.

    ``report``: the diagnosis, where a pod could not pull; ``problem``: what else went wrong.
    """

    steps: tuple[DeployStep, ...]
    pods: tuple[waiting.PodState, ...]
    seconds: float
    answer: str = ""
    report: Report | None = None
    problem: MoorageError | None = None

    @property
    def ok(self) -> bool:
        return self.report is None and self.problem is None

    @property
    def changed(self) -> bool:
        return any(step.action != UNCHANGED for step in self.steps)

    def to_json(self) -> dict[str, Any]:
        return {
            "objects": [{"object": step.words, "status": step.action} for step in self.steps],
            "pods": [one.to_json() for one in self.pods],
            "seconds": self.seconds,
            "answer": self.answer,
            "diagnosis": self.report.to_json() if self.report else None,
            "error": self.problem.to_json() if self.problem else None,
        }


def plan(api: Api, settings: Settings, wanted: Workload) -> list[DeployStep]:
    """What there is to do. The server has agreed to each step by a dry run; nothing is changed.

    Raises Refused if an object of that name is somebody else's, or the server would refuse.
    """
    folder = settings.root / "k8s" / manifests.WORKLOADS[wanted.kind]
    documents = manifests.fit(manifests.read(folder), wanted.fit)
    with nothing_changed_yet():
        return [_step(api, document, wanted) for document in documents]


def _step(api: Api, document: dict[str, Any], wanted: Workload) -> DeployStep:
    path, words = paths.of(document), paths.words(document)
    live = api.find(path, f"read {words}")
    if live is None:
        _agreed(api, path, document, wanted)
        return DeployStep(document, CREATED)
    if not ours.is_ours(live):
        raise Refused(
            "not-ours",
            f"nothing was changed: {words} is not ours",
            cause="somebody else made it (it lacks the label moorage.dev/part)",
            cure=f"give ours another name (--name), or remove it: kubectl delete"
            f" {document['kind'].lower()} -n {wanted.fit.namespace} {wanted.fit.name}",
        )
    if live["kind"] == "Pod" and (why := _beyond_help(live)):
        return DeployStep(document, REPLACED, live, why)
    try:
        after = _agreed(api, path, document, wanted)
    except ApiError as problem:
        if problem.status != 422:
            raise
        return DeployStep(document, REPLACED, live, "what differs cannot be changed in place")
    if live["kind"] == "Pod" and _images(live) != _images(after):
        # Changed in place, it would be Ready by its old container for a while, even for ever.
        return DeployStep(document, REPLACED, live, "its image is another")
    return DeployStep(document, UNCHANGED if manifests.same(live, after) else UPDATED, live)


def _images(pod: dict[str, Any]) -> list[str]:
    return [one["image"] for one in pod["spec"]["containers"]]


def _beyond_help(pod: dict[str, Any]) -> str:
    """Why a pod of ours is made anew rather than waited for; "" if it is not."""
    found = stage(pod)
    if pod["metadata"].get("deletionTimestamp"):
        return "it is being deleted"
    if pod.get("status", {}).get("phase") in ("Failed", "Succeeded"):
        return "it has ended"
    if found.pull:
        return "it could not pull, and would wait minutes before it tries again"
    return "its program ended again and again" if found.trouble else ""


def _agreed(api: Api, path: str, document: dict[str, Any], wanted: Workload) -> dict[str, Any]:
    """What the object would be after an apply, as the server itself says."""
    deadline = time.monotonic() + _ACCOUNT_SECONDS
    while True:
        try:
            what = f"write {paths.words(document)}"
            return api.apply(path, document, what, force=wanted.replace, dry=True)
        except ApiError as problem:
            # A namespace made a moment ago has no ServiceAccount yet.
            if problem.code != "no-service-account" or time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def foretold(steps: Sequence[DeployStep]) -> Parts:
    """Each step as a diff, as --dry-run wants it."""
    for step in steps:
        if step.action == UNCHANGED:
            continue
        if step.why:
            yield Note(f"would make {step.words} again: {step.why}")
        before = manifests.shown(step.live, step.document)
        yield Diff(step.words, before, manifests.shown(step.document))


def carry_out(
    api: Api, settings: Settings, ui: UI, wanted: Workload, steps: Sequence[DeployStep]
) -> Deployed:
    """Does the steps and waits until every pod is ready, or cannot become so.

    Raises ApiError where the server refuses a step; the ones before it are done then.
    """
    began = time.monotonic()
    for step in steps:
        if step.action == UNCHANGED:
            continue
        ui.note(f"{step.words}: {step.action}" + (f" ({step.why})" if step.why else ""))
        if step.action == REPLACED and step.live is not None:
            remove(api, step.live)
        api.apply(
            paths.of(step.document),
            step.document,
            f"write {step.words}",
            force=wanted.replace or step.action == REPLACED,
        )
    main = steps[0].document
    result = waiting.until_ready(api, settings, ui, main, wanted.timeout)
    seconds = round(time.monotonic() - began, 1)
    answer = ""
    if result.report is None and result.problem is None:
        try:
            answer = _ask(api, wanted)
        except ApiError as problem:
            ui.warn(_asked_in_vain(wanted, problem))
    return Deployed(tuple(steps), result.pods, seconds, answer, result.report, result.problem)


def remove(api: Api, live: dict[str, Any]) -> None:
    """Deletes this very object and waits until it is gone."""
    path, words = paths.of(live), paths.words(live)
    uid = live["metadata"]["uid"]
    # Nothing to end gracefully where nothing ever ran; kubelets take a minute over such a pod.
    grace = 0 if live["kind"] == "Pod" and not ever_ran(live) else None
    api.delete(path, f"delete {words}", uid=uid, grace=grace)
    deadline = time.monotonic() + _GONE_SECONDS
    while True:
        now = api.find(path, f"read {words}")
        if now is None or now["metadata"]["uid"] != uid:
            return
        if time.monotonic() > deadline:
            raise MoorageError(
                "not-gone",
                f"{words} is still there {_GONE_SECONDS:.0f} s after its deletion",
                cause="its node does not answer, or a finalizer holds it"
                f" ({', '.join(now['metadata'].get('finalizers') or ()) or 'none is set'})",
                cure="kubectl describe it; look at its node: kubectl get nodes",
            )
        time.sleep(0.3)


def ever_ran(pod: dict[str, Any]) -> bool:
    """Whether any container of a pod runs, or has run. Pure."""
    status = pod.get("status") or {}
    return any(
        "waiting" not in (one.get("state") or {"waiting": {}}) or one.get("restartCount")
        for key in ("initContainerStatuses", "containerStatuses")
        for one in status.get(key) or ()
    )


def _ask(api: Api, wanted: Workload) -> str:
    """The answer of serve_hostname through the API server's proxy. Raises ApiError."""
    base = f"/api/v1/namespaces/{wanted.fit.namespace}"
    name = wanted.fit.name
    where = {
        "pod": f"{base}/pods/{name}:8080/proxy/",
        "deployment": f"{base}/services/{name}:http/proxy/",
    }.get(wanted.kind)
    if where is None:
        return ""
    return api.text(where, "ask it through the API server", timeout=10).strip()


def _asked_in_vain(wanted: Workload, problem: ApiError) -> str:
    fit = wanted.fit
    return (
        f"it runs, but the API server cannot ask it ({problem.cause or problem.message});"
        f" ask it yourself: kubectl port-forward -n {fit.namespace} pod/{fit.name} 8080"
    )
