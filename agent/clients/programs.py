"""Pulls by clients that are programs: Podman, Buildah, Skopeo, nerdctl and buildctl.

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
from collections.abc import Iterator
from pathlib import Path

from agent.clients.failures import EngineError
from agent.wire.plan import Registry, Verify


def podman_pull(program: str, registry: Registry, verify: Verify, seconds: float) -> None:
    """``podman pull``, ``buildah pull`` or ``skopeo inspect``, by the program's name, with the
    login in memory (containers-auth.json(5)). Skopeo keeps no images; it asks for the manifest."""
    image = f"docker://{verify.image}"
    words = {
        "skopeo": ["inspect", "--authfile", _AUTH, image],
        "buildah": ["pull", "--quiet", "--authfile", _AUTH, verify.image],
    }
    usual = ["pull", "--quiet", "--authfile", _AUTH, verify.image]
    _run([program, *words.get(program.rpartition("/")[2], usual)], registry, verify, seconds)


def nerdctl_pull(program: str, registry: Registry, verify: Verify, seconds: float) -> None:
    """``nerdctl pull``, which reads its login as Docker's client does (its docs/registry.md)."""
    with _docker_config() as folder:
        words = [program, "pull", "--quiet", verify.image]
        _run(words, registry, verify, seconds, DOCKER_CONFIG=folder)


def buildctl_pull(
    program: str, address: str, registry: Registry, verify: Verify, seconds: float
) -> None:
    """A build of nothing but the image, which buildkitd asks the registry for anew.

    https://github.com/moby/buildkit/blob/master/frontend/dockerfile/docs/reference.md and
    ``image-resolve-mode`` in its frontend/dockerui/config.go.
    """
    with _docker_config() as folder:
        Path(folder, "Dockerfile").write_text(f"FROM {verify.image}\n", "utf-8")
        words = [
            program, "--addr", address, "build", "--progress", "plain",
            "--frontend", "dockerfile.v0", "--opt", "image-resolve-mode=pull",
            "--local", f"context={folder}", "--local", f"dockerfile={folder}",
        ]  # fmt: skip
        _run(words, registry, verify, seconds, DOCKER_CONFIG=folder)


_AUTH = "/proc/self/fd/{}"  # the program's own: what it inherits keeps its number


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
            Path(environment["DOCKER_CONFIG"], "config.json").symlink_to(_AUTH.format(held))
        done = subprocess.run(
            [word.format(held) if word == _AUTH else word for word in words],
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
