"""What makes a function a task: one document however it ends, and a sentence for what it meets."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path
from typing import Any

import docker
import pytest
import requests
from invoke.config import Config
from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import Task

from moorage import settings
from moorage.tasks.command import Run, command
from moorage.unforeseen import as_ours


@pytest.fixture(autouse=True)
def handlers() -> Any:
    """A task sets the signals of its process; here that is the tests' own."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def ended(task: Task[Any]) -> int:
    with pytest.raises(Exit) as end:
        task.body(Context(Config(defaults=settings.defaults())), json=True)
    return int(end.value.code)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_gives_one_document_too(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    @command()
    def waits(run: Run) -> None:
        """Example: inv waits"""
        raise KeyboardInterrupt(number)

    assert ended(waits) == 128 + number
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is False
    assert document["error"]["code"] == "stopped"
    assert number.name in document["error"]["cause"]


def test_a_stopped_run_that_has_told_already_tells_nothing_more(
    capsys: pytest.CaptureFixture[str],
) -> None:
    @command()
    def tells(run: Run) -> None:
        """Example: inv tells"""
        run.ui.document({"ok": True, "hosts": []})
        raise KeyboardInterrupt

    assert ended(tells) == 130
    assert json.loads(capsys.readouterr().out) == {"ok": True, "hosts": []}


def test_a_file_of_another_user_names_him_and_the_way_out(tmp_path: Path) -> None:
    inside = settings.ROOT / "certs" / "ca.key"
    told: Any = as_ours(PermissionError(13, "Permission denied", str(inside)))
    assert told.code == "not-ours"
    assert settings.ROOT.owner() in told.cause
    assert f"chown -R {settings.ROOT.stat().st_uid}: {settings.ROOT}" in told.cure
    told = as_ours(PermissionError(13, "Permission denied", str(tmp_path / "a b")))
    assert "ls -ld" in told.cure
    assert f"'{tmp_path}/a b'" in told.cure


def test_an_engine_that_never_answers_is_to_be_restarted() -> None:
    """As Debian 12's does that has locked itself up: it takes the request, and that is all."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        at = f"tcp://127.0.0.1:{listening.getsockname()[1]}"
        client = docker.DockerClient(base_url=at, version="1.41", timeout=1)
        with pytest.raises(requests.exceptions.ReadTimeout) as hung:
            client.info()
        client.close()
    told: Any = as_ours(hung.value)
    assert told.code == "engine-failed"
    assert "did not answer" in told.cause
    assert told.cure.startswith("systemctl restart docker")


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ({"ok": True, "proven": False}, 3),
        ({"ok": False, "proven": False}, 1),
        ({"ok": False}, 1),
    ],
)
def test_the_document_decides_the_exit_code(document: dict[str, Any], code: int) -> None:
    @command()
    def tells(run: Run) -> dict[str, Any]:
        """Example: inv tells"""
        return document

    assert ended(tells) == code
