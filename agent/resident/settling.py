"""From an adoption to an agent that serves: what goes on when the operator has been answered.

The adoption is on the disk by then; what is left is the service's start, which is judged by a
process of the errand that outlives its line (:func:`afterwards`). Two notes tell how it goes:

resident/settling     seconds since 1970: adopted then, and the agent has not served since
unsettled.json        it did not serve, and was taken away whole: why, and which archive it was

Cut off anywhere, a service that is enabled starts at the next boot, and an operator who asks for it
in vain goes over SSH, where the next trust adopts it again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from agent.journal.ledger import Store
from agent.node.disk import explained, make_folder, write_own
from agent.resident.home import Home
from agent.wire.faults import AgentError, Fault
from agent.wire.report import StaysEvent

# A little more than its unit gives it: a node whose processors are all taken lets it wait.
SECONDS = 310.0


def begin(home: Home) -> None:
    """Adopted, and not yet served: noted before a service manager may start anything."""
    write_own(home.settling, str(int(time.time())).encode(), 0o600)


def serves(home: Home) -> None:
    """The agent serves: it is settled, and works as any other service does.

    Until then it has the lowest priority (start.py), for nobody waits for its start. One that was
    made nice by others stays so.
    """
    if home.settling.exists():
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, 0)
    for note in (home.settling, unsettled(Store(home.root))):
        with contextlib.suppress(FileNotFoundError):
            note.unlink()


def unsettled(store: Store) -> Path:
    """Why the agent of the last adoption did not come up, if it did not."""
    return store.folder / "unsettled.json"


def failed(store: Store, archive: bytes, fault: Fault) -> None:
    """Keeps why, for the next errand to tell; what cannot be kept is told by its trying again."""
    told = {"agent": hashlib.sha256(archive).hexdigest(), "error": fault.to_json()}
    with contextlib.suppress(OSError, AgentError):
        write_own(unsettled(store), json.dumps(told).encode(), 0o600)


def told(root: str) -> StaysEvent | None:
    """How the agent of the last adoption is, if it has not served yet; None if there is none."""
    store, home = Store(root), Home(root)
    with contextlib.suppress(OSError):
        if (fault := _why(store, None)) is not None:
            return StaysEvent(fault)
        if home.settling.exists():
            return StaysEvent(settling=True)
    return None


def refused(store: Store, archive: Callable[[], bytes]) -> Fault | None:
    """Why this very archive is not tried again unasked; None if it is to be tried."""
    with contextlib.suppress(OSError):
        return _why(store, archive)
    return None


def _why(store: Store, archive: Callable[[], bytes] | None) -> Fault | None:
    """From the note; ``archive``: of that one alone. Raises OSError if it must not be read."""
    try:
        note = json.loads(unsettled(store).read_bytes())
        fault = Fault(**note["error"])
        if archive is None or note["agent"] == hashlib.sha256(archive()).hexdigest():
            return fault
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass
    return None


@contextlib.contextmanager
def alone(store: Store) -> Iterator[None]:
    """One adoption is asked for and written, or taken away, at a time."""
    with explained(store.folder):
        make_folder(store.folder, 0o700)
        descriptor = os.open(store.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def afterwards(work: Callable[[], None]) -> None:
    """Does ``work`` in a process that outlives this one and its line to the operator.

    What it holds of that line would keep sshd from ending it, so it holds nothing. The end of this
    process may be the end of a terminal (sudo's use_pty), before that one has left it.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        child = os.fork()
    except OSError:  # too many processes: cut off here as anywhere, and all has been told
        return
    if child:
        return
    try:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        for line in (0, 1, 2):
            os.dup2(nothing, line)
        work()
    finally:
        os._exit(0)
