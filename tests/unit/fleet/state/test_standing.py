"""How nodes stand, as people read it: drift, versions, ends, what waits; many nodes in few rows."""

from __future__ import annotations

import datetime
import io
import json
import time
from typing import Any

import pytest
from rich.console import Console

from agent.wire.faults import Fault
from agent.wire.report import UNCHANGED, UNREACHABLE, HostResult
from moorage.fleet.errand.errand import ErrandAnswer
from moorage.fleet.report import FleetReport
from moorage.fleet.state import table
from moorage.fleet.state.host import Ours, Standing, runtime_and_state, span
from moorage.ui import UI

OURS = Ours("0.2.0", "a" * 64)
NOW = 1_800_000_000.0
DAY = 86400


def resident(**more: Any) -> dict[str, Any]:
    drift = {"state": "watching", "healed": 0, "lately": 0, "last_time": 0, "last_files": [],
             "error": "", "inotify": True} | more.pop("drift", {})  # fmt: skip
    return {"id": "1" * 32, "version": "0.2.0", "digest": "a" * 64, "refused": 0, "last": {},
            "certificate_ends": int(NOW) + 90 * DAY, "drift": drift} | more  # fmt: skip


def state(**more: Any) -> dict[str, Any]:
    files = [{"path": "/etc/hosts", "state": "as-left"}, {"path": "/x/ca.crt", "state": "as-left"}]
    trusted = {"registry": "my.registry.io", "files": files, "ca_ends": int(NOW) + 3000 * DAY}
    return {"trusted": [trusted], "waiting": [], "interrupted": None, "holder": None,
            "applied": "2027-01-14T08:00:00Z", "resident": resident(),
            "pulled": {"registry": "my.registry.io", "image": "i", "seconds": 1.25,
                       "time": int(NOW) - 60}} | more  # fmt: skip


def drifted(path: str = "/etc/hosts") -> dict[str, Any]:
    one = state()["trusted"][0]
    return state(trusted=[one | {"files": [{"path": path, "state": "changed"}, one["files"][1]]}])


def of(told: dict[str, Any], host: str = "node1") -> Standing:
    return Standing.of(HostResult(host, UNCHANGED), "containerd 1.7.24", told)


def report(states: dict[str, dict[str, Any]], *lost: str) -> FleetReport:
    hosts = [HostResult(host, UNCHANGED) for host in states]
    fault = Fault("timeout", "no answer", "it is down", "ping it")
    hosts += [HostResult(host, UNREACHABLE, error=fault) for host in lost]
    runtimes = dict.fromkeys(states, "containerd 1.7.24")
    return FleetReport(hosts=tuple(hosts), runtimes=runtimes, states=states)


def shown(found: FleetReport, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(time, "time", lambda: NOW)
    ui, out = UI(), io.StringIO()
    ui._result = Console(file=out, width=200)
    ui.present(table.parts(found, OURS))
    return out.getvalue()


def test_what_a_nodes_events_tell_is_its_runtime_and_its_state_with_its_agent() -> None:
    told = state()
    agent = told.pop("resident")
    events = [
        {"event": "facts", "runtime": "containerd 1.7.24"},
        {"event": "note", "message": "a word"},
        {"event": "status", **told},
        {"event": "resident", **agent},
        {"event": "facts", "runtime": ""},
    ]
    assert runtime_and_state(events) == ("containerd 1.7.24", told | {"resident": agent})
    assert runtime_and_state([]) == ("", {})


def test_a_node_that_is_right_has_nothing_to_do() -> None:
    found = of(state())
    assert found.good
    assert found.to_do(OURS, NOW) == ()
    assert (found.files_words(), found.drift_words(), found.agent_words(OURS)) == (
        "2 as left", "", "0.2.0",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (drifted() | {"resident": None}, "inv nodes.trust"),
        (state(interrupted="apply"), "inv nodes.recover (an apply was cut off)"),
        (state(resident=resident(drift={"state": "stopped"})), "find out who undoes it"),
        (state(resident=resident(drift={"state": "failing", "error": "no room"})), ""),
    ],
)
def test_what_is_not_as_it_should_be_is_no_success(told: dict[str, Any], words: str) -> None:
    found = of(told)
    assert not found.good
    assert words in "; ".join(found.to_do(OURS, NOW))
    judged = table.judged(report({"node1": told}), OURS)
    assert (judged.ok, judged.hosts[0].status) == (False, "differs")


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (state(waiting=["containerd.service"]), "restart containerd.service"),
        (state(resident=resident(version="0.1.9", digest="b" * 64)), "inv nodes.upgrade"),
        (state(resident=resident(version="0.10.0", digest="b" * 64)), "git pull"),
        (state(resident=resident(certificate_ends=int(NOW) + DAY)), "certificate ends"),
        (state(trusted=[state()["trusted"][0] | {"ca_ends": int(NOW) + DAY}]), "its CA ends"),
        (
            state(
                trusted=[state()["trusted"][0] | {"unproven": [{"part": "k3s", "because": "x"}]}]
            ),
            "inv nodes.verify: not proven: k3s",
        ),
        (state(holder={"operation": "apply", "pid": 1}), "busy: apply"),
    ],
)
def test_what_waits_for_a_person_is_told_and_is_no_failure(
    told: dict[str, Any], words: str
) -> None:
    found = of(told)
    assert words in "; ".join(found.to_do(OURS, NOW))
    assert table.judged(report({"node1": told}), OURS).ok


