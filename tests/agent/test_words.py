"""Every complaint heard of a real runtime (tests/agent/words) gets the code that is right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.wire.faults import TrustError
from agent.wire.plan import Registry
from agent.wire.troubles.table import rows
from agent.wire.troubles.told import classify
from tests.agent.words.situations import SITUATIONS

IMAGE = "reg.test:5000/app:1"
REGISTRY = Registry("reg.test", 5000)
KINDS = {"containerd": "cri", "docker": "docker", "podman": "podman"}
UNKNOWN = "pull-failed"
# Docker with containerd's image store speaks as containerd does, but trusts no token server by
# certs.d (28.5.2).
VENDORED = "containerd-in-docker"

# What each situation is; of a runtime that tells less than others, what it is by that.
CODES: dict[str, str | dict[str, str]] = {
    "token-hub-none": "login-refused",
    "token-hub-wrong": "login-refused",
    "token-hub-no-right": "login-refused",
    "token-harbor-none": "login-refused",
    "token-harbor-wrong": "login-refused",
    "token-gitlab-none": "login-refused",
    "token-gitlab-wrong": "login-refused",
    "token-untrusted": "x509-unknown-authority",
    "token-page": {"": "token-server", "podman": "not-a-registry"},
    "token-missing": {"": "token-server", "docker": "not-a-registry"},
    "token-busy": "rate-limit",
    "page-everywhere": "not-a-registry",
    "page-as-manifest": "not-a-registry",
    "page-as-blob": "content-damaged",
    # containerd tells the status alone; the registry was asked before, and told by its page.
    "page-missing": {"": "not-a-registry", "containerd": "image-missing"},
    "page-forbidden": {
        "": "access-denied", "docker": "not-a-registry", "podman-5": "not-a-registry",
    },
    "page-manifest-forbidden": {
        "": "not-a-registry", "containerd": "access-denied",
    },
    "missing": "image-missing",
    "mirror-untrusted-404": {
        "": "x509-unknown-authority", "containerd-2": "image-missing", "podman": "image-missing",
    },
    "schema1": "schema1",
    "artifact": "not-an-image",
    "blob-missing": "blob-missing",
    "blob-forbidden": {"": "access-denied", VENDORED: "login-refused"},
    "manifest-invalid": UNKNOWN,
    "unsupported": UNKNOWN,
    "broken": "registry-broken",
    "busy": "rate-limit",
    "busy-come-back": "rate-limit",
    "busy-blobs": "rate-limit",
    "store-untrusted": "x509-unknown-authority",
    "store-lost": "name-unresolved",
    "ca-with-a-clients-ending": "client-certificate",
    "cert-without-key": "client-certificate",
    "key-without-cert": "client-certificate",
    "key-of-another": "client-certificate",
    "ca-damaged": {"": "x509-unknown-authority", "containerd": "ca-unreadable"},
    "ca-empty": {"": "x509-unknown-authority", "containerd": "ca-unreadable"},
    "ca-of-another": "x509-unknown-authority",
    "ca-is-a-folder": {"": "ca-unreadable", "containerd": "x509-unknown-authority"},
    "leaf-expired": "x509-expired",
    "leaf-other-name": "x509-wrong-name",
    "leaf-no-san": "x509-wrong-name",
    "sandbox-untrusted": "x509-unknown-authority",
    "sandbox-login": "login-refused",
    "sandbox-missing": "image-missing",
    "sandbox-page": "not-a-registry",
}  # fmt: skip
# What a runtime makes do with. Docker and Podman know nothing of hosts.toml, nor of sandboxes.
PULLED = {
    "good": ("",),
    "leaf-good": ("",),
    "leaf-issued": ("",),
    "key-without-cert": ("containerd",),
    "artifact": ("containerd-2.1",),
    "schema1": ("podman",),
}

ELSEWHERE = {
    "token-untrusted": "token.test",
    "store-untrusted": "store.test",
    "store-lost": "lost.invalid",
}
COLLECTED = {
    path.stem: json.loads(path.read_text())
    for path in sorted((Path(__file__).parent / "words").glob("*.json"))
}
HEARD = [
    pytest.param(runtime, situation, words, id=f"{runtime}-{situation}")
    for runtime, said in COLLECTED.items()
    for situation, words in said.items()
]


def voice(runtime: str) -> str:
    return VENDORED if runtime.endswith("-containerd") else runtime


def code_of(runtime: str, situation: str) -> str:
    if runtime == VENDORED and situation.startswith("token-"):
        return "x509-unknown-authority"
    known = CODES[situation]
    if isinstance(known, str):
        return known
    return next(known[start] for start in sorted(known, reverse=True) if runtime.startswith(start))


@pytest.mark.parametrize(("runtime", "situation", "words"), HEARD)
def test_the_words_of_a_runtime_are_told_as_what_they_mean(
    runtime: str, situation: str, words: str
) -> None:
    if any(voice(runtime).startswith(start) for start in PULLED.get(situation, ())):
        assert words == "pulled"
        return
    kind = KINDS[runtime.partition("-")[0]]
    error = classify(words, REGISTRY, IMAGE, runtime=kind)
    assert error.code == code_of(voice(runtime), situation), words
    assert words in error.fault.message
    assert error.fault.cause
    assert error.fault.cure
    texts = error.fault.message + error.fault.cause + error.fault.cure
    assert "{" not in texts


@pytest.mark.parametrize("runtime", sorted(COLLECTED))
def test_each_runtime_was_heard_in_every_situation(runtime: str) -> None:
    kind = runtime.partition("-")[0]
    wanted = [one.name for one in SITUATIONS if kind in one.runtimes]
    assert sorted(COLLECTED[runtime]) == sorted(wanted)


def test_all_runtimes_that_are_promised_were_heard() -> None:
    heard = {name.rpartition(".")[0] for name in COLLECTED}
    assert {"containerd-1.6", "containerd-1.7", "containerd-2.1"} <= heard
    assert {"docker-20.10", "docker-28.5", "podman-4.3", "podman-5.4"} <= heard


@pytest.mark.parametrize(("runtime", "situation", "words"), HEARD)
def test_a_failure_of_another_host_says_so_and_is_no_reason_to_roll_back(
    runtime: str, situation: str, words: str
) -> None:
    if situation not in ELSEWHERE:
        return
    error = classify(words, REGISTRY, IMAGE, runtime=KINDS[runtime.partition("-")[0]])
    host = ELSEWHERE[situation]
    if voice(runtime).startswith("docker") and situation.startswith("store"):
        host = "another host"  # it does not say which
    assert not isinstance(error, TrustError)
    assert "reg.test:5000 sends its clients there" in error.fault.cause
    assert "inv certs.show" not in error.fault.cure
    assert host in error.fault.message.partition("(it said")[0]


@pytest.mark.parametrize(
    "words",
    [
        "failed to extract layer: exec: unpigz: not found",
        "failed to prepare snapshot: parent snapshot sha256:0 does not exist: not found",
        "open /var/lib/docker/tmp/x: permission denied",
        "mkdir /var/lib/containers/storage: permission denied",
        "dial tcp 10.0.0.1:429: something new",
        "lease expired: not found",
        "rpc error: code = Unimplemented desc = something new",
        "unknown: Tag 401 was pulled from quay:503 with 403 layers of sha256:500",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    ("runtime", "program"),
    [("cri", "crictl pull"), ("docker", "docker pull"), ("podman", "podman pull")],
)
def test_words_that_are_not_known_are_told_as_they_are(
    words: str, runtime: str, program: str
) -> None:
    error = classify(words, REGISTRY, IMAGE, runtime=runtime)
    assert error.code == UNKNOWN
    assert error.fault.message == f"the pull failed: {words}"
    assert error.fault.cure.endswith(f"{program} {IMAGE}")


@pytest.mark.parametrize(
    "image", ["reg.test:5000/unauthorized/app:401", "reg.test:5000/toomanyrequests:403"]
)
@pytest.mark.parametrize(
    "words",
    [
        'failed to pull and unpack image "{}": failed to resolve reference "{}": pulling from host '
        "reg.test:5000 failed with status code [manifests 429]: 405 Method Not Allowed",
        'failed to pull and unpack image "{}": failed to do request: Head '
        '"https://reg.test:5000/v2/toomanyrequests/manifests/1": EOF',
        "Error: initializing source docker://{}: reading manifest toomanyrequests in "
        "reg.test:5000/unauthorized: new",
    ],
)
def test_what_is_in_a_name_says_nothing(image: str, words: str) -> None:
    assert classify(words.format(image, image), REGISTRY, image).code == UNKNOWN


def test_docker_s_token_server_is_told_apart_from_its_registry() -> None:
    words = (  # 28.5.2 with containerd's image store; the registry is its own token server
        'failed to resolve reference "reg.test:5000/app:1": failed to authorize: failed to fetch '
        'anonymous token: Get "https://reg.test:5000/token?service=x": tls: failed to verify '
        "certificate: x509: certificate signed by unknown authority"
    )
    error = classify(words, REGISTRY, IMAGE, runtime="docker")
    assert not isinstance(error, TrustError)
    assert "token server of reg.test:5000" in error.fault.message
    assert "inv nodes.trust --system-store" in error.fault.cure


def test_podman_s_mirrors_are_told_beside_the_registry_s_own_answer() -> None:
    for runtime, said in COLLECTED.items():
        if runtime.startswith("podman"):
            error = classify(said["mirror-untrusted-404"], REGISTRY, IMAGE, runtime="podman")
            assert "mirrors before it failed as well: [" not in error.fault.cause
            assert "mirror.test:5001" in error.fault.cause
            assert "signed by unknown authority" in error.fault.cause


def test_every_row_is_needed() -> None:
    """A row that no collected words reach, in messages.json or here, would be a guess."""
    older = json.loads((Path(__file__).parents[1] / "k8s" / "messages.json").read_text())
    words = [text for said in COLLECTED.values() for text in said.values()]
    words += [row["words"] for rows in older.values() for row in rows]
    reached = {classify(text, REGISTRY, IMAGE).code for text in words}
    assert {row.code for row in rows("node")} - reached <= {
        "client-wanted",
        "client-refused",
        "tls-failed",
    }
