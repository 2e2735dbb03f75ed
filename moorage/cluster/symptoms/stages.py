"""How far a pod is: scheduling, pulling, starting, running, ready; or in trouble. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moorage.cluster.symptoms.stuck import PULL_REASONS

SCHEDULING, PULLING, STARTING, RUNNING, READY = (
    "scheduling", "pulling", "starting", "running", "ready"
)  # fmt: skip
STAGES = (SCHEDULING, PULLING, STARTING, RUNNING, READY)

# Why a container waits, where it is not the image: what to say, and what to type.
_DESCRIBE = "kubectl describe pod -n {ns} {pod}"
_TROUBLES = {
    "CrashLoopBackOff": ("its program ends again and again", "kubectl logs -n {ns} {pod} -p"),
    "CreateContainerConfigError": ("its configuration is wrong", _DESCRIBE),
    "CreateContainerError": ("the runtime cannot create it", _DESCRIBE),
    "RunContainerError": ("the runtime cannot start it", _DESCRIBE),
}


@dataclass(frozen=True)
class Stage:
    """``name`` is one of STAGES. ``pull``: it cannot get an image. ``trouble``: what else is wrong,
    "" for nothing, with ``cure`` to type; ``waits``: a reason that may pass by itself."""

    name: str
    pull: bool = False
    trouble: str = ""
    cure: str = ""
    waits: str = ""


def stage(pod: Mapping[str, Any]) -> Stage:
    """The stage of a Pod object."""
    status, metadata = pod.get("status") or {}, pod["metadata"]
    names = {"ns": metadata["namespace"], "pod": metadata["name"]}
    if status.get("phase") == "Failed":
        said = status.get("message") or status.get("reason") or "its containers ended"
        cure = "kubectl logs -n {ns} {pod}".format_map(names)
        return Stage(RUNNING, trouble=f"it failed: {said}", cure=cure)
    conditions = {one["type"]: one for one in status.get("conditions") or ()}
    scheduled = conditions.get("PodScheduled", {})
    if not (pod.get("spec") or {}).get("nodeName"):
        return Stage(SCHEDULING, waits=_flat(scheduled.get("message", "")))
    if conditions.get("Ready", {}).get("status") == "True":
        return Stage(READY)
    containers = status.get("containerStatuses") or []
    for one in (*(status.get("initContainerStatuses") or ()), *containers):
        waiting = (one.get("state") or {}).get("waiting") or {}
        reason = waiting.get("reason", "")
        if reason in PULL_REASONS:
            return Stage(PULLING, pull=True)
        if reason in _TROUBLES:
            words, cure = _TROUBLES[reason]
            said = _flat(waiting.get("message", ""))
            trouble = f"{words}: {said}" if said else words
            return Stage(STARTING, trouble=trouble, cure=cure.format_map(names))
    if containers and all("running" in (one.get("state") or {}) for one in containers):
        return Stage(RUNNING)
    if containers and all(one.get("imageID") for one in containers):
        return Stage(STARTING)
    return Stage(PULLING)


def has_images(pod: Mapping[str, Any]) -> bool:
    """Whether every image of a pod is there. Pure: by what became of its containers."""
    status, spec = pod.get("status") or {}, pod.get("spec") or {}
    if status.get("phase") in ("Succeeded", "Failed"):
        return True
    known = {
        one["name"]: one
        for key in ("initContainerStatuses", "containerStatuses")
        for one in status.get(key) or ()
    }
    named = [one["name"] for key in ("initContainers", "containers") for one in spec.get(key) or ()]
    return all(name in known and _came(known[name]) for name in named)


def _came(container: Mapping[str, Any]) -> bool:
    state = container.get("state") or {}
    if "running" in state or "terminated" in state or container.get("imageID"):
        return True
    return (state.get("waiting") or {}).get("reason", "") in _TROUBLES


def _flat(text: str) -> str:
    return " ".join(text.split())[:300]
