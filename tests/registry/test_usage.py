"""What clusters say is in use, however they say it."""

from __future__ import annotations

import pytest

from moorage.catalogue.usage import of_objects, references

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
