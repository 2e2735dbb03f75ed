"""Controllers of pods: which of them replace a deleted pod, and how many pods each wants now."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from moorage.cluster.api import paths
from moorage.cluster.api.refusals import ApiError

if TYPE_CHECKING:
    from moorage.cluster.api.client import Api
    from moorage.cluster.diagnosis.examine import Report
    from moorage.cluster.symptoms.stuck import Stuck


class _Row(NamedTuple):
    """A controller of Kubernetes' own. ``api``: its group; ``wanted``: how many pods it wants."""

    api: str
    wanted: Callable[[Mapping[str, Any]], int]


def _replicas(owner: Mapping[str, Any]) -> int:
    return int((owner.get("spec") or {}).get("replicas", 1))


def _scheduled(owner: Mapping[str, Any]) -> int:
    return int((owner.get("status") or {}).get("desiredNumberScheduled", 0))


def _unfinished(job: Mapping[str, Any]) -> int:
    """A Job's pods that have neither succeeded nor failed are to be so many."""
    spec, status = job.get("spec") or {}, job.get("status") or {}
    conditions = status.get("conditions") or ()
    true = {one.get("type") for one in conditions if one.get("status") == "True"}
    if true & {"Complete", "Failed", "Suspended"} or spec.get("suspend"):
        return 0
    parallel = int(spec.get("parallelism", 1))
    if spec.get("completions") is None:
        return 0 if status.get("succeeded") else parallel
    return min(parallel, int(spec["completions"]) - int(status.get("succeeded", 0)))


# https://kubernetes.io/docs/concepts/workloads/controllers/
_ROWS: dict[str, _Row] = {
    "ReplicaSet": _Row("apps", _replicas),
    "ReplicationController": _Row("", _replicas),
    "StatefulSet": _Row("apps", _replicas),
    "DaemonSet": _Row("apps", _scheduled),
    "Job": _Row("batch", _unfinished),
}


def kind(one: Stuck) -> str:
    """The kind of a pod's controller."""
    return one.owner.partition("/")[0]


def replaces(one: Stuck) -> bool:
    """Whether the pod's controller makes another in its place. Pure.

    Others, such as a TaskRun or a Node, may take a deleted pod for a failure or not notice it.
    """
    row = _ROWS.get(kind(one))
    return row is not None and one.owner_api.rpartition("/")[0] == row.api


def short(api: Api, namespace: str, owner: str, pods: Iterable[Mapping[str, Any]]) -> int | None:
    """How many pods the controller has still to make, given those there are.

    None if it may not be read; 0 where it is gone.
    """
    row = _ROWS.get(owner.partition("/")[0])
    if row is None:
        return 0
    try:
        live = api.find(_path(namespace, owner), f"read {owner}")
    except ApiError as problem:
        if problem.status != 403:
            raise
        return None
    if live is None:
        return 0
    alive = [one for one in pods if not _ended(one)]
    return max(0, row.wanted(live) - len(alive))


def _ended(pod: Mapping[str, Any]) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def with_last_tries(api: Api, report: Report) -> Report:
    """The report, with those pods marked whose Job would fail if they were deleted.

    A pod that is deleted before it ends counts as failed.
    https://kubernetes.io/docs/concepts/workloads/controllers/job/#pod-backoff-failure-policy
    """
    jobs = {
        (one.namespace, one.owner) for one in report.stuck if kind(one) == "Job" and replaces(one)
    }
    last = {job for job in jobs if _has_no_retry_left(api, *job)}
    if not last:
        return report
    groups = tuple(
        replace(group, stuck=tuple(_marked(one, last) for one in group.stuck))
        for group in report.groups
    )
    return replace(report, groups=groups)


def _marked(one: Stuck, last: set[tuple[str, str]]) -> Stuck:
    return replace(one, last_try=True) if (one.namespace, one.owner) in last else one


def _has_no_retry_left(api: Api, namespace: str, owner: str) -> bool:
    try:
        job = api.find(_path(namespace, owner), f"read {owner}")
    except ApiError as problem:
        if problem.status != 403:
            raise
        return True  # unknown, and a Job that fails is worse than a pod that waits
    return job is not None and retries_left(job) < 1


def retries_left(job: Mapping[str, Any]) -> int:
    """How many more failures of pods a Job takes before it fails. Pure."""
    spec, status = job.get("spec") or {}, job.get("status") or {}
    if "backoffLimitPerIndex" in spec:
        return int(spec["backoffLimitPerIndex"])
    return int(spec.get("backoffLimit", 6)) - int(status.get("failed", 0))


def _path(namespace: str, owner: str) -> str:
    kind_of, _, name = owner.partition("/")
    return paths.one(kind_of, name, namespace)
