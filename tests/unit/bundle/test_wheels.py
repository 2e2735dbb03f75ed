"""Wheels that a first bundle has are not fetched. pip and the demo's Python are stand-ins."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moorage.bundle import wheels
from moorage.images import wheels as demo
from moorage.settings import Settings
from moorage.supply.manifest import LOCKS, BundleManifest, EngineImage
from tests.unit.bundle.made import CONTENT, described, sha
from tests.unit.elsewhere import project

A, B, OTHER = (sha(letter.encode()) for letter in "abx")
LOCK = f"""\
# by uv
a==1.0 \\
    --hash=sha256:{A} \\
    --hash=sha256:{OTHER}
b==2.0 ; sys_platform == "linux" \\
    --hash=sha256:{B}
"""
BASE = EngineImage("moorage/base:1", "engine/configs/c.json", ())


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What pip was asked for, by the folder of its wheels."""
    found: dict[str, str] = {}

    def download(lock: Path, words: Sequence[str], folder: Path) -> None:
        (chosen,) = (word for word in words if word.endswith("left.lock"))
        found[folder.name] = Path(chosen).read_text()

    target = demo.Interpreter((3, 11), "x86_64", "2.36")
    monkeypatch.setattr(wheels, "_download", download)
    monkeypatch.setattr(demo, "interpreter", lambda *_: target)
    return found


@pytest.fixture
def ours(tmp_path: Path) -> Settings:
    for name in LOCKS:
        (tmp_path / "checkout" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "checkout" / name).write_text(LOCK.replace("by uv", name))
    return project(tmp_path / "checkout")


def first(folder: Path, *letters: str, locks: dict[str, str] | None = None) -> BundleManifest:
    """A bundle with these wheels for each lock."""
    content = {
        f"{where}/{one}-1-py3-none-any.whl": one.encode()
        for where in LOCKS.values()
        for one in letters
    }
    found = described(folder / "first", {**CONTENT, **content})
    return replace(found, engine=(BASE,), locks=locks or {})


def fetch(settings: Settings, folder: Path, before: BundleManifest | None) -> list[str]:
    client: Any = None
    return [one.path for one in wheels.fetch(settings, client, BASE, folder / "parts", before)]


def locks(settings: Settings) -> dict[str, str]:
    found = {name: (settings.root / name).read_bytes() for name in LOCKS}
    return {name: hashlib.sha256(content).hexdigest() for name, content in found.items()}


def test_a_whole_bundle_has_all_of_them(
    ours: Settings, tmp_path: Path, asked: dict[str, str]
) -> None:
    assert fetch(ours, tmp_path, None) == []
    assert len(asked["own"]) == len(LOCK) - len("# by uv\n")


def test_what_the_first_has_by_digest_is_left_out(
    ours: Settings, tmp_path: Path, asked: dict[str, str]
) -> None:
    carried = fetch(ours, tmp_path, first(tmp_path, "a"))
    assert {f"{where}/a-1-py3-none-any.whl" for where in LOCKS.values()} <= set(carried)
    assert "a==1.0" not in asked["own"]
    assert "b==2.0" in asked["own"]
    assert 'sys_platform == "linux"' in asked["own"]


def test_the_same_locks_ask_for_nothing(
    ours: Settings, tmp_path: Path, asked: dict[str, str]
) -> None:
    # b is not in it: it was for another system when the first was made.
    assert fetch(ours, tmp_path, first(tmp_path, "a", locks=locks(ours)))
    assert asked == {}


def test_another_system_or_base_has_wheels_of_its_own(
    ours: Settings, tmp_path: Path, asked: dict[str, str]
) -> None:
    found = first(tmp_path, "a", "b", locks=locks(ours))
    other = replace(found, system=replace(found.system, python="3.99"))
    assert fetch(ours, tmp_path, other) == []
    assert set(asked) == {"own", "agents", "demo"}
    asked.clear()
    carried = fetch(ours, tmp_path, replace(found, engine=()))
    assert set(asked) == {"demo"}
    assert not any(path.startswith(LOCKS["serve_hostname/requirements.lock"]) for path in carried)


def test_nothing_is_left_of_a_lock_whose_wheels_are_there() -> None:
    assert wheels.missing(LOCK, {OTHER, B}) == ""
    assert wheels.missing(LOCK, set()) == LOCK.partition("\n")[2]
