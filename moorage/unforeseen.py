"""What nobody expected of the system or the engine, as a sentence with cause and cure."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from moorage.errors import MoorageError

_AGAIN = "the same command again goes on from here"
_RESTARTED = "systemctl restart docker (without systemd: end dockerd, which inv up starts again)"


def as_ours(problem: Exception) -> Exception:
    """What the system or the engine refused, as a sentence; anything else stays what it is.

    The rooms explain what they expect. A disk that fills up, or an engine that is stopped in the
    middle, can meet any of them.
    """
    if isinstance(problem, MoorageError):
        return problem
    origin = type(problem).__module__.partition(".")[0]
    if origin in ("docker", "requests", "urllib3"):
        words = str(getattr(problem, "explanation", "") or problem)
        cure = f"inv doctor; then {_AGAIN}"
        if type(problem).__name__ in ("ReadTimeout", "ReadTimeoutError"):
            # https://github.com/moby/libnetwork/pull/2679: it serves some questions, others never.
            words = f"it took the request and did not answer: {words}"
            cure = f"{_RESTARTED}; then {_AGAIN}"
        return MoorageError(
            "engine-failed",
            "the Docker engine did not do what it was asked",
            cause=words,
            cure=cure,
        )
    if isinstance(problem, PermissionError) and problem.filename:
        return _not_allowed(problem)
    if isinstance(problem, OSError) and problem.errno is not None:
        return MoorageError(
            "system-refused",
            f"this machine refused: {problem.strerror}",
            cause=str(problem),
            cure=f"inv doctor; then {_AGAIN}",
            path=str(problem.filename or ""),
        )
    return problem


def _not_allowed(problem: PermissionError) -> MoorageError:
    """A file that another user may use: Moorage was run here as root, or as somebody else."""
    from moorage.settings import ROOT

    path = Path(os.fsdecode(problem.filename))
    inside = path.is_relative_to(ROOT)
    return MoorageError(
        "not-ours",
        f"{path} may not be read or written by us",
        cause=f"this folder was used by {_owner(ROOT)} before" if inside else str(problem.strerror),
        cure=f"run this as that user, or: sudo chown -R {os.geteuid()}: {shlex.quote(str(ROOT))}"
        if inside
        else f"ls -ld {shlex.quote(str(path))} shows who may",
        path=str(path),
    )


def _owner(path: Path) -> str:
    import pwd

    number = path.stat().st_uid
    try:
        return f"the user {pwd.getpwuid(number).pw_name}"
    except KeyError:
        return f"the user {number}"
