"""From pods, events and Secrets to causes: pure, and without a password in what is said."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from moorage.cluster.api.where import Where
from moorage.cluster.diagnosis import diagnosis
from moorage.cluster.diagnosis.examine import Report
from moorage.cluster.diagnosis.known import NOT_ALLOWED, Known, NodeImages
from moorage.cluster.login import pull_secret
from moorage.cluster.symptoms import causes, stages, stuck, tags
from moorage.cluster.symptoms.stuck import Stuck
from moorage.cluster.workload import cures
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
X509_CODE = "x509-unknown-authority"
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
    return secret_of({server: (user, password)}, kind)


def secret_of(logins: dict[str, tuple[str, str]], kind: str = "") -> dict[str, Any]:
    auths = {
        "auths": {
            server: {"username": user, "password": password}
            for server, (user, password) in logins.items()
        }
    }
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


def test_a_login_of_the_registry_with_another_password_is_not_another_user() -> None:
    held = {("web", "s"): secret(REGISTRY, "moorage-secret-web", "old")}
    found = one(words=REFUSED, secrets=("s",))
    for known, said in ((("moorage-secret-web",), "another password"), ((), "another user (moor")):
        group = diagnosed(
            found, secrets=held, login=LOGIN, login_works=True, users=frozenset(known)
        )
        assert said in group.cause


def test_a_runtime_that_had_no_login_to_give_is_no_matter_of_rights() -> None:
    """The kubelet's first try can come before it has read the Secret; containerd says both then."""
    words = (
        f'failed to resolve reference "{IMAGE}": pull access denied, repository does not exist or'
        " may require authorization: authorization failed: no basic auth credentials"
    )
    good = {("web", "s"): secret(REGISTRY, "moorage", "right-words")}
    found = one(words=words, secrets=("s",))
    assert diagnosed(found, secrets=good, login=LOGIN, login_works=True).code == "secret-late"
    assert diagnosed(one(words=words), login=LOGIN, login_works=True).code == "secret-missing"


def test_no_password_is_in_what_is_said_or_shown() -> None:
    known = Known(
        REGISTRY, login=LOGIN, secrets={("web", "s"): secret(REGISTRY, "moorage", "old-words")}
    )
    group = diagnosis.diagnose([one(words=REFUSED, secrets=("s",))], known)[0]
    everything = repr(known) + repr(group) + json.dumps(group.to_json())
    assert "right-words" not in everything
    assert "old-words" not in everything


def test_a_missing_tag_names_those_there_are_and_ours_is_pushed() -> None:
    missing = one(words=f"failed to resolve image: {IMAGE}: not found", image=f"{REGISTRY}/app:2")
    group = diagnosed(missing, tags={"app": ("1", "1.1")})
    assert group.code == "tag-missing"
    assert "1, 1.1" in group.cause
    assert diagnosed(missing, tags={"app": None}).code == "repository-missing"
    assert diagnosed(missing).code == "image-missing"
    mine = diagnosed(replace(missing, image=IMAGE), tags={"serve_hostname": None})
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


# Token servers: the same words for a wrong login, for none, and for one without the right.
SCOPE = (
    "pull access denied, repository does not exist or may require authorization: server message:"
    " insufficient_scope: authorization failed"
)
GITLAB = "failed to authorize: failed to fetch oauth token: unexpected status: 403 Forbidden"
CRIO = "reading manifest 1 in my.registry.io/app: requested access to the resource is denied"
DOCKER = (
    "pull access denied for my.registry.io/app, repository does not exist or may require 'docker"
    " login': denied: requested access to the resource is denied"
)
FORBIDDEN = "unexpected status from HEAD request to https://my.registry.io/v2/: 403 Forbidden"
OWN, OTHER = ("moorage", "right-words"), ("robot", "other-words")


