"""Where a bundle is loaded, the cure for what a network would bring is a bundle's."""

from __future__ import annotations

from pathlib import Path

import pytest

from moorage.bundle import loading
from moorage.errors import MoorageError, Refused
from moorage.explanations import explanations
from moorage.settings import Settings
from moorage.supply import cures
from moorage.ui import UI
from tests.unit.bundle.made import bundle, with_locks


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return with_locks(tmp_path / "checkout")


@pytest.mark.parametrize("code", ["no-wheels", "agent-wheels", "no-network", "no-debian-base"])
def test_a_loaded_bundle_changes_the_cure(ours: Settings, tmp_path: Path, code: str) -> None:
    problem = MoorageError(code, "it cannot be had", cure="is an index reachable?")
    assert cures.advised(ours.root, problem).cure == "is an index reachable?"
    loading.load(ours, bundle(tmp_path), UI().progress)
    assert "inv bundle.load FILE" in cures.advised(ours.root, problem).cure
    loading.drop(ours)
    again = MoorageError(code, "it cannot be had", cure="is an index reachable?")
    assert cures.advised(ours.root, again).cure == "is an index reachable?"


def test_a_platform_without_a_wheel_is_not_the_networks() -> None:
    assert cures.cure_of(Refused("no-wheels", "there is none for it")) == ""
    assert cures.cure_of(MoorageError("port-taken", "it is")) == ""


def test_what_no_bundle_has_is_said() -> None:
    assert "./restic_*.deb" in cures.cure_of(Refused("no-restic", "it is not there"))
    assert "lab.kubernetes_binaries" in cures.cure_of(MoorageError("download-failed", "x"))


def test_each_explanation_has_a_way_without_a_network() -> None:
    for code in cures.CODES:
        assert "Without a network" in explanations()[code].cure, code
