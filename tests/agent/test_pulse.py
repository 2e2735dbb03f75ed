"""The pulse between events: told while a step takes long, never after the result."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.node import pulse


def test_a_long_step_tells_that_it_is_alive_and_nothing_follows_the_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pulse, "FIRST_SECONDS", 0.02)
    monkeypatch.setattr(pulse, "SECONDS", 0.02)
    told: list[bytes] = []
    with pulse.beside(told.append) as write:
        write(b'{"event": "facts"}\n')
        time.sleep(0.3)
        write(b'{"event": "result"}\n')
        time.sleep(0.1)
    assert told[0] == b'{"event": "facts"}\n'
    assert told[-1] == b'{"event": "result"}\n'
    assert set(told[1:-1]) == {pulse.LINE}
    assert len(told) > 4


def test_a_short_operation_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[bytes] = []
    began = time.monotonic()
    with pulse.beside(told.append) as write:
        write(b"{}\n")
    assert told == [b"{}\n"]
    assert time.monotonic() - began < pulse.FIRST_SECONDS


ROOT = Path(__file__).parents[2]
HELD = """
import os, signal, time
from agent.node import pulse
came = []
signal.signal(signal.SIGTERM, lambda *_: came.append(1))
with pulse.beside(lambda _line: None):
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.05)
    before = list(came)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    print(before, came)
"""


def test_signals_stay_with_the_main_thread() -> None:
    """A rollback holds them off by a mask of the main thread's own; here no other thread is."""
    done = subprocess.run([sys.executable, "-c", HELD], capture_output=True, check=True, cwd=ROOT)
    assert done.stdout == b"[] [1]\n"
