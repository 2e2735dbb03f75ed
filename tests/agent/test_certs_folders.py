"""Folders of certificates that keep a runtime from a registry, and the one that counts."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import pytest

from agent.facts import gather
from agent.node.host import Host
from agent.runtimes import docker
from tests.agent.authority import Authority
from tests.agent.conftest import Box
from tests.agent.test_runtimes import lay_out, only

NAME = "my.registry.io"
DOCKER, PODMAN = f"/etc/docker/certs.d/{NAME}", f"/etc/containers/certs.d/{NAME}"
CONTAINERD = f"/etc/containerd/certs.d/{NAME}"
ROOT = f"/root/.config/containers/certs.d/{NAME}"
# The folder for images that spell out the usual port; nobody had one.
TWIN = f"/etc/containers/certs.d/{NAME}:443/ca.crt"
FOLDERS = {"docker": DOCKER, "podman": PODMAN, "crio": PODMAN, "containerd": CONTAINERD}
WITH_FOLDERS = (
    b'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry]\n'
    b'config_path = "/etc/containerd/certs.d"\n'
)


def node_with(box: Box, part: str) -> Box:
    if part == "docker":
        return box.with_docker()
    return box.with_containerd(WITH_FOLDERS) if part == "containerd" else lay_out(box, part)


def typed(box: Box, cure: str) -> None:
    """The command of a cure, as a person would type it on the node."""
    command = re.search(r"mv \S+ [^\s;,]+", cure)
    assert command is not None, cure
    words = command[0].replace("/etc/", f"{box.root}/etc/").split()
    subprocess.run(words, check=True)


@pytest.mark.parametrize("part", FOLDERS)
def test_a_ca_with_a_clients_ending_is_named_and_renamed(box: Box, part: str) -> None:
    node_with(box, part).write(f"{FOLDERS[part]}/ca.cert", box.ca.encode())
    before = box.files()
    refused = box.apply(**only(part))
    assert refused["code"] == "client-certificate"
    assert f"{FOLDERS[part]}/ca.cert" in refused["error"]["message"]
    assert "end with .crt" in refused["error"]["cause"]
    assert box.files() == before
    assert "pull" not in box.prover.asked
    typed(box, refused["error"]["cure"])
    assert (box.apply(**only(part))["code"], box.read(f"{FOLDERS[part]}/ca.crt")) == (
        None,
        box.ca.encode(),
    )


@pytest.mark.parametrize(
    ("part", "code"),
    [("docker", "client-certificate"), ("podman", "client-certificate"), ("crio",
     "client-certificate"), ("containerd", None)],
)  # fmt: skip
def test_a_key_without_its_certificate_ends_pulls_but_containerds(
    box: Box, part: str, code: str | None
) -> None:
    node_with(box, part).write(f"{FOLDERS[part]}/registry.key", b"key")
    refused = box.apply(**only(part))
    assert refused["code"] == code
    if code:
        assert "there is no registry.cert" in refused["error"]["message"]
        typed(box, refused["error"]["cure"])
        assert box.apply(**only(part))["code"] is None


@pytest.mark.parametrize("part", FOLDERS)
def test_a_whole_pair_is_left_alone(box: Box, part: str) -> None:
    for ending in ("cert", "key"):
        node_with(box, part).write(f"{FOLDERS[part]}/client.{ending}", b"x")
    assert box.apply(**only(part))["code"] is None
    assert box.read(f"{FOLDERS[part]}/client.cert") == b"x"


@pytest.mark.parametrize("content", [b"", b"no certificate\n"])
def test_containerd_gives_up_at_a_crt_without_a_certificate(box: Box, content: bytes) -> None:
    node_with(box, "containerd").write(f"{CONTAINERD}/corp.crt", content)
    refused = box.apply(**only("containerd"))
    assert refused["code"] == "ca-unreadable"
    assert f"{CONTAINERD}/corp.crt" in refused["error"]["message"]
    typed(box, refused["error"]["cure"])
    assert box.apply(**only("containerd"))["code"] is None


def test_docker_passes_over_a_crt_without_a_certificate(box: Box) -> None:
    node_with(box, "docker").write(f"{DOCKER}/corp.crt", b"")
    assert box.apply(**only("docker"))["code"] is None


def test_docker_s_image_store_of_containerd_judges_as_containerd_does(box: Box) -> None:
    store = b'{"features": {"containerd-snapshotter": true}}'
    node_with(box, "docker").write("/etc/docker/daemon.json", store)
    box.write(f"{DOCKER}/registry.key", b"key")
    assert box.apply(**only("docker"))["code"] is None
    box.write(f"{DOCKER}/corp.crt", b"")
    assert box.apply(**only("docker"))["code"] == "ca-unreadable"


def test_what_would_be_refused_is_explained(box: Box) -> None:
    box.with_docker().write(f"{DOCKER}/ca.cert", box.ca.encode())
    found = docker.explain(gather(Host(str(box.root))), box.plan())
    assert [one.applies for one in found] == [False]
    assert "there is no ca.key" in found[0].why


@pytest.mark.parametrize("part", ["podman", "crio"])
@pytest.mark.parametrize("older", [True, False])
def test_root_s_own_folder_counts_if_it_is_there(
    box: Box, authority: Authority, part: str, older: bool
) -> None:
    node_with(box, part)
    if older:
        box.write(f"{ROOT}/ca.crt", Authority("older").pem.encode())
    else:
        (box.root / ROOT.lstrip("/")).mkdir(parents=True)
    before = box.files()
    written = [one["path"] for one in box.apply(**only(part))["changes"]]
    assert written == [f"{ROOT}/moorage-ca.crt" if older else f"{ROOT}/ca.crt", TWIN]
    assert box.apply(**only(part))["status"] == "unchanged"
    box.untrust(**only(part))
    assert box.files() == before
    assert (box.root / ROOT.lstrip("/")).is_dir()


def test_root_s_home_is_what_passwd_says(box: Box) -> None:
    home = "/srv/root"
    lay_out(box, "podman").write("/etc/passwd", f"root:x:0:0:root:{home}:/bin/sh\n".encode())
    (box.root / f"srv/root/.config/containers/certs.d/{NAME}").mkdir(parents=True)
    assert [one["path"] for one in box.apply(**only("podman"))["changes"]] == [
        f"{home}/.config/containers/certs.d/{NAME}/ca.crt",
        TWIN,
    ]


def test_an_empty_folder_of_the_system_s_hides_docker_s(box: Box) -> None:
    lay_out(box, "podman").write(f"{DOCKER}/corp.crt", Authority("corp").pem.encode())
    (box.root / PODMAN.lstrip("/")).mkdir(parents=True)
    written = [one["path"] for one in box.apply(**only("podman"))["changes"]]
    assert written == [f"{PODMAN}/ca.crt", TWIN]


def notes(result: dict[str, Any]) -> list[str]:
    return [one["message"] for one in result["events"] if one["event"] == "note"]


def test_a_users_own_folder_without_the_ca_is_named(box: Box) -> None:
    place = f"/home/ship/.config/containers/certs.d/{NAME}"
    lay_out(box, "podman").write(f"{place}/ca.crt", Authority("older").pem.encode())
    told = box.apply(**only("podman"))
    assert any(place in note for note in notes(told))
    assert box.read(f"{place}/ca.crt") != box.ca.encode()
    box.write(f"{place}/ca.crt", box.ca.encode())
    assert not any(place in note for note in notes(box.apply(**only("podman"))))
