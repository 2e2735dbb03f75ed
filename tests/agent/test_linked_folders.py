"""Folders of several runtimes that are one by a link: each file is written once, and goes once."""

from __future__ import annotations

import os

import pytest

from agent.edit.change import Owned, OwnedPaths
from agent.node.tree import Tree
from tests.agent.conftest import Box
from tests.agent.test_containerd_kept import SECOND, status

CONFIG = (
    b'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry]\n'
    b'  config_path = "/etc/containerd/certs.d"\n'
)
NAME = "my.registry.io"
PARTS = ["containerd", "docker", "podman", "nerdctl"]
LINKS = {
    "all of containerd's": {"/etc/containerd/certs.d": "/etc/docker/certs.d"},
    "relative": {"/etc/containerd/certs.d": "../docker/certs.d"},
    "the other way": {"/etc/docker/certs.d": "/etc/containerd/certs.d"},
    "podman's": {"/etc/containers/certs.d": "/etc/docker/certs.d"},
    "all three": {
        "/etc/containerd/certs.d": "/etc/docker/certs.d",
        "/etc/containers/certs.d": "/etc/containerd/certs.d",
    },
    "one registry's": {f"/etc/containerd/certs.d/{NAME}": f"/etc/docker/certs.d/{NAME}"},
    "the folder above": {"/etc/containers": "/etc/docker"},
    "elsewhere": {"/etc/docker/certs.d": "/srv/certs", "/etc/containerd/certs.d": "/srv/certs"},
}


def linked(box: Box, name: str) -> Box:
    box.with_containerd(CONFIG).with_docker()
    for program in ("podman", "nerdctl"):
        box.write(f"/usr/bin/{program}", b"#!/bin/sh\n", 0o755)
    for place, target in LINKS[name].items():
        link = box.root / place.lstrip("/")
        link.parent.mkdir(parents=True, exist_ok=True)
        there = target if target.startswith("/") else f"{os.path.dirname(place)}/{target}"  # noqa: PTH120
        folder = box.root / os.path.normpath(there).lstrip("/")
        if not folder.is_symlink():
            folder.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
    return box


@pytest.mark.parametrize("name", LINKS)
def test_trust_comes_goes_and_is_renewed_once_a_file(box: Box, name: str) -> None:
    node = linked(box, name)
    files, folders = node.files(), node.folders()
    result = node.apply(parts=PARTS)
    assert (result["status"], result["code"]) == ("changed", None)
    assert node.apply(parts=PARTS)["status"] == "unchanged"
    states = [one["state"] for one in status(node)["trusted"][0]["files"]]
    assert set(states) == {"as-left"}
    assert node.apply(parts=PARTS, **SECOND)["status"] == "changed"
    assert node.untrust()["status"] == "changed"
    assert node.untrust(**SECOND)["status"] == "changed"
    assert (node.files(), node.folders()) == (files, folders)


@pytest.mark.parametrize("name", LINKS)
def test_a_new_ca_takes_the_place_of_the_old_one_by_whichever_path(
    box: Box, name: str, authority_of_tomorrow: str
) -> None:
    node = linked(box, name)
    files = node.files()
    assert node.apply(parts=["containerd"])["status"] == "changed"
    assert node.apply(parts=PARTS)["code"] is None
    node.ca = authority_of_tomorrow
    assert node.apply(parts=PARTS)["status"] == "changed"
    old = [path for path, text in node.files().items() if path.endswith(".crt")
           and text != authority_of_tomorrow.encode()]  # fmt: skip
    assert old == []
    assert node.untrust()["status"] == "changed"
    assert node.files() == files


@pytest.fixture
def authority_of_tomorrow() -> str:
    from tests.agent.authority import Authority

    return Authority("tomorrow").pem


def test_folders_that_became_one_afterwards_are_taken_away_once(box: Box) -> None:
    node = box.with_containerd(CONFIG).with_docker()
    assert node.apply(parts=PARTS)["status"] == "changed"
    place = node.root / "etc/containerd/certs.d"
    for path in sorted(place.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    place.rmdir()
    place.symlink_to("/etc/docker/certs.d")
    assert node.untrust()["code"] is None
    assert not list((node.root / "etc").rglob("*.crt"))


def test_what_is_ours_is_found_by_any_path_that_leads_to_it(box: Box) -> None:
    node = linked(box, "all of containerd's")
    path = f"/etc/docker/certs.d/{NAME}/ca.crt"
    ledger = {path: Owned("docker", path, None, b"a CA")}
    known = OwnedPaths(Tree(str(node.root)), ledger)
    assert known[f"/etc/containerd/certs.d/{NAME}/ca.crt"] is known[path] is ledger[path]
    assert f"/etc/containerd/certs.d/{NAME}/hosts.toml" not in known
    assert list(known) == [path]
