"""Looking at this machine: nothing is changed, and no password is asked for."""

from __future__ import annotations

import dataclasses
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from agent.wire.faults import Fault
from agent.wire.report import FAILED, UNCHANGED, FileChange, HostResult
from moorage.archive import AgentArchive, agent_archive
from moorage.errors import Refused
from moorage.fleet.rollout import this_machine
from moorage.settings import RegistrySettings, Settings
from moorage.ui import UI

NAME = "pending.registry.example"
SETTINGS = dataclasses.replace(Settings(), registry=RegistrySettings(host=NAME, port=8443))
CA_PATH = f"/etc/docker/certs.d/{NAME}:8443/ca.crt"


@pytest.fixture(autouse=True)
def no_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No CA is issued yet; nobody's own is touched or read."""
    monkeypatch.setattr(Settings, "certs_dir", property(lambda _: tmp_path / "certs"))


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders in the place of the machine's own."""
    for name, place in (("HOSTS", "hosts"), ("DOCKER_CERTS", "certs.d"), ("STATE", "state")):
        monkeypatch.setattr(this_machine, name, tmp_path / place)
    monkeypatch.setattr("moorage.commands.has_sudo", lambda: True)
    return tmp_path


class Agent:
    """In the place of the agent: answers with the results it is given, one by one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: HostResult) -> None:
        self.calls: list[tuple[tuple[str, ...], tuple[str, ...]]] = []
        self._answers = list(answers)
        monkeypatch.setattr(this_machine, "_agent", self._run)

    def _run(
        self,
        settings: Settings,
        words: Sequence[str],
        plan: object,
        *,
        sudo: Sequence[str],
        patience: float = 0,
    ) -> tuple[HostResult, list[dict[str, Any]]]:
        self.calls.append((tuple(words), tuple(sudo)))
        return self._answers.pop(0), []


def test_what_is_pending_is_told_file_by_file_before_there_is_a_ca() -> None:
    hosts = Path("/etc/hosts").read_bytes()
    actions = this_machine.pending_this_machine(SETTINGS)
    by_path = {action.path: action for action in actions}
    assert set(by_path) == {"/etc/hosts", CA_PATH}
    assert all(action.asks for action in actions)
    assert by_path["/etc/hosts"].before == hosts.decode()
    assert f"127.0.0.1\t{NAME} # moorage" in (by_path["/etc/hosts"].after or "")
    assert by_path[CA_PATH].before is None
    assert "issued first" in (by_path[CA_PATH].after or "")
    assert Path("/etc/hosts").read_bytes() == hosts


def test_looking_leaves_nothing_behind(tmp_path: Path) -> None:
    agent_archive(SETTINGS.state)
    before = sorted(Path("/var/lib").iterdir())
    this_machine.pending_this_machine(SETTINGS)
    assert sorted(Path("/var/lib").iterdir()) == before


def test_trust_without_a_ca_is_refused() -> None:
    with pytest.raises(Refused) as refusal:
        this_machine.trust_this_machine(SETTINGS, UI())
    assert "certs.issue" in refusal.value.cure or "registry.up" in refusal.value.cure


def test_untrust_where_no_agent_has_been_does_nothing(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = Agent(monkeypatch)
    assert this_machine.untrust_this_machine(SETTINGS, UI()).status == UNCHANGED
    assert agent.calls == []


def test_a_machine_without_docker_yet_gets_the_ca_file_told_as_well(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    edited = HostResult("x", "changed", changes=(FileChange("/etc/hosts", "edited"),))
    no_runtime = HostResult("x", FAILED, error=Fault("no-runtime", "no container runtime"))
    Agent(monkeypatch, no_runtime, edited)
    actions = this_machine.pending_this_machine(SETTINGS)
    assert [action.path for action in actions] == [str(files / f"certs.d/{NAME}:8443/ca.crt")]


USUAL = dataclasses.replace(Settings(), registry=RegistrySettings(host=NAME))


def test_before_docker_both_spellings_of_the_usual_port_are_told(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    edited = HostResult("x", "changed", changes=(FileChange("/etc/hosts", "edited"),))
    no_runtime = HostResult("x", FAILED, error=Fault("no-runtime", "no container runtime"))
    Agent(monkeypatch, no_runtime, edited)
    paths = [action.path for action in this_machine.pending_this_machine(USUAL)]
    assert paths == [str(files / f"certs.d/{name}/ca.crt") for name in (NAME, f"{NAME}:443")]


def test_a_machine_that_knows_one_spelling_does_not_stand_yet(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = stand(files)
    plan = this_machine._plan(USUAL, ca)
    for name in (NAME, f"{NAME}:443"):
        assert not this_machine._stands(plan)
        (files / "certs.d" / name).mkdir()
        (files / "certs.d" / name / "ca.crt").write_text(ca)
    assert this_machine._stands(plan)


def stand(files: Path) -> str:
    """This machine as it should be. Returns the CA."""
    ca = this_machine._passing_ca()
    folder = files / f"certs.d/{NAME}:8443"
    folder.mkdir(parents=True)
    (folder / "ca.crt").write_text(ca)
    (files / "hosts").write_text(f"127.0.0.1 localhost\n127.0.0.1\t{NAME} # moorage\n")
    (files / "certs").mkdir()
    (files / "certs/ca.crt").write_text(ca)
    return ca


def test_without_root_a_machine_that_stands_asks_for_nothing(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = stand(files)
    monkeypatch.setattr(this_machine, "_ca", lambda _: ca)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    agent = Agent(monkeypatch, HostResult("x", UNCHANGED, verified=True))
    assert this_machine.pending_this_machine(SETTINGS) == []
    assert agent.calls == []
    assert this_machine.trust_this_machine(SETTINGS, UI()).verified is True
    assert agent.calls == [(("verify",), ())]  # it is proven, and without root


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("hosts", "127.0.0.1 localhost\n"),
        ("hosts", f"# 127.0.0.1 {NAME}\n"),
        ("hosts", f"10.0.0.1 {NAME}\n127.0.0.1 {NAME}\n"),
        (f"certs.d/{NAME}:8443/ca.crt", "another\n"),
    ],
)
def test_without_root_a_difference_is_seen(
    files: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    ca = stand(files)
    (files / name).write_text(text)
    monkeypatch.setattr(this_machine, "_ca", lambda _: ca)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    (files / "state").mkdir()
    # The agent's notes are root's, and sudo would want a password.
    agent = Agent(monkeypatch, HostResult("x", FAILED, error=Fault("sudo-needs-password", "")))
    actions = this_machine.pending_this_machine(SETTINGS)
    assert [action.text for action in actions] == [
        f"edit {files / 'hosts'}, through sudo",
        f"edit {files / 'certs.d'}, through sudo",
    ]
    assert agent.calls == [(("apply", "--dry-run"), ("sudo", "-n"))]


def test_a_hosts_entry_of_somebody_elses_is_refused_beforehand(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    fault = Fault("hosts-conflict", "another address", cause="c", cure="--replace")
    Agent(monkeypatch, HostResult("x", FAILED, error=fault))
    with pytest.raises(Refused) as refusal:
        this_machine.pending_this_machine(SETTINGS)
    assert refusal.value.code == "hosts-conflict"


def test_sudo_that_cannot_ask_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sudo = tmp_path / "sudo"
    sudo.write_text("#!/bin/sh\necho 'sudo: a password is required' >&2\nexit 1\n")
    sudo.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(this_machine, "STATE", tmp_path)
    monkeypatch.setattr(
        "moorage.archive.errand_archive", lambda _: AgentArchive(tmp_path / "x.pyz", "0")
    )
    with pytest.raises(Refused) as refusal:
        this_machine.untrust_this_machine(SETTINGS, UI())
    assert refusal.value.code == "no-root"
    assert "a password is required" in refusal.value.cause


@pytest.mark.parametrize("answers", [True, False])
def test_no_command_is_named_that_ends_the_trust_of_a_registry_that_answers(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], answers: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        name = f"localhost:{server.getsockname()[1]}"
        if not answers:
            server.close()

        def status(*_: object, **__: object) -> tuple[None, list[dict[str, Any]]]:
            keys = ("waiting", "interrupted", "holder")
            trusted = [{"registry": name}]
            return None, [{"event": "status", "trusted": trusted, **dict.fromkeys(keys)}]

        monkeypatch.setattr(this_machine, "_agent", status)
        monkeypatch.setattr(this_machine, "_sudo", list)
        UI().present(this_machine._leave_nothing(SETTINGS, this_machine._plan(SETTINGS, None)))
    said = " ".join(capfd.readouterr().err.split())
    assert name in said
    assert ("inv down" in said) is not answers
