"""Many hosts at once: order, bounds, failures that stay alone, and Ctrl-C once and twice."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from agent.wire.faults import Fault
from agent.wire.report import CHANGED, UNCHANGED, UNREACHABLE, FileChange, HostResult, Unproven
from moorage.errors import MoorageError
from moorage.fleet.report import FleetReport, failures, parts
from moorage.fleet.report.waves import Policy, schedule
from moorage.fleet.rollout.rollout import HostLine, Rollout, Work
from moorage.fleet.ssh.session import Unreachable
from moorage.ui import UI


def done(name: str) -> Work:
    return lambda line: HostResult(name, UNCHANGED)


def fails(problem: Exception) -> Work:
    def work(line: HostLine) -> HostResult:
        raise problem

    return work


def run(works: list[tuple[str, Work]], parallel: int = 4) -> tuple[list[HostResult], int]:
    outcomes, stopped = Rollout(works, parallel).run(UI(), "try")
    return [outcome.result for outcome in outcomes], stopped


def test_results_come_in_the_order_of_the_hosts() -> None:
    def slow(name: str, seconds: float) -> Work:
        def work(line: HostLine) -> HostResult:
            time.sleep(seconds)
            return HostResult(name, UNCHANGED)

        return work

    results, stopped = run([("a", slow("a", 0.1)), ("b", slow("b", 0)), ("c", slow("c", 0.05))])
    assert [result.host for result in results] == ["a", "b", "c"]
    assert not stopped


def test_no_more_hosts_than_allowed_are_worked_on_at_once() -> None:
    guard, now, most = threading.Lock(), 0, 0

    def work(line: HostLine) -> HostResult:
        nonlocal now, most
        with guard:
            now += 1
            most = max(most, now)
        time.sleep(0.02)
        with guard:
            now -= 1
        return HostResult(line.name, UNCHANGED)

    run([(f"n{number}", work) for number in range(12)], parallel=3)
    assert most == 3


def test_one_that_fails_does_not_stop_the_others() -> None:
    results, _ = run(
        [
            ("a", fails(Unreachable("timeout", "no answer", cause="c", cure="d"))),
            ("b", fails(MoorageError("agent-silent", "silent", cause="c", cure="d"))),
            ("c", fails(ZeroDivisionError("a defect"))),
            ("d", done("d")),
        ]
    )
    assert [result.status for result in results] == [UNREACHABLE, "failed", "failed", UNCHANGED]
    codes = [result.error.code for result in results if result.error]
    assert codes == ["timeout", "agent-silent", "defect"]
    assert results[2].error is not None
    assert "test_rollout.py" in results[2].error.cause


def interrupt_when(ready: Callable[[], bool]) -> threading.Thread:
    def work() -> None:
        _wait_until(ready)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


class Session:
    """What a host's work holds open, and what a second Ctrl-C closes."""

    def __init__(self) -> None:
        self.closed = threading.Event()

    def close(self) -> None:
        self.closed.set()


def test_ctrl_c_once_lets_the_hosts_under_way_end_and_begins_no_other() -> None:
    begun = threading.Event()

    def work(line: HostLine) -> HostResult:
        with line.open(Session()):
            begun.set()
            _wait_until(lambda: rollout.stopping)
        return HostResult(line.name, CHANGED)

    rollout = Rollout([("a", work), ("b", work), ("c", work)], 1)
    thread = interrupt_when(begun.is_set)
    outcomes, stopped = rollout.run(UI(), "try")
    thread.join()
    results = [outcome.result for outcome in outcomes]
    assert stopped == signal.SIGINT
    assert results[0].status == CHANGED
    codes = [result.error.code for result in results[1:] if result.error]
    assert codes == ["stopped", "stopped"]


def test_a_host_that_was_only_being_connected_to_is_not_begun_after_ctrl_c() -> None:
    connecting, go_on = threading.Event(), threading.Event()

    def work(line: HostLine) -> HostResult:
        connecting.set()
        go_on.wait()
        with line.open(Session()):
            return HostResult(line.name, CHANGED)

    rollout = Rollout([("a", work)], 1)
    thread = interrupt_when(connecting.is_set)

    def release() -> None:
        try:
            _wait_until(lambda: rollout.stopping)
        finally:
            go_on.set()

    releasing = threading.Thread(target=release)
    releasing.start()
    outcomes, stopped = rollout.run(UI(), "try")
    thread.join()
    releasing.join()
    assert stopped
    assert outcomes[0].result.error is not None
    assert outcomes[0].result.error.code == "stopped"


