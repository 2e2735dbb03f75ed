"""What a restart would stop on nodes is asked once, and only the nodes that want it go again.

The agent is stood in for by what it answers: it refuses unless its plan says it was agreed to.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.wire.faults import Fault
from agent.wire.report import CHANGED, FAILED, HostResult
from agent.wire.verbs import named
from moorage.archive import AgentArchive
from moorage.errors import Refused
from moorage.fleet.report import FleetReport, agreement
from moorage.fleet.report.waves import ALL_AT_ONCE, Policy
from moorage.fleet.rollout import on_host
from moorage.fleet.rollout.fleet import Fleet
from moorage.fleet.rollout.operation import Operation
from moorage.fleet.rollout.rollout import HostLine
from moorage.fleet.ssh.routes import Route
from moorage.settings import NodesSettings, Settings
from moorage.tasks import on_nodes
from moorage.tasks.command import Run
from moorage.ui import UI

WHY = "nothing was touched: containerd.service has KillMode=control-group: its restart ends 1 (web)"
REFUSAL = Fault(agreement.CODE, WHY, "a restart is needed", "inv nodes.trust --yes")
# Of each node, whether its plan had the agreement, in the order they were gone to.
Gone = list[tuple[str, bool]]


@pytest.fixture
def gone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Gone:
    """Nodes whose name begins with `busy` have something running; `broken` ones fail."""
    seen: Gone = []

    def work(means: on_host.HostMeans, route: Route, line: HostLine) -> HostResult:
        seen.append((route.name, means.operation.stop_running))
        if route.name.startswith("broken"):
            return HostResult(route.name, FAILED, error=Fault("disk-full", "it is full"))
        if route.name.startswith("busy") and not means.operation.stop_running:
            return HostResult(route.name, FAILED, error=REFUSAL)
        return HostResult(route.name, CHANGED)

    monkeypatch.setattr(on_host, "_by_ssh", work)
    archive = AgentArchive(tmp_path / "agent.pyz", "0" * 64)
    monkeypatch.setattr("moorage.archive.errand_archive", lambda _: archive)
    return seen


def run(
    hosts: str, ui: UI, settings: Settings | None = None, policy: Policy | None = None
) -> FleetReport:
    fleet = Fleet(settings or Settings(), ui)
    return fleet.carry_out(Operation(named("apply")), hosts.split(","), policy or ALL_AT_ONCE)


def on_terminal(monkeypatch: pytest.MonkeyPatch, answer: str) -> list[str]:
    """A person who answers; gives what was asked."""
    asked: list[str] = []

    def confirm(self: UI, actions: list[str], *, question: str = "") -> None:
        asked.extend(actions)
        if answer != "y":
            raise Refused("not-confirmed", "no")

    monkeypatch.setattr(UI, "interactive", True)
    monkeypatch.setattr(UI, "confirm", confirm)
    return asked


def statuses(report: FleetReport) -> list[str]:
    return [result.status for result in report.hosts]


def test_yes_sends_the_agreement_only_to_those_that_want_it(gone: Gone) -> None:
    report = run("busy1,idle1", UI(yes=True))
    assert statuses(report) == [CHANGED, CHANGED]
    assert sorted(gone) == [("busy1", False), ("busy1", True), ("idle1", False)]


def test_the_setting_agrees_as_yes_does(gone: Gone) -> None:
    report = run("busy1", UI(), Settings(nodes=NodesSettings(confirm=False)))
    assert statuses(report) == [CHANGED]


def test_on_a_terminal_it_is_asked_once_for_all(
    gone: Gone, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = on_terminal(monkeypatch, "y")
    report = run("busy1,idle1,busy2", UI())
    assert statuses(report) == [CHANGED] * 3
    assert asked == [f"{name}: {WHY.partition(': ')[2]}" for name in ("busy1", "busy2")]
    assert sorted(gone)[:2] == [("busy1", False), ("busy1", True)]
    assert gone.count(("idle1", False)) == 1


@pytest.mark.parametrize("terminal", [True, False])
def test_a_no_or_nobody_to_ask_leaves_those_nodes_alone_and_ends_with_2(
    gone: Gone, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    if terminal:
        on_terminal(monkeypatch, "n")
    report = run("busy1,idle1", UI())
    assert statuses(report) == [FAILED, CHANGED]
    assert all(not agreed for _, agreed in gone)
    refusal = agreement.refusal(report)
    assert refusal is not None
    assert refusal.exit_code == 2
    assert "busy1" in refusal.message
    assert "--yes" in refusal.cure


def test_another_failure_beside_it_is_a_failure(gone: Gone) -> None:
    assert agreement.refusal(run("busy1,broken1", UI())) is None
    assert agreement.refusal(run("idle1", UI())) is None


def test_a_canary_that_wants_to_be_asked_ends_no_rollout_that_was_agreed_to(
    gone: Gone, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = ",".join(f"busy{number}" for number in range(12))
    assert statuses(run(hosts, UI(yes=True), policy=Policy())) == [CHANGED] * 12
    gone.clear()
    on_terminal(monkeypatch, "y")
    report = run(hosts, UI(), policy=Policy())
    assert statuses(report) == [CHANGED] * 12
    assert report.halted == ""
    assert gone[0] == ("busy0", False)
    assert len(gone) == 13  # the canary twice, the others once: they had not been begun


def test_a_recovery_is_agreed_to_on_the_agents_command_line() -> None:
    agreed = Operation(named("recover")).agreed()
    assert agreed.call.words == ("recover", "--stop-running")


def test_the_task_gives_one_document_with_the_nodes_and_the_refusal(
    gone: Gone, capsys: pytest.CaptureFixture[str]
) -> None:
    ui = UI(as_json=True)
    cluster, waves = (
        on_nodes.ClusterChoice(False, "", "", ""),
        on_nodes.Waves(None, None, None, False),
    )
    nodes = on_nodes.Nodes(
        Run(Settings(), ui), None, "", "", "", cluster, False, False, "", "nodes.trust", waves
    )
    with pytest.raises(Refused):
        nodes.told(run("busy1,idle1", ui))
    document = json.loads(capsys.readouterr().out)
    assert [host["status"] for host in document["hosts"]] == [FAILED, CHANGED]
    assert document["error"]["code"] == "not-confirmed"
    assert ui.documented


def test_what_does_not_run_any_more_is_told_below_the_table(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from moorage.fleet import report

    stopped = HostResult("busy1", CHANGED, stopped=("docker/web",))
    UI().present(report.host_parts([stopped], {}))
    assert "busy1: not running since the restart: docker/web" in capsys.readouterr().out


def test_an_agent_from_before_tells_nothing_of_it() -> None:
    document = HostResult("a", CHANGED).to_json()
    del document["stopped"]
    assert HostResult.from_json(document).stopped == ()
