"""The one place on the operator's side that writes files. (On nodes: ``agent.node.disk``.)"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from moorage.errors import MoorageError, Refused


def user_home() -> Path:
    """The home folder of who runs this. Raises Refused (``no-home``)."""
    return user_path("~")


def user_path(name: str | Path, origin: str = "") -> Path:
    """The path that a user wrote, with the home folder in the place of its ``~`` or ``~user``.

    ``origin``: what names it, as a setting. Raises Refused (``no-home``).
    """
    try:
        return Path(name).expanduser()
    except (RuntimeError, ValueError):  # the latter: a character that no user's name can have
        raise _no_home(str(name), origin) from None


def _no_home(name: str, origin: str) -> Refused:
    user = Path(name).parts[0].removeprefix("~")
    why = f"this machine has no user {user}"
    if not user:
        why = f"HOME is not set, and this machine has no user of the number {os.getuid()}"
    whole = "write the whole path, from / on"
    return Refused(
        "no-home",
        f"{name}: the home folder is not known",
        cause=f"{origin} names it, and {why}" if origin else why,
        cure=f"correct the name, or {whole}" if user else f"export HOME=FOLDER, or {whole}",
        path=name,
    )


if TYPE_CHECKING:
    import tarfile


def user_cache() -> Path:
    """What can be made again, for all checkouts of this user.

    https://specifications.freedesktop.org/basedir-spec/
    """
    named = os.environ.get("XDG_CACHE_HOME", "")
    # The specification: a relative path is invalid and to be ignored.
    root = Path(named) if Path(named).is_absolute() else user_home() / ".cache"
    return root / "moorage"


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def write_kept(path: Path, content: bytes, *, mode: int) -> bool:
    """Writes ``content`` unless it is there already; returns whether it was written.

    A file that is there keeps its owner and mode, as somebody gave it them on purpose. Raises
    OSError.
    """
    try:
        present = path.stat()
        if path.read_bytes() == content:
            return False
    except FileNotFoundError:
        write_atomically(path, content, mode=mode)
        return True
    owner = (present.st_uid, present.st_gid)
    ours = owner == (os.geteuid(), os.getegid())
    write_atomically(path, content, mode=present.st_mode & 0o777, owner=None if ours else owner)
    return True


def content_of(path: Path) -> bytes | None:
    """What is in a file; None if there is none. Raises OSError."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def readable_folder(path: Path) -> Path:
    """Makes ``path`` (and parents) if needed, open to readers. Returns it. Raises OSError."""
    path.mkdir(parents=True, exist_ok=True)
    return path


def give_tree(path: Path, owner: tuple[int, int]) -> None:
    """Gives ``path`` and everything below it to the (uid, gid); takes root. Raises OSError.

    Links are given away themselves, and never followed.
    """
    for folder, folders, names in os.walk(path):
        for name in (*folders, *names):
            os.chown(Path(folder, name), *owner, follow_symlinks=False)
    os.chown(path, *owner, follow_symlinks=False)


def remove_folder(path: Path) -> bool:
    """Removes ``path`` and everything below it; whether it was there.

    Raises MoorageError (``not-ours``) for what belongs to another user.
    """
    if not path.exists():
        return False
    try:
        shutil.rmtree(path)
    except PermissionError as problem:
        raise MoorageError(
            "not-ours",
            f"{problem.filename} cannot be removed",
            cause="it belongs to another user",
            cure=f"sudo rm -rf {shlex.quote(str(path))}",
            path=str(path),
        ) from None
    return True


