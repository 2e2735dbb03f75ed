"""The cure that pushes the demo image: what it asks first, and what it leaves as it was built."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from moorage.actions import Action
from moorage.cluster.workload import cures
from moorage.errors import Refused
from moorage.images import BuiltImage, PushedImage, demo, skopeo
from moorage.images.demo import index
from moorage.images.demo.layout import BuiltIndex
from moorage.settings import ImageSettings
from moorage.ui import UI
from tests.unit.elsewhere import project

TOOL = Action("install skopeo with apt-get", asks=True)


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done."""
    found: list[str] = []

    def build(*_: object) -> BuiltImage:
        found.append("built")
        return BuiltImage("it", "sha256:1", changed=True)

    def push(*_: object) -> PushedImage:
        found.append("pushed")
        return PushedImage("it", "sha256:1", changed=True)

    monkeypatch.setattr(demo, "build", build)
    monkeypatch.setattr(demo, "push", push)
    monkeypatch.setattr(demo, "pending", lambda _: [])
    monkeypatch.setattr(skopeo, "pending", list)
    return found


def here(folder: Path, *platforms: str) -> cures.Here:
    settings = project(folder, image=ImageSettings(platforms=platforms))
    return cures.Here(cast("Any", None), settings, UI(as_json=True))


@pytest.mark.parametrize("is_index", [True, False])
def test_an_index_is_pushed_as_it_was_built(
    tmp_path: Path, done: list[str], monkeypatch: pytest.MonkeyPatch, is_index: bool
) -> None:
    built = BuiltIndex(tmp_path, "it", "sha256:1", ("linux/amd64", "linux/arm64"), "")
    monkeypatch.setattr(index, "built", lambda _: built if is_index else None)
    cures._push(here(tmp_path), ())
    assert done == (["pushed"] if is_index else ["built", "pushed"])


def test_a_package_is_not_installed_unasked(
    tmp_path: Path, done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(skopeo, "pending", lambda: [TOOL])
    with pytest.raises(Refused) as refused:
        cures._push(here(tmp_path, "linux/amd64"), ())
    assert (refused.value.code, done) == ("not-confirmed", [])
