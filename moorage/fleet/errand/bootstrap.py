# Runs on the node, as root, by `python3 -I -c`: puts the agent's archive in place, then runs it.
# stdin: the archive, then what the agent itself reads. argv: digest, size, python, agent's words.
# It stands alone, on any Python >= 3.9, and is never imported: its words travel in an argument.
# pathlib would only cost start-up here, and stdout is the line to the operator:
# ruff: noqa: PTH102, PTH104, PTH108, PTH116, PTH208, T201
from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
import sys
import time
import zipimport
from typing import NoReturn

STATE = "/var/lib/moorage"
FOLDER = STATE + "/agent"
FAILED = 85
OUT_OF_USE = 86400  # seconds


def fail(problem: int | None, path: str) -> NoReturn:
    print(json.dumps({"event": "not-installed", "errno": problem, "path": path}))
    sys.stdout.flush()
    os._exit(FAILED)


def own_folder(path: str) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    found = os.lstat(path)
    # Root is about to run what lies here: nobody else may be able to put something there.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        fail(errno.EPERM, path)


def receive(size: int) -> bytes:
    # Not a byte more than the archive: what follows on this pipe is for the agent.
    parts = []
    while size:
        part = os.read(0, min(size, 1 << 16))
        if not part:
            fail(errno.EPIPE, FOLDER)
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def install(name: str, content: bytes) -> str:
    path = FOLDER + "/" + name
    new = path + ".new." + str(os.getpid())
    try:
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(handle, view) :]
            os.fsync(handle)
        finally:
            os.close(handle)
        os.rename(new, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise
    return path


def clear_away(digest: str) -> None:
    # Two operators with different versions may take turns: only what is out of use goes.
    for name in os.listdir(FOLDER):
        path = FOLDER + "/" + name
        if name.endswith((".pyz", ".python")) and not name.startswith(digest):
            with contextlib.suppress(OSError):
                if os.stat(path).st_mtime < time.time() - OUT_OF_USE:
                    os.unlink(path)


def main() -> None:
    digest, size, python = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    archive = receive(size)
    if hashlib.sha256(archive).hexdigest() != digest:
        fail(errno.EBADMSG, FOLDER)
    path = FOLDER
    try:
        own_folder(STATE)
        own_folder(FOLDER)
        # The archive comes last: where it is, the other file is too.
        path = install(digest + ".python", (python + "\n").encode())
        path = install(digest + ".pyz", archive)
        clear_away(digest)
        folder = os.open(FOLDER, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
    except OSError as problem:
        with contextlib.suppress(OSError):
            os.unlink(FOLDER + "/" + digest + ".python")
        fail(problem.errno, problem.filename or path)
    # What `python3 -I -S agent.pyz` would do, in this process: a start less.
    sys.argv[:] = [path, *sys.argv[4:]]
    sys.path.insert(0, path)
    code = zipimport.zipimporter(path).get_code("__main__")
    exec(code, {"__name__": "__main__", "__file__": path + "/__main__.py"})  # noqa: S102


main()
