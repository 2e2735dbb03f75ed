"""The agent on real nodes: trust, pull by the kubelet's call, and every byte back.

Takes the images that `inv up` or the e2e session has built, and is skipped where there are none.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("docker")

import docker

from moorage.archive import agent_archive
from tests.agent.authority import Authority
from tests.agent.real import NAME, Node, Registry, plan

pytestmark = pytest.mark.engine
CONFIG = "/etc/containerd/config.toml"
PROGRAM = Path("/bin/true")


@pytest.fixture(scope="module")
def client() -> docker.DockerClient:
    try:
        made = docker.from_env(timeout=120)
        made.ping()
    except docker.errors.DockerException:
        pytest.skip("no Docker engine answers")
    return made


def images(client: docker.DockerClient, pattern: str) -> dict[str, str]:
    """The newest image for each value of the pattern's group."""
    found: dict[str, str] = {}
    for image in client.images.list():
        for tag in image.tags:
            match = re.fullmatch(pattern, tag)
            if match is not None:
                found.setdefault(match[1], tag)
    return found


@pytest.fixture(scope="module")
def registry(client: docker.DockerClient) -> Iterator[Registry]:
    found = images(client, r"(moorage/registry):.*")
    if not found:
        pytest.skip("no registry image; inv up builds one")
    made = Registry(client, next(iter(found.values())), Authority())
    try:
        yield made
    finally:
        made.container.remove(force=True, v=True)


@pytest.fixture(params=["1.6", "1.7", "2"])
def node(
    request: pytest.FixtureRequest,
    client: docker.DockerClient,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Node]:
    found = images(client, r"moorage/lab:(\d(?:\.\d)?)-.*")
    if request.param not in found:
        pytest.skip(f"no lab image with containerd {request.param}; inv up builds one")
    made = Node(client, found[request.param])
    try:
        made.start(agent_archive(tmp_path_factory.mktemp("state")).path)
        yield made
    finally:
        made.remove()


@pytest.fixture(scope="module")
def image(client: docker.DockerClient, registry: Registry) -> str:
    return registry.push(client, PROGRAM)


@pytest.mark.parametrize("kind", ["package", "default", "none"])
def test_trust_pulls_and_is_taken_away_without_a_trace(
    node: Node, registry: Registry, image: str, kind: str
) -> None:
    if kind == "default":
        node.sh(f"containerd config default > {CONFIG} && systemctl restart containerd")
    elif kind == "none":
        node.sh(f"rm {CONFIG} && systemctl restart containerd")
    node.wait()
    config, hosts = node.read(CONFIG), node.read("/etc/hosts")
    document = plan(registry, image)
    assert node.agent("apply", {**document, "parts": ["hosts"]}).code == 0
    assert node.agent("verify", document).fault == "x509-unknown-authority"
    first = node.agent("apply", document)
    assert (first.code, first.result["status"], first.noise) == (0, "changed", "")
    assert first.result["verified"] is True
    assert first.result["restarts"] == ["containerd.service"]
    second = node.agent("apply", document)
    assert (second.result["status"], second.result["restarts"]) == ("unchanged", [])
    away = node.agent("untrust", document)
    assert (away.code, away.result["status"]) == (0, "changed")
    assert (node.read(CONFIG), node.read("/etc/hosts")) == (config, hosts)
    node.agent("apply", {**document, "parts": ["hosts"]})
    assert node.agent("verify", document).fault == "x509-unknown-authority"


def test_running_containers_keep_their_process_ids(
    node: Node, registry: Registry, image: str
) -> None:
    node.sh("systemd-run --unit=bystander --property=Delegate=yes sleep 1000")
    before = node.sh("pidof containerd; systemctl show -p MainPID --value bystander")[1].split()
    assert node.agent("apply", plan(registry, image)).code == 0
    after = node.sh("pidof containerd; systemctl show -p MainPID --value bystander")[1].split()
    assert before[-1] == after[-1]
    assert before[0] != after[0]


def test_a_wrong_ca_is_refused_with_nothing_changed(
    node: Node, registry: Registry, image: str
) -> None:
    before = node.sh("sha256sum /etc/hosts /etc/containerd/config.toml; pidof containerd")
    wrong = plan(registry, image, ca=Authority("other").pem)
    assert node.agent("apply", wrong).fault == "x509-unknown-authority"
    assert node.sh("sha256sum /etc/hosts /etc/containerd/config.toml; pidof containerd") == before


def test_a_trust_that_does_not_hold_is_rolled_back(
    node: Node, registry: Registry, image: str
) -> None:
    """Without the preflight, the wrong CA shows after the restart only."""
    before = node.sh("sha256sum /etc/hosts /etc/containerd/config.toml; ls -R /etc/containerd")
    wrong = plan(registry, image, ca=Authority("other").pem, options={"preflight": False})
    run = node.agent("apply", wrong)
    assert (run.result["status"], run.fault) == ("rolled-back", "x509-unknown-authority")
    assert (
        node.sh("sha256sum /etc/hosts /etc/containerd/config.toml; ls -R /etc/containerd") == before
    )
    node.wait()


def test_an_image_that_is_not_there_keeps_the_trust(node: Node, registry: Registry) -> None:
    missing = plan(registry, f"{NAME}/none:1", options={"preflight": False})
    run = node.agent("apply", missing)
    assert (run.result["status"], run.fault) == ("failed", "image-missing")
    assert len(run.result["changes"]) == 4


def test_killed_at_random_instants_the_node_still_serves(
    node: Node, registry: Registry, image: str
) -> None:
    document = plan(registry, image)
    old = node.sh("sha256sum /etc/hosts /etc/containerd/config.toml")
    for number in range(5):
        run = node.agent("apply", document, before=f"timeout -s KILL {0.15 + number * 0.12:.2f}")
        time.sleep(0.1)
        recovered = node.agent("recover")
        assert recovered.code == 0, (run, recovered)
        node.wait()
        assert node.agent("apply", document).result["verified"] is True
        assert node.agent("untrust", document).code == 0
        assert node.sh("sha256sum /etc/hosts /etc/containerd/config.toml") == old
