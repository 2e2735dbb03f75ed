"""Waits until a workload is ready, with live progress, and stops as soon as it cannot become so."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from moorage.cluster.api import paths
from moorage.cluster.api.following import follow
from moorage.cluster.diagnosis import examine
from moorage.cluster.symptoms import causes
from moorage.cluster.symptoms.stages import PULLING, READY, STAGES, Stage, stage
from moorage.cluster.symptoms.stuck import Stuck, candidates, containers
from moorage.errors import MoorageError

if TYPE_CHECKING:
    from moorage.cluster.api.client import Api
    from moorage.cluster.diagnosis.examine import Report
    from moorage.settings import Settings
    from moorage.ui import UI

# So long a trouble has to last: a rollout takes the old, troubled pods away by itself.
_PULL_PATIENCE = 3.0
_CRASH_PATIENCE = 10.0
# A trouble that may pass is looked at again after so many seconds.
_ASK_AGAIN = 5.0


@dataclass(frozen=True)
class PodState:
    """A pod of the workload at the end."""

    name: str
    node: str
    stage: str
    restarts: int
    image_id: str

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "node": self.node,
            "stage": self.stage,
            "restarts": self.restarts,
            "image_id": self.image_id,
        }


@dataclass(frozen=True)
class Waited:
    """How the waiting ended: all ready where both ``report`` and ``problem`` are None."""

    pods: tuple[PodState, ...]
    report: Report | None = None
    problem: MoorageError | None = None


class _Watch:
    """What was seen while waiting, pod by pod."""

    def __init__(self) -> None:
        self.words: dict[tuple[str, str], str] = {}
        self._since: dict[str, float] = {}
        self._asked = 0.0

    def stuck(self, pods: Iterable[Mapping[str, Any]]) -> list[Stuck]:
        """Those that cannot pull, with the last complaint heard of each."""
        found = [one for pod in pods for one in containers(pod)]
        for one in found:
            if one.words:
                self.words[one.uid, one.container] = one.words
        return [
            one if one.words else replace(one, words=self.words.get((one.uid, one.container), ""))
            for one in found
        ]

    def explain(self, api: Api, settings: Settings, stuck: list[Stuck], pods: int) -> Report | None:
        """Why these are stuck; None if they may still get over it by themselves."""
        if time.monotonic() - self._asked < _ASK_AGAIN:
            return None
        report = examine.explain(api, settings, stuck, pods)
        self._asked = time.monotonic()
        return None if all(group.passing for group in report.groups) else report

    def lasts(self, uid: str, troubled: bool, patience: float) -> bool:
        """Whether this pod has been in trouble for that long."""
        if not troubled:
            self._since.pop(uid, None)
            return False
        began = self._since.setdefault(uid, time.monotonic())
        return time.monotonic() - began >= patience


def until_ready(
    api: Api, settings: Settings, ui: UI, main: Mapping[str, Any], timeout: float
) -> Waited:
    """Waits for the workload ``main`` (a Pod, Deployment or DaemonSet) for ``timeout`` seconds."""
    namespace, name = main["metadata"]["namespace"], main["metadata"]["name"]
    query = _pods_of(main)
    watch = _Watch()
    pods: list[dict[str, Any]] = []
    said = ""
    text = f"wait for {main['kind']} {namespace}/{name}"
    with ui.progress(text) as update:
        states = follow(api, paths.all_of("Pod", namespace), seconds=timeout, **query)
        for objects in states:
            pods = [pod for pod in objects.values() if not pod["metadata"].get("deletionTimestamp")]
            stages = [stage(pod) for pod in pods]
            line = _line(pods, stages)
            if line != said:
                said = line
                update(text=f"{namespace}/{name}: {line}", total=len(STAGES), done=_done(stages))
                ui.note(f"{namespace}/{name}: {line}")
            ended = _ended(api, settings, watch, pods, stages)
            if ended is not None:
                return replace(ended, pods=_states(pods))
            if stages and all(one.name == READY for one in stages) and _complete(api, main):
                return Waited(_states(pods))
    stuck = watch.stuck(pods) or [one for pod in pods for one in candidates(pod)]
    report = examine.explain(api, settings, stuck, len(pods))
    if report.groups:
        return Waited(_states(pods), report)
    return Waited(_states(pods), problem=_too_long(main, pods, timeout))


def _pods_of(main: Mapping[str, Any]) -> dict[str, str]:
    if main["kind"] == "Pod":
        return {"fields": f"metadata.name={main['metadata']['name']}"}
    wanted = main["spec"]["selector"]["matchLabels"]
    return {"selector": ",".join(f"{key}={value}" for key, value in wanted.items())}


def _line(pods: list[dict[str, Any]], stages: list[Stage]) -> str:
    if not stages:
        return "no pod yet"
    if len(stages) == 1:
        node = pods[0].get("spec", {}).get("nodeName", "")
        waits = f" ({stages[0].waits})" if stages[0].waits else ""
        pull = " (the last pull failed)" if stages[0].pull else ""
        return f"{stages[0].name}{f' on {node}' if node else ''}{waits}{pull}"
    counts = [(name, sum(one.name == name for one in stages)) for name in STAGES]
    return ", ".join(f"{count} {name}" for name, count in counts if count)


def _done(stages: list[Stage]) -> int:
    return min((STAGES.index(one.name) + 1 for one in stages), default=0)


def _ended(
    api: Api, settings: Settings, watch: _Watch, pods: list[dict[str, Any]], stages: list[Stage]
) -> Waited | None:
    """A trouble that will not pass by waiting."""
    stuck = watch.stuck(pods)
    hopeless = {one.uid for one in stuck if one.words and not causes.classify(one.words).passing}
    silent = {one.uid for one in stuck if not one.words}
    for pod, found in zip(pods, stages, strict=True):
        uid = pod["metadata"]["uid"]
        pull = uid in hopeless or uid in silent
        patience = _PULL_PATIENCE if pull else _CRASH_PATIENCE
        if not watch.lasts(uid, pull or bool(found.trouble), patience):
            continue
        if pull:
            report = watch.explain(api, settings, stuck, len(pods))
            if report is None:
                continue
            return Waited((), report)
        name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        problem = MoorageError(
            "pod-failed", f"pod {name} does not run", cause=found.trouble, cure=found.cure
        )
        return Waited((), problem=problem)
    return None


def _complete(api: Api, main: Mapping[str, Any]) -> bool:
    """Whether the controller, too, holds the workload for rolled out."""
    if main["kind"] == "Pod":
        return True
    live = api.get(paths.of(main), f"read {paths.words(main)}")
    status, generation = live.get("status") or {}, live["metadata"].get("generation", 0)
    if status.get("observedGeneration", 0) < generation:
        return False
    if main["kind"] == "Deployment":
        wanted = live["spec"].get("replicas", 1)
        keys = ("replicas", "updatedReplicas", "availableReplicas")
    else:
        wanted = status.get("desiredNumberScheduled", 0)
        keys = ("updatedNumberScheduled", "numberAvailable", "currentNumberScheduled")
    return all(status.get(key, 0) == wanted for key in keys)


def _too_long(main: Mapping[str, Any], pods: list[dict[str, Any]], timeout: float) -> MoorageError:
    namespace = main["metadata"]["namespace"]
    slow = next((pod for pod in pods if stage(pod).name != READY), None)
    if slow is None:
        cause = "it has no pod yet: its controller does not make one, or a quota forbids it"
        cure = f"kubectl describe {main['kind'].lower()} -n {namespace} {main['metadata']['name']}"
    else:
        found, name = stage(slow), slow["metadata"]["name"]
        cause = f"pod {name} is still {found.name}" + (f": {found.waits}" if found.waits else "")
        if found.name == PULLING:
            cause += ", or its container is being made"
        cure = f"kubectl describe pod -n {namespace} {name}"
    return MoorageError(
        "not-ready",
        f"{paths.words(main)} is not ready after {timeout:.0f} s",
        cause=cause,
        cure=cure,
    )


def _states(pods: list[dict[str, Any]]) -> tuple[PodState, ...]:
    made = []
    for pod in sorted(pods, key=lambda one: str(one["metadata"]["name"])):
        statuses = (pod.get("status") or {}).get("containerStatuses") or [{}]
        made.append(
            PodState(
                pod["metadata"]["name"],
                (pod.get("spec") or {}).get("nodeName", ""),
                stage(pod).name,
                sum(one.get("restartCount", 0) for one in statuses),
                statuses[0].get("imageID", ""),
            )
        )
    return tuple(made)
