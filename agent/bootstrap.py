"""``__main__`` of agent.pyz: finds the place it imports fastest from.

That is the archive itself where it carries the bytecode of this Python. Else, as root, it is
unpacked once under its digest below ``/var/lib/moorage``, where later runs find bytecode; where
that cannot be, on a full disk or as another user, it runs from the zip all the same.
"""

from __future__ import annotations

import gc
import os
import sys

from agent import bytecode

HOME = "/var/lib/moorage/agent"
# The journal of a transaction that has not come to its end (agent.journal.ledger).
PENDING = "/var/lib/moorage/active/intent.json"
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
            names = [name for name in bundle.namelist() if name != bytecode.MEMBER]
            bundle.extractall(draft, names)
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


def _pinned(archive: str) -> str:
    """Another name of the archive: an upgrade replaces the first, and a service imports late."""
    place = os.path.join(os.path.dirname(archive), "serving.pyz")  # noqa: PTH118, PTH120
    try:
        if os.path.lexists(place):
            os.unlink(place)  # noqa: PTH108
        os.link(archive, place)
    except OSError:
        return archive
    return place


def run(archive: str) -> int:
    """The agent's command line, from where it imports fastest."""
    table = bytecode.read(archive)
    place = unpacked(archive) if table is None else archive
    if sys.argv[1:2] == ["serve"]:
        place = _pinned(archive) if place == archive else place
    else:
        gc.disable()  # it is over in seconds; a tenth of its start went into looking for garbage
    sys.path[0] = place
    if table is not None:
        bytecode.install(place, table)
    from agent.__main__ import main

    code = main()
    if "--once" in sys.argv:
        leave(archive)
    return code


def end(code: int) -> None:
    """Ends the process with ``code``, what it said on its way out.

    To take three hundred modules apart first, which go with the process anyway, costs 10 to 20 ms.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except AttributeError:  # it was closed before we began
            pass
        except OSError:
            code = code or 1
    os._exit(code)


def leave(archive: str) -> None:
    """Takes the archive off the node, unless what it began is still to be rolled back by it."""
    import contextlib
    import shutil

    name, ending = os.path.splitext(os.path.basename(archive))  # noqa: PTH119, PTH122
    here = os.path.dirname(os.path.abspath(archive)) == HOME  # noqa: PTH100, PTH120
    if not here or ending != ".pyz" or os.path.lexists(PENDING):
        return
    for path in (archive, f"{HOME}/{name}.python"):
        with contextlib.suppress(OSError):
            os.unlink(path)  # noqa: PTH108
    shutil.rmtree(f"{HOME}/{name}", ignore_errors=True)
    with contextlib.suppress(OSError):
        os.rmdir(HOME)  # noqa: PTH106  (not where another version lies there)
