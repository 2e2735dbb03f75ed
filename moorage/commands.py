"""The one place on the operator's side that runs programs: argument lists, no shell, bounded."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from moorage.errors import MoorageError, Refused

_log = logging.getLogger("moorage.programs")


def run(
    argv: Sequence[str],
    *,
    root: bool = False,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 600,
    check: bool = True,
    finish: bool = False,
    stop: threading.Event | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Runs ``argv`` to its end and returns it with its captured stdout and stderr.

    ``root``: through ``sudo`` where we are not root. ``env`` is added to our own. ``timeout`` in
    seconds. ``finish``: on Ctrl-C and SIGTERM it is waited for instead of killed, since killed it
    would leave a mess (apt heeds Ctrl-C by itself where it can). ``stop``: ends the program when
    another thread sets it; MoorageError (``stopped``) then. Raises MoorageError with the last
    words of stderr where the program is missing, takes too long or (with ``check``) fails; Refused
    where root is needed and cannot be had.
    """
    command = [*as_root(), *argv] if root else list(argv)
    _log.info("run: %s", shlex.join(command))
    began = time.monotonic()
    try:
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **(env or {})},
            cwd=cwd,
        ) as program:
            try:
                if stop is None:
                    out, err = program.communicate(stdin, timeout=timeout)
                else:
                    out, err = _unless_stopped(program, stdin, timeout, stop)
            except BaseException as problem:
                if finish and isinstance(problem, KeyboardInterrupt):
                    program.communicate()
                program.kill()
                raise
        done = subprocess.CompletedProcess(command, program.returncode, out, err)
        _log.info("%s ended with %d, %.2f s", argv[0], done.returncode, time.monotonic() - began)
        if err:
            _log.debug("%s: %s", argv[0], last_words(err, lines=40))
    except (FileNotFoundError, PermissionError):
        raise _no_program(command[0], argv) from None
    except subprocess.TimeoutExpired:
        raise MoorageError(
            "timeout", f"{argv[0]} did not end within {timeout:.0f} s", cause=" ".join(argv)
        ) from None
    if check and done.returncode != 0:
        raise MoorageError(
            "command-failed",
            f"{argv[0]} failed with exit code {done.returncode}",
            cause=last_words(done.stderr or done.stdout),
            cure=f"try it by hand: {' '.join(command)}",
        )
    return done


def _unless_stopped(
    program: subprocess.Popen[bytes], stdin: bytes | None, timeout: float, stop: threading.Event
) -> tuple[bytes, bytes]:
    """Raises MoorageError (``stopped``), TimeoutExpired."""
    until = time.monotonic() + timeout
    while True:
        try:
            return program.communicate(stdin, timeout=0.2)
        except subprocess.TimeoutExpired:
            if stop.is_set():
                raise MoorageError("stopped", "it was stopped before its end") from None
            if time.monotonic() >= until:
                raise


def logged(
    argv: Sequence[str],
    log: Path,
    *,
    heard: Callable[[str], None] = lambda _: None,
    timeout: float = 1800,
) -> None:
    """Runs ``argv`` to its end with all its output in ``log``, a file that is written anew.

    ``heard`` gets what is new in it, line by line, a few times a second. Not through a pipe: should
    we be killed, the program goes on to its end and cleans up after itself. On Ctrl-C and SIGTERM
    it gets a SIGTERM and is waited for. Raises MoorageError if it is missing, takes more than
    ``timeout`` seconds, or fails; then with the last words of ``log``.
    """
    _log.info("run: %s (its words: %s)", shlex.join(argv), log)
    until = time.monotonic() + timeout
    try:
        with (
            log.open("wb") as out,
            log.open("rb") as new,
            subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a process group, to signal as a whole
            ) as program,
        ):
            try:
                while program.poll() is None and time.monotonic() < until:
                    time.sleep(0.1)
                    for line in new:
                        heard(line.decode(errors="replace").rstrip())
            finally:
                if program.poll() is None:
                    os.killpg(program.pid, signal.SIGTERM)
    except (FileNotFoundError, PermissionError):
        if not log.exists():
            raise
        raise _no_program(argv[0], argv) from None
    if program.returncode != 0:
        late = time.monotonic() >= until
        raise MoorageError(
            "timeout" if late else "command-failed",
            f"{argv[0]} did not end within {timeout:.0f} s"
            if late
            else f"{argv[0]} failed with exit code {program.returncode}",
            cause=last_words(log.read_bytes()),
            cure=f"try it by hand: {shlex.join(argv)}",
        )


def attached(argv: Sequence[str]) -> int:
    """Runs a program on this very terminal -> its exit code."""
    _log.info("run: %s (on this terminal)", shlex.join(argv))
    code = subprocess.run(argv, check=False).returncode
    _log.info("%s ended with %d", argv[0], code)
    return code


def become(argv: Sequence[str]) -> NoReturn:
    """Goes on as ``argv``: its terminal, its signals and its exit code are the user's own.

    Raises MoorageError if it is not installed.
    """
    _log.info("become: %s", shlex.join(argv))
    try:
        os.execvp(argv[0], list(argv))  # noqa: S606 - no shell is the point
    except (FileNotFoundError, PermissionError):
        raise _no_program(argv[0], argv) from None


def has_sudo() -> bool:
    """Whether there is a sudo on ``PATH`` that may be run."""
    return shutil.which("sudo") is not None


def as_root() -> list[str]:
    """What to put before a command that needs root: nothing, or sudo.

    Raises Refused if we are not root and there is no sudo.
    """
    if os.geteuid() == 0:
        return []
    if not has_sudo():
        raise Refused(
            "no-root",
            "this needs root, and there is no sudo here",
            cause="you are not root",
            cure="run the same command as root (su -), or install sudo",
        )
    return ["sudo"]


def last_words(output: bytes, lines: int = 4) -> str:
    """The last few non-empty lines of a program's output, as one piece of text."""
    words = [line for line in output.decode(errors="replace").splitlines() if line.strip()]
    return "\n".join(words[-lines:]) or "it said nothing"


def _no_program(name: str, argv: Sequence[str]) -> MoorageError:
    """For a name that no folder of ``PATH`` has, and for a file that we may not run.

    The system says "permission denied" of both if a folder of ``PATH`` may not be read.
    """
    if (Path(name).is_absolute() and Path(name).exists()) or shutil.which(name, os.F_OK):
        return MoorageError(
            "no-program",
            f"{name} may not be run by this user",
            cause=f"it is needed for: {shlex.join(argv)}",
            cure=f"ls -l {shlex.quote(shutil.which(name, os.F_OK) or name)} shows who may",
        )
    return MoorageError(
        "no-program",
        f"{name} is not installed",
        cause=f"it is needed for: {shlex.join(argv)}",
        cure="inv doctor names the package that brings it",
    )