@pytest.mark.parametrize("words", [SCOPE, GITLAB, CRIO, DOCKER, FORBIDDEN])
@pytest.mark.parametrize(
    ("held", "named", "accepted", "code"),
    [
        (None, (), (), "secret-missing"),
        (None, ("s",), (), "secret-missing"),
        ({"other.io": OWN}, ("s",), (), "secret-other-server"),
        ({REGISTRY: ("moorage", "old")}, ("s",), (), "secret-wrong-login"),
        ({REGISTRY: OTHER}, ("s",), (), "secret-wrong-login"),
        # The registry was asked, and takes the login: what is missing is the right.
        ({REGISTRY: OTHER}, ("s",), (OTHER,), "access-denied"),
        ({REGISTRY: OWN}, ("s",), (), "access-denied"),
    ],
)
def test_a_denial_is_read_like_a_401_until_the_login_is_known_to_be_good(
    words: str, held: Any, named: tuple[str, ...], accepted: Any, code: str
) -> None:
    secrets = {("web", "s"): secret_of(held) if held else None}
    logins = frozenset(pull_secret.Login(*each) for each in accepted)
    group = diagnosed(
        one(words=words, secrets=named),
        secrets=secrets, login=LOGIN, login_works=True, accepted=logins,
    )  # fmt: skip
    assert group.code == code
    assert "words" not in json.dumps(group.to_json()).replace(words, "")
    if code == "access-denied":
        assert "accepts the login" in group.title
        assert group.fix == ""
    else:
        assert "accepts" not in group.title
        assert group.fix == causes.SECRET


def test_a_denial_by_another_registry_names_user_and_both_reasons() -> None:
    other = one(words=SCOPE, image="harbor.lan/team/app:1", secrets=("s",))
    group = diagnosed(other, secrets={("web", "s"): secret("harbor.lan", "robot$a", "x")})
    assert group.code == "secret-wrong-login"
    assert "refuses the login of these pods' Secret, or denies harbor.lan/team/app:1" in group.title
    assert "robot$a" in group.cause
    assert "--docker-server=harbor.lan" in group.cure
    unread = diagnosed(other, secrets={("web", "s"): NOT_ALLOWED})
    assert unread.code == "login-refused"
    assert "or denies" in unread.title


def test_a_misspelt_image_of_the_hub_may_be_what_a_missing_login_is() -> None:
    group = diagnosed(one(words=SCOPE, image="ngnix"))
    assert group.code == "secret-missing"
    assert "an image that does not exist" in group.cause
    assert "an image that does not exist" not in diagnosed(one(words=REFUSED)).cause


HUB_REFUSED = (
    "failed to authorize: failed to fetch oauth token: unexpected status: 401 Unauthorized"
)


@pytest.mark.parametrize(
    "image", ["team/app:1", "docker.io/team/app:1", "index.docker.io/team/app"]
)
def test_the_hub_s_secret_as_kubectl_makes_it_is_for_the_right_server(image: str) -> None:
    stuck_one = one(words=HUB_REFUSED, image=image, secrets=("hub",))
    made = secret("https://index.docker.io/v1/", "team", "wrong")
    group = diagnosed(stuck_one, secrets={("web", "hub"): made})
    assert group.code == "secret-wrong-login"
    assert "docker.io" in group.cause
    server = next(word for word in group.cure.split() if word.startswith("--docker-server="))
    # What the cure makes gets no such verdict about its server again.
    cured = secret(server.partition("=")[2], "team", "wrong")
    assert diagnosed(stuck_one, secrets={("web", "hub"): cured}).code == "secret-wrong-login"


@pytest.mark.parametrize(
    ("key", "image", "words"),
    [
        ("https://reg:8443/v2", "reg:8443/app:1", "path begins with /v2"),
        ("reg:8443/team/app:1", "reg:8443/team/app:1", "path begins with /team/app:1"),
        ("reg:*", "reg:8443/app:1", "cannot read it"),
        (REGISTRY, f"{REGISTRY}:443/app:1", "are two servers"),
        ("https://index.docker.io/v1", "team/app:1", "index.docker.io/v1"),
    ],
)
def test_a_key_that_the_kubelet_passes_over_is_not_waited_for(
    key: str, image: str, words: str
) -> None:
    stuck_one = one(words=REFUSED, image=image, secrets=("s",))
    held = {("web", "s"): secret(key, "moorage", "right-words")}
    group = diagnosed(stuck_one, secrets=held, login=LOGIN, login_works=True)
    assert group.code == "secret-other-server"
    assert words in group.cause
    assert image.partition("/")[0] in group.title or "docker.io" in group.title


def test_both_spellings_of_port_443_are_our_registry() -> None:
    group = diagnosed(one(image=f"{REGISTRY}:443/app:1"))
    assert (group.fix, group.cure) == (causes.TRUST, "inv nodes.trust --hosts=n1")
    # The Secret that the cure makes is one that the kubelet uses for this spelling.
    from moorage.cluster.api import ours

    made = pull_secret.document("s", "web", REGISTRY, LOGIN, ours.labels(SETTINGS, "secret"))
    refused = one(words=REFUSED, image=f"{REGISTRY}:443/app:1", secrets=("s",))
    cured = diagnosed(refused, secrets={("web", "s"): made}, login=LOGIN, login_works=True)
    assert cured.code == "secret-late"


