"""Whom the operator believes, with real agents: the fleet's CA, clocks, versions, the forgotten."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import ssl
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.wire.report import HostResult
from agent.wire.verbs import Call, named
from moorage.errors import MoorageError, Refused
from moorage.fleet.report import FleetReport
from moorage.fleet.residents import channel, invitation, notes
from moorage.fleet.residents.residence import Residents
from moorage.fleet.rollout.fleet import Fleet
from moorage.pki.authority import CLOCK_SECONDS, Authority
from moorage.pki.roster import Resident, Roster
from moorage.settings import ROOT, CertsSettings, Settings
from moorage.ui import UI
from tests.adopted import IDENTITY, Agent, Folder, adopt, adopted
from tests.agent.conftest import Box
from tests.ports import free_port

HOUR = timedelta(hours=1)


@pytest.fixture
def ui() -> UI:
    return UI(as_json=True)


def status(folder: Folder, ui: UI) -> FleetReport:
    no_waiting = dataclasses.replace(folder.settings.nodes, retries=0)
    settings = dataclasses.replace(folder.settings, nodes=no_waiting)
    return Fleet(settings, ui).run("status", [folder.target])


def code(report: FleetReport) -> str:
    fault = report.hosts[0].error
    assert fault is not None, report
    assert fault.cause, fault
    assert fault.cure, fault
    return fault.code


def at(path: Path) -> Settings:
    """Another folder's operator."""
    return Settings(certs=CertsSettings(dir=str(path)))


# -- the fleet's CA --------------------------------------------------------------------------------


def roster_of(settings: Settings) -> Roster:
    """One with an agent in it, of a CA that was made for it."""
    Authority.open(settings)
    roster = Roster(settings)
    roster.put("node1", Resident("a" * 32, 7443, "1", int(time.time()) + 1000))
    return roster


def files(folder: Path) -> dict[str, bytes]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.name: path.read_bytes() for path in found if not path.name.endswith(".lock")}


def test_a_ca_that_is_lost_is_not_made_anew_while_agents_obey_it(tmp_path: Path) -> None:
    settings = at(tmp_path)
    roster = roster_of(settings)
    for name in ("ca.crt", "ca.key"):
        (tmp_path / "fleet" / name).unlink()
    before = files(tmp_path)
    with pytest.raises(Refused) as refusal:
        Authority.open(settings)
    assert (refusal.value.code, refusal.value.exit_code) == ("fleet-ca-missing", 2)
    assert "nothing was changed" in refusal.value.message
    assert "inv nodes.adopt" in refusal.value.cure
    with pytest.raises(Refused, match="an agent stays"):
        Residents(settings)
    assert files(tmp_path) == before
    assert roster.revoke("node1")  # which takes no CA
    assert Authority.open(settings).pem


def test_another_folders_ca_is_not_used_for_our_agents(tmp_path: Path) -> None:
    ours, theirs = at(tmp_path / "ours"), at(tmp_path / "theirs")
    roster_of(ours)
    Authority.open(theirs)
    for name in ("ca.crt", "ca.key", "operator.crt", "operator.key"):
        shutil.copy(tmp_path / "theirs/fleet" / name, tmp_path / "ours/fleet" / name)
    before = files(tmp_path)
    with pytest.raises(Refused) as refusal:
        Residents(ours)
    assert (refusal.value.code, refusal.value.exit_code) == ("fleet-ca-foreign", 2)
    assert "put certs/fleet back" in refusal.value.cure
    assert files(tmp_path) == before


def test_a_roster_from_before_it_named_its_ca_is_taken_for_the_present_ones(
    tmp_path: Path,
) -> None:
    settings = at(tmp_path)
    roster_of(settings)
    path = tmp_path / "fleet/nodes.json"
    document = json.loads(path.read_bytes())
    del document["authority"]
    path.write_text(json.dumps(document))
    Authority.open(settings)
    assert Roster(settings).authority


@pytest.mark.parametrize("lost", [("ca.crt", "ca.key"), ("ca.key",)])
def test_a_command_without_its_ca_is_refused_whole(tmp_path: Path, lost: tuple[str, ...]) -> None:
    settings = at(tmp_path)
    roster_of(settings)
    for name in lost:
        (tmp_path / "fleet" / name).unlink()
    before = files(tmp_path)
    done = subprocess.run(
        [str(Path(sys.executable).with_name("inv")), "nodes.status", "--hosts=node1,node2",
         "--json"],
        cwd=ROOT, env={**os.environ, "INVOKE_CERTS_DIR": str(tmp_path)}, capture_output=True,
        text=True, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "fleet-ca-missing"
    assert error["cause"]
    assert error["cure"]
    assert "Traceback" not in done.stderr
    assert files(tmp_path) == before


def test_an_agent_of_another_fleet_is_told_with_its_cure(
    folder: Folder, ui: UI, tmp_path: Path
) -> None:
    other = at(tmp_path / "other")
    roster_of(other)
    Roster(other).put("127.0.0.1", Roster(folder.settings).residents()["127.0.0.1"])
    ours = dataclasses.replace(folder.settings, certs=other.certs)
    report = Fleet(ours, ui).run("status", [folder.target])
    assert code(report) == "not-our-agent"
    assert "refused" in folder.agent.log.read_text()


# -- clocks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("begun", "expected", "words"),
    [
        (2 * HOUR, "clock-skew", "not valid yet"),  # the node was adopted by a clock ahead of ours
        (timedelta(days=-91), "agent-certificate-ended", "has ended"),
        (HOUR / 2, "", ""),
    ],
)
def test_a_nodes_certificate_by_a_clock_that_differs(
    tmp_path: Path, ui: UI, begun: timedelta, expected: str, words: str
) -> None:
    with adopted(tmp_path, begun=begun, ca_begun=timedelta(days=-500)) as folder:
        report = status(folder, ui)
        if not expected:
            assert report.ok
            return
        assert code(report) == expected
        assert words in (report.hosts[0].error or pytest.fail()).message
        assert "timedatectl" in (report.hosts[0].error or pytest.fail()).cure


