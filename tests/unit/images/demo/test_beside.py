"""The demo image built beside the registry: what the caller waits for, and what not."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import cast

import pytest
from docker import DockerClient

from moorage.docker import building, debian, engine
from moorage.errors import MoorageError
from moorage.images import HUB_BASE, BuiltImage, demo
from moorage.output import Progress, silent
from moorage.settings import Settings
from tests.unit.elsewhere import project

UNUSED = cast("DockerClient", None)
BUILT = BuiltImage("it", "sha256:1", changed=True)


@pytest.mark.parametrize(
    ("there", "hub", "made"),
    [("", False, ["MainThread"]), ("", True, []), (HUB_BASE, False, []), ("own", False, [])],
)
def test_a_base_from_packages_is_made_where_ctrl_c_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: str, hub: bool, made: list[str]
) -> None:
    settings, found, own = project(tmp_path), list[str](), threading.Event()
    name = debian.tag(settings) if there == "own" else there

    class Client:
        def close(self) -> None:
            own.set()

    def base(_settings: Settings, _client: object, _progress: Progress) -> str:
        found.append(threading.current_thread().name)
        return "base"

    monkeypatch.setattr(building, "exists", lambda _, wanted: wanted == name)
    monkeypatch.setattr(debian, "hub_answers", lambda *_: hub)
    monkeypatch.setattr(debian, "base_image", base)
    monkeypatch.setattr(engine, "connect", lambda _: Client())
    monkeypatch.setattr(demo, "build", lambda *_: BUILT)
    begun = demo.begin(settings, UNUSED, silent)
    assert begun is not None
    assert (begun.result(5), found) == (BUILT, made)
    assert own.wait(5)


@pytest.mark.parametrize("problem", [MoorageError("no-wheels", "no wheels"), KeyboardInterrupt()])
def test_what_ends_the_build_is_told_to_who_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: BaseException
) -> None:
    class Client:
        def close(self) -> None:
            raise problem

    monkeypatch.setattr(building, "exists", lambda *_: False)
    monkeypatch.setattr(debian, "hub_answers", lambda *_: True)
    monkeypatch.setattr(engine, "connect", lambda _: Client())
    monkeypatch.setattr(demo, "build", lambda *_: BUILT)
    begun = demo.begin(project(tmp_path), UNUSED, silent)
    assert begun is not None
    assert begun.exception(5) is problem


def test_nothing_is_begun_if_the_image_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "exists", lambda *_: True)
    assert demo.begin(project(tmp_path), UNUSED, silent) is None