def test_a_page_in_place_of_an_image_is_no_reason_to_push_it() -> None:
    words = "unexpected media type text/html for sha256:0: not found"
    mine = diagnosed(one(words=words, image=IMAGE))
    assert (mine.code, mine.fix) == ("not-a-registry", "")
    assert "proxy" in mine.cause
    assert "curl -vL https://my.registry.io/v2/" in mine.cure
    assert "--fix-proxy" in mine.cure
    other = diagnosed(one(words=words, image="quay.io/a:1"))
    assert "NO_PROXY" in other.cure


def test_a_mirror_or_token_server_at_fault_is_named_and_not_our_registry() -> None:
    words = (
        'failed to do request: Get "https://token.test:5000/token?service=my.registry.io": tls:'
        " failed to verify certificate: x509: certificate signed by unknown authority"
    )
    group = diagnosed(one(words=words))
    assert (group.code, group.registry, group.fix) == (X509_CODE, "token.test:5000", "")
    assert "certs.d/token.test:5000/ca.crt" in group.cure
    assert "my.registry.io sends its clients to token.test:5000" in group.cause
    assert not diagnosis.wants_facts(one(words=words), REGISTRY)
    hub = words.replace("token.test:5000", "auth.docker.io")
    assert diagnosed(one(words=hub, image="busybox")).registry == "docker.io"
    own = words.replace("token.test:5000", "my.registry.io:443")
    assert diagnosed(one(words=own)).fix == causes.TRUST


# -- the image that the words name --------------------------------------------------------------


def volume_pod(message: str, reason: str = "ErrImagePull", **spec: Any) -> dict[str, Any]:
    """A pod whose containers mount images; as Kubernetes 1.36 writes it."""
    mounts = [{"name": "model", "mountPath": "/model"}, {"name": "tmp", "mountPath": "/tmp"}]
    document = pod(
        {"waiting": {"reason": reason, "message": message}},
        containers=[
            {
                "name": "app",
                "image": f"{REGISTRY}/app:1",
                "imagePullPolicy": "IfNotPresent",
                "volumeMounts": mounts,
            },
            {"name": "side", "image": f"{REGISTRY}/side:1"},
        ],
        volumes=[
            {"name": "tmp", "emptyDir": {}},
            {"name": "model", "image": {"reference": f"{REGISTRY}/app:10", "pullPolicy": "Always"}},
            {"name": "other", "image": {"reference": f"{REGISTRY}/other:1"}},
        ],
    )
    document["spec"].update(spec)
    return document


@pytest.mark.parametrize(
    ("message", "image", "policy"),
    [
        (f'failed to pull and unpack image "{REGISTRY}/app:10": x', f"{REGISTRY}/app:10", "Always"),
        (f'Back-off pulling image "{REGISTRY}/app:10"', f"{REGISTRY}/app:10", "Always"),
        (f'Back-off pulling image "{REGISTRY}/app:1"', f"{REGISTRY}/app:1", "IfNotPresent"),
        (
            f'Container image "{REGISTRY}/app:10" is not present with pull policy of Never',
            f"{REGISTRY}/app:10",
            "Always",
        ),
        # A volume that this container does not mount, and words that name nothing.
        (f'Back-off pulling image "{REGISTRY}/other:1"', f"{REGISTRY}/app:1", "IfNotPresent"),
        ("context deadline exceeded", f"{REGISTRY}/app:1", "IfNotPresent"),
        (f"initializing source docker://{REGISTRY}/app:10: x", f"{REGISTRY}/app:10", "Always"),
        (f"image pull failed for {REGISTRY}/app:10 because x", f"{REGISTRY}/app:10", "Always"),
    ],
)
def test_an_image_volume_is_blamed_and_not_the_container_s_image(
    message: str, image: str, policy: str
) -> None:
    found = stuck.containers(volume_pod(message))[0]
    assert (found.image, found.policy) == (image, policy)


