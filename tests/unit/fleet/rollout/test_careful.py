"""A careful rollout: waves in order, stopped in time, written down, gone on with, and reported."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from agent.wire.faults import Fault
from agent.wire.report import CHANGED, FAILED, UNCHANGED, FileChange, HostResult
from moorage import fleet
from moorage.errors import MoorageError, Refused
from moorage.fleet.inventory import Target
from moorage.fleet.report import FleetReport, causes, failures, logbook, parts, report_file
from moorage.fleet.report.board import Board
from moorage.fleet.report.waves import Policy, schedule
from moorage.fleet.rollout.fleet import Fleet, Pace
from moorage.fleet.rollout.operation import Operation
from moorage.fleet.rollout.rollout import HostLine, HostOutcome, Rollout, Work
from moorage.fleet.ssh import retry
from moorage.fleet.ssh.session import Unreachable
from moorage.tasks.command import Run
from moorage.tasks.on_nodes import ClusterChoice, Nodes, Waves
from moorage.ui import UI
from tests.unit.elsewhere import project

BROKEN = Fault("trust-failed", "the pull failed", cause="x509", cure="inv doctor")


def names(count: int) -> list[str]:
    return [f"node{number:02}" for number in range(1, count + 1)]


def rollout(
    count: int, policy: Policy, bad: Callable[[str], bool], order: list[str]
) -> tuple[list[HostResult], Rollout]:
    guard = threading.Lock()

    def work(line: HostLine) -> HostResult:
        with guard:
            order.append(line.name)
        fails = bad(line.name)
        return HostResult(line.name, FAILED if fails else CHANGED, error=BROKEN if fails else None)

    works: list[tuple[str, Work]] = [(name, work) for name in names(count)]
    run = Rollout(works, 4, schedule(policy, count))
    outcomes, stopped = run.run(UI(), "try")
    assert stopped == 0
    return [outcome.result for outcome in outcomes], run


def test_no_wave_begins_before_the_one_before_it_is_done() -> None:
    order: list[str] = []
    results, run = rollout(20, Policy(canary=2, waves="50%,100%"), lambda _: False, order)
    assert sorted(order[:2]) == names(2)
    assert sorted(order[2:11]) == names(11)[2:]
    assert [result.host for result in results] == names(20)
    assert run.halted == ""


def test_a_failed_canary_leaves_all_others_alone() -> None:
    order: list[str] = []
    results, run = rollout(20, Policy(), lambda name: name == "node01", order)
    assert order == ["node01"]
    assert run.halted == "the canary failed"
    assert {result.error.code for result in results[1:] if result.error} == {"not-begun"}
    assert all("--resume" in result.error.cure for result in results[1:] if result.error)


def test_too_many_failures_stop_in_the_middle_of_a_wave() -> None:
    order: list[str] = []
    _, run = rollout(
        100, Policy(waves="100%", max_failures="2"), lambda name: name > "node10", order
    )
    assert run.halted == "3 hosts failed, 2 may"
    assert len(order) < 30  # those at work ended; no other was begun


def test_what_is_done_is_on_disk_and_is_not_done_again(tmp_path: Path) -> None:
    hosts = [Target(name, name, "ops", 2222) for name in names(3)]
    book = logbook.Logbook.begin(tmp_path / "rollouts", "trust a.io", hosts)
    book.result(HostResult("node01", CHANGED, changes=(FileChange("/etc/hosts", "edited"),)))
    book.result(HostResult("node02", FAILED, error=BROKEN))
    with book.path.open("a") as file:
        file.write('{"result": {"host": "node03", "sta')  # the operator was killed here
    found = logbook.newest(tmp_path / "rollouts", "trust a.io")
    assert found.hosts == tuple(hosts)
    assert found.settled == {"node01"}
    assert found.ended == "it was killed"
    with pytest.raises(Refused):
        logbook.newest(tmp_path / "rollouts", "untrust a.io")


def test_an_undo_goes_in_waves_and_is_resumed_as_the_same_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stands in for the nodes: an undo is asked for again by the same number, never by another."""
    asked: list[Operation] = []

    def run(
        fleet: Fleet, what: Operation, hosts: Sequence[Target], policy: Policy,
        begin: Callable[[], logbook.Logbook],
    ) -> FleetReport:  # fmt: skip
        asked.append(what)
        assert policy == Policy(canary=1)
        book = begin()
        results = [HostResult(hosts[0].name, CHANGED)]
        results += [HostResult(host.name, FAILED, error=BROKEN) for host in hosts[1:]]
        for result in results:
            book.result(result)
        book.end("the canary failed")
        return FleetReport(tuple(results))

    monkeypatch.setattr(Fleet, "carry_out", run)
    settings, policy = project(tmp_path), Policy(canary=1)
    Fleet(settings, UI()).run("undo", names(3), pace=Pace(policy))
    left = fleet.unfinished(settings, "undo")
    assert [target.name for target in left] == names(3)
    report = Fleet(settings, UI()).run("undo", left, pace=Pace(policy, resume=True))
    assert [result.host for result in report.hosts] == names(3)
    assert report.hosts[0].status == CHANGED
    assert len(asked[0].run) == 32
    assert asked[0].run == asked[1].run
    Fleet(settings, UI()).run("undo", names(3), pace=Pace(policy))
    assert asked[2].run != asked[0].run


