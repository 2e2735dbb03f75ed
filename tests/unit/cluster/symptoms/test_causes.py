"""Every complaint collected from a real daemon is known by its cause (messages.json), and so is
every one that a kubelet has, by its source (kubelet.json)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moorage.cluster.symptoms import causes, stuck
from tests.agent.test_words import ELSEWHERE, HEARD, code_of, voice

K8S = Path(__file__).resolve().parents[3] / "k8s"
COLLECTED = json.loads((K8S / "messages.json").read_text())
KUBELETS = json.loads((K8S / "kubelet.json").read_text())
ROWS = [
    pytest.param(row["code"], row["words"], id=f"{runtime.replace(' ', '-')}-{row['code']}")
    for runtime, rows in COLLECTED.items()
    for row in rows
]


SANDBOX = stuck.Stuck("web", "pod", "uid", "n1", "", "", stuck.SANDBOX, "")


@pytest.mark.parametrize(("code", "words"), ROWS)
def test_words_of_a_real_daemon_are_known(code: str, words: str) -> None:
    # Docker says the same of a login that is refused as of one that may not have the image.
    wanted = "login-refused" if "docker login" in words else code
    assert causes.classify(words).code == wanted


# Where this table says more than the agent's, or hears words without an address.
OTHERWISE = {
    "leaf-no-san": {"x509-wrong-name", "x509-common-name"},
    "page-as-blob": {"content-damaged", "registry-timeout"},
    "manifest-invalid": {"plain-to-https", "pull-failed"},
    "token-page": {"token-server"},
    "blob-forbidden": {"access-denied", "login-refused"},
}


@pytest.mark.parametrize(("runtime", "situation", "words"), HEARD)
def test_codes_are_the_agent_s(runtime: str, situation: str, words: str) -> None:
    if words == "pulled" or words.startswith("no answer within"):
        return
    code = causes.classify(words).code
    assert code in {code_of(voice(runtime), situation), *OTHERWISE.get(situation, ())}
    host = causes.another_host(words, "reg.test:5000")
    if situation in ELSEWHERE and not runtime.startswith("docker"):
        assert host.partition(":")[0] == ELSEWHERE[situation]
    elif code in causes.OF_A_HOST and "mirror" not in situation:
        assert host == "" or runtime.startswith("docker")


KUBELET_ROWS = [
    pytest.param(place, row["code"], row["words"], id=f"{place}-{number}-{row['code']}")
    for place, rows in KUBELETS.items()
    for number, row in enumerate(rows)
]


@pytest.mark.parametrize(("place", "code", "words"), KUBELET_ROWS)
def test_words_of_a_kubelet_are_known(place: str, code: str, words: str) -> None:
    assert causes.classify(words).code == code
    assert bool(stuck.without_sandbox(SANDBOX, words)) is (place == "sandboxes")
    assert all(row["source"] for row in KUBELETS[place])


@pytest.mark.parametrize(
    ("words", "image"),
    [(row["words"], image) for row, image in zip(
        KUBELETS["sandboxes"],
        ["reg.test:5000/pause:3.10"] * 8
        + ["rancher/mirrored-pause:3.6", "rancher/pause:3.1", "k8s.gcr.io/pause:3.1"]
        + ["registry.k8s.io/pause:3.6"] + ["reg.test:5000/pause:3.9"] * 3
        + ["reg.test:5000/pause:3.2"] * 2 + ["registrytest:5000/rancher/pause-amd64:3.0"],
        strict=True,
    )],
)  # fmt: skip
def test_the_image_of_a_sandbox_is_the_one_that_the_words_name(words: str, image: str) -> None:
    found = stuck.without_sandbox(SANDBOX, words)
    assert found is not None
    assert found.image == image


@pytest.mark.parametrize(
    "words",
    [
        "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup network for"
        ' sandbox "0": plugin type="calico" failed (add): Get "https://10.96.0.1:443": x509:'
        " certificate signed by unknown authority",
        "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to get image from"
        ' containerd "sha256:0": image "docker.io/rancher/mirrored-pause:3.1": not found',
        "Failed to create pod sandbox: rpc error: code = DeadlineExceeded desc = stream terminated",
        'Failed to create pod sandbox: no runtime for "gvisor" is configured',
        "",
    ],
)
def test_a_sandbox_that_fails_without_a_pull_is_no_matter_of_ours(words: str) -> None:
    assert stuck.without_sandbox(SANDBOX, words) is None


def test_all_runtimes_that_are_promised_were_heard() -> None:
    heard = {" ".join(name.split(".")[:2]) for name in COLLECTED}
    for runtime in ("containerd 1 6", "containerd 1 7", "containerd 2 1", "docker 20 10"):
        assert runtime in heard


@pytest.mark.parametrize(
    ("words", "code"),
    [
        # Kubelets themselves, from kubernetes/pkg/kubelet/images.
        ("couldn't parse image reference", "bad-image-name"),
        ('Failed to apply default image tag "A:1": couldn\'t parse image', "bad-image-name"),
        ('Container image "a:1" is not present with pull policy of Never', "never-pull"),
        ("rpc error: code = Unavailable desc = connection error: desc = \"transport: Error while"
         " dialing dial unix /run/containerd/containerd.sock: connect: connection refused\"",
         "runtime-down"),
        ("rpc error: code = Unimplemented desc = unknown service runtime.v1.ImageService",
         "runtime-down"),
        ("write /var/lib/containerd/x: no space left on device", "disk-full"),
        ("proxyconnect tcp: dial tcp 10.0.0.9:3128: connect: connection refused", "proxy"),
        ("x509: certificate is not a thing we know", "tls-failed"),
        ("something nobody has heard of", "pull-failed"),
        # What only sounds like a login or a missing image.
        ("failed to extract layer: exec: unpigz: not found", "pull-failed"),
        ("failed to prepare snapshot: parent snapshot sha256:0 does not exist: not found",
         "pull-failed"),
        ("snapshotter stargz was not found: not found", "pull-failed"),
        ("mkdir /var/lib/containers/storage: permission denied", "pull-failed"),
        ("open /run/user/0/auth.json: permission denied", "pull-failed"),
        ("HEAD request to https://a.io/v2/b/manifests/1: 400 Bad Request", "pull-failed"),
        ("HEAD request to http://a.io:443/v2/b/manifests/1: 400 Bad Request", "plain-to-https"),
        # Registries with a token server.
        ("pull access denied, repository does not exist or may require authorization: server"
         " message: insufficient_scope: authorization failed", "login-refused"),
        ("pull access denied for a, repository does not exist or may require 'docker login':"
         " denied: requested access to the resource is denied", "login-refused"),
        ("failed to authorize: failed to fetch oauth token: unexpected status: 403 Forbidden",
         "login-refused"),
        ("reading manifest 1 in a.io/b: requested access to the resource is denied",
         "login-refused"),
        ("denied: access forbidden", "login-refused"),
        ("HTTP Basic: Access denied", "login-refused"),
        ("unexpected status code 403 Forbidden", "access-denied"),
        ("download failed after attempts=1: denied: requested access is denied", "access-denied"),
        # What is no registry.
        ("error parsing HTTP 404 response body: invalid character '<' looking for beginning of"
         " value: \"<html>\"", "not-a-registry"),
        ("invalid character 'H' looking for beginning of value", "not-a-registry"),
        ("unsupported docker v2 schema media type: \"text/html\"", "not-a-registry"),
        ("failed to fetch anonymous token: unable to decode token response: invalid character '<'"
         " looking for beginning of value", "token-server"),
        ("(Mirrors also failed: [m.io/a:1: Get: x509: certificate signed by unknown authority]):"
         " reg/a:1: reading manifest 1 in reg/a: manifest unknown", "image-missing"),
    ],
)  # fmt: skip
def test_words_that_were_not_collected(words: str, code: str) -> None:
    assert causes.classify(words).code == code


@pytest.mark.parametrize(
    "image",
    ["my.registry.io/team-401/app:403", "my.registry.io/not-found/denied:429", "a.io/forbidden:1"],
)
def test_what_is_in_an_image_s_name_counts_for_nothing(image: str) -> None:
    words = f'failed to pull and unpack image "{image}": failed to do request: Head "https://{image}": x509: certificate signed by unknown authority'  # noqa: E501
    assert causes.classify(words).code == "x509-unknown-authority"


@pytest.mark.parametrize(
    ("image", "registry"),
    [
        ("busybox", "docker.io"),
        ("library/busybox:1", "docker.io"),
        ("my.registry.io/a/b:1", "my.registry.io"),
        ("my.registry.io:5000/a", "my.registry.io:5000"),
        ("localhost/a", "localhost"),
        ("index.docker.io/a/b:1", "docker.io"),
        ("my.registry.io:443/a", "my.registry.io:443"),
        ("registry:5000/a", "registry:5000"),
    ],
)
def test_the_registry_of_an_image_is_read_as_runtimes_read_it(image: str, registry: str) -> None:
    assert causes.registry_of(image) == registry


def test_every_row_can_be_said() -> None:
    values = {
        key: key
        for key in (
            "registry",
            "host",
            "image",
            "nodes",
            "namespaces",
            "pod",
            "why",
            "tags",
            "asked",
            "create",
            "again",
            "pull",
        )
    }
    rows = [*causes.CAUSES, *(v for v in vars(causes).values() if isinstance(v, causes.Cause))]
    for row in rows:
        for text in (row.title, row.cause, row.cure, row.elsewhere):
            assert text.format_map(values) or text == row.elsewhere
        assert row.cure


def test_port_443_is_one_registry_in_both_spellings() -> None:
    assert causes.same_registry("my.registry.io", "my.registry.io:443")
    assert not causes.same_registry("my.registry.io", "my.registry.io:8443")