@pytest.mark.parametrize("place", ["initContainers", "ephemeralContainers", "containers"])
def test_each_kind_of_container_may_mount_the_volume(place: str) -> None:
    document = volume_pod("")
    mounting = {
        "name": "late",
        "image": "busybox",
        "volumeMounts": [{"name": "model", "mountPath": "/m"}],
    }
    statuses = {"initContainers": "initContainerStatuses", "containers": "containerStatuses"}
    key = statuses.get(place, "ephemeralContainerStatuses")
    document["spec"][place] = [mounting]
    words = f'Failed to pull image "{REGISTRY}/app:10": {X509}'
    waiting = {"waiting": {"reason": "ErrImagePull", "message": words}}
    document["status"] = {"phase": "Pending", key: [{"name": "late", "state": waiting}]}
    assert stuck.containers(document)[0].image == f"{REGISTRY}/app:10"


def test_a_volume_s_image_that_is_missing_is_not_cured_by_pushing_the_container_s() -> None:
    words = f'failed to resolve reference "{REGISTRY}/app:10": {REGISTRY}/app:10: not found'
    document = volume_pod(words)
    document["spec"]["containers"][0]["image"] = IMAGE
    group = diagnosed(stuck.containers(document)[0])
    assert group.images == (f"{REGISTRY}/app:10",)
    assert group.fix == ""


def test_of_several_volumes_each_event_counts_for_its_own_image() -> None:
    def event(image: str, words: str) -> dict[str, Any]:
        return {
            "message": f'Failed to pull image "{image}": {words}',
            "lastTimestamp": "2026-01-01T00:00:00Z",
            "involvedObject": {"uid": "uid"},
        }

    heard = stuck.complaints([event("a/b:1", "of a"), event("c/d:1", "of c")])
    said = {key: complaint.words for key, complaint in heard.items()}
    for image, words in (("a/b:1", "of a"), ("c/d:1", "of c"), ("e/f:1", "")):
        assert stuck.heard(one(image=image, words=""), said).endswith(words)


# -- what the node has already ------------------------------------------------------------------

NEVER = f'Container image "{REGISTRY}/app:1" is not present with pull policy of Never'
NODE = NodeImages(frozenset({f"{REGISTRY}/app:1"}), True, "v1.36.2")


def on(node: NodeImages, found: Stuck, **known: Any) -> diagnosis.Group:
    return diagnosed(found, nodes={"n1": node}, **known)


def never(**changes: Any) -> Stuck:
    return one(words=NEVER, reason="ErrImageNeverPull", policy="Never", **changes)


def test_never_without_the_image_is_told_from_never_without_the_login() -> None:
    absent = on(replace(NODE, names=frozenset()), never())
    assert absent.code == "never-pull"
    assert "inv nodes.preload my.registry.io/app:1 --hosts=n1" in absent.cure
    assert "as far as" not in absent.cause
    lacking = on(NODE, never())
    assert (lacking.code, lacking.fix) == ("never-pull-unproven", causes.SECRET)
    assert "they name none" in lacking.cause
    assert "preload" not in lacking.cure
    other = on(NODE, never(secrets=("s",)))
    assert (other.code, other.fix) == ("never-pull-unproven", "")
    assert "IfNotPresent" in other.cure


def test_a_node_that_names_some_of_its_images_proves_no_absence() -> None:
    group = on(NodeImages(frozenset(), False, "v1.36.2"), never())
    assert group.code == "never-pull"
    assert "names some of its images" in group.cause


@pytest.mark.parametrize("kubelet", ["v1.20.2", "v1.32.9", ""])
def test_an_older_kubelet_verifies_nothing(kubelet: str) -> None:
    assert on(replace(NODE, kubelet=kubelet), never()).code == "never-pull"


@pytest.mark.parametrize("policy", ["AlwaysVerify", "NeverVerifyAllowlistedImages"])
def test_a_kubelet_that_verifies_always_is_named_with_the_way_out(policy: str) -> None:
    node = replace(NODE, verification=policy)
    for found in (
        never(),
        never(secrets=("s",)),
        one(
            image="docker.io/library/python:3.13-slim", words="no such host", policy="IfNotPresent"
        ),
    ):
        has = replace(node, names=node.names | {"docker.io/library/python:3.13-slim"})
        group = on(has, found)
        assert (group.code, group.fix) == ("always-verify", "")
        assert policy in group.cause
        assert "NeverVerifyPreloadedImages" in group.cure
        assert "preloadedImagesVerificationAllowlist" in group.cure
        assert "inv nodes.preload" not in group.cure
    # Where a command of ours lets the registry be asked, that is the cure still.
    trusting = on(node, one(policy="IfNotPresent"))
    assert (trusting.code, trusting.fix) == ("x509-unknown-authority", causes.TRUST)
    assert policy in trusting.cause
    refused = on(node, one(policy="IfNotPresent", words=REFUSED))
    assert (refused.code, refused.fix) == ("secret-missing", causes.SECRET)
    assert policy in refused.cause


