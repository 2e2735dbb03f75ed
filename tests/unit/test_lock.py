"""Two commands at once in one folder: the second is told who is at work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from moorage.errors import Refused
from moorage.lock import holder, project_lock


def test_second_comer_learns_who_holds_it(tmp_path: Path) -> None:
    with (
        project_lock(tmp_path, "inv up"),
        pytest.raises(Refused, match=rf"inv up \(process {os.getpid()}\)"),
        project_lock(tmp_path, "inv down"),
    ):
        pass
    with project_lock(tmp_path, "inv down"):
        pass


def test_who_holds_it_is_told_without_taking_it(tmp_path: Path) -> None:
    assert holder(tmp_path) == ""
    with project_lock(tmp_path, "inv up"):
        assert holder(tmp_path) == f"inv up (process {os.getpid()})"
    assert holder(tmp_path) == ""  # its name is still in the file


def test_killed_holder_frees_it(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from moorage.lock import project_lock\n"
        "with project_lock(Path(sys.argv[1]), 'inv up'):\n"
        "    print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline().strip() == "held"
    with pytest.raises(Refused), project_lock(tmp_path, "inv up"):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with project_lock(tmp_path, "inv up"):
        pass


def test_a_child_does_not_inherit_the_lock(tmp_path: Path) -> None:
    with project_lock(tmp_path, "inv up"):
        child = subprocess.Popen(["sleep", "30"], close_fds=False)
    try:
        with project_lock(tmp_path, "inv up"):
            pass
    finally:
        child.kill()
        child.wait()
