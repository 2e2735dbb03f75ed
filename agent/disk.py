"""Bytes that are on the disk before a call returns: the only code that writes files on the node.

What is written, and when, is decided in :mod:`agent.transaction`; the agent's own small files are
replaced by :func:`write_own`.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agent.faults import AgentError


def write_own(path: Path, content: bytes, mode: int) -> None:
    """Replace one of the agent's own files as a whole; its folder is made, 0700.

    Only for files that nobody else has a say in: nothing keeps what stood there before.
    """
    with explained(path):
        make_folder(path.parent, 0o700)
        draft = path.with_name(f".{path.name}.new")
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()
        write_new(draft, content, mode)
        draft.rename(path)
        sync_folder(path.parent)


def metadata_of(path: Path) -> dict[str, Any]:
    """Owner, mode and extended attributes: ACLs and SELinux labels are among the latter."""
    status = path.stat()
    attributes = {}
    with contextlib.suppress(OSError):
        for name in os.listxattr(path):
            attributes[name] = base64.b64encode(os.getxattr(path, name)).decode()
    return {
        "mode": stat.S_IMODE(status.st_mode),
        "uid": status.st_uid,
        "gid": status.st_gid,
        "xattrs": attributes,
    }


def apply_metadata(path: Path, wanted: Mapping[str, Any]) -> None:
    """Give a file what :func:`metadata_of` found, and have it on the disk."""
    status = path.stat()
    if (status.st_uid, status.st_gid) != (wanted["uid"], wanted["gid"]):
        os.chown(path, wanted["uid"], wanted["gid"])
    path.chmod(wanted["mode"])
    for name, value in wanted["xattrs"].items():
        content = base64.b64decode(value)
        with contextlib.suppress(OSError):
            if os.getxattr(path, name) == content:
                continue
        os.setxattr(path, name, content)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_new(path: Path, content: bytes, mode: int) -> None:
    """A new file, its bytes on the disk before this returns; nothing is left where that fails."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, mode)
    try:
        write_all(descriptor, content)
        os.fsync(descriptor)
    except BaseException:
        path.unlink()
        raise
    finally:
        os.close(descriptor)


def write_all(descriptor: int, content: bytes) -> None:
    """From the first byte on, however the kernel divides it."""
    place = 0
    while place < len(content):
        place += os.pwrite(descriptor, content[place:], place)


def sync_folder(path: Path) -> None:
    """Have the names in a folder on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path, mode: int) -> None:
    """Where there is none; its parents too."""
    if not path.is_dir():
        path.mkdir(mode=mode, parents=True, exist_ok=True)
        path.chmod(mode)
        sync_folder(path.parent)


_EXPLAINED = {
    errno.ENOSPC: ("disk-full", "the disk is full", "make room (df -h), then run again"),
    errno.EDQUOT: ("disk-full", "the disk quota is used up", "raise the quota, then run again"),
    errno.EROFS: ("read-only", "the file system is read-only",
                  "remount it writable, or find out why it is not: dmesg | tail"),
    errno.EACCES: ("not-root", "this user may not write there", "run the agent as root"),
    errno.EPERM: ("not-permitted", "the kernel forbids it",
                  "look for the immutable attribute: lsattr"),
}  # fmt: skip


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """An operating system's error as one with cause and cure."""
    try:
        yield
    except OSError as problem:
        known = _EXPLAINED.get(problem.errno or 0)
        code, cause, cure = known or (
            "write-failed",
            str(problem),
            "look at the disk: dmesg | tail",
        )
        where = problem.filename or path
        message = f"{where} cannot be written: {cause}"
        raise AgentError(code, message, cause, cure) from problem