def test_ctrl_c_twice_cuts_the_lines_and_comes_back_at_once() -> None:
    session = Session()
    begun = threading.Event()

    def work(line: HostLine) -> HostResult:
        with line.open(session):
            begun.set()
            session.closed.wait(30)
        return HostResult(line.name, CHANGED)

    rollout = Rollout([("a", work), ("b", done("b"))], 1)
    first = interrupt_when(begun.is_set)
    second = interrupt_when(lambda: rollout.stopping)
    started = time.monotonic()
    outcomes, stopped = rollout.run(UI(), "try")
    first.join()
    second.join()
    assert stopped
    assert time.monotonic() - started < 5
    assert session.closed.wait(5)
    errors = [outcome.result.error for outcome in outcomes]
    assert [error.code for error in errors if error] == ["stopped-midway", "stopped"]


def _wait_until(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def report() -> FleetReport:
    lost = Fault("timeout", "{0} port 22 did not answer", "{0} is down", "ping {0}")

    def unreachable(host: str) -> HostResult:
        words = (text.format(host) for text in (lost.message, lost.cause, lost.cure))
        return HostResult(host, UNREACHABLE, error=Fault("timeout", *words))

    return FleetReport(
        hosts=(
            HostResult(
                "a",
                CHANGED,
                changes=(FileChange("/etc/hosts", "edited"),),
                restarts=("containerd.service",),
                verified=True,
                pull_seconds=1.25,
            ),
            unreachable("b"),
            unreachable("c"),
        ),
        runtimes={"a": "containerd 1.7.24"},
    )


def test_the_document_has_the_promised_shape() -> None:
    document = json.loads(json.dumps(report().to_json()))
    assert document["ok"] is False
    assert document["runtimes"] == {"a": "containerd 1.7.24"}
    assert set(document["hosts"][0]) == {
        "host",
        "status",
        "changes",
        "restarts",
        "verified",
        "pull_seconds",
        "error",
        "stopped",
        "unproven",
    }
    assert "diffs" not in document
    dry = FleetReport(hosts=(), dry_run=True, diffs={"a": {"/etc/hosts": "diff"}})
    assert dry.to_json()["diffs"] == {"a": {"/etc/hosts": "diff"}}


def test_hosts_that_failed_alike_are_told_once() -> None:
    assert failures(report().hosts) == [
        "b, c: NODE port 22 did not answer [timeout]",
        "  cause: NODE is down",
        "  cure: ping NODE",
    ]


def test_the_table_shows_what_happened_where(monkeypatch: pytest.MonkeyPatch) -> None:
    ui = UI()
    out = io.StringIO()
    ui._result = Console(file=out, width=200)
    ui.present(parts(report()))
    row = next(line for line in out.getvalue().splitlines() if line.strip().startswith("a "))
    for cell in (
        "changed",
        "containerd 1.7.24",
        "edited /etc/hosts",
        "containerd.service",
        "1.2 s",
    ):
        assert cell in row


def half(*parts: str, host: str = "a", **more: Any) -> HostResult:
    unproven = tuple(Unproven(part, "nobody pulled") for part in parts)
    return HostResult(host, CHANGED, unproven=unproven, **more)


def told_as(*hosts: HostResult) -> str:
    ui = UI()
    out = io.StringIO()
    ui._result = Console(file=out, width=200)
    ui.present(parts(FleetReport(hosts)))
    return out.getvalue()


def test_what_is_not_proven_stands_in_the_table_and_below_it_once() -> None:
    said = told_as(half("k3s", pull_seconds=1.25), half("k3s", host="b"), half(host="c"))
    rows = [line for line in said.splitlines() if "changed" in line]
    assert ["not proven" in row for row in rows] == [False, False, True, False]  # a has two lines
    assert said.count("not proven") == 3
    assert "a, b: k3s is not proven, because nobody pulled" in said
    many = told_as(*(half("k3s", host=f"n{number}") for number in range(12)))
    assert "12 nodes (n[0-11]): k3s is not proven, because nobody pulled" in many


def test_a_node_that_failed_is_told_by_its_failure_alone() -> None:
    failed = HostResult("a", "failed", error=Fault("x", "y"), unproven=half("k3s").unproven)
    assert "not proven" not in told_as(failed)
    assert (FleetReport((failed,)).ok, FleetReport((failed,)).proven) == (False, True)


def test_done_and_not_proven_is_told_in_the_document_and_stops_no_rollout() -> None:
    document = FleetReport((half("k3s"), half(host="b"))).to_json()
    assert (document["ok"], document["proven"]) == (True, False)
    assert FleetReport((half(),)).to_json()["proven"] is True
    works = [(name, lambda line: half("k3s", host=line.name)) for name in "abc"]
    rollout = Rollout(works, 1, schedule(Policy(1, "50%,100%", "0"), 3))
    outcomes, _ = rollout.run(UI(), "t")
    assert [outcome.result.status for outcome in outcomes] == [CHANGED] * 3
    assert rollout.halted == ""
