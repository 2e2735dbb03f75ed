"""Agents that were adopted a moment ago: waited for, met, or told why not. The agents are real."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from paramiko import ChannelException

from moorage.fleet.errand.errand import ErrandAnswer
from moorage.fleet.residents import channel
from moorage.fleet.residents.invitation import Invitation
from moorage.fleet.residents.residence import Residents
from moorage.fleet.rollout import on_host
from moorage.fleet.rollout.fleet import Fleet
from moorage.fleet.ssh import session as ssh
from moorage.pki.authority import Authority
from moorage.pki.roster import Roster
from moorage.ui import UI
from tests.adopted import Agent, Folder, adopted
from tests.unit.fleet.residents.test_ports import request

HOST = "127.0.0.1"
FAULT = {"code": "agent-does-not-start", "message": "it says no", "cause": "why", "cure": "what"}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    """A node that was adopted just now, and whose agent is not there yet."""
    with adopted(tmp_path) as made:
        made.agent.stop()
        settling(made, time.time())
        yield made


def settling(folder: Folder, since: float) -> None:
    roster = Roster(folder.settings)
    known = roster.residents()[HOST]
    roster.put(HOST, dataclasses.replace(known, address=HOST, settling=int(since)))


def since(folder: Folder) -> int:
    return Roster(folder.settings).residents()[HOST].settling


def open_line(folder: Folder) -> tuple[bool, float]:
    """Whether the agent is met, and the seconds that it took to know."""
    began = time.monotonic()
    with Residents(folder.settings).line(folder.route) as line:
        return line is not None, time.monotonic() - began


def test_the_next_command_waits_for_it_and_notes_that_it_was_met(folder: Folder) -> None:
    agent = folder.agent
    begun = threading.Timer(0.3, Agent.start, [agent])
    begun.start()
    report = Fleet(folder.settings, UI(as_json=True)).run("status", [folder.target])
    begun.join()
    assert "resident" in report.states["node1"]
    assert since(folder) == 0


@pytest.mark.parametrize("instead", ["", "3" * 32])
def test_what_another_command_did_to_it_meanwhile_stays(folder: Folder, instead: str) -> None:
    """It was dropped, or the node was adopted by another identity."""
    folder.agent.start()
    roster = Roster(folder.settings)
    known = roster.residents()[HOST]
    with Residents(folder.settings).line(folder.route) as line:
        assert line is not None
        roster.drop(HOST)
        if instead:
            roster.put(HOST, dataclasses.replace(known, id=instead))
    assert [one.id for one in roster.residents().values()] == [instead] * bool(instead)


def test_it_is_waited_for_a_while_after_its_adoption_and_not_later(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "SETTLE_STRAIGHT_SECONDS", 0.4)
    met, seconds = open_line(folder)
    assert (met, seconds >= 0.4, since(folder) > 0) == (False, True, True)
    settling(folder, time.time() - channel.SETTLE_SECONDS - 1)
    met, seconds = open_line(folder)
    assert (met, seconds < 0.4) == (False, True)
    settling(folder, 0)
    assert open_line(folder)[1] < 0.4


def test_it_is_said_what_a_wait_is_for(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "_LASTING", 0.2)
    monkeypatch.setattr(channel, "SETTLE_STRAIGHT_SECONDS", 0.6)
    words: list[str] = []
    with Residents(folder.settings).line(folder.route, tell=words.append) as line:
        assert line is None
    assert len(words) == 1
    assert re.fullmatch(
        r"its agent, adopted \d+ s ago, does not serve yet; waiting \d s at most",
        words[0],
    )


def test_whoever_listens_there_and_is_another_is_not_waited_for(folder: Folder) -> None:
    roster = Roster(folder.settings)
    folder.agent.start()
    roster.put(HOST, dataclasses.replace(roster.residents()[HOST], id="2" * 32))
    began = time.monotonic()
    with pytest.raises(channel.NotOurAgent), Residents(folder.settings).line(folder.route):
        pass
    assert time.monotonic() - began < channel.SETTLE_STRAIGHT_SECONDS


def test_a_node_that_says_why_it_has_none_is_believed(folder: Folder) -> None:
    residents, heard = Residents(folder.settings), list[dict[str, Any]]()
    hear = residents.hearing(folder.route, heard.append)
    hear({"event": "stays", "error": None, "settling": True})
    assert since(folder) > 0
    hear({"event": "stays", "error": FAULT, "settling": False})
    assert Roster(folder.settings).residents() == {}
    [note] = [one["message"] for one in heard if one["event"] == "note"]
    assert note == "the agent does not stay here: it says no (why). what"


def test_over_ssh_it_is_heard_that_it_does_not_serve_and_why(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Closed:
        """An SSH session to a node where nothing listens at the agent's port."""

        transport = property(lambda self: self)

        def open_channel(self, *_: object, **__: object) -> None:
            raise ChannelException(2, "Connect failed")

    class Told:
        """An errand there."""

        def __init__(self, *_: object) -> None:
            pass

        def operate(self, _call: object, _plan: bytes, hear: Callable[..., None]) -> ErrandAnswer:
            answer = ErrandAnswer(hear)
            result = {"event": "result", "host": "x", "status": "unchanged", "changes": []}
            for one in ({"event": "stays", "error": FAULT, "settling": False}, result):
                answer.stdout(json.dumps(one).encode() + b"\n")
            answer.end()
            answer.status = 0
            return answer

    settling(folder, time.time() - 90 * 86400 - 1)
    monkeypatch.setattr(ssh, "connect", lambda _: contextlib.nullcontext(Closed()))
    monkeypatch.setattr(on_host, "Errand", Told)
    monkeypatch.setattr("moorage.archive.errand_archive", lambda _: None)
    notes: list[str] = []
    monkeypatch.setattr(UI, "note", lambda _, words: notes.append(words))
    Fleet(folder.settings, UI(as_json=True)).run("status", [folder.target])
    assert Roster(folder.settings).residents() == {}
    settles = "its agent, adopted 90 d ago, does not serve yet; it is asked over SSH"
    assert any(settles in one for one in notes), notes
    assert any("the agent does not stay here: it says no" in one for one in notes), notes


