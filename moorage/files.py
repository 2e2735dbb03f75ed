"""The one place on the operator's side that writes files. (On nodes: ``agent.transaction``.)"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def private_folder(path: Path, *, owner: tuple[int, int] | None = None) -> Path:
    """Makes ``path`` (and parents) if needed and keeps it 0700. Returns it. Raises OSError.

    ``owner``: the (uid, gid) it shall belong to; giving it away takes root.
    """
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    present = path.stat()
    if owner is not None and (present.st_uid, present.st_gid) != owner:
        os.chown(path, *owner)
    if present.st_mode & 0o777 != 0o700:
        path.chmod(0o700)
    return path


def write_atomically(
    path: Path, content: bytes, *, mode: int = 0o600, owner: tuple[int, int] | None = None
) -> None:
    """Replaces ``path`` as a whole: a reader, or a crash, sees the old file or the new one.

    The content is on disk before the name changes, and the name before this returns (fsync(2) of
    file and folder). ``owner``: its (uid, gid), if not ours. Raises OSError.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            if owner is not None:
                os.fchown(file.fileno(), *owner)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
