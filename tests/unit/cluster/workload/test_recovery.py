"""After a cure: which pods are replaced, and when it is true that all of them have their images.

The cluster here is a stand-in: objects by path, and what a controller would do at each look.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from moorage.cluster.api import paths
from moorage.cluster.api.refusals import ApiError
from moorage.cluster.diagnosis import diagnosis, examine, owners
from moorage.cluster.diagnosis.examine import Report
from moorage.cluster.diagnosis.known import Known
from moorage.cluster.symptoms import causes, stages, stuck
from moorage.cluster.symptoms.stuck import Stuck
from moorage.cluster.workload import recovery
from moorage.registry import Credentials
from moorage.settings import Settings
from moorage.ui import UI

SETTINGS = Settings()
UI_ = UI(as_json=True)
REGISTRY = "my.registry.io"
IMAGE = f"{REGISTRY}/app:1"
REFUSED = "unexpected status code 401 Unauthorized"
LOGIN = Credentials("moorage", "words")

REPLICASET = {"kind": "ReplicaSet", "name": "x", "apiVersion": "apps/v1", "controller": True}


def pod(name: str, state: dict[str, Any], *, owner: Any = None, **more: Any) -> Any:
    """A pod as the API has it: one container ``app`` in that state."""
    metadata: dict[str, Any] = {"name": name, "namespace": "web", "uid": f"uid-{name}"}
    if owner:
        metadata["ownerReferences"] = [owner]
    metadata |= more.pop("metadata", {})
    status = {"containerStatuses": [{"name": "app", "state": state, **more.pop("container", {})}]}
    spec = {
        "nodeName": "n1",
        "containers": [{"name": "app", "image": IMAGE}],
        **more.pop("spec", {}),
    }
    return {"metadata": metadata, "spec": spec, "status": {**status, **more.pop("status", {})}}


RUNS: dict[str, Any] = {"running": {}}
FAILS = {"waiting": {"reason": "ErrImagePull", "message": REFUSED}}


def sidecar(state: dict[str, Any], policy: str = "Always") -> dict[str, Any]:
    """The spec and status of an init container beside ``app``."""
    one = {"name": "proxy", "image": "other.io/proxy:1", "restartPolicy": policy}
    return {
        "spec": {"initContainers": [one]},
        "status": {"initContainerStatuses": [{"name": "proxy", "state": state, "imageID": "sha"}]},
    }


# -- which pods are replaced ----------------------------------------------------------------------


def only(document: Any) -> Stuck:
    (found,) = stuck.containers(document)
    return found


@pytest.mark.parametrize("kind", ["ReplicaSet", "StatefulSet", "DaemonSet"])
def test_a_native_sidecar_that_runs_is_no_reason_to_leave_a_pod(kind: str) -> None:
    owner = {**REPLICASET, "kind": kind}
    found = only(pod("a", FAILS, owner=owner, **sidecar(RUNS)))
    assert (found.runs, found.sidecar) == (False, True)
    assert recovery.made_anew(found)


def test_an_init_container_or_another_container_that_runs_is_one() -> None:
    assert not recovery.made_anew(only(pod("a", FAILS, owner=REPLICASET, **sidecar(RUNS, "Never"))))
    document = pod("a", FAILS, owner=REPLICASET)
    document["spec"]["containers"].append({"name": "b", "image": "other.io/b:1"})
    document["status"]["containerStatuses"].append({"name": "b", "state": RUNS})
    assert not recovery.made_anew(only(document))


@pytest.mark.parametrize(
    ("owner", "anew"),
    [
        (REPLICASET, True),
        ({**REPLICASET, "kind": "ReplicationController", "apiVersion": "v1"}, True),
        ({**REPLICASET, "kind": "Job", "apiVersion": "batch/v1"}, True),
        # These names are used by others too, who may take a deleted pod for a failure.
        ({**REPLICASET, "kind": "Job", "apiVersion": "batch.volcano.sh/v1alpha1"}, False),
        ({**REPLICASET, "kind": "TaskRun", "apiVersion": "tekton.dev/v1"}, False),
        ({**REPLICASET, "controller": False}, False),
        (None, False),
    ],
)
def test_only_what_a_controller_replaces_is_deleted(owner: Any, anew: bool) -> None:
    assert recovery.made_anew(only(pod("a", FAILS, owner=owner))) is anew


def test_a_static_pod_is_not_deleted_and_gets_no_secret() -> None:
    """Its copy in the API has its Node for owner, and comes back while nothing was pulled."""
    node = {"kind": "Node", "name": "n1", "apiVersion": "v1", "controller": True}
    mirror = {"annotations": {"kubernetes.io/config.mirror": "abc"}}
    found = only(pod("a", FAILS, owner=node, metadata=mirror))
    assert not recovery.made_anew(found)
    (group,) = diagnosis.diagnose([found], Known(REGISTRY))
    assert (group.code, group.fix) == ("secret-static-pod", "")
    assert f"inv nodes.preload {IMAGE} --from-cluster" in group.cure


def test_a_container_of_kubectl_debug_does_not_end_its_pod() -> None:
    document = pod("a", RUNS, owner=REPLICASET)
    document["spec"]["ephemeralContainers"] = [{"name": "debug", "image": IMAGE}]
    document["status"]["ephemeralContainerStatuses"] = [{"name": "debug", "state": FAILS}]
    found = only(document)
    assert found.ephemeral
    assert not recovery.made_anew(found)
    assert "kubectl debug" in recovery.advice(found)


@pytest.mark.parametrize(
    ("spec", "status", "left"),
    [
        ({}, {}, 6),
        ({"backoffLimit": 0}, {}, 0),
        ({"backoffLimit": 2}, {"failed": 2}, 0),
        ({"backoffLimit": 2}, {"failed": 1}, 1),
        ({"backoffLimitPerIndex": 0, "backoffLimit": 2147483647}, {}, 0),
    ],
)
def test_how_many_retries_a_job_has_left(spec: Any, status: Any, left: int) -> None:
    assert owners.retries_left({"spec": spec, "status": status}) == left


def test_a_job_without_a_retry_left_is_not_made_to_fail() -> None:
    owner = {**REPLICASET, "kind": "Job", "name": "j", "apiVersion": "batch/v1"}
    report = found(only(pod("a", FAILS, owner=owner)))
    for spec, anew in (({"backoffLimit": 0}, False), ({"backoffLimit": 1}, True)):
        api = Cluster({"/apis/batch/v1/namespaces/web/jobs/j": {"spec": spec}})
        marked = owners.with_last_tries(api, report)  # type: ignore[arg-type]
        assert recovery.made_anew(marked.stuck[0]) is anew
    api = Cluster({}, forbidden="/apis/batch")
    marked = owners.with_last_tries(api, report)  # type: ignore[arg-type]
    assert not recovery.made_anew(marked.stuck[0])
    left = recovery.still(marked, Report((), 1)).groups
    assert "kubectl delete job -n web j" in left[0].cure


def found(*pods: Stuck) -> Report:
    return Report(tuple(diagnosis.diagnose(list(pods), Known(REGISTRY))), len(pods))


def test_what_is_left_is_told_by_what_makes_each_pod_anew() -> None:
    bare = only(pod("bare", FAILS))
    owned = only(pod("owned", FAILS, owner=REPLICASET))
    busy = replace(only(pod("busy", FAILS, owner=REPLICASET)), runs=True)
    task = {**REPLICASET, "kind": "TaskRun", "name": "t", "apiVersion": "tekton.dev/v1"}
    other = only(pod("other", FAILS, owner=task))
    left = recovery.still(found(bare, owned, busy, other), Report((), 4)).groups
    cures_ = {group.pods: group.cure for group in left}
    assert set(cures_) == {("web/bare",), ("web/busy",), ("web/other",)}
    assert "nobody else will: kubectl delete pod -n web bare" in cures_["web/bare",]
    assert "ReplicaSet/x makes" in cures_["web/busy",]
    assert "nobody else" not in cures_["web/busy",] + cures_["web/other",]
    assert "as TaskRun/t allows: kubectl delete pod -n web other" in cures_["web/other",]


# -- how many pods there are to be ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("owner", "live", "pods", "short"),
    [
        ("ReplicaSet/x", {"spec": {"replicas": 3}}, 1, 2),
        ("ReplicaSet/x", {"spec": {"replicas": 0}}, 1, 0),
        ("ReplicationController/x", {"spec": {"replicas": 1}}, 0, 1),
        ("StatefulSet/x", {"spec": {}}, 0, 1),
        ("DaemonSet/x", {"status": {"desiredNumberScheduled": 4}}, 3, 1),
        ("Job/x", {"spec": {}}, 0, 1),
        ("Job/x", {"spec": {"parallelism": 2, "completions": 5}, "status": {"succeeded": 4}}, 0, 1),
        ("Job/x", {"spec": {"parallelism": 2}, "status": {"succeeded": 1}}, 0, 0),
        ("Job/x", {"spec": {"suspend": True}}, 0, 0),
        ("Job/x", {"status": {"conditions": [{"type": "Failed", "status": "True"}]}}, 0, 0),
        ("ReplicaSet/x", None, 0, 0),
        ("TaskRun/x", None, 0, 0),
    ],
)
def test_how_many_pods_an_owner_has_yet_to_make(
    owner: str, live: Any, pods: int, short: int
) -> None:
    kind, _, name = owner.partition("/")
    row = {} if kind == "TaskRun" or live is None else {paths.one(kind, name, "web"): live}
    made = [pod(f"p{number}", RUNS) for number in range(pods)]
    assert owners.short(Cluster(row), "web", owner, made) == short  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("document", "there"),
    [
        (pod("a", RUNS), True),
        (pod("a", {"waiting": {"reason": "ContainerCreating"}}), False),
        (pod("a", {"waiting": {"reason": "CrashLoopBackOff"}}), True),
        (pod("a", {"waiting": {"reason": "CreateContainerConfigError"}}), True),
        (pod("a", {"terminated": {"exitCode": 1}}), True),
        (pod("a", {}, status={"phase": "Succeeded"}), True),
        (pod("a", RUNS, status={"containerStatuses": []}), False),
        (pod("a", {"waiting": {"reason": "PodInitializing"}}, **sidecar(RUNS)), False),
        (pod("a", RUNS, **sidecar({"waiting": {"reason": "PodInitializing"}})), True),
    ],
)
def test_whether_every_image_of_a_pod_came(document: Any, there: bool) -> None:
    assert stages.has_images(document) is there


# -- waiting --------------------------------------------------------------------------------------


class Cluster:
    """A stand-in for the API: ``objects`` by path, ``pods``; ``next`` happens look by look."""

    def __init__(self, objects: dict[str, Any], pods: Any = (), forbidden: str = "") -> None:
        self.objects = objects
        self.pods = list(pods)
        self.looked = False
        self.next: list[Callable[[], None]] = []
        self.deleted: list[tuple[str, Any]] = []
        self._forbidden = forbidden
        self.where = SimpleNamespace(typed=lambda text: text, context="a")

    def items(self, path: str, what: str = "", **_: Any) -> Iterator[Any]:
        del path, what
        if self.next and self.looked:
            self.next.pop(0)()
        return iter(list(self.pods))

    def find(self, path: str, what: str = "") -> Any:
        del what
        if self._forbidden and path.startswith(self._forbidden):
            raise ApiError("forbidden", "no", status=403)
        for one in self.pods:
            if path == f"/api/v1/namespaces/web/pods/{one['metadata']['name']}":
                return one
        return self.objects.get(path)

    def delete(self, path: str, what: str, *, uid: str, grace: Any) -> bool:
        del what
        self.deleted.append((path.rpartition("/")[2], grace))
        self.pods = [one for one in self.pods if one["metadata"]["uid"] != uid]
        return True


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What would be asked for about stuck pods; no time passes between two looks."""
    knows: dict[str, Any] = {}

    def explain(_api: Any, _settings: Any, stuck_ones: Any, seen: int) -> Report:
        return Report(tuple(diagnosis.diagnose(stuck_ones, Known(REGISTRY, **knows))), seen)

    monkeypatch.setattr(examine, "explain", explain)
    monkeypatch.setattr(recovery, "_POLL", 0.0)
    monkeypatch.setattr(recovery, "_ASK_AGAIN", 0.0)
    return knows