def test_files_that_an_agent_is_at_work_on_have_not_drifted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = drifted() | {"holder": {"operation": "apply", "pid": 1}, "resident": None}
    found = of(told)
    assert (found.good, found.drifted) == (True, ())
    assert found.to_do(OURS, NOW) == ("busy: apply",)
    fleet = table.judged(report({"node1": told}), OURS)
    assert (fleet.ok, fleet.hosts[0].status) == (True, UNCHANGED)
    text = shown(fleet, monkeypatch)
    assert "apply under way" in text
    assert "drifted" not in text
    assert "as left" not in text


def test_an_agent_is_older_newer_or_another_build() -> None:
    assert OURS.compared("9.0.0", "a" * 64) == "same"
    assert OURS.compared("0.1.9", "b") == "older"
    assert OURS.compared("0.10.0", "b") == "newer"
    assert OURS.compared("0.2.0", "b") == "another build"
    judged = table.judged(report({"n": state(resident=resident(version="0.1.0", digest="b"))}),
                              OURS)  # fmt: skip
    assert judged.to_json()["states"]["n"]["resident"]["compared"] == "older"


def test_a_node_from_before_a_field_was_told_still_has_a_row() -> None:
    told = state()
    for name in ("applied", "pulled"):
        del told[name]
    del told["trusted"][0]["ca_ends"]
    found = of(told)
    assert (found.applied, found.pulled, found.ca_ends, found.good) == (None, None, None, True)


def test_300_nodes_are_as_many_rows_as_there_are_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    states = {f"db{one}": state() for one in range(1, 299)}
    for place, told in enumerate(states.values()):
        told["pulled"]["time"] -= place * 3600
        told["resident"]["drift"]["healed"] = max(0, place - 196)
    states["web1"] = drifted()
    text = shown(report(states, "web2"), monkeypatch)
    rows = [line for line in text.splitlines() if "containerd" in line]
    assert len(rows) == 3, text
    assert any("101: db[198-298]" in row for row in rows)
    assert any("197: db[1-197]" in row for row in rows)
    assert any("1: web1" in row and "/etc/hosts changed" in row for row in rows)
    assert "web2: no answer [timeout]" in text
    last = text.splitlines()[-1]
    assert last.startswith("300 nodes: 298 in order, 1 not in order, 1 not asked")
    assert "299 resident agents" in last


def test_few_nodes_are_told_one_by_one_with_their_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    told = state(resident=resident(drift={"healed": 2, "last_files": ["/etc/hosts"]}))
    text = shown(report({"node1": told, "node2": state()}), monkeypatch)
    row = next(line for line in text.splitlines() if line.strip().startswith("node1"))
    for words in ("containerd 1.7.24", "my.registry.io", "0.2.0", "CA 3,000 d", "apply 24 h ago"):
        assert words in row, text
    for words in ("agent 90 d", "pull 1 min ago, in 1.2 s"):
        assert words in text
    assert "put back twice: /etc/hosts" in text
    assert "the first certificate ends in 90 d (node1)" in text


