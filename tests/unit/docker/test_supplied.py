"""Images of a bundle into the engine. The engine is a stand-in that notes what it is sent."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from docker.errors import ImageNotFound

from moorage.bundle import loading
from moorage.docker import pulled, supplied
from moorage.errors import MoorageError
from moorage.settings import Settings
from moorage.ui import UI
from tests.unit.bundle.made import CONTENT, bundle, with_locks


class Engine:
    """Has the images that it was sent, unless it ``refuses``."""

    def __init__(self, refuses: str = "") -> None:
        self.refuses, self.names = refuses, list[str]()
        self.api = SimpleNamespace(load_image=self.load)
        self.images = SimpleNamespace(get=self.get)

    def load(self, content: Iterable[bytes]) -> list[dict[str, str]]:
        with tarfile.open(fileobj=io.BytesIO(b"".join(content))) as tar:
            (row,) = json.loads(tar.extractfile("manifest.json").read())  # type: ignore[union-attr]
            layers = [tar.extractfile(one).read() for one in row["Layers"]]  # type: ignore[union-attr]
        assert layers == [CONTENT["engine/layers/l.tar.gz"]]
        if self.refuses:
            return [{"error": self.refuses}]
        self.names += row["RepoTags"]
        return []

    def get(self, name: str) -> Any:
        if name not in self.names:
            raise ImageNotFound(name)
        return SimpleNamespace(id="sha256:1")


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    settings = with_locks(tmp_path / "checkout")
    loading.load(settings, bundle(tmp_path), UI().progress)
    return settings


def bring(settings: Settings, engine: Engine, *names: str) -> str:
    return supplied.bring(settings, engine, UI().progress, *names)  # type: ignore[arg-type]


def test_the_first_name_that_the_bundle_has_is_brought_once(ours: Settings) -> None:
    engine = Engine()
    assert bring(ours, engine, "absent:1", "moorage/x:1") == "moorage/x:1"
    assert engine.names == ["moorage/x:1"]
    assert bring(ours, engine, "moorage/x:1") == "moorage/x:1"
    assert engine.names == ["moorage/x:1"]
    assert pulled.ours(ours) == ["moorage/x:1"]


def test_what_it_has_not_is_left_to_others(ours: Settings) -> None:
    assert bring(ours, Engine(), "absent:1") == ""
    assert supplied.known(ours, "absent:1") == ""
    loading.drop(ours)
    assert bring(ours, Engine(), "moorage/x:1") == ""


def test_an_engine_that_refuses_is_quoted(ours: Settings) -> None:
    with pytest.raises(MoorageError) as told:
        bring(ours, Engine("no space left on device"), "moorage/x:1")
    assert told.value.code == "import-failed"
    assert told.value.fault.cause == "no space left on device"
    assert pulled.ours(ours) == []