X = "/apis/apps/v1/namespaces/web/replicasets/x"


def recovered(api: Cluster, report: Report, seconds: float = 20) -> Report:
    given: Any = api
    revived = recovery.revive(given, SETTINGS, report)
    api.looked = True
    return recovery.wait(given, SETTINGS, UI_.progress, report, revived, seconds)


@pytest.mark.usefixtures("known")
def test_the_others_of_an_owner_are_not_taken_for_the_one_that_is_made_anew() -> None:
    """Its place is empty for a while: the pods that run already are not all there are to be."""
    failing = pod("b", FAILS, owner=REPLICASET)
    api = Cluster({X: {"spec": {"replicas": 2}}}, [pod("a", RUNS, owner=REPLICASET), failing])
    looks: list[int] = []

    def nothing() -> None:
        looks.append(len(api.pods))

    def comes() -> None:
        api.pods.append(pod("c", {"waiting": {"reason": "ContainerCreating"}}, owner=REPLICASET))

    def runs() -> None:
        api.pods[-1] = pod("c", RUNS, owner=REPLICASET)

    api.next = [nothing, nothing, comes, nothing, runs]
    after = recovered(api, found(only(failing)))
    assert (after.groups, after.waiting) == ((), ())
    assert looks == [1, 1, 2]
    assert api.next == []
    assert api.deleted == [("b", 0)]


