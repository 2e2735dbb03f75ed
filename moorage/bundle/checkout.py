"""This repository as a bundle carries it: the files of one commit, and the settings as they are."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from moorage import commands
from moorage.errors import MoorageError, Refused
from moorage.files import write_atomically
from moorage.supply import manifest

if TYPE_CHECKING:
    from moorage.settings import Settings


def commit(settings: Settings) -> str:
    """The commit that is checked out.

    Raises Refused (``not-committed``) if another state than it is what runs here: settings apart,
    which go in as they are.
    """
    try:
        found = _git(settings.root, "rev-parse", "HEAD").decode().strip()
        changed = _git(settings.root, "status", "--porcelain", "-z", "--untracked-files=no")
    except MoorageError as problem:
        raise Refused(
            "not-committed",
            f"the commit of {settings.root} cannot be told",
            cause=problem.cause or problem.message,
            cure="make the bundle in a git clone of Moorage, with git installed",
            path=str(settings.root),
        ) from None
    names = [one[3:].decode(errors="replace") for one in changed.split(b"\0") if one]
    names = [name for name in names if name != settings.file.name]
    if names:
        raise Refused(
            "not-committed",
            f"{settings.root} has changes that are in no commit",
            cause=f"a bundle has one commit; changed: {', '.join(names[:5])}",
            cure="git commit them, or git stash, then run this again",
            path=str(settings.root),
        )
    return found


def known_commit(root: Path) -> str:
    """The commit that is checked out in ``root``; "" where git cannot tell."""
    if not (root / ".git").exists():
        return ""
    try:
        return _git(root, "rev-parse", "HEAD").decode().strip()
    except MoorageError:
        return ""


def write(settings: Settings, wanted: str, folder: Path) -> None:
    """Writes the repository at the commit ``wanted``, `run` and the settings into ``folder``."""
    write_atomically(
        folder / manifest.REPOSITORY, _git(settings.root, "archive", "--format=tar", wanted)
    )
    script = _git(settings.root, "show", f"{wanted}:{manifest.RUN}")
    write_atomically(folder / manifest.RUN, script, mode=0o755)
    if settings.file.exists():
        content = settings.file.read_bytes()
        write_atomically(folder / settings.file.name, content, mode=0o644)


def locks(root: Path) -> dict[str, str]:
    """The digests of the locks as they are in ``root``."""
    paths = ((name, root / name) for name in manifest.LOCKS)
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in paths if path.exists()
    }


def _git(root: Path, *words: str) -> bytes:
    return commands.run(["git", "-C", str(root), *words]).stdout
