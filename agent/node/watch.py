"""Notices that files changed: inotify(7) through the C library, nothing if it cannot be had.

Folders are watched, since editors and package managers replace files by a rename, and the files
themselves, since a bind-mounted one (a container's /etc/hosts) has its folder elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import os
from collections.abc import Callable, Iterable

# <sys/inotify.h>; the values are the kernel's, the same on every architecture but for the flags.
_MASK = 0x002 | 0x004 | 0x040 | 0x080 | 0x100 | 0x200 | 0x400 | 0x800
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR)


class FileWatch:
    """Calls ``changed`` when something happens to one of the paths of :meth:`on`."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._descriptor = -1
        self._watched: dict[str, int] = {}
        self._whole = True
        self._library: ctypes.CDLL | None = None

    @property
    def works(self) -> bool:
        """Whether no change can be missed."""
        return self._descriptor >= 0 and self._whole

    def begin(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            self._library = ctypes.CDLL(None, use_errno=True)
            self._descriptor = self._library.inotify_init1(_FLAGS)
        if self._descriptor >= 0:
            asyncio.get_running_loop().add_reader(self._descriptor, self._read)

    def on(self, paths: Iterable[str]) -> None:
        """From now on these and no others; what is not there yet is watched from its folder."""
        if self._descriptor < 0 or self._library is None:
            return
        self._whole = True
        wanted = {one for path in paths for one in (path, _folder(path))}
        for path in set(self._watched) - wanted:
            self._library.inotify_rm_watch(self._descriptor, self._watched.pop(path))
        for path in wanted:
            # Adding again is cheap, and finds the new file where one was replaced.
            number = self._library.inotify_add_watch(self._descriptor, os.fsencode(path), _MASK)
            if number >= 0:
                self._watched[path] = number
            elif ctypes.get_errno() not in _NOT_THERE:  # there may be no watch left to be had
                self._whole = False

    def stop(self) -> None:
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._descriptor, 1 << 16):
                pass
        self._changed()


def _folder(path: str) -> str:
    """The nearest folder that is there."""
    folder = os.path.dirname(path)  # noqa: PTH120
    while folder != "/" and not os.path.isdir(folder):  # noqa: PTH112
        folder = os.path.dirname(folder)  # noqa: PTH120
    return folder
