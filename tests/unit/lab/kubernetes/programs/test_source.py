"""The build of Kubernetes that another command began: joined, gone on with, or taken as it is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("docker")

import docker
from docker.models.containers import Container

from lab.kubernetes.programs import kit, source
from moorage.docker import debian, engine
from moorage.settings import Settings
from moorage.ui import UI
from tests.unit.elsewhere import project

pytestmark = pytest.mark.engine


@pytest.fixture
def begun(tmp_path: Path) -> Iterator[tuple[Settings, docker.DockerClient, str, str]]:
    settings, client = project(tmp_path), docker.from_env(timeout=120)
    base = debian.base_image(settings, client, UI(as_json=True).progress)
    script = source._SCRIPT.read_bytes()
    recipe = hashlib.sha256(script + base.encode()).hexdigest()[:16]
    try:
        yield settings, client, base, recipe
    finally:
        for one in client.containers.list(all=True, filters=engine.label_filter(settings)):
            one.remove(force=True, v=True)


@pytest.mark.parametrize(("code", "again"), [(0, False), (3, True)])
def test_one_that_ended_well_is_not_built_again(
    begun: tuple[Settings, docker.DockerClient, str, str], code: int, again: bool
) -> None:
    settings, client, base, recipe = begun
    labels = {**engine.labels(settings, kit.PART), source._RECIPE: recipe}
    made: Container = client.containers.create(
        base, ["sh", "-c", f"exit {code}"], name=source.container_name(settings), labels=labels
    )
    made.start()
    assert made.wait()["StatusCode"] == code
    made.reload()
    started = made.attrs["State"]["StartedAt"]
    found = source._container(settings, client, UI(as_json=True))
    found.reload()
    assert found.id == made.id
    assert (found.attrs["State"]["StartedAt"] != started) is again
