"""Pulls by clients that are programs, with the words that their runtimes' files give them.

The login never touches a disk or an argument list: they take it from a file that exists in memory
only (memfd_create(2)).
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from agent.clients.failures import EngineError
from agent.wire.plan import Registry, Verify
from agent.wire.runtimes.declaration import AUTH, FROM, IMAGE


def pull(command: Sequence[str], registry: Registry, verify: Verify, seconds: float) -> None:
    """Run ``command`` (:attr:`agent.formats.proposal.Proof.command`) for the image of ``verify``.

    A program that is given no file with the login reads Docker's configuration. Raises
    EngineError with the program's last words, or if it takes longer than ``seconds``.
    """
    words = [word.replace(IMAGE, verify.image) for word in command]
    if AUTH in words:
        _run(words, registry, verify, seconds)
        return
    with _docker_config() as folder:
        if any(FROM in word for word in words):
            Path(folder, "Dockerfile").write_text(f"FROM {verify.image}\n", "utf-8")
        words = [word.replace(FROM, folder) for word in words]
        _run(words, registry, verify, seconds, DOCKER_CONFIG=folder)


_LOGIN = "/proc/self/fd/{}"  # the program's own: what it inherits keeps its number


@contextlib.contextmanager
def _docker_config() -> Iterator[str]:
    """A folder whose config.json leads to the memory that the login is in."""
    with tempfile.TemporaryDirectory(prefix="moorage-") as folder:
        yield folder


def _run(
    words: list[str], registry: Registry, verify: Verify, seconds: float, **environment: str
) -> None:
    """A client's pull. Raises EngineError with its last words.

    Podman looks for certificates below HOME, which sudo may have left at another user's.
    """
    import pwd

    home = pwd.getpwuid(os.geteuid()).pw_dir
    held = os.memfd_create("login")
    name = words[0].rpartition("/")[2]
    try:
        auths: dict[str, object] = {}
        if verify.username is not None:
            login = f"{verify.username}:{verify.password or ''}".encode()
            auth = {"auth": base64.b64encode(login).decode("ascii")}
            auths.update((one.name, auth) for one in registry.spellings)
        os.write(held, json.dumps({"auths": auths}).encode())
        if "DOCKER_CONFIG" in environment:
            Path(environment["DOCKER_CONFIG"], "config.json").symlink_to(_LOGIN.format(held))
        done = subprocess.run(
            [_LOGIN.format(held) if word == AUTH else word for word in words],
            stdin=subprocess.DEVNULL, capture_output=True, pass_fds=(held,), timeout=seconds,
            check=False, env={**os.environ, "LC_ALL": "C", "HOME": home, **environment},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise EngineError(f"no answer within {seconds:g} seconds") from None
    except OSError as problem:
        raise EngineError(f"{words[0]} cannot be run: {problem.strerror}") from None
    finally:
        os.close(held)
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace")
        raise EngineError(_last_error(said) or f"{name} ended with {done.returncode}")


def _last_error(words: str) -> str:
    """What a client says last: its error, of which a registry's own are lines of their own."""
    _, mark, error = words.strip().rpartition("Error: ")
    return " ".join(f"{mark}{error}".split("\n")) if mark else error.rpartition("\n")[2]
