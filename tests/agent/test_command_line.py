"""The command: plan in, JSON lines out, a result whatever happens, and the exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from agent import __main__ as command_line
from agent.proof.decision import NO_NODE
from tests.agent.conftest import Box


def run(*words: str, stdin: bytes = b"", **more: Any) -> tuple[int, list[dict[str, Any]], str]:
    done = subprocess.run(
        [sys.executable, "-m", "agent", *words],
        input=stdin,
        capture_output=True,
        check=False,
        **more,
    )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    events = [one for one in events if one.get("event") != "alive"]  # on a busy machine
    return done.returncode, events, done.stderr.decode()


@pytest.fixture
def node(box: Box) -> Box:
    return box.with_containerd()


def test_apply_and_untrust_by_the_command(node: Box) -> None:
    plan = json.dumps(node.document()).encode()
    before = node.files()
    code, events, noise = run("apply", "--root", str(node.root), stdin=plan)
    assert (code, noise) == (3, "")  # a file tree proves nothing
    assert events[-1]["unproven"][0]["because"] == NO_NODE
    assert [event["event"] for event in events][:: len(events) - 1] == ["facts", "result"]
    assert events[0]["runtime"] == "containerd 1.7.24"
    assert events[-1]["status"] == "changed"
    assert run("status", "--root", str(node.root))[1][1]["trusted"]
    assert run("untrust", "--root", str(node.root), stdin=plan)[0] == 0
    assert node.files() == before


@pytest.mark.parametrize(
    ("words", "stdin", "code"),
    [
        (("apply",), b"", "plan-not-json"),
        (("apply",), b"{}", "plan-invalid"),
        (("verify",), b'{"version": 7}', "plan-too-new"),
        (("apply",), b'{"version": 1, "registry": {"host": "my.registry.io"}}', "plan-invalid"),
        ((), b"", "usage"),
        (("destroy",), b"", "usage"),
        (("status", "--dry-run"), b"", "usage"),
        (("facts", "--root", "/no/such/folder"), b"", "usage"),
        (("facts", "--root"), b"", "usage"),
        (("apply", "untrust"), b"", "usage"),
    ],
)
def test_wrong_use_is_a_result_and_exit_code_2(
    words: tuple[str, ...], stdin: bytes, code: str
) -> None:
    exit_code, events, noise = run(*words, stdin=stdin)
    assert (exit_code, noise, len(events)) == (2, "", 1)
    assert events[0]["event"] == "result"
    assert events[0]["status"] == "failed"
    assert events[0]["error"]["code"] == code


def test_a_failure_is_exit_code_1(box: Box) -> None:
    plan = json.dumps(box.document()).encode()
    code, events, _ = run("apply", "--root", str(box.root), stdin=plan)
    assert (code, events[-1]["error"]["code"]) == (1, "no-runtime")


def test_another_user_than_root_is_told_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert command_line.main(["recover"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "not-root"


def test_version_is_told_for_people_and_programs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "agent", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("moorage-agent ")
    assert run("--version", "--json")[1][0]["plan"] == 1


def slow(node: Box) -> bytes:
    """A containerd that takes its time to judge the candidate."""
    program = node.root / "usr/bin/containerd"
    text = program.read_text().replace(
        'cat "$2"', 'case "$2" in *moorage*) sleep 5;; esac; cat "$2"'
    )
    program.write_text(text)
    return json.dumps(node.document()).encode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_rolls_back_and_is_told(node: Box, number: signal.Signals) -> None:
    plan = slow(node)
    before = node.files()
    process = subprocess.Popen(
        [sys.executable, "-m", "agent", "apply", "--root", str(node.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(plan)
    process.stdin.close()
    deadline = time.monotonic() + 10
    while not (node.root / "etc/containerd/certs.d").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.1)
    process.send_signal(number)
    assert process.stdout is not None
    events = [json.loads(line) for line in process.stdout.read().splitlines()]
    assert process.wait() == 1
    assert events[-1]["error"]["code"] == "interrupted"
    assert node.files() == before


def test_a_reader_that_went_away_does_not_stop_the_work(node: Box) -> None:
    plan = json.dumps(node.document()).encode()
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "agent", "apply", "--root", str(node.root)],
        input=plan, stdout=writing, stderr=subprocess.PIPE, check=False,
    )  # fmt: skip
    os.close(writing)
    assert (done.returncode, done.stderr) == (3, b"")
    assert b"config_path" in (node.read("/etc/containerd/config.toml") or b"")


def test_the_command_imports_little() -> None:
    """The SSH face's own imports: nothing slow before it is needed."""
    code = (
        "import sys; before = set(sys.modules);"
        "import agent.__main__, agent.engine.engine, agent.wire.plan;"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    slow = {"asyncio", "ssl", "h2", "http.client"}
    assert not slow & set(done.stdout.split())