def append_line(path: Path, line: str) -> None:
    """Adds ``line`` (with its line feed) to a file that others append to as well.

    One write in append mode; a last line without line feed gets one. The file is made 0600 where
    it is not there. Raises OSError.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        whole = size == 0 or os.pread(descriptor, 1, size - 1) == b"\n"
        os.write(descriptor, ("" if whole else "\n").encode() + line.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked_beside(path: Path) -> Iterator[None]:
    """Keeps others out for the length of a block, by a file beside ``path``. Raises OSError."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    lock = os.open(path.with_name(f".{path.name}.lock"), flags, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """Fills ``path`` as a whole or not at all: yields an empty folder that becomes it at the end.

    One maker at a time; the second one waits. What a killed one left behind is cleared away. The
    parents are made, 0700. Raises OSError.
    """
    private_folder(path.parent)
    draft, old = path.with_name(f".{path.name}.draft"), path.with_name(f".{path.name}.old")
    with locked_beside(path):
        for left in (draft, old):
            shutil.rmtree(left, ignore_errors=True)
        draft.mkdir(mode=0o700)
        try:
            yield draft
            # What is named is on disk: a crash must not leave a whole folder with empty files.
            os.sync()
            if path.exists():
                path.rename(old)
            draft.rename(path)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def passing_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """An empty folder (0700) below ``parent`` for the length of a block, gone with all in it.

    One of that prefix that a killed run left is cleared away first. Raises OSError.
    """
    private_folder(parent)
    for left in parent.glob(f"{prefix}*"):
        shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def new_log(path: Path) -> TextIO:
    """Opens a new file (0600) for lines that are written as they come; makes its folder, 0700.

    Raises OSError, FileExistsError if ``path`` is there already.
    """
    private_folder(path.parent)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    return os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace")


def keep_newest(folder: Path, pattern: str, count: int) -> None:
    """Removes all but the last ``count`` files, by name. Raises OSError."""
    for old in sorted(folder.glob(pattern))[:-count]:
        old.unlink(missing_ok=True)


def write_stream(path: Path, chunks: Iterable[bytes], *, mode: int = 0o600) -> str:
    """Writes ``chunks`` into a new file of a folder nobody reads yet. Returns their SHA-256 (hex).

    Raises OSError, FileExistsError where ``path`` is there already.
    """
    digest = hashlib.sha256()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        for chunk in chunks:
            digest.update(chunk)
            file.write(chunk)
        os.fchmod(file.fileno(), mode)
    return digest.hexdigest()


def write_whole(path: Path, chunks: Iterable[bytes], sha256: str = "") -> str:
    """Gives ``path`` the content ``chunks``; returns their SHA-256 (hex).

    ``sha256``: what it has to be; else nothing is left of them. A reader sees the old file, none,
    or the whole new one. Parents are made, 0700. Raises OSError.
    """
    private_folder(path.parent)
    draft = path.with_name(f".{path.name}.part")
    draft.unlink(missing_ok=True)
    try:
        found = write_stream(draft, chunks, mode=0o644)
        if sha256 in ("", found):
            draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return found


def write_tree(folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes ``files`` (path -> content, may be run) into a folder of which nobody reads yet.

    Raises OSError.
    """
    for parent in {(folder / name).parent for name in files}:
        parent.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_stream(folder / name, [content], mode=0o755)


def link_or_copy(source: Path, target: Path) -> None:
    """Gives ``target`` the content of ``source``, by a hard link if it can be. Raises OSError."""
    private_folder(target.parent)
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:  # another filesystem, or one without links
        draft = target.with_name(f".{target.name}.part")
        shutil.copyfile(source, draft)
        draft.replace(target)


def link_to(path: Path, target: Path) -> None:
    """Makes ``path`` a link that says ``target``; parents are made, 0700. Raises OSError."""
    private_folder(path.parent)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def move(source: Path, target: Path) -> None:
    """Renames a file within a filesystem; parents are made, 0700. Raises OSError."""
    private_folder(target.parent)
    source.replace(target)


def write_tar(path: Path, members: Iterable[tuple[str, Path | bytes]]) -> None:
    """Packs ``members`` (name, content) into the tar ``path``, which is whole or not there.

    The same members give the same bytes: no times, owners or modes go in. Raises OSError.
    """
    import tarfile

    draft = path.with_name(f".{path.name}.part")
    try:
        with draft.open("wb") as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
                for name, content in members:
                    _add(tar, name, content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _add(tar: tarfile.TarFile, name: str, content: Path | bytes) -> None:
    import tarfile

    member = tarfile.TarInfo(name)
    if isinstance(content, bytes):
        member.mode, member.size = 0o644, len(content)
        tar.addfile(member, io.BytesIO(content))
        return
    with content.open("rb") as source:
        member.mode = 0o755 if source.read(2) == b"#!" else 0o644
        member.size = source.seek(0, os.SEEK_END)
        source.seek(0)
        tar.addfile(member, source)


def remove_file(path: Path) -> bool:
    """Removes a file; whether it was there. Raises OSError."""
    there = path.exists()
    path.unlink(missing_ok=True)
    return there


def settle() -> None:
    """Returns once all that was written is on the disk."""
    os.sync()
