"""Programs run on the node: how long, and whose time it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from agent.node.host import Host
from agent.wire.faults import AgentError

PROGRAM = """
from agent.node.host import Host
print("begun", flush=True)
print(Host("/").run(["sh", "-c", "sleep 0.4; echo done"], timeout=0.8).out)
"""


def test_a_command_that_ended_while_the_agent_itself_was_stopped_is_not_called_hanging() -> None:
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    time.sleep(0.15)
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(1.2)
    os.kill(process.pid, signal.SIGCONT)
    assert process.communicate(timeout=20)[0].split() == ["done"]


def test_one_that_hangs_is_killed_and_named() -> None:
    began = time.monotonic()
    with pytest.raises(AgentError) as caught:
        Host("/").run(["sleep", "60"], timeout=0.2)
    assert caught.value.code == "command-timeout"
    assert "sleep 60" in str(caught.value)
    assert time.monotonic() - began < 10
