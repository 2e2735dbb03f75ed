"""A disk that fills up while a bundle or an index is made or unpacked."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moorage.errors import MoorageError


def full(what: str, why: str, folder: Path) -> MoorageError:
    """A full disk, by what could not be done."""
    return MoorageError(
        "disk-full",
        what,
        cause=why,
        cure=f"make room: df -h {folder}; then run the same command again: it goes on from here",
        path=str(folder),
    )


@contextmanager
def room(folder: Path, what: str) -> Iterator[None]:
    """Turns a disk that fills up within the block into a MoorageError (``disk-full``).

    ``what`` is told then, as "the bundle could not be made".
    """
    try:
        yield
    except OSError as problem:
        if problem.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        why = f"{problem.filename or folder}: {problem.strerror}"
        raise full(f"{what}: the disk is full", why, folder) from None