def test_the_option_resume_means_the_nodes_of_the_run_that_was_stopped_and_no_others(
    tmp_path: Path,
) -> None:
    settings = project(tmp_path)
    book = logbook.Logbook.begin(
        settings.state / "rollouts", "untrust my.registry.io", [Target(n, n) for n in names(3)]
    )
    book.result(HostResult(names(3)[0], CHANGED))
    book.end("it was stopped")
    cluster, waves = ClusterChoice(False, "", "", ""), Waves(None, None, None, resume=True)
    chosen = Nodes(
        Run(settings, UI()),
        "elsewhere",
        "",
        "",
        "",
        cluster,
        False,
        False,
        "",
        "nodes.untrust",
        waves,
    )
    assert [target.name for target in chosen.to_change()] == names(3)


def test_a_rollout_that_came_to_its_end_cannot_be_resumed(tmp_path: Path) -> None:
    book = logbook.Logbook.begin(tmp_path, "trust a.io", [Target("a", "a")])
    book.result(HostResult("a", UNCHANGED))
    book.end("")
    with pytest.raises(Refused) as refusal:
        logbook.newest(tmp_path, "trust a.io")
    assert refusal.value.code == "nothing-to-resume"


def test_a_rollout_that_was_stopped_behind_its_last_host_has_nothing_left(tmp_path: Path) -> None:
    book = logbook.Logbook.begin(tmp_path, "trust a.io", [Target("a", "a")])
    book.result(HostResult("a", UNCHANGED))
    book.end("it was stopped")
    with pytest.raises(Refused) as refusal:
        logbook.newest(tmp_path, "trust a.io")
    assert refusal.value.code == "nothing-to-resume"


def test_of_two_rollouts_in_one_second_the_later_is_the_newest(tmp_path: Path) -> None:
    for _ in range(5):
        book = logbook.Logbook.begin(tmp_path, "trust a.io", [Target("a", "a")])
        assert logbook.newest(tmp_path, "trust a.io").path == book.path


def test_old_logbooks_go(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"20200101T0000{number:02}-1.jsonl").write_text("{}\n")
    logbook.Logbook.begin(tmp_path, "trust a.io", [Target("a", "a")])
    assert len(list(tmp_path.glob("*.jsonl"))) == logbook.KEPT


def test_a_broken_line_is_tried_again_and_a_refusal_is_not() -> None:
    def attempts(problem: MoorageError, retries: int) -> tuple[int, list[float], list[str]]:
        count, rests, words = 0, list[float](), list[str]()

        def work() -> HostResult:
            nonlocal count
            count += 1
            raise problem

        with pytest.raises(MoorageError):
            retry.with_retries(work, retries, rests.append, words.append)
        return count, rests, words

    count, rests, words = attempts(MoorageError("no-ssh", "hung up", cause="c", cure="d"), 2)
    assert count == 3
    assert len(rests) == len(words) == 2
    assert all(0 <= seconds <= 15 for seconds in rests)
    assert "hung up; once more in" in words[0]
    assert attempts(MoorageError("key-refused", "no", cause="c", cure="d"), 2)[0] == 1


def test_a_result_that_says_the_line_broke_is_tried_again_until_it_holds() -> None:
    lost = HostResult("a", FAILED, error=Fault("connection-lost", "lost", cause="c", cure="d"))
    answers = [lost, lost, HostResult("a", CHANGED)]
    result = retry.with_retries(lambda: answers.pop(0), 2, lambda _: None, lambda _: None)
    assert result.status == CHANGED
    assert retry.with_retries(lambda: lost, 1, lambda _: None, lambda _: None) == lost


