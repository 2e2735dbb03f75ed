"""The demo server as a process of its own: what it answers, and how it ends."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from moorage.settings import ROOT
from tests.ports import free_port

APP = ROOT / "serve_hostname" / "app.py"


@contextmanager
def serving(**environment: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, APP],
        env={**os.environ, "PORT": str(port), **environment},
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().split()[-1] == str(port).encode()
        yield process, port
    finally:
        process.kill()
        process.communicate()


def ask(port: int, path: str = "/", method: str = "GET") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def ended_after(process: subprocess.Popen[Any], number: int) -> float:
    """Seconds from the signal to the end, which must be a clean one."""
    started = time.monotonic()
    process.send_signal(number)
    assert process.wait(10) == 0
    return time.monotonic() - started


def test_it_answers_what_it_should_and_nothing_else() -> None:
    name = f"{socket.gethostname()}\n".encode()
    with serving() as (_, port):
        assert ask(port) == (200, name)
        assert ask(port, "/healthz") == (200, b"ok\n")
        assert ask(port, method="HEAD") == (200, b"")
        assert ask(port, "/nothing")[0] == 404
        assert ask(port, method="POST")[0] == 405


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_open_request_is_answered_before_the_end(number: int) -> None:
    with serving(DELAY="0.4") as (process, port):
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        client.request("GET", "/")
        # It reads its connections in turn: if a later one is answered, the first one is open.
        assert ask(port, "/healthz") == (200, b"ok\n")
        assert ended_after(process, number) < 10
        answer = client.getresponse()
        assert (answer.status, answer.read()) == (200, f"{socket.gethostname()}\n".encode())
        client.close()


def test_no_client_can_hold_up_the_end() -> None:
    with serving(DELAY="30") as (process, port):
        idle = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        idle.request("GET", "/healthz")
        idle.getresponse().read()  # a kept-alive connection
        with (
            socket.create_connection(("127.0.0.1", port)) as slow,
            socket.create_connection(("127.0.0.1", port)) as half,
        ):
            slow.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            half.sendall(b"GET / HT")
            time.sleep(0.2)
            # 0.8 s of grace on an idle machine; the answers it does not wait for would take 30.
            assert ended_after(process, signal.SIGTERM) < 10
        idle.close()


@pytest.mark.parametrize(
    ("variable", "text"), [("PORT", "http"), ("PORT", "70000"), ("DELAY", "-1"), ("DELAY", "nan")]
)
def test_a_bad_setting_ends_it_with_a_sentence(variable: str, text: str) -> None:
    done = subprocess.run(
        [sys.executable, APP],
        env={**os.environ, variable: text},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1
    assert variable.encode() in done.stderr
