"""One agent at work on a node at a time; the others wait, and say who it is."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
from collections.abc import Iterator
from typing import Any

from agent.journal.ledger import Store
from agent.node.disk import explained, make_folder
from agent.wire.faults import AgentError


@contextlib.contextmanager
def locked(store: Store, operation: str, wait: float) -> Iterator[None]:
    """Be the only agent at work on this node, or say who is."""
    with explained(store.folder):
        make_folder(store.folder, 0o700)
        descriptor = os.open(store.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as problem:
                if problem.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
                if time.monotonic() >= deadline:
                    raise _busy(os.pread(descriptor, 4096, 0), wait) from None
            time.sleep(0.05)
        holder = {
            "pid": os.getpid(), "operation": operation, "since": int(time.time()), **asker()
        }  # fmt: skip
        with contextlib.suppress(OSError):  # a full disk must not keep a rollback from happening
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def unmoved(store: Store) -> Iterator[bool]:
    """Whether no agent works on this node; then none begins to within the block. Writes nothing.

    Others wait for its end as for that of another agent (:func:`locked`).
    """
    try:
        descriptor = os.open(store.lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # none ever did
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def holder(store: Store) -> dict[str, Any] | None:
    """Who holds the node's lock, or None if it is free."""
    try:
        with store.lock.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return _parsed_holder(file.read(4096))
    except OSError:
        pass
    return None


def asker() -> dict[str, str]:
    """Who asks for this: the user behind sudo, and where from."""
    return {
        "by": os.environ.get("SUDO_USER") or os.environ.get("USER") or "root",
        "from": os.environ.get("SSH_CONNECTION", "").partition(" ")[0],
    }


def _parsed_holder(content: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(content))
    except (ValueError, TypeError):
        return {}


def _busy(content: bytes, wait: float) -> AgentError:
    found = _parsed_holder(content)
    since = time.strftime("%H:%M:%S", time.gmtime(found.get("since", 0)))
    who = f"{found.get('by', 'someone')} (process {found.get('pid', '?')}"
    who += f", from {found['from']})" if found.get("from") else ")"
    return AgentError(
        "locked",
        f"another agent is at work here: {found.get('operation', '?')} by {who} since {since} UTC",
        cause=f"it did not finish within the {wait:g} seconds this one waited",
        cure="wait for it and run again; `status` says when the node is free",
    )
