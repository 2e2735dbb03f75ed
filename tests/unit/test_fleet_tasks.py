"""`inv nodes.*` as users type it: what is refused is refused in one document, with exit code 2."""

from __future__ import annotations

import json
import subprocess

import pytest

from moorage.settings import ROOT

TASKS = [
    "trust", "untrust", "verify", "status", "diff", "explain", "history", "undo", "recover"
]  # fmt: skip


def inv(*words: str) -> tuple[int, dict[str, object], str]:
    done = subprocess.run(
        [str(ROOT / "run"), "inv", *words, "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    return done.returncode, json.loads(done.stdout), done.stderr


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    ("hosts", "code"), [("", "no-hosts"), ("a,a", "host-twice"), ("a,,b", "bad-hosts")]
)
def test_a_bad_list_of_hosts_is_refused(task: str, hosts: str, code: str) -> None:
    status, document, words = inv(f"nodes.{task}", f"--hosts={hosts}")
    assert status == 2
    assert document["ok"] is False
    error = document["error"]
    assert isinstance(error, dict)
    assert error["code"] == code
    assert error["cure"]
    assert "Traceback" not in words


def test_a_sudo_password_that_does_not_come_is_refused() -> None:
    status, document, _ = inv("nodes.status", "--hosts=a", "--ask-sudo-password")
    assert status == 2
    assert isinstance(document["error"], dict)
    assert document["error"]["code"] == "no-password"


@pytest.mark.parametrize("task", TASKS)
def test_each_task_shows_an_example(task: str) -> None:
    done = subprocess.run(
        [str(ROOT / "run"), "inv", "--help", f"nodes.{task}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"Example: inv nodes.{task} --hosts=" in done.stdout
