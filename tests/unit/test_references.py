"""References of images: what is one, what is none, and where each lands."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage import references
from moorage.catalogue import lists
from moorage.configuration.parsing import parse
from moorage.errors import Refused
from moorage.images import asking, sources
from moorage.references import Reference
from moorage.settings import NodesSettings, Settings
from moorage.ui import UI

DIGEST = "sha256:" + "a" * 64
OURS = Settings()


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1", "docker.io/library/nginx:1"),
        ("index.docker.io/nginx:1", "docker.io/library/nginx:1"),
        ("bitnami/redis", "docker.io/bitnami/redis:latest"),
        ("quay.io/a/b/c:v1.2_x-3", "quay.io/a/b/c:v1.2_x-3"),
        ("localhost/x:1", "localhost/x:1"),
        ("reg:5000/x", "reg:5000/x:latest"),
        ("10.0.0.1:5000/x__y/z--w:1", "10.0.0.1:5000/x__y/z--w:1"),
        (f"nginx@{DIGEST}", f"docker.io/library/nginx@{DIGEST}"),
        (f"nginx:1@{DIGEST}", f"docker.io/library/nginx:1@{DIGEST}"),
    ],
)
def test_what_a_reference_leaves_unsaid_is_added(text: str, whole: str) -> None:
    assert str(references.parse(text)) == whole
    assert str(references.parse(whole)) == whole


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("Nginx:1", "upper-case"),
        ("quay.io/Team/x", "upper-case"),
        ("https://quay.io/x", "scheme"),
        ("docker://quay.io/x", "scheme"),
        ("nginx:", "'' is not a tag"),
        ("nginx:-1", "'-1' is not a tag"),
        ("nginx:" + "a" * 129, "not a tag"),
        ("nginx@sha256:abc", "not a digest"),
        (f"nginx@{DIGEST.upper()}", "not a digest"),
        ("nginx@", "not a digest"),
        ("ngi nx", "space"),
        ("nginx\x07", "control"),
        ("quay.io/", "not the name of a repository"),
        ("quay.io//x", "not the name of a repository"),
        ("quay.io/x/", "not the name of a repository"),
        ("quay.io/../x", "not the name of a repository"),
        ("-reg.io/x", "not the name of a registry"),
        ("reg.io:99999/x", "99999 is not a port"),
        ("reg.io:0/x", "0 is not a port"),
        ("reg.io:/x", "not the name of a registry"),
        ("[::1]:5000/x", "not the name of a registry"),
        ("a" * 64, "id"),
        ("quay.io/" + "a/" * 130 + "x", "more than 255"),
    ],
)
def test_what_is_no_reference_is_refused_with_its_reason(text: str, why: str) -> None:
    with pytest.raises(Refused) as caught:
        references.parse(text, place="list.txt, line 3")
    assert caught.value.code == "bad-reference"
    assert why in caught.value.cause
    assert "list.txt, line 3" in caught.value.message


def _landed(text: str, *, mirror_path: str = "{registry}") -> str:
    settings = replace(OURS, nodes=NodesSettings(mirror_path=mirror_path))
    return str(references.landing(settings, references.parse(text)))


def test_an_image_lands_under_the_name_of_its_registry() -> None:
    assert _landed("nginx:1") == "my.registry.io/docker.io/library/nginx:1"
    assert _landed("quay.io/a/b:1") == "my.registry.io/quay.io/a/b:1"
    assert _landed("reg.io:5000/x:1") == "my.registry.io/reg.io_5000/x:1"
    assert _landed(f"nginx@{DIGEST}") == f"my.registry.io/docker.io/library/nginx@{DIGEST}"
    assert _landed("my.registry.io/x:1") == "my.registry.io/x:1"


def test_the_path_before_it_is_a_setting_as_a_project_of_harbor() -> None:
    path = "team/mirror/{registry}"
    assert _landed("nginx:1", mirror_path=path) == (
        "my.registry.io/team/mirror/docker.io/library/nginx:1"
    )
    assert _landed("nginx:1", mirror_path="") == "my.registry.io/library/nginx:1"
    for wrong in ("mirror", "{registry}/x", "{Registry}", "/{registry}", "a//{registry}"):
        with pytest.raises(Refused, match=r"nodes\.mirror_path"):
            parse({"nodes": {"mirror_path": wrong}})


def test_a_path_that_grows_too_long_is_refused() -> None:
    with pytest.raises(Refused) as caught:
        _landed("quay.io/" + "a" * 240 + ":1")
    assert caught.value.code == "bad-reference"
    assert "at most 255" in caught.value.cause


_HOSTS = st.sampled_from(["a.io", "b.io", "a.io:5000", "a.io-5000", "docker.io", "localhost"])
_PATHS = st.sampled_from(["x", "library/x", "a.io/x", "5000/x", "b.io/library/x"])


@given(_HOSTS, _PATHS, _HOSTS, _PATHS)
def test_two_registries_never_meet(one: str, path: str, other: str, its: str) -> None:
    first, second = Reference(one, path, "1"), Reference(other, its, "1")
    same = references.landing(OURS, first) == references.landing(OURS, second)
    assert same == (first == second)


# -- lists -----------------------------------------------------------------------------------


def test_a_list_has_a_reference_per_line_and_comments(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_bytes(b"\xef\xbb\xbf# ours\r\nnginx:1\r\n\r\n  quay.io/a/b:2  # with a reason\r\n")
    assert [str(one) for one in lists.of_file(str(path))] == [
        "docker.io/library/nginx:1",
        "quay.io/a/b:2",
    ]


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (b"nginx:1\nNginx:1\n", "bad-reference", "line 2"),
        (b"# nothing\n", "unreadable-list", "names no image"),
        (b"\xff\xfe\x00", "unreadable-list", "UTF-8"),
    ],
)
def test_a_list_that_is_wrong_is_named_by_file_and_line(
    tmp_path: Path, content: bytes, code: str, words: str
) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(content)
    with pytest.raises(Refused) as caught:
        lists.of_file(str(path))
    assert caught.value.code == code
    assert words in f"{caught.value.message} {caught.value.cause}"
    assert str(path) in caught.value.message


@pytest.mark.parametrize("path", ["/nowhere/list", "/tmp"])
def test_a_list_that_cannot_be_read_is_named(path: str) -> None:
    with pytest.raises(Refused) as caught:
        lists.of_file(path)
    assert caught.value.code == "unreadable-list"


MANIFESTS = """\
apiVersion: v1
kind: List
items:
- kind: Pod
  metadata: {name: p}
  spec:
    initContainers: [{name: i, image: "busybox:1"}]
    containers: [{name: c, image: nginx}]
    volumes: [{name: v, image: {reference: "quay.io/data:1"}}]