@pytest.mark.parametrize("begun", [2 * HOUR, timedelta(days=-400)])
def test_an_operators_certificate_by_a_clock_that_differs(
    tmp_path: Path, begun: timedelta, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a node sees it whose clock is two hours behind, or more than a year ahead."""
    with adopted(tmp_path, ca_begun=timedelta(days=-500)) as folder:
        authority = Authority.open(folder.settings)
        authority._make_operator(1, datetime.now(UTC) + begun)
        resident = Roster(folder.settings).residents()["127.0.0.1"]
        line = channel.straight("node1", "127.0.0.1", resident, authority.context())
        with contextlib.closing(line), pytest.raises(channel.RefusesUs, match="timedatectl"):
            line.ask("GET", "/healthz")
        deadline = time.monotonic() + 10
        while "its certificate: certificate" not in folder.agent.log.read_text():
            assert time.monotonic() < deadline, folder.agent.log.read_text()
            time.sleep(0.05)


def test_an_agent_that_refuses_us_is_told_of_and_asked_another_way(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    authority = Authority.open(folder.settings)
    authority._make_operator(1, datetime.now(UTC) + 2 * HOUR)
    report = status(folder, UI())
    assert report.hosts[0].status == "unreachable"  # there is no SSH on this node
    said = capsys.readouterr().err
    assert "the agent on node1 closes the line unanswered" in said
    assert "timedatectl" in said


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("SSLV3_ALERT_CERTIFICATE_EXPIRED", "far ahead"),
        ("SSLV3_ALERT_BAD_CERTIFICATE", "is behind"),
        ("TLSV1_ALERT_UNKNOWN_CA", "another fleet CA"),
    ],
)
def test_an_alert_of_the_agent_is_a_sentence(folder: Folder, reason: str, words: str) -> None:
    line = Residents(folder.settings).open(folder.route)
    assert line is not None
    problem = ssl.SSLError(1, reason)
    problem.reason = reason
    told = line._closed(problem)
    line.close()
    assert isinstance(told, MoorageError)
    assert told.code == "agent-refuses-us"
    assert words in told.cause


@pytest.mark.parametrize("apart", [-3700, 3700])
def test_a_clock_an_hour_off_keeps_a_node_from_being_adopted(tmp_path: Path, apart: int) -> None:
    settings = at(tmp_path)
    asked = {"event": "request", "id": "b" * 32, "request": "", "time": int(time.time()) + apart}
    assert abs(apart) > CLOCK_SECONDS
    with pytest.raises(MoorageError) as refusal:
        invitation.granted(Authority.open(settings), "b" * 32, asked, 7443)
    assert refusal.value.code == "clock-skew"
    assert "1.0 hours " + ("ahead of" if apart > 0 else "behind") in refusal.value.message


# -- versions --------------------------------------------------------------------------------------


def test_an_agent_that_is_newer_than_the_operator_changes_nothing_by_it(
    tmp_path: Path, ui: UI
) -> None:
    with adopted(tmp_path, version="9.0.0") as folder:
        before = folder.box.files()
        plan = json.dumps(folder.box.document()).encode()
        for call in (
            Call(named("apply")),
            Call(named("untrust")),
            Call(named("apply"), dry_run=True),
        ):
            with Residents(folder.settings).line(folder.route) as line:
                assert line is not None
                with pytest.raises(MoorageError) as refusal:
                    line.operate(call, plan, lambda _: None, 60)
            assert refusal.value.code == "agent-newer"
            assert "9.0.0" in refusal.value.message
            assert "git pull" in refusal.value.cure
            assert "--downgrade" in refusal.value.cure
        assert folder.box.files() == before
        report = status(folder, ui)  # which asks, and changes nothing
        assert report.ok
        assert report.states["node1"]["resident"]["compared"] == "newer"


def test_an_agent_that_is_older_takes_the_operators_plan(tmp_path: Path) -> None:
    with adopted(tmp_path, version="0.0.1") as folder:
        folder.apply()


# -- the forgotten ---------------------------------------------------------------------------------


def test_a_forgotten_agents_certificate_is_believed_by_no_command(folder: Folder, ui: UI) -> None:
    assert status(folder, ui).ok
    kept = (Path(folder.settings.certs_dir) / "fleet/nodes.json").read_bytes()
    assert Fleet(folder.settings, ui).forget([folder.target], offline=True) == {
        "node1": "left-alone"
    }
    assert folder.agent.process.poll() is None
    assert code(status(folder, ui)) != ""
    # Not even where the roster of before is mixed into the one of now.
    path = Path(folder.settings.certs_dir) / "fleet/nodes.json"
    document = json.loads(path.read_bytes())
    document["nodes"] = json.loads(kept)["nodes"]
    path.write_text(json.dumps(document))
    assert Roster(folder.settings).residents() == {}
    assert Residents(folder.settings).open(folder.route) is None


def test_a_stolen_key_of_a_forgotten_node_is_not_taken_for_its_successors(
    folder: Folder, ui: UI, tmp_path: Path
) -> None:
    """The thief serves on where the node was, with its key; the node itself was adopted again."""
    roster = Roster(folder.settings)
    Fleet(folder.settings, ui).forget([folder.target], offline=True)
    identity = roster.identity("127.0.0.1", IDENTITY)
    assert identity != IDENTITY
    other = Box(tmp_path / "again", folder.box.ca)
    made = adopt(Authority.open(folder.settings), other.root, identity, "127.0.0.1", folder.port)
    roster.put("127.0.0.1", made)
    report = status(folder, ui)
    assert code(report) == "not-our-agent"
    assert "another node's" in (report.hosts[0].error or pytest.fail()).message


def test_a_node_out_of_reach_is_forgotten_all_the_same(
    folder: Folder, ui: UI, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.agent.stop()
    began = time.monotonic()
    assert Fleet(folder.settings, ui).forget([folder.target]) == {"node1": "not-reached"}
    assert time.monotonic() - began < 15
    assert Roster(folder.settings).revoked() == {IDENTITY}
    assert Fleet(folder.settings, ui).forget([folder.target]) == {"node1": "no-agent"}


def test_forgetting_works_where_nothing_else_does(tmp_path: Path, ui: UI) -> None:
    settings = at(tmp_path)
    roster_of(settings)
    (tmp_path / "fleet/ca.key").unlink()
    broken = tmp_path / "ssh_config"
    broken.write_text("Host a\n  Nonsense\n")
    nodes = dataclasses.replace(settings.nodes, ssh_config=str(broken))
    settings = dataclasses.replace(settings, nodes=nodes)
    assert Fleet(settings, ui).forget(["node1"]) == {"node1": "not-reached"}
    assert Roster(settings).revoked() == {"a" * 32}


def test_a_node_gets_no_number_but_its_own_or_a_new_one(tmp_path: Path) -> None:
    settings = at(tmp_path)
    roster = roster_of(settings)
    assert roster.identity("node1", "a" * 32) == "a" * 32
    # Another node asks for node1's, to answer in its name.
    assert roster.identity("node2", "a" * 32) not in ("", "a" * 32)
    roster.revoke("node1")
    assert roster.identity("node1", "a" * 32) != "a" * 32


def test_an_agent_that_was_adopted_anew_is_known_by_its_former_names_no_more(
    tmp_path: Path,
) -> None:
    roster = roster_of(at(tmp_path))
    old = roster.residents()["node1"]
    roster.put("10.0.0.7", old)
    roster.put("other", dataclasses.replace(old, id="c" * 32))
    new = dataclasses.replace(old, id="b" * 32)
    roster.put("alias", new, instead_of=old.id)
    found = roster.residents()
    assert found == {"alias": new, "other": dataclasses.replace(old, id="c" * 32)}


@pytest.mark.parametrize("words", [[], ["--limit=lab1"]])
def test_forget_takes_no_nodes_but_named_ones(words: list[str]) -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("inv")), "nodes.forget", *words, "--json"],
        cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["code"] == "no-hosts"


def test_two_nodes_with_one_address_after_another_are_told_apart(
    folder: Folder, ui: UI, tmp_path: Path
) -> None:
    """An address that was given to another node of the same fleet."""
    folder.agent.stop()
    other = Box(tmp_path / "other", folder.box.ca)
    adopt(Authority.open(folder.settings), other.root, "2" * 32, "127.0.0.1", folder.port)
    agent = Agent(other.root, "127.0.0.1", folder.port)
    try:
        assert code(status(folder, ui)) == "not-our-agent"
    finally:
        agent.stop()
        folder.agent.start()
    assert free_port() != folder.port


def test_a_dry_run_says_where_an_agent_would_stay(tmp_path: Path) -> None:
    settings = at(tmp_path)
    Roster(settings).put("b", Resident("b" * 32, 7443, "1", 2_000_000_000))
    results = [HostResult("a", "changed"), HostResult("b", "unchanged"), HostResult("c", "failed")]
    said = notes.foretold(settings, ["a", "b", "c"], results)
    assert "an agent would stay on a," in said
    assert "--once" in said
    assert notes.foretold(settings, ["b"], results) == ""
