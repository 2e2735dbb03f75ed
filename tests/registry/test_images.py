"""Images listed, deleted and pruned on a real registry, over TLS and with its login."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import bcrypt
import pytest
import yaml

from moorage import registry as domain
from moorage.catalogue import deletion, listing, policy, pruning, usage
from moorage.errors import MoorageError
from moorage.fleet.rollout.fleet import Fleet
from moorage.pki import registry as pki
from moorage.pki.roster import Resident, Roster
from moorage.registry import client, spec
from moorage.registry.logins.credentials import ensure, folder
from moorage.registry.storage.layout import Layout
from moorage.registry.storage.opened import for_collection
from moorage.settings import NodesSettings, Settings
from moorage.ui import UI
from tests.registry.program import INDEX, Registry, descriptor, digest_of, image, index, put_many
from tests.unit.elsewhere import registry_project


class Served(Registry):
    """The project's registry: TLS and login for us; the tests' pushes go to one beside it."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.registry_data)
        login = ensure(settings)
        root = settings.root
        hashed = bcrypt.hashpw(login.password.encode(), bcrypt.gensalt(5)).decode()
        (root / "htpasswd").write_text(f"{login.user}:{hashed}\n")
        found = yaml.safe_load(self.config.read_text())
        found["http"] = {
            "addr": f"127.0.0.1:{settings.registry.port}",
            "secret": "00" * 32,
            "tls": {
                "certificate": str(settings.certs_dir / "registry.crt"),
                "key": str(settings.certs_dir / "registry.key"),
            },
        }
        found["auth"] = {"htpasswd": {"realm": "Moorage", "path": str(root / "htpasswd")}}
        beside = Registry(settings.registry_data)
        beside.start()
        self.config = root / "served.yml"
        self.config.write_text(yaml.safe_dump(found))
        self._beside = beside

    def ask(
        self, method: str, path: str, body: bytes = b"", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        self.port = self._beside.port
        return self._beside.ask(method, path, body, **headers)

    def start(self) -> None:
        Registry.start(self)

    def kill(self) -> None:
        Registry.kill(self)
        self._beside.kill()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Settings, Served]]:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    settings = registry_project(tmp_path)
    pki.issue(settings)
    settings.registry_data.mkdir(parents=True)
    served = Served(settings)
    served._ask_once = served._beside._ask_once  # type: ignore[method-assign]
    served.start()
    until = time.monotonic() + 10
    while True:
        try:
            client.check_login(settings, domain.credentials(settings))
            break
        except MoorageError:
            assert time.monotonic() < until
            time.sleep(0.05)
    yield settings, served
    served.kill()


def _names(settings: Settings) -> set[str]:
    return {
        f"{held.name}:{tag}"
        for held in listing.repositories(Layout(settings.registry_data))
        for tag in held.tags
    }


def _delete(settings: Settings, reference: str) -> list[str]:
    name, tag, digest = listing.reference(settings, reference)
    (held,) = listing.repositories(Layout(settings.registry_data), name)
    steps, warnings = deletion.of_reference(held, tag, digest)
    for step in steps:
        deletion.carry_out(settings, domain.credentials(settings), step)
    return warnings


def _index(served: Registry, name: str, tag: str, *layers: bytes) -> list[bytes]:
    children = []
    served.push_blob(name, b"{}")
    for layer in layers:
        served.push_blob(name, layer)
        children.append(image(b"{}", layer))
        assert served.push_manifest(name, digest_of(children[-1]), children[-1]) == 201
    assert served.push_manifest(name, tag, index(*children), INDEX) == 201
    return children


def test_one_tag_of_two_is_deleted_alone(project: tuple[Settings, Served]) -> None:
    settings, served = project
    digest = served.push("a", "one", b"layer")
    assert served.push("a", "two", b"layer") == digest
    assert _delete(settings, "a:one") == [f"{digest} stays: it is also two"]
    assert _names(settings) == {"a:two"}
    assert served.pull("a", "two") == ""
    assert served.pull("a", "one") != ""


def test_a_digest_takes_its_tags_along_and_says_so(project: tuple[Settings, Served]) -> None:
    settings, served = project
    digest = served.push("a", "one", b"layer")
    served.push("a", "two", b"layer")
    assert _delete(settings, f"a@{digest}") == ["these tags go with it: one, two"]
    assert _names(settings) == set()