def test_a_column_that_says_nothing_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = state(trusted=[], applied=None, pulled=None, resident=None)
    text = shown(report({"node1": bare}), monkeypatch)
    assert "ends in" not in text
    assert "last" not in text
    assert "agent" not in text.splitlines()[1]
    assert "1 node: 1 in order" in text


def test_spans_are_in_the_largest_fitting_unit() -> None:
    assert span([], NOW) == "-"
    assert span([None], NOW) == "-"
    assert span([NOW - 3], NOW) == "3 s"
    assert span([NOW - 60, NOW - 3600 * 3], NOW) == "1 min to 3 h"
    assert span([NOW - 2 * DAY, NOW - 5 * DAY], NOW) == "2 to 5 d"
    assert span([NOW + 90 * DAY, NOW + 90 * DAY + 5], NOW, ahead=True) == "90 d"
    assert span([NOW - 1], NOW, ahead=True) == "ended"


def test_an_older_agents_operation_is_under_way_and_not_cut_off() -> None:
    at_work = of(state(interrupted="apply", holder={"operation": "apply"}))
    assert (at_work.busy, at_work.interrupted, at_work.good) == ("apply", "", True)
    assert of(state(interrupted="apply")).interrupted == "apply"


def test_a_clock_that_is_off_is_told_with_which_way() -> None:
    assert of(state(clock_ahead=7200)).to_do(OURS, NOW) == (
        "set the clock: its clock is 120 min ahead of this machine's",
    )
    assert "120 min behind" in "".join(of(state(clock_ahead=-7200)).to_do(OURS, NOW))
    # A report of a large fleet takes a while, and an agent of before says no time.
    for near in (-200, 200, None):
        assert of(state(clock_ahead=near)).to_do(OURS, NOW) == ()


def test_an_answer_says_how_far_the_nodes_clock_is_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: NOW)
    heard: list[dict[str, Any]] = []
    answer = ErrandAnswer(heard.append)
    told = state() | {"event": "status", "clock_ahead": 0}
    for more in ({"time": int(NOW) + 900}, {"time": "soon"}, {"time": 10**400}, {"time": -1}, {}):
        answer.stdout(json.dumps(told | more).encode() + b"\n")
    assert [one["clock_ahead"] for one in heard] == [900, None, None, None, None]


def test_a_node_that_could_not_be_asked_has_an_unknown_end() -> None:
    now = datetime.datetime.fromtimestamp(NOW, datetime.UTC)
    lost = Standing("n", fault=Fault("timeout", "no answer", "", ""))
    assert [one.state(now) for one in lost.ends()] == ["unknown"]
    assert [one.state(now) for one in of(state()).ends()] == ["fine", "fine"]


@pytest.mark.parametrize(
    "told",
    [
        state(trusted=[state()["trusted"][0] | {"ca_ends": 10**400}]),
        state(trusted=[state()["trusted"][0] | {"ca_ends": "soon"}]),
        state(trusted=[state()["trusted"][0] | {"ca_ends": 1e300}]),
        state(trusted=[state()["trusted"][0] | {"ca_ends": -(10**11)}]),
        state(trusted=[{}]),
        state(trusted="x"),
        state(resident=resident(certificate_ends=10**400)),
        state(resident={}),
        state(applied="soon"),
        state(waiting=None),
        state(pulled={"time": {}, "seconds": 1}),
    ],
)
def test_an_agent_that_says_what_it_should_not_costs_no_other_node_its_row(
    told: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = table.judged(report({"node1": told, "node2": state()}), OURS)
    assert [one.status for one in found.hosts] == ["failed", "unchanged"]
    assert found.hosts[0].error is not None
    assert found.hosts[0].error.code == "bad-answer"
    said = shown(found, monkeypatch)
    assert "1 in order" in said
    assert "1 not asked" in said
