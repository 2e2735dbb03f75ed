"""From pods, events and Secrets to causes: pure, and without a password in what is said."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from moorage.cluster import causes, cures, diagnosis, stages, stuck
from moorage.cluster.api import Where
from moorage.cluster.diagnosis import NOT_ALLOWED, Known
from moorage.cluster.examine import Report
from moorage.cluster.stuck import Stuck
from moorage.errors import Refused
from moorage.registry import Credentials
from moorage.settings import Settings
from moorage.ui import UI

SETTINGS = Settings()


@pytest.fixture
def connected() -> Any:
    """A stand-in for a connection: it knows where it leads to, and nothing else."""
    return SimpleNamespace(where=Where("https://a.lan:6443", "a"))


REGISTRY = "my.registry.io"
IMAGE = SETTINGS.image_reference
X509 = "x509: certificate signed by unknown authority"


def one(**changes: Any) -> Stuck:
    plain = Stuck("web", "pod", "uid", "n1", "app", f"{REGISTRY}/app:1", "ErrImagePull", X509)
    return replace(plain, **changes)


def pod(state: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "pod", "namespace": "web", "uid": "uid"},
        "spec": {"nodeName": "n1", "containers": [{"name": "app", "image": "a.io/b:1"}], **spec},
        "status": {
            "phase": "Pending",
            "containerStatuses": [{"name": "app", "state": state, "image": ""}],
        },
    }


def secret(server: str, user: str, password: str, kind: str = "") -> dict[str, Any]:
    auths = {"auths": {server: {"username": user, "password": password}}}
    return {
        "type": kind or "kubernetes.io/dockerconfigjson",
        "data": {".dockerconfigjson": base64.b64encode(json.dumps(auths).encode()).decode()},
    }


# -- what is stuck --------------------------------------------------------------------------------


def test_a_pod_that_runs_is_not_stuck() -> None:
    assert stuck.containers(pod({"running": {}})) == []


def test_a_pod_whose_program_fails_is_not_stuck_on_an_image() -> None:
    assert stuck.containers(pod({"waiting": {"reason": "CrashLoopBackOff"}})) == []


def test_a_pod_that_is_being_deleted_is_left_out() -> None:
    document = pod({"waiting": {"reason": "ErrImagePull", "message": X509}})
    document["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert stuck.containers(document) == []


def test_an_old_kubelet_s_back_off_says_nothing_and_a_new_one_s_says_why() -> None:
    old = pod({"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "x"'}})
    assert stuck.containers(old)[0].words == ""
    words = f'Back-off pulling image "x": ErrImagePull: {X509}'
    new = pod({"waiting": {"reason": "ImagePullBackOff", "message": words}})
    assert X509 in stuck.containers(new)[0].words


def test_the_newest_complaint_of_an_event_counts() -> None:
    def event(message: str, when: str) -> dict[str, Any]:
        about = {"uid": "uid", "fieldPath": "spec.containers{app}"}
        return {"message": message, "lastTimestamp": when, "involvedObject": about}

    events = [
        event("Failed to pull image: old", "2026-01-01T00:00:00Z"),
        event("Failed to pull image: new", "2026-01-01T00:05:00Z"),
        event("Error: ImagePullBackOff", "2026-01-01T00:06:00Z"),
        event("Back-off pulling image", "2026-01-01T00:07:00Z"),
    ]
    assert stuck.complaints(events)["uid", "app"].words.endswith("new")


# -- which cause ----------------------------------------------------------------------------------


def diagnosed(found: Stuck, **known: Any) -> diagnosis.Group:
    return diagnosis.diagnose([found], Known(REGISTRY, IMAGE, **known))[0]


def test_pods_with_one_cause_are_one_group_with_all_their_nodes() -> None:
    pods = [one(pod=f"p{n}", uid=str(n), node=f"n{n % 3}") for n in range(9)]
    groups = diagnosis.diagnose(pods, Known(REGISTRY))
    assert [group.code for group in groups] == ["x509-unknown-authority"]
    assert groups[0].nodes == ("n0", "n1", "n2")
    assert groups[0].cure == "inv nodes.trust --hosts=n0,n1,n2"


def test_a_cure_of_ours_is_offered_for_our_registry_only() -> None:
    assert diagnosed(one()).fix == causes.TRUST
    other = diagnosed(one(image="other.example/app:1"))
    assert other.fix == ""
    assert "other.example" in other.cure


LOGIN = Credentials("moorage", "right-words")
REFUSED = "unexpected status: 401 Unauthorized"


@pytest.mark.parametrize(
    ("secrets", "named", "here", "code"),
    [
        ({}, (), {}, "secret-missing"),
        ({}, (), {"web": ("my-registry",)}, "secret-not-named"),
        ({("web", "s"): None}, ("s",), {}, "secret-missing"),
        ({("web", "s"): None}, ("s",), {"shop": ("s",)}, "secret-elsewhere"),
        ({("web", "s"): NOT_ALLOWED}, ("s",), {}, "login-refused"),
        ({("web", "s"): {"type": "Opaque", "data": {}}}, ("s",), {}, "secret-wrong-type"),
        ({("web", "s"): secret("other.io", "u", "p")}, ("s",), {}, "secret-other-server"),
        ({("web", "s"): secret(REGISTRY, "moorage", "old")}, ("s",), {}, "secret-wrong-login"),
        ({("web", "s"): secret(REGISTRY, "moorage", "right-words")}, ("s",), {}, "secret-late"),
        (
            {("web", "s"): secret(f"https://{REGISTRY}/v1/", "moorage", "right-words")},
            ("s",),
            {},
            "secret-late",
        ),
    ],
)
def test_a_401_is_told_apart(
    secrets: dict[Any, Any], named: tuple[str, ...], here: dict[str, Any], code: str
) -> None:
    found = one(words=REFUSED, secrets=named)
    group = diagnosed(found, secrets=secrets, in_namespace=here, login=LOGIN, login_works=True)
    assert group.code == code
    assert "right-words" not in json.dumps(group.to_json())


def test_no_password_is_in_what_is_said_or_shown() -> None:
    known = Known(
        REGISTRY, login=LOGIN, secrets={("web", "s"): secret(REGISTRY, "moorage", "old-words")}
    )
    group = diagnosis.diagnose([one(words=REFUSED, secrets=("s",))], known)[0]
    everything = repr(known) + repr(group) + json.dumps(group.to_json())
    assert "right-words" not in everything
    assert "old-words" not in everything


def test_a_missing_tag_names_those_there_are_and_ours_is_pushed() -> None:
    missing = one(words="not found", image=f"{REGISTRY}/app:2")
    group = diagnosed(missing, tags={"app": ("1", "1.1")})
    assert group.code == "tag-missing"
    assert "1, 1.1" in group.cause
    assert diagnosed(missing, tags={"app": None}).code == "repository-missing"
    assert diagnosed(missing).code == "image-missing"
    mine = diagnosed(one(words="not found", image=IMAGE), tags={"serve_hostname": None})
    assert (mine.cure, mine.fix) == ("inv image.push", causes.PUSH)


def test_trust_that_is_there_and_ignored_is_told_apart() -> None:
    group = diagnosed(
        one(), trusting={"n1": "its agent says so"}, runtimes={"n1": "containerd 2.1"}
    )
    assert group.code == "config-path-ignored"
    assert "containerd 2.1" in group.cause


def test_a_pod_whose_events_are_gone_is_said_to_be_without_evidence() -> None:
    assert diagnosed(one(words="", reason="ImagePullBackOff")).code == "no-evidence"


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("my.registry.io/a:1", "a"),
        ("my.registry.io/a/b", "a/b"),
        ("my.registry.io:5000/a/b:1@sha256:0", "a/b"),
    ],
)
def test_the_repository_of_an_image(image: str, name: str) -> None:
    assert diagnosis.repository(image) == name


# -- cures ----------------------------------------------------------------------------------------


def test_cures_are_run_once_each_in_the_order_they_build_on_each_other() -> None:
    pods = [
        one(uid="1", words=REFUSED),
        one(uid="2", pod="b"),
        one(uid="3", pod="c", words="connection refused"),
        one(uid="4", pod="d", node="n2", words="no such host"),
    ]
    report = Report(tuple(diagnosis.diagnose(pods, Known(REGISTRY))), 4)
    assert [fix for fix, _ in cures.plan(report)] == [causes.UP, causes.TRUST, causes.SECRET]


def found(*pods: Stuck) -> Report:
    return Report(tuple(diagnosis.diagnose(list(pods), Known(REGISTRY))), len(pods))


def test_a_pod_that_lands_where_trust_is_missing_too_gets_another_round(
    connected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is cured and waited for is a stand-in here: the rounds are what is shown."""
    trusting, answers = [], [found(one(node="n2")), found(one(node="n2")), found()]

    def fix(_api: Any, _settings: Settings, _ui: UI, report: Report) -> list[cures.Done]:
        trusting.append([group.nodes for group in report.groups])
        return [cures.Done(causes.TRUST, (), True, "")]

    monkeypatch.setattr(cures, "fix", fix)
    monkeypatch.setattr(cures, "revive", lambda *_: [])
    monkeypatch.setattr(cures, "wait", lambda *_: answers.pop(0))
    ui = UI(as_json=True, yes=True)
    done, left = cures.by_rounds(connected, SETTINGS, ui, found(one(node="n1")))
    assert trusting == [[("n1",)], [("n2",)]]
    assert len(done) == 2
    # The same node, again: no further round would change that.
    assert [group.nodes for group in left.groups] == [("n2",)]


