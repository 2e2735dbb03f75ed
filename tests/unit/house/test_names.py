"""A class is known by its name: one that stands in two modules is taken for the other."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.house import measure
from tests.unit.house.measure import OURS, shared_names


def test_no_class_has_the_name_of_another() -> None:
    assert shared_names(*OURS) == {}


def test_two_classes_of_one_name_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "other"):
        (tmp_path / name).write_text("class Step:\n    class _Own:\n        pass\n")
    there = {f"agent.{path.name}": path for path in tmp_path.iterdir()}
    monkeypatch.setattr(measure, "modules", lambda: there)
    assert sorted(shared_names("agent")["Step"]) == ["agent.one", "agent.other"]