---
kind: CronJob
metadata: {name: nightly}
spec: {jobTemplate: {spec: {template: {spec: {containers: [{name: c, image: "a/b:2"}]}}}}}
---
kind: ConfigMap
data: {image: "not/an/image:1"}
"""


def test_manifests_give_what_their_pods_run(tmp_path: Path) -> None:
    path = tmp_path / "all.yaml"
    path.write_text(MANIFESTS)
    assert {str(one) for one in lists.of_manifests(str(path))} == {
        "docker.io/library/busybox:1",
        "docker.io/library/nginx:latest",
        "quay.io/data:1",
        "docker.io/a/b:2",
    }


def test_a_manifest_with_a_bad_image_is_named_by_kind_and_name(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(MANIFESTS.replace("a/b:2", "a/B:2"))
    with pytest.raises(Refused, match="CronJob nightly"):
        lists.of_manifests(str(path))
    path.write_text("{{- if .Values.on }}\nimage: x\n{{- end }}\n")
    with pytest.raises(Refused) as caught:
        lists.of_manifests(str(path))
    assert caught.value.code == "unreadable-list"
    assert "helm template" in caught.value.cure


def test_a_cluster_gives_what_its_pods_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the API server: two pods, one with an image that no kubelet can pull."""
    from moorage.cluster.login import access

    class Api:
        where = "stand-in"

        def items(self, _path: str) -> list[object]:
            def pod(image: str) -> object:
                status = {"containerStatuses": [{"image": "sha256:" + "b" * 64}]}
                return {"metadata": {"name": "p"}, "spec": {"containers": [{"image": image}]},
                        "status": status}  # fmt: skip

            return [pod("nginx:1"), pod("NGINX:1"), pod("my.registry.io/x:1")]

    monkeypatch.setattr(access, "connect", lambda *_a, **_k: Api())
    monkeypatch.setattr(access, "typed_for", lambda _api: nullcontext())
    found = lists.unique(OURS, lists.of_cluster(OURS, UI()))
    assert [str(one) for one in found] == ["docker.io/library/nginx:1"]


@pytest.mark.parametrize(
    "content",
    ['{"auths": ["x"]}', '{"auths": {"q.io": {"auth": 5}}}', '{"auths": 5}', "[]", "no JSON"],
)
def test_a_damaged_file_of_logins_has_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "auth.json"
    path.write_text(content)
    assert asking.logins(str(path)) == {}


def test_a_name_that_no_file_can_have_is_an_image_of_the_engine() -> None:
    assert not sources.is_file("a" * 5000)
    assert sources.is_file("./a")


def test_a_target_without_a_tag_is_latest() -> None:
    settings = parse({})
    found = sources.target(settings, "nginx@sha256:" + "0" * 64)
    assert found.name.endswith(":latest") or found.tag == "latest"
