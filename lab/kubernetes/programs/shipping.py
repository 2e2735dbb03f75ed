"""Files on their way into containers and out: tar streams that never hold a program in memory."""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, NamedTuple


class File(NamedTuple):
    """A file for a container: content in memory, and its mode. Root owns it."""

    content: bytes
    mode: int = 0o644


class Reader(io.RawIOBase):
    """A stream of chunks as a file to read from."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks: Iterator[bytes] = iter(chunks)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        target = memoryview(buffer)  # type: ignore[arg-type]
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        count = min(len(target), len(self._rest))
        target[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def pack(files: Mapping[str, File]) -> bytes:
    """A tar of ``files`` (path without a leading slash -> file), folders included, owned by root.

    Folders that are there already keep their mode: the engine unpacks over them.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, file in sorted(files.items()):
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(file.content), file.mode
            tar.addfile(info, io.BytesIO(file.content))
    return buffer.getvalue()


def pack_programs(folder: Path, names: Iterable[str], *, into: str) -> IO[bytes]:
    """A tar of the programs ``names`` of ``folder``, in a temporary file that ends when closed."""
    handle = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    with tarfile.open(fileobj=handle, mode="w") as tar:
        for name in names:
            info = tar.gettarinfo(folder / name, f"{into}/{name}")
            info.mode, info.uid, info.gid, info.uname, info.gname = 0o755, 0, 0, "root", "root"
            with (folder / name).open("rb") as file:
                tar.addfile(info, file)
    handle.seek(0)
    return handle