def test_a_further_round_is_asked_for(connected: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same stand-ins; nobody is there to agree."""
    monkeypatch.setattr(cures, "fix", lambda *_: [cures.Done(causes.TRUST, (), True, "")])
    monkeypatch.setattr(cures, "revive", lambda *_: [])
    monkeypatch.setattr(cures, "wait", lambda *_: found(one(words=REFUSED)))
    with pytest.raises(Refused):
        cures.by_rounds(connected, SETTINGS, UI(as_json=True), found(one(node="n1")))


def test_a_pod_gets_the_secret_it_names_and_else_ours_by_its_account() -> None:
    pods = [
        one(uid="1", words=REFUSED, secrets=("theirs", "my-registry")),
        one(uid="2", words=REFUSED, secrets=("only",), namespace="shop"),
        one(uid="3", words=REFUSED, account="builder", namespace="ci"),
    ]
    groups = diagnosis.diagnose(pods, Known(REGISTRY))
    places = cures.secret_places(SETTINGS, groups)
    assert [(sorted(map(str, found)), accounts) for found, accounts in places] == [
        (["shop/only", "web/my-registry"], ()),
        (["ci/my-registry"], ("builder",)),
    ]


# -- stages ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "changes", "name"),
    [
        ({"waiting": {"reason": "ContainerCreating"}}, {}, stages.PULLING),
        ({"running": {}}, {}, stages.RUNNING),
    ],
)
def test_how_far_a_pod_is(state: dict[str, Any], changes: dict[str, Any], name: str) -> None:
    document = pod(state)
    document["status"].update(changes)
    assert stages.stage(document).name == name


def test_a_pod_without_a_node_says_why_it_is_not_scheduled() -> None:
    document = pod({})
    del document["spec"]["nodeName"]
    condition = {"type": "PodScheduled", "status": "False", "message": "0/2 nodes are available"}
    document["status"] = {"conditions": [condition]}
    found = stages.stage(document)
    assert (found.name, found.waits) == (stages.SCHEDULING, "0/2 nodes are available")


def test_a_crash_is_a_trouble_with_the_command_that_shows_its_log() -> None:
    found = stages.stage(pod({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}))
    assert found.trouble
    assert found.cure == "kubectl logs -n web pod -p"