def test_a_node_that_is_gone_after_its_line_broke_is_not_called_untouched() -> None:
    lost = HostResult("a", FAILED, error=Fault("connection-lost", "lost", cause="c", cure="d"))
    gone = Unreachable("refused", "a port 22 refuses", cause="c", cure="d")
    count = 0

    def work() -> HostResult:
        nonlocal count
        count += 1
        if count == 1:
            return lost
        raise gone

    result = retry.with_retries(work, 2, lambda _: None, lambda _: None)
    assert count == 3
    assert (result.status, (result.error or pytest.fail()).code) == (FAILED, "connection-lost")
    assert result.error is not None
    assert result.error.cause == "c; since then: a port 22 refuses"


def test_a_host_that_waits_for_another_attempt_when_it_is_stopped_was_begun() -> None:
    class Session:
        def close(self) -> None:
            pass

    resting = threading.Event()

    def work(line: HostLine) -> HostResult:
        with line.open(Session()):
            pass
        resting.set()
        line.rest(20)
        with line.open(Session()):
            raise AssertionError("it was stopped")

    rollout = Rollout([("a", work)], 1)

    def stop() -> None:
        resting.wait(20)
        rollout.messages.put(("", 2))

    threading.Thread(target=stop).start()
    (outcome,), _ = rollout.run(UI(as_json=True), "try")
    assert (outcome.result.error or pytest.fail()).code == "stopped-midway"


def test_the_board_tells_states_and_the_slowest() -> None:
    board = Board("trust 5 nodes", 5, "canary")
    board.begun("a", 10.0)
    board.begun("b", 12.0)
    board.heard("a", "restarting containerd.service", 13.0)
    board.ended("c", CHANGED)
    assert board.lines(20.0) == [
        "trust 5 nodes · canary · 1 changed · 2 under way · 2 waiting",
        "a    10 s  restarting containerd.service",
        "b     8 s  connecting",
    ]


def report_of_many() -> FleetReport:
    results = [HostResult(name, CHANGED, pull_seconds=0.5) for name in names(30)]
    results += [
        HostResult(
            f"db{number}",
            FAILED,
            error=Fault("disk-full", f"db{number}: <b>no</b> room", cause="c", cure="df -h"),
        )
        for number in range(1, 301)
    ]
    return FleetReport(tuple(results))


def test_three_hundred_equal_failures_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    report = report_of_many()
    assert [(one.count, one.names) for one in causes(report.hosts)] == [(300, "db[1-300]")]
    assert failures(report.hosts)[0].startswith("300 nodes (db[1-300]): NODE: <b>no</b> room")
    UI().present(parts(report))
    said = capsys.readouterr().out
    assert "node[01-30]" in said
    assert len(said.splitlines()) < 20


def test_the_report_is_written_for_programs_and_for_people(tmp_path: Path) -> None:
    document, page = report_file.write(report_of_many(), "nodes.trust", tmp_path / "out")
    assert len(json.loads(document.read_text())["hosts"]) == 330
    html = page.read_text()
    assert "&lt;b&gt;no&lt;/b&gt; room" in html  # a node's words are not ours
    assert "db[1-300]" in html


def test_where_no_report_can_be_written_is_known_before_anything_is_done(tmp_path: Path) -> None:
    report_file.require(tmp_path / "out")
    report_file.require(Path("out"))
    for stem in (tmp_path / "none" / "out", Path("/proc/out/out"), Path("/")):
        with pytest.raises(Refused):
            report_file.require(stem)
    # Afterwards it is a failure: exit code 2 would say that nothing was changed.
    with pytest.raises(MoorageError) as caught:
        report_file.write(report_of_many(), "nodes.trust", tmp_path / "none" / "out")
    assert caught.value.exit_code == 1


def test_json_lines_carry_every_event_and_the_report_last(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ui = UI(as_lines=True)

    def work(line: HostLine) -> HostResult:
        line.tell({"event": "change", "path": "/etc/hosts", "action": "edited", "diff": ""})
        return HostResult(line.name, CHANGED)

    Rollout([("a", work)], 1).run(ui, "try")
    ui.document({"ok": True})
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events] == ["change", "result", "report"]
    assert {event["host"] for event in events[:2]} == {"a"}


def test_told_hears_of_every_outcome() -> None:
    heard: list[HostOutcome] = []
    works: list[tuple[str, Work]] = [
        (name, lambda line: HostResult(line.name, UNCHANGED)) for name in names(3)
    ]
    Rollout(works, 2, None, heard.append).run(UI(), "try")
    assert sorted(outcome.result.host for outcome in heard) == names(3)
