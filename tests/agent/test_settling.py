"""An adoption is answered when it is on the disk; its service starts afterwards, and is judged.

The service manager and openssl are stand-ins; the files, and the process that outlives an errand,
are real. tests/resident has systemd.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.journal.ledger import Store
from agent.node.host import Done, Host
from agent.resident import keys, residence, service, settling, upgrade
from agent.resident.home import AgentSettings, Home
from agent.wire.faults import AgentError
from agent.wire.report import CHANGED, Event, HostResult, RequestEvent, ResultEvent, StaysEvent
from tests.agent.conftest import Box
from tests.agent.fleet import Fleet
from tests.agent.resident import Resident
from tests.agent.test_upgrade import archive_of

APPLIED = HostResult("n", CHANGED)
Later = list[Callable[[], None]]


class Manager:
    """Notes what it is asked for, and starts nothing that it is told not to."""

    def __init__(self, home: Home) -> None:
        self.home, self.asked = home, list[str]()
        self.refuses = self.canceled = False
        self.meanwhile: Callable[[], None] = lambda: None

    def install(self, host: Host, manager: str) -> None:
        self.asked.append(f"install, settling: {self.home.settling.exists()}")

    def start(self, host: Host, manager: str, patience: float = 0) -> None:
        self.asked.append("start")
        self.meanwhile()
        if self.canceled:
            raise service.CalledOffError("agent-does-not-start", "it was stopped")
        if self.refuses:
            raise AgentError("agent-does-not-start", "it says no", "no reason", "none")

    def remove(self, host: Host, manager: str) -> None:
        self.asked.append("remove")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(str(tmp_path / "node"))


@pytest.fixture
def manager(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manager:
    made = Manager(home)
    monkeypatch.setattr(service, "manager_of", lambda _: "systemd")
    for name in ("install", "start", "remove"):
        monkeypatch.setattr(service, name, getattr(made, name))
    monkeypatch.setattr(keys, "request", _key)
    monkeypatch.setattr(keys, "check", lambda *_: None)
    monkeypatch.setattr(residence, "_require_free", lambda _: None)
    archive(tmp_path, monkeypatch, "0.1.0")
    return made


def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    """The archive that runs the errand."""
    archive_of(tmp_path / f"ours-{version}", version)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / f"ours-{version}")])


def _key(_host: Host, key: Path) -> str:
    key.parent.mkdir(parents=True, exist_ok=True)
    key.write_text("a key")
    return "a request"


def document(certificate: str = "one") -> bytes:
    settings = AgentSettings("1" * 32, "0.0.0.0", 7443, 2_000_000_000)
    return json.dumps({**vars(settings), "certificate": certificate, "authority": "ca"}).encode()


def trust(home: Home, later: Later, certificate: str = "one") -> list[Event]:
    """What an apply with --stay tells."""
    events = iter([ResultEvent(APPLIED)])
    return list(residence.staying(Host(home.root), events, lambda: document(certificate), later))


def test_the_answer_waits_for_no_service_and_all_of_it_is_on_the_disk(
    home: Home, manager: Manager
) -> None:
    later: Later = []
    request, stays, result = trust(home, later)
    assert isinstance(request, RequestEvent)
    assert stays == StaysEvent(settling=True)
    assert isinstance(result, ResultEvent)
    assert result.result.changes[-1].path == str(service.UNIT)
    assert manager.asked == ["install, settling: True"]  # noted before anything may start it
    assert {path.name for path in home.folder.iterdir()} == {
        *("agent.pyz", "authority.pem", "certificate.pem", "key.pem", "settings.json"),
        *("settling", "start.py"),
    }
    assert settling.told(home.root) == StaysEvent(settling=True)
    [start] = later
    start()
    assert manager.asked[1:] == ["start"]


def test_one_that_does_not_come_up_is_gone_whole_and_the_next_errand_says_why(
    home: Home, manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later: Later = []
    trust(home, later)
    manager.refuses = True
    later.pop()()
    assert manager.asked[1:] == ["start", "remove"]
    assert not home.folder.exists()
    told = settling.told(home.root)
    assert told is not None
    assert told.error is not None
    assert (told.error.code, told.error.message) == ("agent-does-not-start", "it says no")
    # The same archive is not tried at each trust; another one is.
    stays, result = trust(home, later)
    assert isinstance(stays, StaysEvent)
    assert stays.error is not None
    assert "inv nodes.adopt" in stays.error.cure
    assert (result, later) == (ResultEvent(APPLIED), [])
    archive(tmp_path, monkeypatch, "0.2.0")
    assert trust(home, later)[1] == StaysEvent(settling=True)
    assert len(later) == 1


def test_an_adoption_asked_for_by_name_is_tried_again_and_waited_for(
    home: Home, manager: Manager
) -> None:
    settling.failed(Store(home.root), upgrade.own_archive(), AgentError("c", "m").fault)
    manager.refuses = True
    with pytest.raises(AgentError, match="it says no"):
        list(residence.reside(Host(home.root), "n", document))
    manager.refuses = False
    assert list(residence.reside(Host(home.root), "n", document))[-1]
    assert manager.asked[-1] == "start"
    assert any(residence.release(Host(home.root), "n"))
    assert not settling.unsettled(Store(home.root)).exists()


@pytest.mark.parametrize("what", ["adopted again", "released"])
def test_what_became_of_the_node_meanwhile_is_not_judged(
    home: Home, manager: Manager, what: str
) -> None:
    later: Later = []
    trust(home, later)

    def meanwhile() -> None:
        manager.meanwhile = lambda: None
        manager.refuses = what == "released"
        if what == "released":
            list(residence.release(Host(home.root), "n"))
        else:
            trust(home, [], "another")
            manager.refuses = True

    manager.meanwhile = meanwhile
    later.pop()()
    assert home.folder.exists() == (what == "adopted again")
    assert not settling.unsettled(Store(home.root)).exists()


def test_the_one_before_it_serves_on_if_the_new_one_does_not(home: Home, manager: Manager) -> None:
    trust(home, [], "first")
    settling.serves(home)
    later: Later = []
    trust(home, later, "second")
    manager.refuses = True

    def meanwhile() -> None:
        manager.refuses = manager.asked.count("start") == 1
        if not manager.refuses:
            settling.serves(home)

    manager.meanwhile = meanwhile
    later.pop()()
    told = settling.told(home.root)
    assert told is not None
    assert told.error is not None
    assert home.certificate.read_text() == "first"
    assert manager.asked[-2:] == ["start", "start"]


def test_another_fleets_agent_is_left_where_it_is(home: Home, manager: Manager) -> None:
    trust(home, [])
    before = {path.name: path.read_bytes() for path in home.folder.iterdir()}
    theirs = json.dumps({**json.loads(document("two")), "authority": "another"}).encode()
    later: Later = []
    applied = iter([ResultEvent(APPLIED)])
    _, stays, result = residence.staying(Host(home.root), applied, lambda: theirs, later)
    assert isinstance(stays, StaysEvent)
    assert stays.error is not None
    assert stays.error.code == "another-fleets"
    assert (result, later) == (ResultEvent(APPLIED), [])
    assert {path.name: path.read_bytes() for path in home.folder.iterdir()} == before


def test_one_that_has_never_served_is_nothing_to_go_back_to(home: Home, manager: Manager) -> None:
    trust(home, [], "first")
    later: Later = []
    trust(home, later, "second")
    manager.refuses = True
    later.pop()()
    assert manager.asked[-2:] == ["start", "remove"]
    assert not home.folder.exists()
    told = settling.told(home.root)
    assert told is not None
    assert told.error is not None


@pytest.mark.parametrize("what", ["nothing before it", "one before it"])
def test_why_is_kept_though_the_way_back_fails(home: Home, manager: Manager, what: str) -> None:
    if what == "one before it":
        trust(home, [], "first")
        settling.serves(home)
    later: Later = []
    trust(home, later, "second")
    manager.refuses = True
    Path(sys.argv[0]).unlink()  # an errand with --once has tidied up
    with contextlib.suppress(AgentError):
        later.pop()()
    told = settling.told(home.root)
    assert told is not None
    assert told.error is not None


def test_a_release_while_it_is_judged_has_the_last_word(
    home: Home, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    later: Later = []
    trust(home, later)
    manager.refuses = True
    # The stop of a release ends the start that is waited for, and who waits is faster than it.
    remove, judged = manager.remove, list[str]()

    def stopped(host: Host, name: str) -> None:
        if not judged:
            judged.append("once")
            later.pop()()
        remove(host, name)

    monkeypatch.setattr(service, "remove", stopped)
    list(residence.release(Host(home.root), "n"))
    assert manager.asked.count("remove") == 1
    assert not settling.unsettled(Store(home.root)).exists()


def test_what_is_taken_away_is_not_what_comes_meanwhile(
    home: Home, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    later: Later = []
    trust(home, later, "one")
    manager.refuses = True
    adopted = Host(home.root), "n", lambda: document("two")
    comes = threading.Thread(target=lambda: list(residence.reside(*adopted)))
    remove = manager.remove

    def slowly(host: Host, name: str) -> None:
        remove(host, name)
        manager.refuses = False
        comes.start()
        comes.join(0.3)

    monkeypatch.setattr(service, "remove", slowly)
    later.pop()()
    comes.join()
    assert home.certificate.read_text() == "two"
    assert home.archive.exists()


def test_a_start_that_another_has_called_off_is_not_judged(home: Home, manager: Manager) -> None:
    later: Later = []
    trust(home, later)
    manager.canceled = True
    later.pop()()
    assert home.archive.exists()
    assert settling.told(home.root) == StaysEvent(settling=True)


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("Job for moorage-agent.service canceled.", service.CalledOffError),
        (
            "Failed to restart moorage-agent.service: Transaction for "
            "moorage-agent.service/restart is destructive (shutdown.target has 'start' job queued, "
            "but 'stop' is included in transaction).",
            service.CalledOffError,
        ),
        ("Job for moorage-agent.service failed because the control process exited.", AgentError),
    ],
)
def test_systemds_words_for_a_start_that_was_called_off(
    words: str, kind: type[AgentError], monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host()
    answer = {"restart": Done(1, "", words), "show": Done(0, "NeedDaemonReload=no\n", "")}
    monkeypatch.setattr(host, "run", lambda argv, **_: answer.get(argv[1], Done(0, "said\n", "")))
    with pytest.raises(AgentError) as told:
        service.start(host, "systemd")
    assert type(told.value) is kind


def test_an_archive_that_has_taken_its_place_is_not_judged(home: Home, manager: Manager) -> None:
    later: Later = []
    trust(home, later)
    manager.refuses = True
    home.archive.write_bytes(b"an upgrade")
    later.pop()()
    assert home.archive.exists()
    assert not settling.unsettled(Store(home.root)).exists()


def test_an_agent_that_serves_has_settled(box: Box, tmp_path: Path) -> None:
    home, store = Home(str(box.root)), Store(str(box.root))
    home.folder.mkdir(parents=True)
    settling.begin(home)
    settling.failed(store, b"", AgentError("c", "m").fault)
    agent = Resident(box, Fleet(tmp_path))
    try:
        assert not home.settling.exists()
        assert settling.told(str(box.root)) is None
    finally:
        agent.stop()


@pytest.mark.parametrize("settles", [True, False])
def test_it_takes_back_its_own_niceness_alone(
    home: Home, monkeypatch: pytest.MonkeyPatch, settles: bool
) -> None:
    asked: list[tuple[int, ...]] = []
    monkeypatch.setattr(os, "getpriority", lambda *_: 10)  # by a Nice= of the operator's, as well
    monkeypatch.setattr(os, "setpriority", lambda *words: asked.append(words))
    if settles:
        settling.begin(home)
    settling.serves(home)
    assert asked == ([(os.PRIO_PROCESS, 0, 0)] if settles else [])


def test_a_note_that_is_spoilt_tells_nothing(home: Home) -> None:
    note = settling.unsettled(Store(home.root))
    note.parent.mkdir(parents=True)
    for content in ("", "[]", '{"error": {}}', '{"agent": 1, "error": {"code": 1, "x": 2}}'):
        note.write_text(content)
        assert settling.told(home.root) is None
        assert settling.refused(Store(home.root), lambda: b"") is None


def test_what_goes_on_afterwards_holds_nothing_of_the_line(tmp_path: Path) -> None:
    words = (
        "import time, sys\n"
        "from agent.resident import settling\n"
        "def work():\n"
        "    time.sleep(0.6)\n"
        "    print('nobody hears this')\n"
        f"    open({str(tmp_path / 'done')!r}, 'w').close()\n"
        "settling.afterwards(work)\n"
        "print('answered')\n"
    )
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", words], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.stdout == "answered\n"  # and both pipes are at their end
    assert not (tmp_path / "done").exists()
    while not (tmp_path / "done").exists():
        assert time.monotonic() < began + 20
        time.sleep(0.02)


def test_a_node_that_takes_no_further_process_has_been_told_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", full)
    before = signal.getsignal(signal.SIGHUP)
    try:
        settling.afterwards(lambda: pytest.fail("nobody waits for it here"))
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_end_of_a_terminal_does_not_end_what_goes_on_afterwards(tmp_path: Path) -> None:
    # As with sudo's use_pty: the terminal goes with the errand, before its child has left it.
    words = (
        "import os, signal, time\n"
        "from agent.__main__ import _stop\n"
        "from agent.resident import settling\n"
        "signal.signal(signal.SIGHUP, _stop)\n"
        "fork, leave = os.fork, os.setsid\n"
        "os.setsid = lambda: (time.sleep(0.4), leave())\n"
        "os.fork = lambda: time.sleep(0.1) or child if (child := fork()) else 0\n"
        f"settling.afterwards(lambda: open({str(tmp_path / 'done')!r}, 'w').close())\n"
        "os.killpg(0, signal.SIGHUP)\n"
    )
    subprocess.run(
        [sys.executable, "-c", words], check=True, cwd=Path(__file__).parents[2],
        start_new_session=True,
    )  # fmt: skip
    began = time.monotonic()
    while not (tmp_path / "done").exists():
        assert time.monotonic() < began + 5
        time.sleep(0.02)


def test_no_service_is_nice_but_one_that_nobody_waits_for(home: Home, manager: Manager) -> None:
    trust(home, [])
    assert home.settling.exists()
    list(residence.reside(Host(home.root), "n", document))
    assert not home.settling.exists()


@pytest.mark.parametrize(
    ("limit", "settles", "nice"),
    [(0, True, []), (19, True, []), (20, True, [19]), (-1, True, [19]), (20, False, [])],
)
def test_a_service_starts_nice_only_if_it_may_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, settles: bool, nice: list[int]
) -> None:
    asked: list[int] = []
    began: list[Any] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    monkeypatch.setattr(os, "nice", asked.append)
    monkeypatch.setattr(os, "execv", lambda *words: began.append(words))
    if settles:
        (tmp_path / "settling").touch()
    program = tmp_path / "start.py"
    program.write_bytes(residence._start_program())
    runpy.run_path(str(program))
    assert asked == nice
    [(_, words)] = began
    assert words[-2:] == [str(tmp_path / "agent.pyz"), "serve"]


def test_why_it_did_not_start_has_its_own_words_however_many_are_systemds() -> None:
    journal = (
        "INFO stopped\nStopped moorage-agent.service.\nStarting moorage-agent.service...\n"
        "CRITICAL /dev/null cannot be opened\nMain process exited, status=1/FAILURE\n"
        "Failed with result 'exit-code'.\nFailed to start moorage-agent.service.\n"
    )
    assert service.of_the_last_start(journal)[0] == "CRITICAL /dev/null cannot be opened"
    assert len(service.of_the_last_start(journal)) == 4
    assert service.of_the_last_start("CRITICAL no\n") == ["CRITICAL no"]
    assert service.of_the_last_start("\n") == []
