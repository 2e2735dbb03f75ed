"""Every runtime of the lab before a registry that lets in only who presents a certificate.

containerd 1.6, 1.7 and 2, three kinds of Docker Engine, Podman: each says what is wanted, pulls
with the pair of the plan, and has nothing of it in the end. They are skipped where `inv up` has
built no images.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("docker")

import docker

from tests.agent.authority import Authority
from tests.agent.real import Node, Registry, plan
from tests.agent.runtimes import PodmanNode, RuntimeNode
from tests.agent.test_real import client, machine, node
from tests.agent.test_runtimes_real import (
    PARTS,
    archive,
    engine,
    podman,
    registry_image,
    tree,
)

__all__ = ["archive", "client", "engine", "machine", "node", "podman"]
pytestmark = pytest.mark.engine
FILES = "find /etc/containerd /etc/hosts -type f | sort | xargs sha256sum"
KEYS = "find /etc -name '*.key' -newer /root/agent.pyz -exec stat -c '%a %n' {} +"
PODMAN: dict[str, Any] = {"parts": ["hosts", "podman"]}
CLIENTS = Authority("clients' CA")


@pytest.fixture(scope="module")
def asking(client: docker.DockerClient) -> Iterator[tuple[Registry, str]]:
    """The registry, and an image of it."""
    made = Registry(client, registry_image(client), Authority())
    try:
        image = made.push(client, Path("/bin/true"))
        made.ask_for_certificates(CLIENTS)
        yield made, image
    finally:
        made.container.remove(force=True, v=True)


def shown(document: dict[str, Any], signer: Authority = CLIENTS) -> dict[str, Any]:
    """The same plan with a client's pair."""
    certificate, key = signer.issue("node")
    pair = {"certificate": certificate.decode(), "key": key.decode()}
    return {**document, "registry": {**document["registry"], "client": pair}}


def unasked(document: dict[str, Any]) -> dict[str, Any]:
    """The same without the agent's own request beforehand: the runtime is the first to ask."""
    return {**document, "options": {"preflight": False}}


def through(node: Node, document: dict[str, Any], without: str = "client-wanted") -> None:
    """Refused without a pair, pulled with it, refused with another's, pulled again.

    ``without``: the code for what this runtime says by itself.
    """
    refused = node.agent("apply", document)
    assert (refused.code, refused.fault) == (1, "client-wanted"), refused
    bare = node.agent("apply", unasked(document))
    assert bare.fault == without, bare
    assert node.agent("untrust", document).code == 0
    good = shown(document)
    first = node.agent("apply", good)
    assert (first.code, first.result["verified"]) == (0, True), first
    modes = node.sh(KEYS)[1].splitlines()
    assert modes and all(one.startswith("600 ") for one in modes), modes
    again = node.agent("apply", good)
    assert (again.result["status"], again.result["restarts"]) == ("unchanged", []), again
    other = node.agent("apply", unasked(shown(document, Authority("another"))))
    assert other.fault == "client-refused", other
    assert node.agent("apply", good).result["verified"] is True
    assert node.agent("untrust", document).code == 0
    assert node.sh(KEYS)[1] == ""


def test_containerd_pulls_with_the_pair(node: Node, asking: tuple[Registry, str]) -> None:
    before = node.sh(FILES)
    through(node, {**plan(*asking), "parts": ["hosts", "containerd"]})
    assert node.sh(FILES) == before


def test_docker_pulls_with_the_pair(engine: RuntimeNode, asking: tuple[Registry, str]) -> None:
    before, pid = tree(engine), engine.sh("pidof dockerd")
    through(engine, {**plan(*asking), **PARTS})
    assert (tree(engine), engine.sh("pidof dockerd")) == (before, pid)


def test_podman_pulls_with_the_pair(podman: PodmanNode, asking: tuple[Registry, str]) -> None:
    before = tree(podman)
    through(podman, {**plan(*asking), **PODMAN})
    assert tree(podman) == before
