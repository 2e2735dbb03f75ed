"""Every complaint collected from a real daemon is known by its cause (messages.json)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moorage.cluster import causes

COLLECTED = json.loads(
    (Path(__file__).resolve().parent.parent / "k8s" / "messages.json").read_text()
)
ROWS = [
    pytest.param(row["code"], row["words"], id=f"{runtime.replace(' ', '-')}-{row['code']}")
    for runtime, rows in COLLECTED.items()
    for row in rows
]


@pytest.mark.parametrize(("code", "words"), ROWS)
def test_words_of_a_real_daemon_are_known(code: str, words: str) -> None:
    assert causes.classify(words).code == code


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
        ("registry:5000/a", "registry:5000"),
    ],
)
def test_the_registry_of_an_image_is_read_as_runtimes_read_it(image: str, registry: str) -> None:
    assert causes.registry_of(image) == registry


def test_every_row_can_be_said() -> None:
    values = {
        key: key
        for key in ("registry", "host", "image", "nodes", "namespaces", "pod", "why", "tags")
    }
    rows = [*causes.CAUSES, *(v for v in vars(causes).values() if isinstance(v, causes.Cause))]
    for row in rows:
        for text in (row.title, row.cause, row.cure, row.elsewhere):
            assert text.format_map(values) or text == row.elsewhere
        assert row.cure