@pytest.mark.usefixtures("known")
def test_what_is_not_there_in_the_end_is_named() -> None:
    failing = pod("b", FAILS, owner=REPLICASET)
    api = Cluster({X: {"spec": {"replicas": 2}}}, [pod("a", RUNS, owner=REPLICASET), failing])
    after = recovered(api, found(only(failing)), seconds=0.05)
    assert after.waiting == ("ReplicaSet/x in web has yet to make 1 of its pods",)
    api.pods.append(pod("c", {"waiting": {"reason": "ContainerCreating"}}, owner=REPLICASET))
    after = recovered(api, found(only(failing)), seconds=0.05)
    assert after.waiting == ("web/c has not pulled every image yet",)


@pytest.mark.usefixtures("known")
def test_an_owner_that_may_not_be_read_is_waited_for_by_the_pods_it_had() -> None:
    failing = pod("b", FAILS, owner=REPLICASET)
    api = Cluster({}, [pod("a", RUNS, owner=REPLICASET), failing], forbidden="/apis/apps")
    comes = [
        lambda: None,
        lambda: api.pods.append(pod("c", RUNS, owner=REPLICASET)),
    ]
    api.next = list(comes)
    after = recovered(api, found(only(failing)))
    assert (after.groups, after.waiting, api.next) == ((), (), [])


