"""``__main__`` of agent.pyz: unpacks the archive once, so that later runs find bytecode.

A zip holds no bytecode and is slow to import from (DESIGN: 186 against 53 ms for gRPC alone). As
root the archive is unpacked under its digest below ``/var/lib/moorage``; where that cannot be, on a
full disk or as another user, it runs from the zip all the same.
"""

from __future__ import annotations

import os
import sys

HOME = "/var/lib/moorage/agent"
KEEP = 2  # an older agent may still be at work, and imports late


def unpacked(archive: str) -> str:
    """The folder with the archive's content, made if need be, else the archive itself."""
    if os.geteuid() != 0:
        return archive
    import hashlib

    try:
        with open(archive, "rb") as file:  # noqa: PTH123  (pathlib costs more than all of this)
            digest = hashlib.sha256(file.read()).hexdigest()
        folder = f"{HOME}/{digest}"
        if not os.path.isdir(folder):  # noqa: PTH112
            _unpack(archive, folder)
        status = os.stat(folder)  # noqa: PTH116
    except OSError:
        return archive
    return folder if status.st_uid == 0 and not status.st_mode & 0o022 else archive


def _unpack(archive: str, folder: str) -> None:
    """All or nothing: the folder gets its name when everything in it is on the disk."""
    import shutil
    import tempfile
    import zipfile
    from pathlib import Path

    home = Path(HOME)
    home.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    home.parent.chmod(0o700)
    home.mkdir(mode=0o700, exist_ok=True)
    draft = tempfile.mkdtemp(prefix=".draft-", dir=home)
    try:
        with zipfile.ZipFile(archive) as bundle:
            bundle.extractall(draft)
        os.sync()
        Path(draft).rename(folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    # The archives themselves, and what else is kept here, are files; only what was unpacked counts.
    unpacked_ones = [path for path in home.iterdir() if path.is_dir()]
    others = sorted(unpacked_ones, key=lambda path: path.stat().st_mtime)
    for path in others[:-KEEP]:
        if path != Path(folder):
            shutil.rmtree(path, ignore_errors=True)


def run(archive: str) -> int:
    """The agent's command line, from where it imports fastest."""
    sys.path[0] = unpacked(archive)
    from agent.__main__ import main

    return main()
