"""One change to the project's state at a time: a lock file that knows who holds it."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moorage.errors import Refused
from moorage.files import private_folder


@contextmanager
def project_lock(state: Path, what: str) -> Iterator[None]:
    """Holds ``state/lock`` for the length of a block.

    The kernel frees it when the process ends, however it ends. Raises Refused with the holder's
    command and process id where somebody else is at work.
    """
    path = private_folder(state) / "lock"
    # Not inheritable: a dockerd started by us would otherwise keep the lock for ever.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another command"
            raise Refused(
                "busy",
                f"nothing was changed: {holder} is at work in this folder",
                cause=f"{path} is held by it",
                cure="wait until it has ended, or stop it, then run this again",
                path=str(path),
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{what} (process {os.getpid()})".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def holder(state: Path) -> str:
    """The command that holds ``state/lock`` now, with its process id; "" if none does.

    Nothing is locked for the question, so no command is kept from its work by it (proc(5) has
    /proc/locks).
    """
    try:
        number = (state / "lock").stat().st_ino
        text = (state / "lock").read_text(errors="replace")
        locks = Path("/proc/locks").read_text(encoding="ascii")
    except OSError:
        return ""
    process = re.search(r"\(process (\d+)\)", text)
    owners = re.findall(rf"FLOCK +ADVISORY +WRITE +(\d+) +\w+:\w+:{number} ", locks)
    return text if process and process.group(1) in owners else ""