@pytest.mark.usefixtures("known")
def test_one_that_was_scaled_down_meanwhile_is_not_waited_for() -> None:
    failing = pod("b", FAILS, owner=REPLICASET)
    api = Cluster({X: {"spec": {"replicas": 0}}}, [failing])
    after = recovered(api, found(only(failing)))
    assert (after.groups, after.waiting) == ((), ())


@pytest.mark.usefixtures("known")
def test_a_pod_of_a_job_that_ends_at_once_is_cured() -> None:
    owner = {**REPLICASET, "kind": "Job", "name": "j", "apiVersion": "batch/v1"}
    failing = pod("b", FAILS, owner=owner)
    api = Cluster({"/apis/batch/v1/namespaces/web/jobs/j": {"spec": {}}}, [failing])
    done = pod("c", {}, owner=owner, status={"phase": "Succeeded"})

    def ends() -> None:
        api.pods.append(done)
        api.objects = {"/apis/batch/v1/namespaces/web/jobs/j": {"status": {"succeeded": 1}}}

    api.next = [lambda: None, ends]
    after = recovered(api, found(only(failing)))
    assert (after.groups, after.waiting, api.next) == ((), (), [])


@pytest.mark.usefixtures("known")
def test_a_pod_that_is_being_deleted_does_not_count_for_the_new_one() -> None:
    failing = pod("b", FAILS, owner=REPLICASET, **sidecar(RUNS))
    api = Cluster({X: {"spec": {"replicas": 1}}}, [failing])
    leaving = pod(
        "b", RUNS, owner=REPLICASET, metadata={"deletionTimestamp": "2026-11-28T08:00:00Z"}
    )
    api.next = [
        lambda: api.pods.append(leaving),
        lambda: None,
        lambda: api.pods.append(pod("c", RUNS, owner=REPLICASET)),
    ]
    after = recovered(api, found(only(failing)))
    assert (after.groups, after.waiting, api.next) == ((), (), [])
    # What runs in a sidecar is ended in its own time.
    assert api.deleted == [("b", None)]


