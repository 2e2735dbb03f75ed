"""The version of a containerd that runs: its own word by CRI, where it is the program on the disk.

CRI is stood in for by what it answers; this very process is the daemon.
"""

from __future__ import annotations

import os
import sys

import pytest

from agent.clients.failures import CriError
from agent.facts import containerd
from agent.node.host import Process

DAEMON = Process(os.getpid(), (sys.executable,))


def said(monkeypatch: pytest.MonkeyPatch, answer: str | CriError) -> None:
    def with_cri(_socket: str, _ask: object) -> str:
        if isinstance(answer, CriError):
            raise answer
        return answer

    monkeypatch.setattr("agent.clients.cri.with_cri", with_cri)


def test_it_is_what_the_daemon_says(monkeypatch: pytest.MonkeyPatch) -> None:
    said(monkeypatch, "containerd v2.1.4-rc.1")
    assert containerd._running_version(DAEMON, sys.executable, "/x.sock") == (2, 1, 4)


def test_a_file_that_came_in_its_place_is_not_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    said(monkeypatch, "containerd 1.7.24")
    assert containerd._running_version(DAEMON, "/bin/sh", "/x.sock") is None
    assert containerd._running_version(DAEMON, "/gone", "/x.sock") is None


def test_one_that_serves_no_cri_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    said(monkeypatch, CriError("unknown service runtime.v1.RuntimeService", answered=True))
    assert containerd._running_version(DAEMON, sys.executable, "/x.sock") is None
