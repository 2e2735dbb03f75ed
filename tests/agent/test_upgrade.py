"""Another archive in the place of the agent that stays. The service manager is a stand-in: it notes
what it starts, and refuses an archive that says so; tests/resident has a real one.
"""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from agent.node.host import Host
from agent.resident import service, upgrade
from agent.resident.home import AgentSettings, Home
from agent.wire.faults import AgentError, Interrupted
from agent.wire.report import HostResult, ResultEvent

BROKEN = b"does not serve"


class Manager:
    """Starts what lies there."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.started: list[bytes] = []
        self.trials: list[bytes] = []
        self.interrupts = False

    def start(self, host: Host, manager: str, patience: float = 0) -> None:
        content = self.home.archive.read_bytes()
        self.started.append(content)
        self.trials.append(self.home.trial.read_bytes() if self.home.trial.exists() else b"none")
        if self.interrupts and len(self.started) == 1:
            raise Interrupted("SIGHUP")
        if content.endswith(BROKEN):
            raise AgentError("agent-does-not-start", "it says no")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(str(tmp_path / "node"))
    made.folder.mkdir(parents=True)
    made.write_settings(AgentSettings("1" * 32, "127.0.0.1", 7443, 2_000_000_000))
    made.archive.write_bytes(archive_of(tmp_path / "before", "0.0.1"))
    return made


@pytest.fixture
def manager(home: Home, monkeypatch: pytest.MonkeyPatch) -> Manager:
    made = Manager(home)
    monkeypatch.setattr(service, "manager_of", lambda _: "systemd")
    monkeypatch.setattr(service, "start", made.start)
    return made


def archive_of(path: Path, version: str, more: bytes = b"") -> bytes:
    """One that says its version, as an archive of the agent does."""
    about = json.dumps({"name": "moorage-agent", "version": version})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("__main__.py", f"print({about!r})\n")
        archive.comment = more
    return path.read_bytes()


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The archive that runs the errand."""
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "ours")])
    return archive_of(tmp_path / "ours", "0.1.0")


def upgraded(home: Home, *, downgrade: bool = False) -> HostResult:
    (event,) = upgrade.upgrade(Host(home.root), "n", downgrade=downgrade)
    assert isinstance(event, ResultEvent)
    return event.result


def refused(home: Home) -> AgentError:
    with pytest.raises(AgentError) as refusal:
        upgraded(home)
    return refusal.value


def test_the_archive_is_on_trial_before_it_is_started(
    home: Home, manager: Manager, ours: bytes
) -> None:
    before = home.archive.read_bytes()
    result = upgraded(home)
    assert (result.status, result.restarts) == ("changed", ("moorage-agent",))
    assert [change.path for change in result.changes] == [str(home.archive)]
    assert (manager.started, manager.trials) == ([ours], [b"0"])
    assert home.previous.read_bytes() == before
    assert home.trial.exists()  # until an operator was answered
    assert home.archive.stat().st_mode & 0o777 == 0o600


def test_an_archive_that_stays_already_is_not_started_again(
    home: Home, manager: Manager, ours: bytes
) -> None:
    home.archive.write_bytes(ours)
    assert upgraded(home).status == "unchanged"
    assert manager.started == []
    assert not home.trial.exists()


def test_a_node_without_an_agent_that_stays_gets_none(manager: Manager, ours: bytes) -> None:
    (manager.home.folder / "settings.json").unlink()
    assert refused(manager.home).fault.code == "no-agent"
    assert manager.started == []


def test_an_archive_that_does_not_serve_goes_back(
    home: Home, manager: Manager, tmp_path: Path, ours: bytes
) -> None:
    before = home.archive.read_bytes()
    broken = archive_of(tmp_path / "ours", "0.1.0", BROKEN)
    fault = refused(home).fault
    assert fault.code == "upgrade-not-taken"
    assert "is back" in fault.message
    assert "it says no" in fault.cause
    assert manager.started == [broken, before]
    assert home.archive.read_bytes() == before
    assert not home.trial.exists()


def test_where_the_one_before_does_not_serve_either_nothing_else_is_said(
    home: Home, manager: Manager, tmp_path: Path, ours: bytes
) -> None:
    archive_of(tmp_path / "ours", "0.1.0", BROKEN)
    home.archive.write_bytes(archive_of(tmp_path / "before", "0.0.1", BROKEN))
    before = home.archive.read_bytes()
    assert "nor does the one before it" in refused(home).fault.message
    assert home.archive.read_bytes() == before


def test_a_line_that_breaks_leaves_the_agent_that_was_there(
    home: Home, manager: Manager, ours: bytes
) -> None:
    before = home.archive.read_bytes()
    manager.interrupts = True
    with pytest.raises(Interrupted):
        upgraded(home)
    assert manager.started == [ours, before]
    assert home.archive.read_bytes() == before
    assert not home.trial.exists()


def test_a_newer_agent_is_brought_back_only_where_that_is_meant(
    home: Home, manager: Manager, tmp_path: Path, ours: bytes
) -> None:
    newer = archive_of(tmp_path / "before", "9.0.0")
    home.archive.write_bytes(newer)
    fault = refused(home).fault
    assert fault.code == "agent-newer"
    assert "9.0.0" in fault.message
    assert "--downgrade" in fault.cure
    assert home.archive.read_bytes() == newer
    assert upgraded(home, downgrade=True).status == "changed"
    assert home.archive.read_bytes() == ours


def test_an_agent_that_does_not_even_run_is_no_newer_one(
    home: Home, manager: Manager, ours: bytes
) -> None:
    home.archive.write_bytes(b"cut short")
    assert upgraded(home).status == "changed"


@pytest.mark.parametrize(
    ("trial", "runs", "left"),
    [(None, "new", None), ("0", "new", "1"), ("1", "new", "2"), ("2", "before", None),
     ("torn", "before", None)],
)  # fmt: skip
def test_what_starts_it_gives_an_archive_two_starts(
    tmp_path: Path, trial: str | None, runs: str, left: str | None
) -> None:
    """As the service does it, with a program in the archive's place that says which it is."""
    source = Path(upgrade.__file__).with_name("start.py")
    (tmp_path / "start.py").write_bytes(source.read_bytes())
    for name, word in (("agent.pyz", "new"), ("previous.pyz", "before")):
        (tmp_path / name).write_text(f"import sys\nprint({word!r}, *sys.argv[1:])\n")
    if trial is not None:
        (tmp_path / "trial").write_text(trial)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "start.py")], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [runs, "serve"]
    found = (tmp_path / "trial").read_text() if (tmp_path / "trial").exists() else None
    assert found == left
