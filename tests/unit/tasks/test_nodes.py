"""`inv nodes.*` as users type it: what is refused is refused in one document, with exit code 2."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

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


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--inventory=/nowhere/hosts",), "bad-inventory"),
        (("--inventory={folder}",), "bad-inventory"),
        (("--inventory={folder}/none",), "bad-inventory"),
        (("--inventory={folder}/bytes",), "bad-inventory"),
        (("--inventory={folder}/web.ini", "--hosts=@web"), "bad-group"),
        (("--hosts=@nobody",), "bad-group"),
        (("--hosts=a,b", "--limit=zzz"), "no-such-host"),
        (("--hosts=a,b", "--exclude=a,b"), "no-hosts"),
        (("--hosts=a,b,c", "--waves=10%,50%"), "bad-waves"),
        (("--hosts=a,b,c", "--waves=50%,10%,100%"), "bad-waves"),
        (("--hosts=a,b,c", "--waves=ten"), "bad-waves"),
        (("--hosts=a,b,c", "--canary=7"), "bad-waves"),
        (("--hosts=a", "--max-failures=200%"), "bad-waves"),
        (("--hosts=a", "--report={folder}/none/out"), "no-report"),
        (("--hosts=a", "--report=~nobody-here/out"), "no-home"),
    ],
)
def test_a_rollout_that_cannot_be_is_refused_and_leaves_nothing(
    words: tuple[str, ...], code: str, tmp_path: Path
) -> None:
    (tmp_path / "none").write_text("")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00\x01")
    (tmp_path / "web.ini").write_text("[web]\n[db]\nhost1\n")
    rollouts = ROOT / ".moorage" / "rollouts"
    before = sorted(rollouts.glob("*"))
    status, document, said = inv("nodes.untrust", *(word.format(folder=tmp_path) for word in words))
    error = document["error"]
    assert isinstance(error, dict)
    assert (status, error["code"]) == (2, code)
    assert error["cause"]
    assert error["cure"]
    assert "Traceback" not in said
    # A book would be the newest then, and hide the rollout that --resume goes on with.
    assert sorted(rollouts.glob("*")) == before


@pytest.mark.parametrize(
    ("words", "code"), [(("--host=a,,b",), "bad-hosts"), (("--host=a", "--hosts=b"), "wrong-use")]
)
def test_one_node_is_explained_by_the_word_host_too(words: tuple[str, ...], code: str) -> None:
    status, document, _ = inv("nodes.explain", *words)
    error = document["error"]
    assert isinstance(error, dict)
    assert (status, error["code"]) == (2, code)


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
    assert f"inv nodes.{task} --hosts=" in done.stdout
