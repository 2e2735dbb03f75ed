"""The kubelet's rule for the keys of a Secret, row by row.

The answers are the kubelet's own: keyring.go of Kubernetes 1.36.2, compiled with Go 1.26 and asked.
https://github.com/kubernetes/kubernetes/blob/v1.36.2/pkg/credentialprovider/keyring.go
"""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from moorage.cluster.api import ours
from moorage.cluster.login import pull_secret
from moorage.cluster.symptoms import keyring
from moorage.registry import Credentials
from moorage.settings import RegistrySettings, Settings

ROWS = [
    ("https://reg:8443/v2", "reg:8443/team/app:1", False),
    ("https://reg:8443/v2", "reg:8443/v2/app:1", True),
    ("https://reg:8443/v2/", "reg:8443/team/app:1", True),
    ("https://reg:8443/v1/", "reg:8443/team/app:1", True),
    ("https://reg:8443/v1", "reg:8443/team/app:1", False),
    ("reg:8443/team/app:1", "reg:8443/team/app:1", False),
    ("reg:8443/team/app", "reg:8443/team/app:1", True),
    ("reg:8443/team/app", "reg:8443/team/app@sha256:0", True),
    ("reg:8443/team/ap", "reg:8443/team/app:1", True),
    ("reg:8443/team/", "reg:8443/team/app:1", True),
    ("reg:8443/team/", "reg:8443/teams/app:1", False),
    ("reg:8443/team", "reg:8443/teams/app:1", True),
    ("reg:8443/*", "reg:8443/team/app:1", False),
    ("reg:8443/te%61m", "reg:8443/team/app:1", True),
    ("reg:8443/te%zzm", "reg:8443/team/app:1", False),
    ("reg:8443/team?x=1", "reg:8443/team/app:1", True),
    ("reg:8443/team#x", "reg:8443/team/app:1", True),
    ("reg:8443//team", "reg:8443/team/app:1", False),
    ("reg:*", "reg:8443/team/app:1", False),
    ("reg:*", "reg/team/app:1", False),
    ("reg:84*3", "reg:8443/team/app:1", False),
    ("reg:", "reg/team/app:1", False),
    ("reg:", "reg:8443/team/app:1", False),
    ("reg:08443", "reg:8443/team/app:1", False),
    ("reg", "reg:8443/team/app:1", False),
    ("reg:8443", "reg/team/app:1", False),
    ("reg:8443/v2/team", "reg:8443/team/app:1", True),
    ("reg:8443/v2/team", "reg:8443/v2/team/app:1", False),
    ("reg:8443/v2/v2/", "reg:8443/v2/app:1", True),
    ("http://reg:8443", "reg:8443/team/app:1", True),
    ("HTTPS://reg:8443", "reg:8443/team/app:1", False),
    ("ftp://reg:8443", "reg:8443/team/app:1", False),
    ("user@reg:8443", "reg:8443/team/app:1", True),
    ("REG:8443", "reg:8443/team/app:1", False),
    (" reg:8443", "reg:8443/team/app:1", False),
    ("re g:8443", "reg:8443/team/app:1", False),
    ("r*:8443", "reg:8443/team/app:1", True),
    ("*:8443", "reg:8443/team/app:1", True),
    ("*", "reg:8443/team/app:1", False),
    ("re[g]:8443", "reg:8443/team/app:1", False),
    ("re?:8443", "reg:8443/team/app:1", False),
    ("my.registry.io", "my.registry.io/app:1", True),
    ("https://my.registry.io", "my.registry.io/app:1", True),
    ("https://my.registry.io/v1/", "my.registry.io/app:1", True),
    ("my.registry.io/", "my.registry.io/app:1", True),
    ("my.registry.io:443", "my.registry.io/app:1", False),
    ("my.registry.io", "my.registry.io:443/app:1", False),
    ("my.registry.io:443", "my.registry.io:443/app:1", True),
    ("https://my.registry.io:443/v2/", "my.registry.io:443/app:1", True),
    ("*.registry.io", "my.registry.io/app:1", True),
    ("*.registry.io", "my.registry.io:443/app:1", False),
    ("*.io", "my.registry.io/app:1", False),
    ("*.*.*", "my.registry.io/app:1", True),
    ("my.*.io/app", "my.registry.io/app:1", True),
    ("my.registry.io.", "my.registry.io/app:1", False),
    ("m*y.registry.io", "my.registry.io/app:1", True),
    ("https://index.docker.io/v1/", "busybox", True),
    ("https://index.docker.io/v1/", "team/app:1", True),
    ("https://index.docker.io/v1/", "docker.io/team/app:1", True),
    ("https://index.docker.io/v1/", "index.docker.io/team/app:1", True),
    ("https://index.docker.io/v1", "busybox", False),
    ("https://index.docker.io/v2/", "busybox", True),
    ("index.docker.io", "busybox", True),
    ("docker.io", "busybox:1", True),
    ("docker.io/library", "busybox:1", True),
    ("docker.io/team", "busybox:1", False),
    ("https://docker.io/v1/", "team/app:1", True),
    ("registry-1.docker.io", "busybox", False),
    ("https://registry-1.docker.io/v2/", "busybox", False),
    ("https://hub.docker.com", "busybox", False),
    ("*.docker.io", "busybox", False),
    ("*.io", "busybox", True),
    ("https://index.docker.io/v1/", "my.registry.io/app:1", False),
    ("https://index.docker.io/v1/", "localhost/app:1", True),
    ("https://index.docker.io/v1/", "localhost:5000/app:1", False),
    ("[::1]:5000", "[::1]:5000/app:1", True),
    ("[::1]", "[::1]/app:1", False),
    ("10.0.0.1:5000", "10.0.0.1:5000/app:1", True),
    ("10.0.0.*:5000", "10.0.0.7:5000/app:1", True),
    ("10.0.*:5000", "10.0.0.7:5000/app:1", False),
    ("", "my.registry.io/app:1", False),
    ("https://", "my.registry.io/app:1", False),
    ("/app", "my.registry.io/app:1", False),
]  # fmt: skip


