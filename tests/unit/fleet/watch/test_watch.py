"""`nodes.watch`: one line a node that stays open, changes told as they come, back-off, an end."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.wire.faults import Fault
from moorage.errors import Refused
from moorage.fleet import watch
from moorage.fleet.state.host import Standing
from moorage.fleet.watch import Watch, pause
from moorage.fleet.watch.changes import changes, settled
from moorage.pki import authority as authorities
from moorage.pki.roster import Roster
from moorage.settings import ROOT
from moorage.ui import UI
from tests.adopted import Folder
from tests.unit.fleet.state.test_standing import DAY, NOW, OURS, drifted, of, resident, state

# -- what is told ----------------------------------------------------------------------------------

LOST = Standing("node1", fault=Fault("no-ssh", "port 22 refuses connections"))


def told(before: Standing | None, after: Standing) -> list[str]:
    return [change.message for change in changes(before, after, OURS)]


def healed(times: int, **more: Any) -> Standing:
    drift = {"healed": times, "last_files": ["/etc/hosts"]} | more
    return of(state(resident=resident(drift=drift)))


def test_nothing_is_told_of_a_node_that_stays_as_it_is() -> None:
    assert told(None, of(state())) == []
    assert told(of(state()), of(state())) == []
    assert told(LOST, LOST) == []


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (healed(1), healed(2), ["drifted: /etc/hosts put back (2)"]),
        (healed(7), healed(1), ["drifted: /etc/hosts put back (1)"]),
        (of(state()), of(drifted()), ["drifted: /etc/hosts changed"]),
        (of(drifted()), of(state()), ["in order again"]),
        (None, of(drifted()), ["drifted: /etc/hosts changed"]),
        (of(state()), LOST, ["out of reach: port 22 refuses connections"]),
        (None, LOST, ["out of reach: port 22 refuses connections"]),
        (LOST, of(state()), ["answers again"]),
        (LOST, of(drifted()), ["answers again", "drifted: /etc/hosts changed"]),
        (healed(0), healed(0, state="stopped"),
         ["stopped putting back: it is undone again and again"]),
        (healed(0), healed(0, state="failing", error="no room"), ["cannot put back: no room"]),
        (of(state()), of(state(waiting=["x.service"])), ["a restart of x.service waits"]),
        (of(state(waiting=["x.service"])), of(state()), ["x.service has been restarted"]),
        (of(state()), of(state(trusted=[])), ["trusts no registry of ours"]),
        (of(state()), of(state(interrupted="apply")),
         ["an apply was cut off: inv nodes.recover"]),
        (of(state()), of(state(resident=None)),
         ["no resident agent answers: it is asked over SSH"]),
        (of(state()), of(state(resident=resident(digest="b", version="0.1.0"))),
         ["another agent runs: 0.1.0, older"]),
    ],
)  # fmt: skip
def test_a_change_is_told_once_in_a_few_words(
    before: Standing | None, after: Standing, words: list[str]
) -> None:
    assert told(before, after) == words


def test_applies_pulls_and_renewals_are_told() -> None:
    later = state(
        applied="2027-01-15T08:00:01Z",
        pulled=state()["pulled"] | {"time": int(NOW), "seconds": 2.0},
        resident=resident(certificate_ends=int(NOW) + 91 * DAY),
    )
    words = told(of(state()), of(later))
    assert [word.split(" ")[0] for word in words] == ["applied", "pulled", "the"]


def test_what_happened_out_of_reach_is_told_when_the_node_is_back() -> None:
    renewed = of(state(resident=resident(certificate_ends=int(NOW) + 91 * DAY)))
    messages = [one.message for one in changes(LOST, renewed, OURS, of(state()))]
    assert messages[0] == "answers again"
    assert "was renewed" in messages[1]
    assert [one.message for one in changes(LOST, healed(2), OURS, healed(2))] == ["answers again"]


def test_files_that_an_agent_is_at_work_on_are_told_once_it_has_ended() -> None:
    at_work = drifted() | {"holder": {"operation": "apply"}}
    assert told(of(state()), settled(of(at_work), of(state()))) == []
    assert told(None, settled(of(at_work), None)) == []
    kept = settled(of(at_work), of(drifted()))
    assert told(of(drifted()), kept) == told(kept, of(drifted())) == []
    assert told(settled(of(at_work), of(state())), of(drifted())) == ["drifted: /etc/hosts changed"]


# -- when a node is asked again --------------------------------------------------------------------


def test_a_node_out_of_reach_is_asked_less_and_less_often() -> None:
    waits = [pause(5, failures, by_agent=True, jitter=0) for failures in range(12)]
    assert waits[:5] == [5, 10, 20, 40, 80]
    assert waits[-1] == 300
    assert pause(5, 10**6, by_agent=False, jitter=0) == 300
    assert pause(3600, 3, by_agent=True, jitter=0) == 3600


def test_a_node_that_runs_a_program_for_it_is_asked_every_15_seconds_at_most() -> None:
    assert pause(5, 0, by_agent=False, jitter=0) == 15
    assert pause(60, 0, by_agent=False, jitter=0) == 60


def test_a_pause_has_a_tenth_of_jitter() -> None:
    assert pause(10, 0, by_agent=True, jitter=-1) == 9
    assert pause(10, 0, by_agent=True, jitter=1) == 11


@pytest.mark.parametrize("text", ["", "x", "0", "0.5", "3601", "nan", "-5", "inf"])
def test_a_bad_interval_is_refused(text: str) -> None:
    with pytest.raises(Refused, match=r"--every="):
        watch.seconds(text)


# -- real agents on loopback -----------------------------------------------------------------------


class Followed:
    """A watch in a thread, and the lines that it has told."""

    def __init__(self, folder: Folder, monkeypatch: pytest.MonkeyPatch, every: float = 1) -> None:
        self.lines: list[str] = []
        self.document: dict[str, Any] = {}
        ui = UI()
        monkeypatch.setattr(ui, "show", self.lines.append)
        self.watch = Watch(folder.settings, ui, [folder.target], None, every)
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        self.document = self.watch.run()

    def until(self, words: str, seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while not any(words in line for line in self.lines):
            assert time.monotonic() < deadline, (words, self.lines)
            time.sleep(0.05)

    def end(self) -> None:
        self.watch.stop()
        self.thread.join(20)
        assert not self.thread.is_alive()


@pytest.fixture
def followed(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> Iterator[Followed]:
    made = Followed(folder, monkeypatch)
    try:
        deadline = time.monotonic() + 20
        while not made.watch._last:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield made
    finally:
        made.end()


def test_drift_that_is_put_back_is_a_line(folder: Folder, followed: Followed) -> None:
    folder.apply()
    followed.until("node1: trusts my.registry.io")
    (folder.box.root / "etc/hosts").write_bytes(b"127.0.0.1\tlocalhost\n")
    followed.until("node1: drifted: /etc/hosts put back (1)")
    assert not followed.document
    followed.end()
    assert followed.document["ok"] is True
    assert followed.document["nodes"]["node1"]["resident"]["healed"] == 1


def test_the_board_has_the_sum_and_the_nodes_that_are_not_in_order(followed: Followed) -> None:
    bad = {f"n{one:02}": dataclasses.replace(LOST, host=f"n{one:02}") for one in range(20)}
    followed.end()
    followed.watch._last = {"node1": of(drifted()), "node2": of(state()), **bad}
    lines = followed.watch._board("watch 22 nodes, every 1 s")
    assert lines[0] == "watch 22 nodes, every 1 s"
    assert lines[1].startswith("22 nodes: 1 not in order, 1 in order, 20 not asked")
    assert lines[2] == "  node1  1 of 2 drifted: /etc/hosts changed"
    assert lines[3] == "  n00  port 22 refuses connections"
    assert lines[-1] == "  and 9 more"
    assert len(lines) == 2 + 12 + 1


def test_a_defect_of_ours_at_one_node_is_told_and_ends_nothing(
    followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = followed.watch._nodes[0].kept

    def broken(_residents: object) -> None:
        raise ZeroDivisionError("a defect")

    with monkeypatch.context() as defect:
        defect.setattr(kept, "ask", broken)
        followed.until("node1: out of reach: Moorage itself failed at this node: ZeroDivisionError")
    followed.until("node1: answers again")


def test_rounds_go_over_one_line(folder: Folder, followed: Followed) -> None:
    def open_lines() -> set[Any]:
        kept = followed.watch._nodes[0].kept
        return {kept._channel} if kept._channel else set()

    deadline = time.monotonic() + 20
    while not open_lines():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    first = open_lines()
    asked = len(folder.agent.log.read_text())
    time.sleep(3.5)
    assert open_lines() == first
    assert len(folder.agent.log.read_text()) == asked  # nothing was refused meanwhile


def test_a_node_that_goes_away_is_told_and_asked_until_it_is_back(
    folder: Folder, followed: Followed
) -> None:
    folder.apply()
    followed.until("trusts")
    folder.agent.stop()
    followed.until("node1: out of reach")
    folder.agent.start()
    followed.until("node1: answers again")
    assert sum("out of reach" in line for line in followed.lines) == 1


def test_a_certificate_near_its_end_is_renewed_while_it_is_watched(
    folder: Folder, followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Roster(folder.settings).residents()["127.0.0.1"]
    (folder.box.root / "usr/bin/openssl").symlink_to(shutil.which("openssl") or "/none")
    monkeypatch.setattr(authorities, "NODE_DAYS", 96)
    monkeypatch.setattr(authorities, "RENEW_DAYS", 95)
    followed.until("the agent's certificate was renewed: 96 d")
    after = Roster(folder.settings).residents()["127.0.0.1"]
    assert (after.id, after.serial != before.serial) == (before.id, True)


def test_a_node_that_is_forgotten_meanwhile_is_believed_no_more(
    folder: Folder, followed: Followed
) -> None:
    folder.apply()
    followed.until("trusts")
    assert Roster(folder.settings).revoke("127.0.0.1")
    followed.until("node1: out of reach")


def test_ctrl_c_ends_the_command_with_0_and_its_lines_are_changes(folder: Folder) -> None:
    environment = {**os.environ, "INVOKE_CERTS_DIR": str(folder.path / "certs"),
                   "INVOKE_NODES_SSH_CONFIG": str(folder.path / "ssh_config")}  # fmt: skip
    (folder.path / "hosts").write_text(f"127.0.0.1:{folder.port}\n")
    words = ["nodes.watch", f"--inventory={folder.path / 'hosts'}", "--every=1", "--json-lines"]
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("inv")), *words], cwd=ROOT, env=environment,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        while "1 node: 1 in order" not in (line := process.stderr.readline()):
            assert line
        folder.apply()
        assert process.stdout is not None
        events = [json.loads(process.stdout.readline())]
        assert (events[0]["event"], events[0]["kind"]) == ("change", "trusts")
        assert events[0]["node"]["trusts"] == ["my.registry.io"]
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    report = json.loads(out.splitlines()[-1])
    assert (report["event"], report["ok"]) == ("report", True)
