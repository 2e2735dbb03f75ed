"""What looks at nodes are told as: differences, history, findings, facts beside the state."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.wire.faults import Fault
from agent.wire.report import FAILED, HostResult
from agent.wire.verbs import named
from moorage.archive import AgentArchive
from moorage.fleet import report
from moorage.fleet.report import FleetReport
from moorage.fleet.rollout import on_host
from moorage.fleet.rollout.fleet import Fleet
from moorage.fleet.rollout.operation import Operation, Reach, report_of
from moorage.fleet.rollout.rollout import HostOutcome
from moorage.fleet.ssh import session as ssh
from moorage.fleet.ssh.routes import Route
from moorage.pki.authority import Authority
from moorage.pki.roster import Resident, Roster
from moorage.settings import CertsSettings, NodesSettings, Settings
from moorage.ui import UI

RECORD: dict[str, Any] = {
    "number": 2, "time": "2026-11-25T00:00:00Z", "operation": "apply", "by": "ada",
    "registry": "my.registry.io", "from": "10.3.3.3", "agent": "1", "undone_by": 3,
    "changes": [{"path": "/etc/hosts", "action": "edited"}], "restarts": ["containerd.service"],
}  # fmt: skip
FINDING = {"part": "containerd", "strategy": "folder", "applies": True, "why": "config_path is set"}
FACTS = {"event": "facts", "runtime": "containerd 1.7.24"}
WIDE = "200"


def told(name: str, *events: dict[str, Any], status: str = "unchanged") -> FleetReport:
    outcome = HostOutcome(HostResult("node1", status), (FACTS, *events))
    return report_of([outcome], Operation(named(name)), 0, "")


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", WIDE)


def test_a_difference_is_shown_and_is_not_ok(capsys: pytest.CaptureFixture[str]) -> None:
    diff = "--- /etc/hosts\n+++ /etc/hosts\n@@ -1 +1,2 @@\n a\n+b\n"
    change = {"event": "change", "path": "/etc/hosts", "action": "edited", "diff": diff}
    found = told("diff", change, status="differs")
    assert found.ok is False
    assert found.to_json()["diffs"]["node1"]["/etc/hosts"].startswith("--- node1:/etc/hosts")
    assert "dry_run" not in found.to_json()
    UI().present(report.parts(found))
    out = capsys.readouterr().out
    assert "+b" in out
    assert "differs" in out


def test_history_is_a_row_a_change(capsys: pytest.CaptureFixture[str]) -> None:
    found = told("history", {"event": "history", "records": [RECORD]})
    assert found.to_json()["histories"] == {"node1": [RECORD]}
    UI().present(report.history_parts(found))
    row = next(line for line in capsys.readouterr().out.splitlines() if "node1" in line)
    for word in ("2026-11-25", "apply, undone by 3", "ada from 10.3.3.3", "edited /etc/hosts"):
        assert word in row


def test_a_node_without_a_history_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    found = told("history", {"event": "history", "records": []})
    UI().present(report.history_parts(found))
    assert "node1: nothing was ever done here" in capsys.readouterr().out


def test_findings_are_a_table_a_node(capsys: pytest.CaptureFixture[str]) -> None:
    other = {**FINDING, "strategy": "drop-in", "applies": False, "why": "no imports"}
    found = told("explain", {"event": "explain", "findings": [FINDING, other]})
    assert found.to_json()["findings"]["node1"] == [FINDING, other]
    UI().present(report.finding_parts(found))
    out = capsys.readouterr().out
    assert "node1: containerd 1.7.24" in out
    taken, refused = (
        next(line for line in out.splitlines() if word in line) for word in ("folder", "drop-in")
    )
    assert "taken" in taken
    assert "taken" not in refused


def test_a_node_that_failed_is_told_with_its_cure(capsys: pytest.CaptureFixture[str]) -> None:
    fault = Fault("not-root", "it cannot be read", "no right", "run it through sudo")
    outcome = HostOutcome(HostResult("node1", FAILED, error=fault))
    found = report_of([outcome], Operation(named("explain")), 0, "")
    for parts in (report.finding_parts, report.history_parts):
        UI().present(parts(found))
        assert "run it through sudo" in capsys.readouterr().out


def test_many_are_asked_over_https_and_few_logged_in_to_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stands in for SSH alone: a session that is counted, and refused."""
    guard, now, most = threading.Lock(), 0, 0

    @contextlib.contextmanager
    def connect(route: Route) -> Iterator[ssh.Session]:
        nonlocal now, most
        with guard:
            now += 1
            most = max(most, now)
        try:
            time.sleep(0.02)
            raise ssh.Unreachable("refused", "no", cause="c", cure="d")
            yield
        finally:
            with guard:
                now -= 1

    monkeypatch.setattr(ssh, "connect", connect)
    settings = Settings(
        certs=CertsSettings(dir=str(tmp_path)), nodes=NodesSettings(parallel=3, retries=0)
    )
    Authority.open(settings)
    closed = Resident("a" * 32, 1, "1", int(time.time()) + 90 * 86400)
    Roster(settings).put("127.0.0.1", closed)  # nothing listens on port 1
    what = Operation(named("status"))
    archive = AgentArchive(tmp_path, "0" * 64)
    means = on_host.HostMeans.of(settings, what, archive, Reach(), ())
    assert means.at_once == on_host.ASKED_AT_ONCE
    apply = dataclasses.replace(what, verb=named("apply"))
    assert on_host.HostMeans.of(settings, apply, archive, Reach(), ()).at_once == 3
    names = ["127.0.0.1", *(f"10.9.8.{number}" for number in range(1, 40))]
    found = Fleet(settings, UI()).carry_out(what, names)
    assert {result.status for result in found.hosts} == {"unreachable"}
    assert most == 3