def test_a_pull_that_the_default_policy_wants_says_why_there_is_one() -> None:
    node = replace(NODE, verification="NeverVerifyPreloadedImages")
    group = on(node, one(policy="IfNotPresent", words=REFUSED))
    assert group.code == "secret-missing"
    assert "pulled with a Secret" in group.cause
    assert "AlwaysVerify" not in group.cause
    assert "AlwaysVerify" in on(NODE, one(policy="IfNotPresent", words=REFUSED)).cause
    assert "already" not in on(node, one(policy="Always", words=REFUSED)).cause


# -- the sandbox --------------------------------------------------------------------------------

PAUSE = f"{REGISTRY}/pause:3.10"


def in_sandbox(words: str, **changes: Any) -> Stuck:
    said = (
        f'Failed to create pod sandbox: rpc error: failed to get sandbox image "{PAUSE}": {words}'
    )
    plain = one(container="", image="", reason=stuck.SANDBOX, words="")
    found = stuck.without_sandbox(replace(plain, **changes), said)
    assert found is not None
    return found


def test_a_sandbox_s_login_is_no_matter_of_secrets() -> None:
    for words in (REFUSED, SCOPE, FORBIDDEN):
        named = in_sandbox(words, secrets=("s",))
        group = diagnosed(named, secrets={("web", "s"): secret(REGISTRY, "moorage", "right-words")})
        assert (group.code, group.fix) == ("sandbox-login", "")
        assert "no Secret is ever used" in group.cause
        assert f"docker pull {PAUSE} && inv nodes.preload {PAUSE} --hosts=n1" in group.cure
        assert not diagnosis.wants_secrets(named)


def test_a_sandbox_s_image_that_is_missing_is_named_with_the_setting() -> None:
    group = diagnosed(in_sandbox(f"failed to resolve image: {PAUSE}: not found"))
    assert (group.code, group.images) == ("sandbox-missing", (PAUSE,))
    assert "sandbox_image" in group.cause
    assert "pause_image" in group.cause


def test_a_sandbox_s_trust_is_cured_like_any_other_s() -> None:
    group = diagnosed(in_sandbox(X509))
    assert (group.code, group.fix) == ("x509-unknown-authority", causes.TRUST)
    assert group.cure == "inv nodes.trust --hosts=n1"
    assert "every pod's sandbox" in group.cause
    there = diagnosed(in_sandbox(X509), trusting={"n1": "its agent says so"})
    assert there.code == "config-path-ignored"


def test_a_sandbox_s_image_from_elsewhere_can_be_preloaded() -> None:
    words = (
        'Failed to create pod sandbox: x: failed pulling image "k8s.gcr.io/pause:3.2": i/o timeout'
    )
    plain = one(container="", image="", reason=stuck.SANDBOX, words="")
    found = stuck.without_sandbox(plain, words)
    assert found is not None
    group = diagnosed(found)
    assert group.code == "registry-timeout"
    assert group.cure.startswith(
        "docker pull k8s.gcr.io/pause:3.2 && inv nodes.preload k8s.gcr.io/"
    )


def before_sandbox(conditions: dict[str, str], **status: Any) -> dict[str, Any]:
    document = pod({"waiting": {"reason": "ContainerCreating"}})
    document["status"]["conditions"] = [
        {"type": kind, "status": value} for kind, value in conditions.items()
    ]
    document["status"].update(status)
    return document


@pytest.mark.parametrize(
    ("document", "waits"),
    [
        (before_sandbox({"PodReadyToStartContainers": "False"}), True),
        (before_sandbox({"PodHasNetwork": "False"}), True),
        (before_sandbox({"PodReadyToStartContainers": "True"}), False),
        (before_sandbox({}), True),
        (before_sandbox({}, podIP="10.0.0.1"), False),
        (before_sandbox({}, containerStatuses=[]), True),
        (before_sandbox({}, phase="Succeeded"), False),
        (pod({"running": {}}), False),
        (pod({"waiting": {"reason": "CrashLoopBackOff"}}), False),
        (pod({"terminated": {"exitCode": 1}}), False),
        (pod({"waiting": {"reason": "ContainerCreating"}}, nodeName=""), False),
        (pod({"waiting": {"reason": "ContainerCreating"}}, hostNetwork=True), True),
    ],
)
def test_a_pod_that_waits_for_its_sandbox_is_looked_at(
    document: dict[str, Any], waits: bool
) -> None:
    found = stuck.candidates(document)
    assert [each.of_sandbox for each in found] == ([True] if waits else [])


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

    def fix(_here: cures.Here, report: Report) -> list[cures.CureOutcome]:
        trusting.append([group.nodes for group in report.groups])
        return [cures.CureOutcome(causes.TRUST, (), True, "")]

    monkeypatch.setattr(cures, "fix", fix)
    monkeypatch.setattr(cures, "revive", lambda *_: [])
    monkeypatch.setattr(cures, "wait", lambda *_: answers.pop(0))
    ui = UI(as_json=True, yes=True)
    done, left = cures.by_rounds(connected, SETTINGS, ui, found(one(node="n1")))
    assert trusting == [[("n1",)], [("n2",)]]
    assert len(done) == 2
    # The same node, again: no further round would change that.
    assert [group.nodes for group in left.groups] == [("n2",)]


