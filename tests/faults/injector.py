"""Runs on the node: the agent out of its archive, hurt at one chosen moment. Knows no tests.

    python3 injector.py ARCHIVE HOW NUMBER OPERATION [ARGUMENT…]  < plan.json

HOW is what happens at step NUMBER of the journal, or at the first of that name: ``kill`` (SIGKILL
to itself), ``halt`` (stands still for ever, for a machine that is switched off), ``read-only`` or
``read-only-state`` (/etc/containerd, or the agent's own folder, turns read-only); or ``fsync``:
fsync call NUMBER fails with EIO, which no disk here can be made to do. ``count`` writes the number
of steps to the file that NUMBER names.
"""

from __future__ import annotations

import errno
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

archive, how, number, *arguments = sys.argv[1:]
sys.path.insert(0, archive)

from agent import __main__ as command  # noqa: E402 - out of the archive
from agent.journal import transaction  # noqa: E402

READ_ONLY = {"read-only": "/etc/containerd", "read-only-state": "/var/lib/moorage"}
steps: list[str] = []


def on_step(name: str) -> None:
    steps.append(name)
    if how == "count" or number not in (str(len(steps)), name):
        return
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "halt":
        Path("/run/halted").write_text(name)
        time.sleep(600)
    elif how in READ_ONLY:
        turn_read_only(READ_ONLY[how])


def turn_read_only(folder: str) -> None:
    """By a mount above: the one below cannot be remounted while the agent's lock is open on it."""
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)


def fail_fsync() -> None:
    calls, real = itertools.count(1), os.fsync

    def fsync(descriptor: int) -> None:
        if next(calls) == int(number):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    os.fsync = fsync  # type: ignore[assignment]


if how == "fsync":
    fail_fsync()
else:
    transaction.on_step = on_step
sys.argv = ["agent", *arguments]
code = command.main()
if how == "count":
    Path(number).write_text(str(len(steps)))
sys.exit(code)
