"""`inv doctor`: what keeps a check from looking is a finding, and never the end of the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from moorage.errors import MoorageError, Refused
from moorage.pki import registry as pki
from moorage.settings import NodesSettings
from moorage.supply import loaded
from moorage.ui import UI
from moorage.walk import doctor
from moorage.walk.doctor import Finding
from tests.unit.elsewhere import project

UI_ = UI(as_json=True)


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """No engine is asked: its socket is one that is not there."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")


def by_what(findings: list[Finding]) -> dict[str, Finding]:
    return {one.what: one for one in findings}


def test_an_engine_that_does_not_answer_is_one_finding_among_others(tmp_path: Path) -> None:
    found = by_what(doctor.examine(project(tmp_path), UI_))
    assert found["engine"].state == "wrong"
    assert "DOCKER_HOST" in found["engine"].cure
    assert found["certificates"] == Finding(
        "certificates", "missing", "none issued yet", "inv certs.issue"
    )
    assert found["system"].state == found["disk"].state == "fine"


def test_a_file_of_somebody_else_is_one_finding_among_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = project(tmp_path)

    def locked(_settings: object) -> list[object]:
        raise PermissionError(13, "Permission denied", str(settings.certs_dir / "ca.crt"))

    pki.issue(settings)
    monkeypatch.setattr(pki, "pending", locked)
    found = by_what(doctor.examine(settings, UI_))
    assert found["certificates"].state == "wrong"
    assert str(settings.certs_dir / "ca.crt") in found["certificates"].found
    assert found["system"].state == "fine"


def test_nodes_that_are_named_are_never_passed_over_in_silence(tmp_path: Path) -> None:
    found = by_what(doctor.examine(project(tmp_path), UI_, "node1,node2"))
    assert (found["nodes"].state, found["nodes"].cure) == ("missing", "inv up")
    with pytest.raises(Refused):
        doctor.examine(project(tmp_path), UI_, "node1,node1")


def test_a_missing_login_is_said_of_the_nodes(tmp_path: Path) -> None:
    settings = project(tmp_path, nodes=NodesSettings(hosts=("node1",)))
    pki.issue(settings)
    found = by_what(doctor.examine(settings, UI_))
    assert found["nodes"].state == "wrong"
    assert found["nodes"].cure == "inv registry.up"


def test_what_a_check_refuses_keeps_its_cure() -> None:
    def broken() -> list[Finding]:
        raise MoorageError("x", "it is broken", cause="why", cure="mend it")

    assert doctor._looked("it", broken) == [Finding("it", "wrong", "it is broken: why", "mend it")]


def test_without_sudo_the_cure_is_one_that_works_where_a_bundle_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", str(tmp_path))
    (found,) = doctor._root(project(tmp_path))
    assert "apt-get install sudo" in found.cure
    monkeypatch.setattr(loaded, "current", lambda _: object())
    (found,) = doctor._root(project(tmp_path))
    assert found.cure.startswith("become root")
