"""`inv up` with `image.platforms`: what has to be installed is said before the first phase."""

from __future__ import annotations

from pathlib import Path

import pytest

from moorage.actions import Action
from moorage.docker import bootstrap
from moorage.images import demo, skopeo
from moorage.images.demo import index
from moorage.images.demo.layout import BuiltIndex
from moorage.settings import ROOT, ImageSettings, Settings
from moorage.ui import UI
from moorage.walk import up
from moorage.walk.phase import Walk
from tests.unit.elsewhere import project


def asked(root: Path) -> Settings:
    (root / "serve_hostname").symlink_to(ROOT / "serve_hostname")
    return project(root, image=ImageSettings(platforms=("linux/amd64", "linux/arm64")))


def test_tools_and_platforms_are_told_until_the_index_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = [Action(f"install {name}", asks=True) for name in ("mmdebstrap", "skopeo")]
    monkeypatch.setattr(bootstrap, "pending", lambda *, installs: [] if installs else tools[:1])
    monkeypatch.setattr(skopeo, "pending", lambda: tools[1:])
    walk = Walk(asked(tmp_path), UI())
    found = up._image_pending(walk)
    assert found[:2] == tools
    assert [action.text for action in found[2:]] == [
        "build my.registry.io/serve_hostname:0.0.1 for linux/amd64, linux/arm64 and push it"
    ]
    built = BuiltIndex(tmp_path, "", "", (), index._inputs(walk.settings))
    monkeypatch.setattr(index, "built", lambda _: built)
    assert up._image_pending(walk) == tools[1:]  # what pushes it, if it is not there
    monkeypatch.setattr(skopeo, "pending", list)
    assert up._image_pending(walk) == []
    monkeypatch.setattr(skopeo, "pending", lambda: tools[1:])
    assert demo.push_pending(walk.settings) == tools[1:]


def test_an_index_that_the_settings_do_not_name_is_not_replaced_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = asked(tmp_path)
    reference, names = settings.image_reference, settings.image.platforms
    monkeypatch.setattr(index, "built", lambda _: BuiltIndex(tmp_path, reference, "", names, ""))
    monkeypatch.setattr(Walk, "engine_answers", False)
    walk = Walk(project(tmp_path), UI())
    [found] = [one for one in up._image_pending(walk) if one.asks]
    assert f"replace {reference}, an index of linux/amd64, linux/arm64" in found.text
    monkeypatch.setattr(index, "built", lambda _: None)
    assert [one for one in up._image_pending(walk) if one.asks] == []
