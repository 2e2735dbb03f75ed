"""What is asked of a cluster for a diagnosis, against a stand-in for its API server.

The pods and events are as Kubernetes 1.36 writes them: kubelet/kuberuntime/kuberuntime_manager.go
(getImageVolumes, SyncPod) and kubelet/images/image_manager.go; of older ones where it says so.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moorage import settings
from moorage.cluster.api.client import Api
from moorage.cluster.diagnosis import examine
from moorage.cluster.diagnosis.examine import Report
from moorage.cluster.login import access
from moorage.cluster.symptoms import causes
from moorage.cluster.workload import cures, recovery
from moorage.registry import Credentials, client
from moorage.settings import Settings
from moorage.ui import UI
from tests.k8s import standin
from tests.k8s.standin import Standin, failure

SETTINGS = Settings()
QUIET = UI(as_json=True)
REG = SETTINGS.registry_name
NODE = "/api/v1/nodes/n1"
CONFIGZ = f"{NODE}/proxy/configz"
SANDBOX_EVENT = "FailedCreatePodSandBox"


@pytest.fixture
def server() -> Standin:
    return Standin()


@pytest.fixture
def connected(server: Standin, tmp_path: Path) -> Iterator[Api]:
    with standin.serving(server) as url:
        config = standin.kubeconfig(tmp_path, url)
        yield access.connect(SETTINGS, kubeconfig=str(config))


@pytest.fixture(autouse=True)
def _bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkout without a registry: what this one has in .moorage must not count."""
    monkeypatch.setattr(settings, "ROOT", tmp_path)


def waiting(reason: str, message: str = "", **spec: Any) -> dict[str, Any]:
    container = {"name": "app", "image": f"{REG}/app:1", "imagePullPolicy": "IfNotPresent"}
    return {
        "metadata": {"name": "pod", "namespace": "web", "uid": "u1"},
        "spec": {"nodeName": "n1", "containers": [container], **spec},
        "status": {
            "phase": "Pending",
            "conditions": [{"type": "PodReadyToStartContainers", "status": "True"}],
            "containerStatuses": [
                {"name": "app", "state": {"waiting": {"reason": reason, "message": message}}}
            ],
        },
    }


def before_sandbox() -> dict[str, Any]:
    pod = waiting("ContainerCreating")
    pod["status"]["conditions"][0]["status"] = "False"
    return pod


def event(
    message: str, reason: str = "Failed", when: str = "01", field: str = ""
) -> dict[str, Any]:
    return {
        "reason": reason,
        "type": "Warning",
        "message": message,
        "lastTimestamp": f"2026-01-01T00:00:{when}Z",
        "involvedObject": {"kind": "Pod", "uid": "u1", "fieldPath": field},
    }


def node(kubelet: str = "v1.36.2", *images: str) -> dict[str, Any]:
    return {
        "metadata": {"name": "n1"},
        "status": {
            "nodeInfo": {
                "kubeletVersion": kubelet,
                "containerRuntimeVersion": "containerd://2.1.9",
            },
            "images": [{"names": [name]} for name in images],
        },
    }


def diagnosed(
    server: Standin, api: Api, pod: dict[str, Any], *events: dict[str, Any], **objects: Any
) -> Report:
    server.lists["/api/v1/pods"] = [pod]
    server.lists["/api/v1/namespaces/web/events"] = list(events)
    server.lists["/api/v1/namespaces/web/secrets"] = []
    server.lists["/api/v1/secrets"] = []
    server.objects.update(objects or {NODE: node()})
    return examine.examine(api, SETTINGS)


def only(report: Report) -> Any:
    assert len(report.groups) == 1
    return report.groups[0]


PAUSE = "registry.k8s.io/pause:3.10"
NO_PAUSE = (
    'Failed to create pod sandbox: rpc error: code = Unknown desc = failed to start sandbox "0":'
    f' failed to get sandbox image "{PAUSE}": failed to pull image "{PAUSE}": failed to pull and'
    f' unpack image "{PAUSE}": failed to resolve image: failed to do request: Head'
    ' "https://registry.k8s.io/v2/pause/manifests/3.10": dial tcp: lookup registry.k8s.io: no such'
    " host"
)
NO_NETWORK = (
    "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup network for"
    ' sandbox "0": plugin type="bridge" failed (add): no such host'
)


def test_a_sandbox_without_its_image_is_found_though_no_container_says_so(
    server: Standin, connected: Api
) -> None:
    report = diagnosed(server, connected, before_sandbox(), event(NO_PAUSE, SANDBOX_EVENT))
    group = only(report)
    assert (group.code, group.registry) == ("name-unresolved", "registry.k8s.io")
    assert group.images == (PAUSE,)
    assert group.pods == ("web/pod",)
    assert f"inv nodes.preload {PAUSE} --hosts=n1" in group.cure
    assert report.to_json()["pods_stuck"] == 1


