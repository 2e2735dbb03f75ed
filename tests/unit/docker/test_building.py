"""Images that two checkouts build at once, on a real engine."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from moorage.docker import building
from moorage.output import unheard

pytestmark = pytest.mark.engine
LABEL = "io.moorage.test"


@pytest.fixture
def tag(client: Any) -> Iterator[str]:
    from docker.errors import ImageNotFound

    name = f"moorage/test:{secrets.token_hex(4)}"
    yield name
    with suppress(ImageNotFound):
        client.images.remove(name)


def make(client: Any, tag: str, what: str) -> str:
    files = {"Dockerfile": f"FROM scratch\nLABEL made={what}\n".encode()}
    return building.build(
        client,
        files,
        tag=tag,
        replace=False,
        labels={LABEL: tag},
        title="a test's image",
        update=unheard,
    )


def test_an_image_that_came_meanwhile_stays(client: Any, tag: str) -> None:
    """A container of the first one's would else be made again, for nothing."""
    first = make(client, tag, "one")
    assert building.image_id(client, tag) == first
    assert make(client, tag, "one") == first  # the engine's own cache gives the same image
    assert make(client, tag, "two") == first
    assert building.image_id(client, tag) == first
    mine = {"label": f"{LABEL}={tag}"}
    assert [one.id for one in building.listed(client, filters=mine)] == [first]
