"""What a walk begins beside the registry, and for whom."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

import lab
from moorage import registry
from moorage.errors import MoorageError
from moorage.images import BuiltImage, PushedImage, demo
from moorage.registry import RegistryStatus
from moorage.ui import UI
from moorage.walk import phase
from moorage.walk.phase import Walk
from moorage.walk.up import PHASES, REGISTRY_PHASES
from tests.unit.elsewhere import project

STATUS = RegistryStatus("https://x", "c", 443, "u", running=True, healthy=True, changed=True)


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> dict[str, Future[Any]]:
    """What was begun, to be ended by the test; the registry stands at once."""
    found: dict[str, Future[Any]] = {}

    def begin(name: str) -> Future[Any]:
        found[name] = Future()
        return found[name]

    monkeypatch.setattr(lab, "build", lambda *_: begin("nodes"))
    monkeypatch.setattr(demo, "begin", lambda *_: begin("image"))
    monkeypatch.setattr(registry, "up", lambda *_: STATUS)
    monkeypatch.setattr(demo, "push", lambda *_: PushedImage("x", "sha256:1", changed=False))
    monkeypatch.setattr(Walk, "client", None)
    return found


def only(phases: tuple[phase.Phase, ...], *names: str) -> list[phase.Phase]:
    return [one for one in phases if one.title in names]


def test_the_image_is_built_beside_the_registry_and_then_waited_for(
    tmp_path: Path, begun: dict[str, Future[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    walk = Walk(project(tmp_path), UI(as_json=True))
    monkeypatch.setattr(demo, "build", None)
    phase.go(walk, only(PHASES, "registry"))
    assert set(begun) == {"nodes", "image"}
    begun["image"].set_result(BuiltImage("x", "sha256:2", changed=True))
    phase.go(walk, only(PHASES, "image"))
    assert [one.changed for one in walk.done] == [True, True]


def test_a_build_that_failed_beside_it_ends_the_walk(
    tmp_path: Path, begun: dict[str, Future[Any]]
) -> None:
    walk = Walk(project(tmp_path), UI(as_json=True))
    phase.go(walk, only(PHASES, "registry"))
    begun["image"].set_exception(MoorageError("no-wheels", "no wheels"))
    with pytest.raises(MoorageError, match="no wheels"):
        phase.go(walk, only(PHASES, "image"))


def test_who_asks_for_a_registry_alone_waits_for_no_other_build(
    tmp_path: Path, begun: dict[str, Future[Any]]
) -> None:
    phase.go(Walk(project(tmp_path), UI(as_json=True)), only(REGISTRY_PHASES, "registry"))
    assert not begun
    assert [one.title for one in REGISTRY_PHASES] == [one.title for one in PHASES[:4]]