@pytest.mark.parametrize(("code", "waits"), [(1, False), (2, True)])
def test_in_a_session_a_closed_port_is_waited_at_and_a_forbidden_way_is_not(
    folder: Folder, code: int, waits: bool
) -> None:
    """RFC 4254, section 5.1: administratively prohibited, and connect failed."""

    class Closed:
        transport = property(lambda self: self)
        asked = 0

        def open_channel(self, *_: object, **__: object) -> None:
            self.asked += 1
            raise ChannelException(code, "no") if self.asked < 3 else OSError("enough")

    settling(folder, time.time())
    session: Any = Closed()
    with Residents(folder.settings).line(folder.route, session) as line:
        assert line is None
    assert session.asked == (3 if waits else 1)


def test_an_agent_that_was_met_is_not_lost_by_such_words(folder: Folder) -> None:
    settling(folder, 0)
    hear = Residents(folder.settings).hearing(folder.route, lambda _: None)
    hear({"event": "stays", "error": FAULT, "settling": False})
    assert HOST in Roster(folder.settings).residents()


@pytest.mark.parametrize("settles", [True, False])
def test_an_adoption_that_was_answered_at_once_is_noted_as_settling(
    folder: Folder, settles: bool
) -> None:
    roster, heard = Roster(folder.settings), list[dict[str, Any]]()
    roster.drop(HOST)
    invitation = Invitation(
        Authority.open(folder.settings), roster, folder.route, None, 7443, heard.append,  # type: ignore[arg-type]  # nobody else is asked
        lambda _: "",
    )  # fmt: skip
    assert invitation.reply(request("3" * 32))
    invitation.hear({"event": "stays", "error": None, "settling": settles})
    assert (since(folder) > 0) == settles
    invitation.hear({"event": "stays", "error": FAULT, "settling": False})
    assert (HOST in roster.residents()) != settles


def test_a_node_that_was_adopted_is_told_as_settling_until_it_serves() -> None:
    from tests.unit.fleet.state.test_standing import NOW, OURS, of, state

    def told(**stays: Any) -> tuple[str, tuple[str, ...]]:
        found = of(state(resident=None) | {"stays": stays})
        return found.agent_words(OURS), found.to_do(OURS, NOW)

    settles = "inv nodes.adopt: the agent does not serve yet"
    assert told(error=None, settling=True) == ("settling", (settles,))
    failed = "inv nodes.adopt: the agent did not start"
    assert told(error=FAULT, settling=False) == ("did not start", (failed,))