def test_a_sandbox_that_waits_for_something_else_is_left_alone(
    server: Standin, connected: Api
) -> None:
    events = [event(NO_PAUSE, SANDBOX_EVENT, "01"), event(NO_NETWORK, SANDBOX_EVENT, "02")]
    assert not diagnosed(server, connected, before_sandbox(), *events).groups
    assert not diagnosed(server, connected, before_sandbox()).groups


def test_a_sandbox_that_has_come_since_is_not_accused_of_what_it_once_lacked(
    server: Standin, connected: Api
) -> None:
    pulling = waiting("ContainerCreating")
    report = diagnosed(server, connected, pulling, event(NO_PAUSE, SANDBOX_EVENT))
    assert not report.groups
    assert server.asked["GET /api/v1/namespaces/web/events"] == 0


def test_events_that_may_not_be_read_are_told_and_nothing_is_accused(
    server: Standin, connected: Api
) -> None:
    server.trouble = lambda request: (
        failure(403, "Forbidden", 'events is forbidden: User "u" cannot list resource "events" in'
                ' API group "" in the namespace "web"')
        if request.path.endswith("/events") else None
    )  # fmt: skip
    report = diagnosed(server, connected, before_sandbox())
    assert not report.groups
    assert "pod sandboxes" in report.notes[0]


def test_a_cured_sandbox_is_waited_for_and_told_if_it_still_lacks_its_image(
    server: Standin, connected: Api
) -> None:
    pause = f"{REG}/pause:3.10"
    words = (
        f'Failed to create pod sandbox: failed to get sandbox image "{pause}": x509: certificate'
    )
    found = diagnosed(
        server, connected, before_sandbox(),
        event(f"{words} signed by unknown authority", SANDBOX_EVENT),
    )  # fmt: skip
    assert only(found).fix == causes.TRUST
    assert not any("delete" in action for action in cures.announce(SETTINGS, found))
    # The kubelet tries again within seconds, so that not even a pod with an owner is deleted.
    owned = replace(found.stuck[0], owner="ReplicaSet/a", owner_api="apps/v1")
    assert recovery.made_anew(replace(owned, reason="ErrImagePull"))
    assert not recovery.made_anew(owned)
    server.lists["/api/v1/namespaces/web/pods"] = [before_sandbox()]
    server.objects["/api/v1/namespaces/web/pods/pod"] = before_sandbox()
    revived = recovery.revive(connected, SETTINGS, found)
    assert revived.deleted == ()
    left = recovery.wait(connected, SETTINGS, QUIET.progress, found, revived, 0.0)
    assert only(left).code == "x509-unknown-authority"
    assert left.waiting


def volumes(*images: str) -> dict[str, Any]:
    mounts = [{"name": f"v{number}", "mountPath": f"/{number}"} for number in range(len(images))]
    return {
        "containers": [{"name": "app", "image": f"{REG}/app:1", "volumeMounts": mounts}],
        "volumes": [
            {"name": f"v{number}", "image": {"reference": image, "pullPolicy": "IfNotPresent"}}
            for number, image in enumerate(images)
        ],
    }


def test_the_event_of_an_image_volume_has_no_container_and_is_found_by_its_image(
    server: Standin, connected: Api
) -> None:
    """A kubelet before 1.32 waits without a reason, and only its event has it."""
    bad = f"{REG}/model:2"
    pod = waiting("ImagePullBackOff", f'Back-off pulling image "{bad}"', **volumes("a/b:1", bad))
    group = only(
        diagnosed(
            server, connected, pod,
            event('Failed to pull image "a/b:1": no route to host', when="09"),
            event(f'Failed to pull image "{bad}": 401 Unauthorized'),
            event("Failed to pull image: of another container", field="spec.containers{side}"),
        )
    )  # fmt: skip
    assert group.images == (bad,)
    assert group.code == "secret-missing"
    assert "401" in group.evidence


def test_an_image_volume_on_a_current_kubelet_says_it_itself(
    server: Standin, connected: Api
) -> None:
    bad = f"{REG}/model:2"
    words = (
        f'Back-off pulling image "{bad}": ErrImagePull: failed to resolve image: {bad}: not found'
    )
    group = only(diagnosed(server, connected, waiting("ImagePullBackOff", words, **volumes(bad))))
    assert (group.code, group.images, group.fix) == ("image-missing", (bad,), "")
    assert server.asked["GET /api/v1/namespaces/web/events"] == 0


NEVER = f'Container image "{REG}/app:1" is not present with pull policy of Never'


def never_pod() -> dict[str, Any]:
    pod = waiting("ErrImageNeverPull", NEVER)
    pod["spec"]["containers"][0]["imagePullPolicy"] = "Never"
    return pod


