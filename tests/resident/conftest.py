"""A real node and a real registry for the tests of the agent that stays."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("docker")

import docker

from moorage.ui import UI
from tests.agent.authority import Authority
from tests.agent.real import Registry, connected
from tests.resident.lab import ResidentNode, resident_node


@pytest.fixture(scope="module")
def client() -> docker.DockerClient:
    return connected()


@pytest.fixture(scope="module")
def node(
    client: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ResidentNode]:
    with resident_node(client, tmp_path_factory.mktemp("operator")) as made:
        yield made


@pytest.fixture
def ui() -> UI:
    return UI(as_json=True)


@pytest.fixture(scope="module")
def registry(client: docker.DockerClient) -> Iterator[Registry]:
    tags = [tag for image in client.images.list() for tag in image.tags]
    made = Registry(
        client, next(tag for tag in tags if tag.startswith("moorage/registry:")), Authority()
    )
    try:
        yield made
    finally:
        made.container.remove(force=True, v=True)