@pytest.mark.parametrize("again", [False, True])
def test_a_deletion_that_the_registry_left_half_done_is_ended(
    project: tuple[Settings, Served], again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, served = project
    layout = Layout(settings.registry_data)
    digest = served.push("a", "one", b"layer")
    served.push("a", "two", b"layer")
    other = served.push("a", "three", b"layer", b"more")
    # A tag amid its push: Distribution writes the file in place.
    layout.tag_link("a", "three").write_text("")

    def ended(_: float = 0) -> None:
        layout.tag_link("a", "three").write_text(other)

    if again:
        assert served.delete("a", digest) == 500
        ended()
        assert _names(settings) == {"a:one", "a:two", "a:three"}
        for tag in ("one", "two"):
            _delete(settings, f"a:{tag}")
    else:
        monkeypatch.setattr("moorage.catalogue.deletion.time.sleep", ended)
        _delete(settings, f"a@{digest}")
    assert _names(settings) == {"a:three"}
    assert served.pull("a", "three") == ""


def test_an_index_goes_with_its_children_but_not_with_another_s(
    project: tuple[Settings, Served],
) -> None:
    settings, served = project
    first = _index(served, "a", "one", b"shared", b"own")
    _index(served, "a", "two", b"shared")
    _delete(settings, "a:one")
    assert served.pull("a", "two") == ""
    (held,) = listing.repositories(Layout(settings.registry_data), "a")
    assert digest_of(first[0]) in held.manifests
    assert digest_of(first[1]) not in held.manifests


def test_a_part_of_another_image_is_not_deleted(project: tuple[Settings, Served]) -> None:
    settings, served = project
    (child,) = _index(served, "a", "many", b"arm")
    with pytest.raises(MoorageError) as problem:
        _delete(settings, f"a@{digest_of(child)}")
    assert problem.value.code == "image-part-of"
    assert served.pull("a", "many") == ""


def test_signatures_go_with_their_image_and_stay_with_another(
    project: tuple[Settings, Served],
) -> None:
    settings, served = project
    for number in (1, 2):
        digest = served.push("a", f"v{number}", b"layer%d" % number)
        served.push("a", f"sha256-{digest[7:]}.sig", b"signature%d" % number)
        subject = image(
            b"{}", b"sbom%d" % number, subject=descriptor(b"", INDEX) | {"digest": digest}
        )
        served.push_blob("a", b"sbom%d" % number)
        assert served.push_manifest("a", digest_of(subject), subject) == 201
    _delete(settings, "a:v1")
    (held,) = listing.repositories(Layout(settings.registry_data), "a")
    assert set(held.tags) == {"v2", f"sha256-{digest[7:]}.sig"}
    assert len(held.manifests) == 3


def _aged(served: Registry, name: str, tag: str, days: float) -> None:
    path = Layout(served.data).tag_link(name, tag)
    at = time.time() - days * 86400
    os.utime(path, (at, at))


def _prune(settings: Settings, **options: str | bool) -> pruning.PrunePlan:
    wanted = policy.parse(
        str(options.get("keep", "")), str(options.get("older_than", "")),
        str(options.get("protect", "")), untagged=bool(options.get("untagged")),
    )  # fmt: skip
    return pruning.plan(
        settings, usage.cluster(settings), Fleet(settings, UI(as_json=True)), wanted,
        everything=bool(options.get("all")), without_nodes=bool(options.get("without_nodes")),
    )  # fmt: skip


def test_a_prune_deletes_what_its_plan_says_and_no_more(project: tuple[Settings, Served]) -> None:
    settings, served = project
    for number in range(6):
        served.push("a", f"v{number}", b"layer%d" % number)
        _aged(served, "a", f"v{number}", 60 - number)
    served.push("a", "also-v1", b"layer1")
    plan = _prune(settings, keep="3", older_than="1380h")
    assert {one.name for one in plan.going} == {"a:v0", "a:v1", "a:v2"}
    login = domain.credentials(settings)
    done = pruning.carry_out(settings, login, plan)
    assert {one.name for one in done} == {"a:v0", "a:v1", "a:v2"}
    assert _names(settings) == {"a:v3", "a:v4", "a:v5", "a:also-v1"}
    assert served.pull("a", "also-v1") == ""
    assert all(served.pull("a", f"v{number}") == "" for number in (3, 4, 5))


def test_what_is_pushed_between_plan_and_prune_stays(project: tuple[Settings, Served]) -> None:
    settings, served = project
    for number in range(3):
        served.push("a", f"v{number}", b"layer%d" % number)
        _aged(served, "a", f"v{number}", 60 - number)
    plan = _prune(settings, keep="1")
    served.push("a", "again", b"layer0")
    pruning.carry_out(settings, domain.credentials(settings), plan)
    assert served.pull("a", "again") == ""
    assert "a:v1" not in _names(settings)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({}, "wrong-use"),
        ({"keep": "ten"}, "wrong-use"),
        ({"keep": "-1"}, "wrong-use"),
        ({"older_than": "30"}, "wrong-use"),
        ({"older_than": "a month"}, "wrong-use"),
        ({"keep": "0"}, "prune-empties"),
        ({"keep": "1", "protect": "nobody/*"}, "prune-matches-nothing"),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused(
    project: tuple[Settings, Served], options: dict[str, str], code: str
) -> None:
    settings, served = project
    served.push("a", "one", b"layer")
    with pytest.raises(MoorageError) as problem:
        _prune(settings, **options)
    assert (problem.value.code, problem.value.exit_code) == (code, 2)
    assert problem.value.cure
    assert _names(settings) == {"a:one"}


def test_everything_goes_only_if_that_is_said(project: tuple[Settings, Served]) -> None:
    settings, served = project
    served.push("a", "one", b"layer")
    assert [one.name for one in _prune(settings, keep="0", all=True).going] == ["a:one"]


def test_a_cluster_that_does_not_answer_refuses_the_prune(
    project: tuple[Settings, Served], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings, served = project
    served.push("a", "one", b"layer")
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }  # fmt: skip
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    with pytest.raises(MoorageError):
        _prune(settings, keep="1")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nowhere"))
    with pytest.raises(MoorageError) as problem:
        _prune(settings, keep="1")
    assert problem.value.code == "no-kubeconfig"


def test_nodes_that_nobody_asked_refuse_the_prune(project: tuple[Settings, Served]) -> None:
    settings, served = project
    served.push("a", "one", b"layer")
    Roster(settings).put("node1", Resident("id", 7443, "1", 2000000000))
    settings = replace(settings, nodes=NodesSettings(retries=0))
    with pytest.raises(MoorageError) as problem:
        _prune(settings, keep="1")
    assert problem.value.code == "usage-unknown"
    assert "node1" in problem.value.message
    assert _prune(settings, keep="1", without_nodes=True).going == []


@pytest.mark.parametrize(
    "reference", ["a", "a:", ":one", "a@one", "a:one@sha256:12", "../a:one", "A:one", "a:o ne", ""]
)
def test_a_reference_that_is_none_is_refused(tmp_path: Path, reference: str) -> None:
    with pytest.raises(MoorageError) as problem:
        listing.reference(registry_project(tmp_path), reference)
    assert problem.value.code == "wrong-use"


def test_thousands_of_tags_are_read_whole(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    put_many(layout, 2_000)
    (held,) = listing.repositories(layout, "a")
    found = [listing.platforms(layout, held, link.digest) for link in held.tags.values()]
    assert len(found) == 2_000


def test_the_configuration_of_a_registry_with_a_cache_is_refused(tmp_path: Path) -> None:
    settings = registry_project(tmp_path)
    Layout(settings.registry_data).top.mkdir(parents=True)
    etc = folder(settings) / "etc"
    etc.mkdir(parents=True)
    (etc / spec.CONFIG).write_bytes(spec.config_yaml("00"))
    assert for_collection(settings).data == settings.registry_data
    (etc / spec.CONFIG).write_bytes(b"storage: {cache: {blobdescriptor: inmemory}}")
    with pytest.raises(MoorageError) as problem:
        for_collection(settings)
    assert problem.value.code == "collect-cache"