@pytest.mark.parametrize(("key", "image", "serves"), ROWS)
def test_a_key_serves_an_image_as_the_kubelet_says(key: str, image: str, serves: bool) -> None:
    assert keyring.serves(key, image) is serves


@pytest.mark.parametrize(
    ("keys", "image", "tried"),
    [
        (
            ["my.registry.io", "my.registry.io/team", "*.registry.io"],
            "my.registry.io/team/app:1",
            ["my.registry.io/team", "my.registry.io", "*.registry.io"],
        ),
        (["reg:8443/b", "reg:8443/a", "reg:8443"], "reg:8443/a/b:1", ["reg:8443/a", "reg:8443"]),
        # The Hub's key is for want of any other.
        (["*.docker.io", keyring.HUB_KEY], "busybox", [keyring.HUB_KEY]),
        (["docker.io/team", keyring.HUB_KEY], "busybox", [keyring.HUB_KEY]),
        (["docker.io", keyring.HUB_KEY], "busybox", ["docker.io"]),
    ],
)
def test_the_most_specific_key_is_tried_first(
    keys: list[str], image: str, tried: list[str]
) -> None:
    assert keyring.serving(keys, image) == tried


@pytest.mark.parametrize(
    ("image", "name", "in_full"),
    [
        ("busybox", "docker.io/library/busybox", "docker.io/library/busybox:latest"),
        ("docker.io/busybox:1", "docker.io/library/busybox", "docker.io/library/busybox:1"),
        ("index.docker.io/a/b:1", "docker.io/a/b", "docker.io/a/b:1"),
        ("reg:5000/a", "reg:5000/a", "reg:5000/a:latest"),
        ("reg:5000/a/b:1", "reg:5000/a/b", "reg:5000/a/b:1"),
        ("reg/a/b:1", "docker.io/reg/a/b", "docker.io/reg/a/b:1"),
        ("localhost/a:1@sha256:0", "localhost/a", "localhost/a@sha256:0"),
    ],
)
def test_an_image_s_name_is_read_as_the_kubelet_reads_it(
    image: str, name: str, in_full: str
) -> None:
    assert keyring.repository(image) == name
    assert keyring.in_full(image) == in_full


@pytest.mark.parametrize(
    ("key", "image", "words"),
    [
        ("https://reg:8443/v2", "reg:8443/app:1", "for images whose path begins with /v2"),
        ("reg:8443/app:1", "reg:8443/app:1", "for images whose path begins with /app:1"),
        ("reg:*", "reg:8443/app:1", "cannot read it"),
        ("my.registry.io", "my.registry.io:443/a", "my.registry.io and my.registry.io:443 are two"),
        ("my.registry.io:443", "my.registry.io/a", "my.registry.io:443 and my.registry.io are two"),
        ("other.io", "my.registry.io/a", ""),
    ],
)
def test_a_key_that_only_looks_right_is_explained(key: str, image: str, words: str) -> None:
    said = keyring.mismatch(key, image)
    assert words in said
    assert bool(said) is bool(words)


@pytest.mark.parametrize(
    ("settings", "images"),
    [
        (Settings(), ["my.registry.io/app:1", "my.registry.io:443/app:1"]),
        (Settings(registry=RegistrySettings(port=8443)), ["my.registry.io:8443/app:1"]),
    ],
)
def test_our_own_secret_serves_every_spelling_of_our_registry(
    settings: Settings, images: list[str]
) -> None:
    secret = pull_secret.document(
        "a", "b", settings.registry_name, Credentials("u", "p"), ours.labels(settings, "secret")
    )
    for image in images:
        held = pull_secret.logins(secret)
        assert pull_secret.fitting([held], image) == [pull_secret.Login("u", "p")]


def held(auths: dict[str, Any]) -> dict[str, Any]:
    text = base64.b64encode(json.dumps({"auths": auths}).encode()).decode()
    return {"type": pull_secret.TYPE, "data": {pull_secret.KEY: text}}


@pytest.mark.parametrize("auth", ["dTpw", "dXNlcjpwYXNz", "dXNlcjpwYXNzdw==", "dXNlcjpwYXNzdw"])
def test_a_login_is_read_with_and_without_its_padding(auth: str) -> None:
    found = pull_secret.logins(held({"reg": {"auth": auth}}))["reg"]
    assert (found.user[0], found.password[0]) == ("u", "p")


def test_logins_of_several_secrets_are_one_keyring() -> None:
    hub = pull_secret.logins(held({keyring.HUB_KEY: {"username": "hub", "password": "p"}}))
    own = pull_secret.logins(held({"docker.io": {"username": "own", "password": "p"}}))
    assert [one.user for one in pull_secret.fitting([hub, own], "busybox")] == ["own"]
    assert [one.user for one in pull_secret.fitting([hub], "busybox")] == ["hub"]