@pytest.mark.parametrize(
    ("has", "policy", "code"),
    [
        ((), "NeverVerifyPreloadedImages", "never-pull"),
        ((f"{REG}/app:1",), "NeverVerifyPreloadedImages", "never-pull-unproven"),
        ((f"{REG}/app:1",), "AlwaysVerify", "always-verify"),
        ((f"{REG}/app:2", f"{REG}/app@sha256:0"), "AlwaysVerify", "never-pull"),
    ],
)
def test_never_is_told_apart_by_what_the_node_has_and_its_kubelet_wants(
    server: Standin, connected: Api, has: tuple[str, ...], policy: str, code: str
) -> None:
    configuration = {"kubeletconfig": {"imagePullCredentialsVerificationPolicy": policy}}
    objects = {NODE: node("v1.36.2", *has), CONFIGZ: configuration}
    report = diagnosed(server, connected, never_pod(), **objects)
    assert only(report).code == code
    assert server.asked[f"GET {CONFIGZ}"] == (0 if code == "never-pull" else 1)


def test_an_old_kubelet_is_not_asked_for_a_policy_it_does_not_have(
    server: Standin, connected: Api
) -> None:
    objects = {NODE: node("v1.20.2", f"{REG}/app:1")}
    assert only(diagnosed(server, connected, never_pod(), **objects)).code == "never-pull"
    assert server.asked[f"GET {CONFIGZ}"] == 0


def test_a_kubelet_that_may_not_be_asked_leaves_both_reasons(
    server: Standin, connected: Api
) -> None:
    server.trouble = lambda request: (
        failure(403, "Forbidden", 'nodes "n1" is forbidden: User "u" cannot get resource'
                ' "nodes/proxy" in API group "" at the cluster scope')
        if request.path == CONFIGZ else None
    )  # fmt: skip
    pod = waiting("ErrImagePull", "failed to resolve image: 401 Unauthorized")
    report = diagnosed(server, connected, pod, **{NODE: node("v1.36.2", f"{REG}/app:1")})
    assert "AlwaysVerify" in only(report).cause
    assert any("verifies images" in note for note in report.notes)


def secret(user: str, password: str, server: str = REG) -> dict[str, Any]:
    auths = {"auths": {server: {"username": user, "password": password}}}
    text = base64.b64encode(json.dumps(auths).encode()).decode()
    return {
        "metadata": {"name": "s", "namespace": "web", "uid": "s"},
        "type": "kubernetes.io/dockerconfigjson",
        "data": {".dockerconfigjson": text},
    }


@pytest.mark.parametrize("words", ["insufficient_scope: authorization failed", "403 Forbidden"])
@pytest.mark.parametrize(("status", "code"), [(200, "access-denied"), (401, "secret-wrong-login")])
def test_our_registry_is_asked_whether_it_takes_the_login_of_a_secret(
    server: Standin,
    connected: Api,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    code: str,
    words: str,
) -> None:
    """The registry's answer is a stand-in here."""
    tried: list[Credentials] = []

    def ask(_settings: Settings, path: str, *, login: Credentials, **_: str) -> client.Answer:
        tried.append(login)
        return client.Answer(status if path == "/v2/" else 403, {}, b"")

    monkeypatch.setattr(client, "ask", ask)
    pod = waiting("ErrImagePull", f"failed to resolve image: {words}")
    pod["spec"]["imagePullSecrets"] = [{"name": "s"}]
    objects = {NODE: node(), "/api/v1/namespaces/web/secrets/s": secret("robot", "of-robot")}
    report = diagnosed(server, connected, pod, **objects)
    assert only(report).code == code
    assert {login.user for login in tried} == {"robot"}
    assert len(tried) == (2 if status == 200 else 1)  # whether it may have the image, too
    assert "of-robot" not in json.dumps(report.to_json()) + repr(report)


def test_no_other_registry_gets_to_see_a_secret_s_login(
    server: Standin, connected: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "ask", lambda *_, **__: pytest.fail("a registry was asked"))
    pod = waiting("ErrImagePull", "server message: insufficient_scope: authorization failed")
    pod["spec"]["containers"][0]["image"] = "harbor.lan/app:1"
    pod["spec"]["imagePullSecrets"] = [{"name": "s"}]
    theirs = secret("robot", "of-robot", "harbor.lan")
    objects = {NODE: node(), "/api/v1/namespaces/web/secrets/s": theirs}
    assert only(diagnosed(server, connected, pod, **objects)).code == "secret-wrong-login"


@pytest.mark.parametrize(("count", "note"), [(49, False), (50, True)])
def test_a_node_with_fifty_images_may_have_more(
    server: Standin, connected: Api, count: int, note: bool
) -> None:
    images = [f"a.io/b:{number}" for number in range(count)]
    group = only(diagnosed(server, connected, never_pod(), **{NODE: node("v1.36.2", *images)}))
    assert group.code == "never-pull"
    assert ("some of its images" in group.cause) is note
