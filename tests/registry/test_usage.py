"""What clusters say is in use, however they say it."""

from __future__ import annotations

from pathlib import Path

import pytest

from moorage.catalogue.usage import ask, of_objects, references
from moorage.cluster.api import paths
from moorage.cluster.login import access
from moorage.errors import MoorageError
from moorage.fleet.rollout.fleet import Fleet
from moorage.ui import UI
from tests.k8s import standin
from tests.unit.elsewhere import project

D = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("word", "tags", "digests"),
    [
        ("reg.io/team/app:1", {("team/app", "1"), ("reg.io/team/app", "1")}, set()),
        ("reg.io:8443/app", {("app", "latest"), ("reg.io_8443/app", "latest")}, set()),
        (f"my.registry.io/app@{D}", set(), {D}),
        (f"reg.io/app:2@{D}", {("app", "2"), ("reg.io/app", "2")}, {D}),
        (f"docker-pullable://my.registry.io/app@{D}", set(), {D}),
        (f"docker://{D}", set(), {D}),
        (D, set(), {D}),
        (
            "nginx",
            {
                ("nginx", "latest"),
                ("library/nginx", "latest"),
                ("docker.io/library/nginx", "latest"),
            },
            set(),
        ),
        ("team/app:1", {("team/app", "1"), ("docker.io/team/app", "1")}, set()),
        ("localhost/app:1", {("app", "1"), ("localhost/app", "1")}, set()),
    ],
)
def test_a_reference_is_read(word: str, tags: set[tuple[str, str]], digests: set[str]) -> None:
    found = references([word])
    assert (set(found.tags), set(found.digests)) == (tags, digests)


def _template(image: str) -> dict[str, object]:
    return {"spec": {"containers": [{"name": "a", "image": image}]}}


@pytest.mark.parametrize(
    "document",
    [
        {"spec": {"containers": [{"image": "x"}]}},
        {"spec": {"initContainers": [{"image": "x"}]}},
        {"spec": {"ephemeralContainers": [{"image": "x"}]}},
        {"spec": {"volumes": [{"image": {"reference": "x"}}]}},
        {"kind": "Deployment", "spec": {"template": _template("x")}},
        {"kind": "ReplicaSet", "spec": {"replicas": 0, "template": _template("x")}},
        {"kind": "CronJob", "spec": {"jobTemplate": {"spec": {"template": _template("x")}}}},
        {"kind": "ControllerRevision", "data": {"spec": {"template": _template("x")}}},
        {"status": {"containerStatuses": [{"image": "sha256:1", "imageID": "x"}]}},
        {"status": {"initContainerStatuses": [{"imageID": "x"}]}},
        {"kind": "Node", "status": {"images": [{"names": ["y", "x"]}, {"names": None}]}},
    ],
)
def test_every_place_that_names_an_image_is_found(document: dict[str, object]) -> None:
    assert "x" in set(of_objects([document]))


# Each kind that a cluster has something to start in, and where it names the image.
KINDS: dict[str, dict[str, object]] = {
    "Pod": {"spec": {"containers": [{"image": "x"}]}},
    "Node": {"status": {"images": [{"names": ["x"]}]}},
    **{
        kind: {"spec": {"replicas": 0, "template": _template("x")}}
        for kind in (
            *("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "ReplicationController"),
            "Job",
        )
    },
    "CronJob": {"spec": {"jobTemplate": {"spec": {"template": _template("x")}}}},
    "ControllerRevision": {"data": {"spec": {"template": _template("x")}}},
}


def _asked(server: standin.Standin, tmp_path: Path) -> set[tuple[str, str]]:
    settings = project(tmp_path)
    with standin.serving(server) as url:
        config = standin.kubeconfig(tmp_path, url)
        api = access.connect(settings, kubeconfig=str(config))
        fleet = Fleet(settings, UI(as_json=True))
        return set(ask(settings, api, fleet, without_nodes=True).in_use.tags)


def _having(kind: str) -> standin.Standin:
    """A stand-in for a cluster that has one object, of that kind."""
    server = standin.Standin(lists={paths.all_of(one): [] for one in KINDS})
    server.lists[paths.all_of(kind)] = [{"metadata": {"name": "one"}, **KINDS[kind]}]
    return server


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_that_may_start_an_image_is_asked_for(kind: str, tmp_path: Path) -> None:
    assert ("x", "latest") in _asked(_having(kind), tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_that_may_not_be_listed_refuses(kind: str, tmp_path: Path) -> None:
    server = _having("Pod")
    path = paths.all_of(kind)
    server.trouble = lambda request: (
        standin.failure(403, "Forbidden", "no") if request.path == path else None
    )
    with pytest.raises(MoorageError) as refused:
        _asked(server, tmp_path)
    assert refused.value.cure
