"""The one place on the operator's side that runs programs: argument lists, no shell, bounded."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NoReturn

from moorage.errors import MoorageError, Refused


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
) -> subprocess.CompletedProcess[bytes]:
    """Runs ``argv`` to its end and returns it with its captured stdout and stderr.

    ``root``: through ``sudo`` where we are not root. ``env`` is added to our own. ``timeout`` in
    seconds. ``finish``: on Ctrl-C and SIGTERM it is waited for instead of killed, since killed it
    would leave a mess (apt heeds Ctrl-C by itself where it can). Raises MoorageError with the last
    words of stderr where the program is missing, takes too long or (with ``check``) fails; Refused
    where root is needed and cannot be had.
    """
    command = [*as_root(), *argv] if root else list(argv)
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
                out, err = program.communicate(stdin, timeout=timeout)
            except BaseException as stop:
                if finish and isinstance(stop, KeyboardInterrupt):
                    program.communicate()
                program.kill()
                raise
        done = subprocess.CompletedProcess(command, program.returncode, out, err)
    except FileNotFoundError:
        raise MoorageError(
            "no-program",
            f"{command[0]} is not installed",
            cause=f"it is needed for: {' '.join(argv)}",
            cure="inv doctor names the package that brings it",
        ) from None
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


@contextmanager
def piped(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    heard: Callable[[str], None] = lambda _: None,
) -> Iterator[IO[bytes]]:
    """Runs ``argv`` beside us and yields its stdout to read from; waits for its end afterwards.

    ``env`` is added to our own; ``heard`` gets each line of its stderr, from a thread. Where the
    block is left early, the program is ended. Raises MoorageError with the last words of stderr
    where the program is missing or fails, and then rather than an error of the block: a reader
    that was cut off has only seen the consequence.
    """
    try:
        program = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **(env or {})},
        )
    except FileNotFoundError:
        raise MoorageError(
            "no-program",
            f"{argv[0]} is not installed",
            cause=f"it is needed for: {' '.join(argv)}",
            cure="inv doctor names the package that brings it",
        ) from None
    assert program.stdout is not None  # noqa: S101 - PIPE was asked for
    assert program.stderr is not None  # noqa: S101
    words: list[bytes] = []

    def listen(stream: IO[bytes]) -> None:
        for line in stream:
            words.append(line)
            heard(line.decode(errors="replace").rstrip())

    listener = threading.Thread(target=listen, args=(program.stderr,), daemon=True)
    listener.start()
    try:
        yield program.stdout
    except Exception:
        if program.poll() is None:
            program.terminate()
            program.wait()
            raise
    except BaseException:  # Ctrl-C: it must not work on without a reader
        program.terminate()
        program.wait()
        raise
    finally:
        program.stdout.close()
    code = program.wait()
    listener.join()
    program.stderr.close()
    if code != 0:
        raise MoorageError(
            "command-failed",
            f"{argv[0]} failed with exit code {code}",
            cause=last_words(b"".join(words)),
            cure=f"try it by hand: {' '.join(argv)}",
        )


def become(argv: Sequence[str]) -> NoReturn:
    """Goes on as ``argv``: its terminal, its signals and its exit code are the user's own.

    Raises Refused where it is not installed.
    """
    try:
        os.execvp(argv[0], list(argv))  # noqa: S606 - no shell is the point
    except FileNotFoundError:
        raise Refused(
            "no-program",
            f"{argv[0]} is not installed",
            cause=f"it is needed for: {' '.join(argv)}",
            cure="inv doctor names the package that brings it",
        ) from None


def as_root() -> list[str]:
    """What to put before a command that needs root: nothing, or sudo.

    Raises Refused where we are not root and there is no sudo.
    """
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo") is None:
        raise Refused(
            "no-root",
            "this needs root, and there is no sudo here",
            cause="you are not root",
            cure="install sudo, or run the command as root",
        )
    return ["sudo"]


def last_words(output: bytes, lines: int = 4) -> str:
    """The last few non-empty lines of a program's output, as one piece of text."""
    words = [line for line in output.decode(errors="replace").splitlines() if line.strip()]
    return "\n".join(words[-lines:]) or "it said nothing"
