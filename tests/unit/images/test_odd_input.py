"""What comes from outside and is odd: each gets one sentence, and changes nothing."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.wire.faults import Fault
from agent.wire.report import HostResult
from moorage import references
from moorage.actions import Action
from moorage.catalogue import lists, usage
from moorage.docker import apt
from moorage.errors import MoorageError, Refused
from moorage.fleet.inventory import Target
from moorage.fleet.report import FleetReport
from moorage.images import skopeo, sources, upstream
from moorage.settings import NodesSettings, Settings
from moorage.ui import UI
from tests.unit.elsewhere import project

D = "sha256:" + "ab" * 32
DEEP = b'{"a":' * 200_000 + b"1" + b"}" * 200_000


# -- a rehearsal -----------------------------------------------------------------------------------


def test_a_dry_run_says_that_skopeo_would_be_installed_and_installs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed: list[list[str]] = []
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(apt, "pending", lambda names: [Action(f"install {names[0]}", asks=True)])
    monkeypatch.setattr(apt, "install", lambda names, *_: installed.append(names))
    skopeo.ensure(UI(yes=True), project(tmp_path), dry_run=True)
    assert "would install skopeo" in capsys.readouterr().err
    assert not installed
    skopeo.ensure(UI(yes=True), project(tmp_path))
    assert installed == [["skopeo"]]


# -- two registries on one path --------------------------------------------------------------------


def landing(tmp_path: Path, mirror_path: str, *names: str) -> list[str]:
    settings = project(tmp_path, nodes=NodesSettings(mirror_path=mirror_path))
    wanted = lists.unique(settings, map(references.parse, names))
    return [references.landing(settings, one).name for one in wanted]


@pytest.mark.parametrize(
    ("mirror_path", "names"),
    [
        ("", ("nginx:1", "quay.io/library/nginx:1")),
        ("", ("nginx:1", "quay.io/library/nginx:2")),
        ("", (f"quay.io/a@{D}", "ghcr.io/a:1")),
        ("mirror", ("quay.io/a:1", "ghcr.io/b:1", "ghcr.io/a:1")),
        ("", ("quay.io:8443/a", "quay.io/a")),
    ],
)
def test_images_of_two_registries_never_land_on_one_path(
    tmp_path: Path, mirror_path: str, names: tuple[str, ...]
) -> None:
    with pytest.raises(Refused) as told:
        landing(tmp_path, mirror_path, *names)
    assert told.value.code == "bad-setting"
    assert "would both land as my.registry.io/" in told.value.message
    for name in (names[0], names[-1]):
        assert references.parse(name).name in told.value.message
    assert "nodes.mirror_path" in told.value.cure


def test_what_lands_apart_is_taken(tmp_path: Path) -> None:
    names = ("nginx:1", "nginx:2", "nginx:1", f"nginx@{D}", "quay.io/library/nginx:1")
    assert len(landing(tmp_path, "{registry}", *names)) == 4
    assert landing(tmp_path, "", "quay.io/a:1", "ghcr.io/b:1") == [
        "my.registry.io/a", "my.registry.io/b"
    ]  # fmt: skip


# -- archives, layouts and manifests ---------------------------------------------------------------

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
ODD: list[Any] = [None, 5, 1.5, True, "text", [], {}, [None], [5], ["a", 1], [[]], [{}], {"a": 1}]


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("where", ["index", "manifests", "annotations", "name", "tag"])
def test_an_odd_layout_is_refused_in_one_sentence(tmp_path: Path, odd: Any, where: str) -> None:
    (tmp_path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    index = {
        "index": odd,
        "manifests": {"manifests": odd},
        "annotations": {"manifests": [{"digest": D, "annotations": odd}]},
        "name": {"manifests": [{"annotations": {"io.containerd.image.name": odd}}]},
        "tag": {"manifests": [{"annotations": {"org.opencontainers.image.ref.name": odd}}]},
    }[where]
    (tmp_path / "index.json").write_text(json.dumps(index))
    if isinstance(odd, str) and where == "name":
        assert sources.of_file(project(tmp_path), str(tmp_path), "")
        return
    with pytest.raises(Refused) as told:
        sources.of_file(project(tmp_path), str(tmp_path), "")
    assert told.value.code == "bad-image-archive"


def test_of_several_images_of_dockers_kind_each_is_found_or_the_reason_is_told(
    tmp_path: Path,
) -> None:
    """As ``ctr images export`` writes them; skopeo 1.9.3 finds none of them by its tag."""
    kinds = ("application/vnd.docker.distribution.manifest.list.v2+json", OCI_INDEX)
    rows = [
        {"mediaType": kind, "digest": D, "annotations": {"org.opencontainers.image.ref.name": tag}}
        for kind, tag in zip(kinds, ("a:1", "b:1"), strict=True)
    ]
    (tmp_path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (tmp_path / "index.json").write_text(json.dumps({"manifests": rows}))
    with pytest.raises(Refused) as told:
        sources.of_file(project(tmp_path), str(tmp_path), "")
    assert told.value.cause.startswith("skopeo finds no a:1 among its images")
    (tmp_path / "manifest.json").write_text(json.dumps([{"RepoTags": ["a:1", "b:1"]}]))
    archive = tmp_path / "exported.tar"
    with tarfile.open(archive, "w") as tar:
        for name in ("oci-layout", "index.json", "manifest.json"):
            tar.add(tmp_path / name, name)
    found = sources.of_file(project(tmp_path), str(archive), "")
    assert [one.word for one in found] == [f"docker-archive:{archive}:@0"] * 2


def test_a_tag_of_several_images_is_not_taken_for_the_first(tmp_path: Path) -> None:
    """As ``ctr images export`` writes team/app:1 and team/db:1: the tag alone, and the whole name.

    skopeo would push the first one under both names (findings/one-tag-twice-in-a-layout.sh).
    """
    rows = [
        {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": "sha256:" + letter * 64,
            "annotations": {
                "io.containerd.image.name": f"my.registry.io/team/{name}:1",
                "org.opencontainers.image.ref.name": "1",
            },
        }
        for letter, name in (("a", "app"), ("b", "db"))
    ]
    (tmp_path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (tmp_path / "index.json").write_text(json.dumps({"manifests": rows}))
    with pytest.raises(Refused) as told:
        sources.of_file(project(tmp_path), str(tmp_path), "")
    assert told.value.cause.startswith("several of its images have the tag 1")
    names = [[f"my.registry.io/team/{name}:1"] for name in ("app", "db")]
    (tmp_path / "manifest.json").write_text(json.dumps([{"RepoTags": each} for each in names]))
    archive = tmp_path / "exported.tar"
    with tarfile.open(archive, "w") as tar:
        for name in ("oci-layout", "index.json", "manifest.json"):
            tar.add(tmp_path / name, name)
    found = sources.of_file(project(tmp_path), str(archive), "")
    assert [(one.word, one.target.repository) for one in found] == [
        (f"docker-archive:{archive}:@0", "team/app"),
        (f"docker-archive:{archive}:@1", "team/db"),
    ]
    rows[1]["digest"] = rows[0]["digest"]  # one image under two names: its tag leads to it
    (tmp_path / "index.json").write_text(json.dumps({"manifests": rows}))
    assert len(sources.of_file(project(tmp_path), str(tmp_path), "")) == 2


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("where", ["manifest", "row", "tags"])
def test_an_odd_archive_of_docker_is_refused_in_one_sentence(odd: Any, where: str) -> None:
    manifest = {"manifest": odd, "row": [odd], "tags": [{"RepoTags": odd}]}[where]
    settings = Settings()
    if odd == ["a", 1] and where == "tags":
        (only,) = sources._of_docker(settings, Path("/a.tar"), manifest, "")
        assert str(only.target) == "my.registry.io/a:latest"
        return
    with pytest.raises(Refused) as told:
        sources._of_docker(settings, Path("/a.tar"), manifest, "")
    assert told.value.code == "bad-image-archive"


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("where", ["image", "containers", "volume", "object", "spec"])
def test_odd_manifests_of_kubernetes_end_in_one_sentence(
    tmp_path: Path, odd: Any, where: str
) -> None:
    document = {
        "image": {"spec": {"containers": [{"image": odd}]}},
        "containers": {"spec": {"containers": odd}},
        "volume": {"spec": {"volumes": [{"image": odd}]}},
        "object": odd,
        "spec": {"metadata": odd, "spec": odd},
    }[where]
    path = tmp_path / "pods.yaml"
    path.write_text(json.dumps(document))  # JSON is YAML
    if isinstance(odd, str) and where == "image":
        assert lists.of_manifests(str(path)) == [references.parse("text")]
        return
    with pytest.raises(Refused) as told:
        lists.of_manifests(str(path))
    assert told.value.code in ("unreadable-list", "bad-reference")


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_platform_of_an_index_is_none(odd: Any) -> None:
    rows = [odd, {"digest": D, "platform": odd}, {"platform": {"os": odd, "architecture": odd}}]
    assert upstream.choose(rows, "linux/arm64") == ""
    upstream.offered(rows)
    good = {"digest": D, "platform": {"os": "linux", "architecture": "arm64"}}
    assert upstream.choose([*rows, good], "linux/arm64") == D
    assert "linux/arm64" in upstream.offered([*rows, good])


def _row(name: str) -> dict[str, Any]:
    words = dict(zip(("os", "architecture", "variant"), name.split("/"), strict=False))
    return {"digest": f"of {name}", "platform": words}


@pytest.mark.parametrize(
    ("wanted", "there", "chosen"),
    [
        ("linux/amd64", "linux/amd64/v3 linux/amd64", "linux/amd64"),
        ("linux/amd64", "linux/amd64/v3 linux/amd64/v1", "linux/amd64/v1"),
        ("linux/amd64", "linux/amd64/v3", ""),
        ("linux/amd64/v3", "linux/amd64 linux/amd64/v4 linux/amd64/v2", "linux/amd64/v2"),
        ("linux/amd64/v3", "linux/arm64 linux/amd64", "linux/amd64"),
        ("linux/arm", "linux/arm/v5 linux/arm/v6 linux/arm/v7", "linux/arm/v7"),
        ("linux/arm/v6", "linux/arm/v7 linux/arm/v5 linux/arm/v6", "linux/arm/v6"),
        ("linux/arm/v6", "linux/arm/v7", ""),
        ("linux/arm64/v8", "linux/amd64 linux/arm64", "linux/arm64"),
        ("linux/arm64", "linux/arm64/v9 linux/arm64/v8", "linux/arm64/v8"),
        ("linux/x86_64", "linux/amd64", "linux/amd64"),
        ("linux/amd64/v99999999999999", "linux/amd64", ""),
    ],
)
def test_a_platform_is_chosen_of_an_index_as_nodes_choose(
    wanted: str, there: str, chosen: str
) -> None:
    rows = [_row(name) for name in there.split()]
    assert upstream.choose(rows, wanted) == (f"of {chosen}" if chosen else "")


def test_the_lines_of_skopeo_s_last_word_are_one() -> None:
    said = b'time="x" level=fatal msg="at \\"it\\": errors:\\ndenied: to you\\n"\n'
    assert skopeo._said(said) == 'at "it": errors: denied: to you'


def test_an_index_that_an_older_skopeo_would_change_is_said_as_such() -> None:
    """The words of skopeo 1.9.3 (findings/skopeo-sync-breaks-the-list-of-signatures.sh)."""
    said = (
        'Manifest list must be converted to type "application/vnd.oci.image.index.v1+json" to be '
        'written to destination, but we cannot modify it: "Instructed to preserve digests"'
    )
    fault = skopeo.explain(said, "my.registry.io", "copying quay.io/a:sha256-1").fault
    assert fault.code == "copy-failed"
    assert "cannot keep that index as it is" in fault.message
    assert "newer skopeo" in fault.cure
    assert said in fault.cause


@pytest.mark.parametrize("content", [b"", b"[]", b"5", b"null", b"{", b"\xff", DEEP])
def test_what_is_no_manifest_is_said_as_such(content: bytes) -> None:
    with pytest.raises(MoorageError) as told:
        upstream._parsed(references.parse("quay.io/a:1"), content)
    assert told.value.code == "copy-failed"
    assert "something else than a manifest" in told.value.cause


# -- nodes whose agent is older --------------------------------------------------------------------


def test_an_agent_that_does_not_know_the_question_is_to_be_upgraded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = Fault("not-served", "there is no POST /v1/images")
    away = Fault("no-route", "n3 does not answer")
    hosts: tuple[HostResult, ...] = (
        HostResult("n1", "failed", error=older),
        HostResult("n3", "failed", error=away),
    )

    def run(*_: Any) -> FleetReport:
        """A stand-in for a fleet of two."""
        return FleetReport(hosts)

    targets = [Target(name, name) for name in ("n1", "n3")]
    monkeypatch.setattr(usage, "_nodes", lambda _: targets)
    with pytest.raises(Refused) as told:
        usage.ask(project(tmp_path), None, SimpleNamespace(run=run))  # type: ignore[arg-type]
    assert told.value.code == "usage-unknown"
    assert told.value.cure.startswith("inv nodes.upgrade --hosts=n1, then again; ")
    hosts = hosts[1:]
    del targets[0]
    with pytest.raises(Refused) as told:
        usage.ask(project(tmp_path), None, SimpleNamespace(run=run))  # type: ignore[arg-type]
    assert "nodes.upgrade" not in told.value.cure