def test_pods_that_were_made_before_their_account_had_the_secret_are_made_once_more(
    connected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same stand-ins: the first new pod was filled from an old copy of the ServiceAccount."""
    pods = [one(words=REFUSED, owner="ReplicaSet/x", owner_api="apps/v1", uid=uid) for uid in "abc"]
    knows = Known(REGISTRY, in_namespace={"web": ("my-registry",)})
    early = [Report(tuple(diagnosis.diagnose([pod], knows)), 1) for pod in pods]
    assert early[0].groups[0].code == "secret-not-named"
    answers, runs = [early[1], early[2], found()], []

    def fix(*_: Any) -> list[cures.CureOutcome]:
        runs.append(1)
        return [cures.CureOutcome(causes.SECRET, (), True, "")]

    monkeypatch.setattr(cures, "fix", fix)
    monkeypatch.setattr(cures, "revive", lambda *_: [])
    monkeypatch.setattr(cures, "wait", lambda *_: answers.pop(0))
    # Nobody is asked again: it was agreed to.
    _, left = cures.by_rounds(connected, SETTINGS, UI(as_json=True), early[0])
    assert (left.groups, len(runs)) == ((), 3)
    answers += [early[1]] * 9
    _, left = cures.by_rounds(connected, SETTINGS, UI(as_json=True), early[0])
    assert (len(left.groups), len(answers)) == (1, 5)


def test_a_further_round_is_asked_for(connected: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same stand-ins; nobody is there to agree."""
    monkeypatch.setattr(cures, "fix", lambda *_: [cures.CureOutcome(causes.TRUST, (), True, "")])
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


# -- tags -----------------------------------------------------------------------------------------

FOLDERS = ("1.10", "latest", "1.9", "v1.2", "1.2-alpine", "2.0", "1.1", "1.20", "1.3", "1.2", "1.4")


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ("1.5", ["v1.2", "1.2-alpine", "1.3", "1.4", "1.9", "1.10", "1.20", "2.0"]),
        ("0.1", ["1.1", "1.2", "v1.2", "1.2-alpine", "1.3", "1.4", "1.9", "1.10"]),
        ("9", ["1.2-alpine", "1.3", "1.4", "1.9", "1.10", "1.20", "2.0", "latest"]),
        ("", ["1.2-alpine", "1.3", "1.4", "1.9", "1.10", "1.20", "2.0", "latest"]),
        ("lates", ["1.2-alpine", "1.3", "1.4", "1.9", "1.10", "1.20", "2.0", "latest"]),
    ],
)
def test_the_tags_nearest_to_the_missing_one_are_named_in_their_order(
    asked: str, named: list[str]
) -> None:
    """A registry gives them as its folders lie on the disk."""
    assert tags.nearest(FOLDERS, asked) == named


def test_a_tag_that_is_written_alike_is_named_wherever_it_stands() -> None:
    many = [f"1.{number}" for number in range(40)]
    assert "release-7" in tags.nearest([*many, "release-7"], "relaese-7")
    assert tags.nearest(["a", "a"], "b") == ["a"]
    assert tags.nearest([], "b") == []


@pytest.mark.parametrize(
    ("image", "tag"),
    [
        ("my.registry.io/a:1.0", "1.0"),
        ("my.registry.io:5000/a/b", ""),
        (f"my.registry.io/a:1@sha256:{'0' * 64}", "1"),
        (f"my.registry.io/a@sha256:{'0' * 64}", ""),
    ],
)
def test_the_tag_of_an_image(image: str, tag: str) -> None:
    assert diagnosis.tag(image) == tag


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
