"""A program on a pseudo-terminal."""

from __future__ import annotations

import os
import pty
import select
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def on_a_terminal(
    code: str, typed: bytes = b"", *, until: str = "[y/N]", **variables: str
) -> tuple[int, str]:
    """The exit code and the words of a program; ``typed`` is typed once ``until`` is read."""
    child, master = pty.fork()
    if child == 0:
        os.chdir(ROOT)
        os.environ.update(variables)
        # A suite in the background ignores SIGINT, and would hand that down.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.execv(sys.executable, [sys.executable, "-c", code])  # noqa: S606
    words, answered = b"", not typed
    while select.select([master], [], [], 120)[0]:
        try:
            data = os.read(master, 65536)
        except OSError:
            break
        if not data:
            break
        words += data
        if not answered and until.encode() in words:
            os.write(master, typed)
            answered = True
    os.close(master)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), words.decode()
