"""Recovery at boot: armed exactly as long as there is something to recover."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from agent.engine.engine import Engine
from agent.journal import boot, transaction
from agent.journal.boot import LINK, UNIT, unit_file
from agent.node import disk
from agent.node.host import Host
from tests.agent.conftest import Box

COMMAND = ("/usr/bin/python3", "-I", "/var/lib/moorage/agent/abc", "recover", "--boot")


class Armed(Host):
    """Stands in for a node with systemd; what it is told to restart is written down."""

    boot_command = COMMAND

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.later: list[str] = []

    def restart_later(self, name: str) -> None:
        self.later.append(name)


@pytest.fixture
def node(box: Box) -> Box:
    (box.root / "etc/systemd/system").mkdir(parents=True)
    return box.with_containerd()


def engine(node: Box) -> Engine:
    return Engine(Armed(str(node.root)), node.prover)


def guard(node: Box) -> bool:
    unit, link = node.root / UNIT[1:], node.root / LINK[1:]
    if link.is_symlink():
        assert str(link.readlink()) == UNIT
    assert unit.exists() == link.is_symlink()
    return unit.exists()


def killed_at(node: Box, name: str) -> None:
    """Apply in a forked process that dies at the first step of that name."""

    def hook(step: str) -> None:
        if step == name:
            os.kill(os.getpid(), signal.SIGKILL)

    pid = os.fork()
    if pid == 0:
        transaction.on_step = hook
        list(engine(node).apply(node.plan()))
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL


def test_the_guard_stands_from_before_the_first_change_to_after_the_last(node: Box) -> None:
    seen = []
    transaction.on_step = lambda name: seen.append((name, guard(node)))
    list(engine(node).apply(node.plan()))
    stands = dict(seen)
    assert stands["begun"] and stands["written"] and stands["about to commit"]
    assert not stands["intent drafted"] and not stands["tidied"]
    assert not guard(node)
    list(engine(node).untrust(node.plan()))
    assert not guard(node)


@pytest.mark.parametrize("step", ["guard set", "begun", "staged", "written", "restart noted"])
def test_what_was_cut_off_is_put_back_at_boot_and_the_guard_goes(node: Box, step: str) -> None:
    before = node.files()
    killed_at(node, step)
    assert guard(node)
    result = node.run(engine(node).recover(boot=True))
    assert result["error"] is None
    assert not guard(node)
    assert node.files() == before


def test_a_guard_that_is_left_alone_clears_itself_away(node: Box) -> None:
    before = node.files()
    killed_at(node, "guard set")
    assert not (node.root / "var/lib/moorage/active/intent.json").exists()
    assert node.run(engine(node).recover(boot=True))["status"] == "unchanged"
    assert not guard(node)
    assert node.files() == before
    killed_at(node, "committed")
    assert guard(node)
    after = node.files()
    node.run(engine(node).recover(boot=True))
    assert not guard(node)
    assert {name: after[name] for name in node.files()} == node.files(), "the new state stays"


def test_at_boot_nothing_is_waited_for(node: Box) -> None:
    killed_at(node, "restart noted")
    made = engine(node)
    made._host.start_of = lambda name: ""  # type: ignore[method-assign]  # not started yet
    assert node.run(made.recover(boot=True))["error"] is None
    assert (made._host.later, node.prover.asked) == ([], [])  # type: ignore[attr-defined]


def test_at_boot_a_service_that_was_faster_is_told_to_restart(node: Box) -> None:
    killed_at(node, "restart noted")
    made = engine(node)
    made._host.start_of = lambda name: "its newest start"  # type: ignore[method-assign]
    node.run(made.recover(boot=True))
    assert made._host.later == ["containerd.service"]  # type: ignore[attr-defined]


def test_where_etc_cannot_be_written_the_run_goes_on_and_says_so(
    node: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = disk.write_new

    def refusing(path: Path, content: bytes, mode: int, like: Path | None = None) -> None:
        if path.name == Path(UNIT).name:
            raise OSError(30, "Read-only file system")
        real(path, content, mode, like)

    monkeypatch.setattr(boot, "write_new", refusing)
    result = node.run(engine(node).apply(node.plan()))
    assert result["status"] == "changed"
    told = [event["message"] for event in result["events"] if event["event"] == "note"]
    assert any("not at boot" in note for note in told)


def test_the_unit_starts_before_every_reader_of_trust() -> None:
    text = unit_file(COMMAND, ("odd.service",)).decode()
    before = next(line for line in text.splitlines() if line.startswith("Before="))
    for name in ("containerd.service", "docker.service", "kubelet.service", "odd.service"):
        assert name in before.partition("=")[2].split()
    assert "Condition" not in text, "a unit that is left over alone must clear itself away"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_systemd_itself_takes_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / Path(UNIT).name
    unit.write_bytes(unit_file(("/bin/true", 'a "b" \\ $c %d'), ()))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert unit.name not in done.stderr
