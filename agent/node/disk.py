"""Bytes that are on the disk before a call returns: the only code that writes files on the node.

What is written, and when, is decided in :mod:`agent.journal.transaction`; the agent's own small
files are replaced by :func:`write_own`.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import fcntl
import os
import re
import shlex
import stat
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agent.wire.faults import AgentError


def outside(root: str, path: str) -> Path:
    """Where a resolved path of the node really is."""
    return Path(root, path.lstrip("/"))


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


def write_new(path: Path, content: bytes, mode: int, like: Path | None = None) -> None:
    """A new file, its bytes on the disk before this returns; nothing is left where that fails.

    It belongs to whom the folder ``like`` belongs to.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, mode)
    try:
        if like is not None:
            owner = like.stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
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


_BLOCK = 4096  # what a disk writes whole, at least


def mixed(now: bytes, new: bytes, old: bytes) -> bool:
    """Whether ``now`` is what is left of writing ``new`` over ``old`` and being cut off.

    In each block the new bytes come first and the old ones after; blocks may reach the disk in any
    order.
    """
    if not min(len(new), len(old)) <= len(now) <= max(len(new), len(old)):
        return False
    for start in range(0, len(now), _BLOCK):
        block, ours, theirs = (one[start : start + _BLOCK] for one in (now, new, old))
        same = next(
            (k for k, (a, b) in enumerate(zip(block, ours)) if a != b), min(len(block), len(ours))
        )
        if block[same:] != theirs[same : len(block)]:
            return False
    return True


def sync_folder(path: Path) -> None:
    """Have the names in a folder on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path, mode: int) -> None:
    """Create the folder, and its parents, if missing."""
    if not path.is_dir():
        path.mkdir(mode=mode, parents=True, exist_ok=True)
        path.chmod(mode)
        sync_folder(path.parent)


# Why a folder may stay: others' files are in it, it is a mount, somebody else removed or locked it.
_MAY_STAY = frozenset((errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY, errno.ENOENT, errno.ENOTDIR,
                       errno.EPERM, errno.EACCES))  # fmt: skip


def remove_if_empty(path: Path) -> None:
    """Remove a folder that nothing is in. Raises OSError for a file system that turned read-only.

    That one is asked only for what is to go: it refuses before it looks.
    """
    try:
        if not any(path.iterdir()):
            path.rmdir()
            sync_folder(path.parent)
    except OSError as problem:
        if problem.errno not in _MAY_STAY:
            raise


_EXPLAINED = {
    errno.ENOSPC: ("disk-full", "the disk is full", "make room (df -h), then run again"),
    errno.EDQUOT: ("disk-full", "the disk quota is used up", "raise the quota, then run again"),
    errno.EROFS: ("read-only", "the file system is read-only",
                  "remount it writable, or find out why it is not: dmesg | tail"),
    errno.EACCES: ("not-root", "this user may not write there", "run the agent as root"),
    errno.EPERM: ("not-permitted", "the kernel forbids it",
                  "look for the immutable attribute: lsattr"),
}  # fmt: skip
# What keeps a file from being written until somebody mends it.
WRITE_CODES = frozenset((*(code for code, _, _ in _EXPLAINED.values()), "write-failed"))


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """An operating system's error as one with cause and cure."""
    try:
        yield
    except OSError as problem:
        raise explanation(problem, path) from problem


def explanation(problem: OSError, path: Path) -> AgentError:
    """Return the error with cause and cure for a file that cannot be written."""
    where = Path(os.fsdecode(problem.filename or path))
    known = _EXPLAINED.get(problem.errno or 0)
    code, cause, cure = known or ("write-failed", str(problem), "look at the disk: dmesg | tail")
    message = f"{where} cannot be written: {cause}"
    if problem.errno == errno.EROFS:
        mount = mount_point(where)
        cause = f"{mount} is mounted read-only"
        again = f"mount -o remount,rw {shlex.quote(str(mount))}"
        cure = f"{again} (if that fails: dmesg | tail), then run again"
    return AgentError(code, message, cause, cure)


_GET_FLAGS = 0x80086601  # FS_IOC_GETFLAGS, ioctl_iflags(2)
_FLAGS = {0x10: "i", 0x20: "a"}  # FS_IMMUTABLE_FL, FS_APPEND_FL, as chattr(1) names them


def refuse_unwritable(path: Path) -> None:
    """Raise AgentError if a file cannot be made, replaced or removed at ``path``.

    Writes nothing to find out: access(2) tells a read-only mount and an immutable file too, by the
    kernel's own check of the real operation. A disk that is full is not found out.
    """
    folder = path.parent
    while not os.path.lexists(folder):
        folder = folder.parent
    _refuse_unwritable(folder, os.W_OK | os.X_OK)
    if os.path.lexists(path):
        _refuse_unwritable(path, os.W_OK)


def _refuse_unwritable(path: Path, mode: int) -> None:
    flags = _flags(path)
    if flags:
        raise AgentError(
            "not-permitted",
            f"{path} cannot be changed: it has the attribute {flags}",
            cause=f"somebody locked it with chattr +{flags}",
            cure=f"chattr -{flags} {shlex.quote(str(path))}, then run again",
        )
    if not os.access(path, mode):
        read_only = os.statvfs(path).f_flag & os.ST_RDONLY
        number = errno.EROFS if read_only else errno.EACCES
        raise explanation(OSError(number, os.strerror(number), str(path)), path)


def _flags(path: Path) -> str:
    """The attributes by which a file or folder is locked, as chattr(1) names them."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        # The kernel writes an int, whatever the request's number says.
        (found,) = struct.unpack_from("I", fcntl.ioctl(descriptor, _GET_FLAGS, bytes(8)))
    except OSError:  # a file system without attributes
        return ""
    finally:
        os.close(descriptor)
    return "".join(name for bit, name in _FLAGS.items() if found & bit)


def mount_points() -> frozenset[str]:
    """Every mount point that this process sees, a bind-mounted file among them."""
    try:
        lines = Path("/proc/self/mountinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return frozenset()
    # proc_pid_mountinfo(5) writes blanks and the like in octal.
    words = (line.split(" ", 5)[4] for line in lines)
    return frozenset(
        re.sub(r"\\([0-7]{3})", lambda one: chr(int(one[1], 8)), word) for word in words
    )


def is_mounted(target: Path) -> bool:
    """Whether a file is a mount point (a container's /etc/hosts): no rename over those."""
    return str(target.resolve()) in mount_points()


def mount_point(path: Path) -> Path:
    """The mount that a path is on; the path need not be there."""
    mounts = mount_points()
    whole = Path(os.path.realpath(path))
    return next((one for one in (whole, *whole.parents) if str(one) in mounts), Path("/"))
