"""Programs that are run here: one that is missing is told as missing, whatever PATH looks like."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from moorage import commands
from moorage.errors import MoorageError
from moorage.settings import Settings
from tests.unit.fleet.rollout.test_this_machine import Agent

NOBODY = 65534


def as_nobody(what: Callable[[], object]) -> list[str]:
    """Code, message and cure of what it raises, as a user who is not root."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            what()
            said = ["nothing was raised"]
        except MoorageError as problem:
            said = [problem.code, problem.message, problem.cure]
        except BaseException as problem:
            said = ["not ours", repr(problem)]
        os.write(writer, json.dumps(said).encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as answer:
        return list(json.loads(answer.read()))


@pytest.fixture
def unreadable_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH whose first folder only its owner may read, and nothing in the second."""
    (tmp_path / "closed").mkdir(mode=0)
    (tmp_path / "open").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'closed'}:{tmp_path / 'open'}")
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and not folder.stat().st_mode & 0o005:
            folder.chmod(folder.stat().st_mode | 0o055)
    return tmp_path


@pytest.mark.parametrize(
    "run",
    [
        lambda: commands.run(["sudo", "-n", "true"]),
        lambda: commands.become(["sudo"]),
        lambda: commands.logged(["sudo"], Path(os.devnull)),
    ],
    ids=["run", "become", "logged"],
)
def test_a_program_that_no_readable_folder_has_is_not_installed(
    unreadable_path: Path, run: Callable[[], object]
) -> None:
    code, message, _ = as_nobody(run)
    assert (code, message) == ("no-program", "sudo is not installed")


def test_root_that_cannot_be_had_is_told(unreadable_path: Path) -> None:
    code, message, cure = as_nobody(lambda: commands.run(["true"], root=True))
    assert code == "no-root"
    assert "there is no sudo" in message
    assert "install sudo" in cure


def test_a_program_that_may_not_be_run_is_named(unreadable_path: Path) -> None:
    program = unreadable_path / "open/sudo"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700 if os.getuid() == 0 else 0o600)
    code, message, cure = as_nobody(lambda: commands.run(["sudo"]))
    assert (code, message) == ("no-program", "sudo may not be run by this user")
    assert str(program) in cure


def test_a_change_of_this_machine_without_sudo_is_refused_beforehand(
    unreadable_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agent.wire.faults import Fault
    from agent.wire.report import FAILED, HostResult
    from moorage import settings
    from moorage.fleet.rollout import this_machine

    # What this checkout has in .moorage, nobody may read.
    monkeypatch.setattr(settings, "ROOT", unreadable_path)
    monkeypatch.setattr(this_machine, "STATE", unreadable_path / "open")
    monkeypatch.setattr(this_machine, "HOSTS", unreadable_path / "hosts")
    monkeypatch.setattr(this_machine, "_passing_ca", lambda: "x")
    monkeypatch.setattr(this_machine, "_plan", lambda *_, **__: None)
    monkeypatch.setattr(this_machine, "_stands", lambda _: False)
    monkeypatch.setattr(this_machine, "_ca", lambda _: "x")
    monkeypatch.setattr(this_machine, "_paths", lambda _: ["/etc/hosts"])
    agent = Agent(monkeypatch, HostResult("x", FAILED, error=Fault("not-root", "")))

    def pending() -> None:
        try:
            this_machine.pending_this_machine(Settings())
        finally:
            assert agent.calls == [(("apply", "--dry-run"), ())]

    code, message, _ = as_nobody(pending)
    assert code == "no-root"
    assert "there is no sudo" in message
