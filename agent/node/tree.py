"""The node's files, read below a root with links followed inside it. Reads only."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import NamedTuple

from agent.wire.faults import NotAtOnceError

MAX_FILE = 8 << 20


class File(NamedTuple):
    """A file as it was found. ``content`` is None if there is none.

    ``target`` is where the bytes are after all links; ``problem`` says why it cannot be read.
    """

    path: str
    target: str
    content: bytes | None = None
    problem: str = ""


class Tree:
    """The node's files, read once each, so that every decision is about the same moment."""

    def __init__(self, root: str = "/", longest: int | None = None) -> None:
        """A file of more than ``longest`` bytes raises NotAtOnceError where it is read."""
        self.root = root
        self._longest = longest
        self._seen: dict[str, File] = {}

    def read(self, path: str) -> File:
        if path not in self._seen:
            self._seen[path] = self._read(path)
        return self._seen[path]

    def names(self, folder: str) -> tuple[str, ...]:
        """What a folder holds, sorted; empty if it is missing."""
        try:
            return tuple(sorted(entry.name for entry in self.outside(folder).iterdir()))
        except OSError:
            return ()

    def exists(self, path: str) -> bool:
        try:
            return self.outside(path).exists()
        except OSError:
            return False

    def written(self, path: str) -> float | None:
        """When a file's bytes were last written (mtime, seconds); None if there is none."""
        try:
            return self.outside(path).stat().st_mtime
        except OSError:
            return None

    def changed(self, path: str) -> int:
        """When a file or folder, or what the system knows of it, last changed (ctime, ns); 0: none.

        A copy keeps a file's own time (``cp -p``), never this one (inode(7)).
        """
        try:
            return self.outside(path).stat().st_ctime_ns
        except OSError:
            return 0

    def real(self, path: str) -> str:
        """The path with every link followed; as it is where they lead in a circle."""
        try:
            return self._resolve(path)
        except OSError:
            return path

    def outside(self, path: str) -> Path:
        """Where a path of the node really is, links followed inside the root."""
        return Path(self._inside(self._resolve(path)))

    def _inside(self, target: str) -> str:
        """Where a path without links is, below the root."""
        return os.path.join(self.root, target.lstrip("/"))  # noqa: PTH118

    def _read(self, path: str) -> File:
        try:
            target = self._resolve(path)
        except OSError as problem:
            return File(path, path, problem=str(problem))
        try:
            with open(self._inside(target), "rb", opener=_at_once) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    return File(path, target, problem="it is not a regular file")
                if self._longest is not None and os.fstat(file.fileno()).st_size > self._longest:
                    raise NotAtOnceError(path)
                content = file.read(MAX_FILE + 1)
        except FileNotFoundError:
            return File(path, target, problem=self._dangling(path, target))
        except OSError as problem:
            return File(path, target, problem=f"it cannot be read: {problem.strerror}")
        if len(content) > MAX_FILE:
            return File(path, target, problem=f"it has more than {MAX_FILE} bytes")
        return File(path, target, content)

    def _dangling(self, path: str, target: str) -> str:
        """Why a missing file is no blank to fill in: its last name is a link to nowhere."""
        folder, _, name = path.rpartition("/")
        if (self.outside(folder) / name).is_symlink():
            return f"it is a link to {target}, which does not exist"
        return ""

    def _resolve(self, path: str) -> str:
        """``path`` with every link followed inside the root, as ``realpath`` would in a chroot."""
        pending = [part for part in reversed(path.split("/")) if part]
        done: list[str] = []
        root = self.root.rstrip("/")
        links = 0
        while pending:
            part = pending.pop()
            if part in (".", ""):
                continue
            if part == "..":
                done = done[:-1]
                continue
            try:
                # Asked of every part of every path: pathlib would be most of the work.
                link = os.readlink("/".join((root, *done, part)))  # noqa: PTH115
            except OSError:
                done.append(part)
                continue
            links += 1
            if links > 40:
                raise OSError("its links lead in a circle")
            if link.startswith("/"):
                done = []
            pending.extend(part for part in reversed(link.split("/")) if part)
        return "/" + "/".join(done)


def _at_once(path: str, flags: int) -> int:
    """Opens without waiting: a pipe in a file's place has no writer, and is told apart later."""
    return os.open(path, flags | os.O_NONBLOCK)