def test_a_new_pod_whose_secret_comes_late_is_waited_for(known: dict[str, Any]) -> None:
    """The API server lets a kubelet read a Secret a moment after the pod is there."""
    import base64
    import json

    auths = {"auths": {REGISTRY: {"username": LOGIN.user, "password": LOGIN.password}}}
    content = base64.b64encode(json.dumps(auths).encode()).decode()
    secret = {"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": content}}
    known |= {"login": LOGIN, "login_works": True, "secrets": {("web", "s"): secret}}
    failing = pod("b", FAILS, owner=REPLICASET)
    api = Cluster({X: {"spec": {"replicas": 1}}}, [failing])
    named = {"imagePullSecrets": [{"name": "s"}]}
    again = pod("c", FAILS, owner=REPLICASET, spec=named)
    assert found_with(known, only(again)) == [causes.LATE_LOGIN.code]
    api.next = [
        lambda: api.pods.append(again),
        *[lambda: None] * 3,
        lambda: api.pods.__setitem__(0, pod("c", RUNS, owner=REPLICASET)),
    ]
    after = recovered(api, found(only(failing)))
    assert (after.groups, after.waiting, api.next) == ((), (), [])


def found_with(known: dict[str, Any], one: Stuck) -> list[str]:
    return [group.code for group in diagnosis.diagnose([one], Known(REGISTRY, **known))]


def test_a_new_pod_that_fails_for_good_ends_the_waiting(known: dict[str, Any]) -> None:
    failing = pod("b", FAILS, owner=REPLICASET)
    api = Cluster({X: {"spec": {"replicas": 1}}}, [failing])
    api.next = [lambda: api.pods.append(pod("c", FAILS, owner=REPLICASET))]
    after = recovered(api, found(only(failing)))
    assert [group.code for group in after.groups] == ["secret-missing"]
    assert not known


def test_cured_is_not_said_while_one_waits(capsys: pytest.CaptureFixture[str]) -> None:
    from moorage.cluster.workload import telling

    UI().present(telling.after_cures(Report((), 1, waiting=("web/c has no node yet",))))
    said = capsys.readouterr().out
    assert "Cured" not in said
    assert "web/c has no node yet" in said
    UI().present(telling.after_cures(Report((), 1)))
    assert "Cured" in capsys.readouterr().out
    assert Report((), 1, waiting=("x",)).to_json()["waiting"] == ["x"]


def test_a_pod_of_ours_without_an_owner_is_remade() -> None:
    assert recovery.made_anew(replace(only(pod("a", FAILS)), ours=True))
