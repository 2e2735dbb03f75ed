"""Pulls by runtimes that speak no CRI: Docker through its API, the others through their programs.

The login never touches a disk or an argument list: Docker takes it in a header, the programs from a
file that exists in memory only (memfd_create(2)).
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from agent.wire.plan import Registry, Verify


class EngineError(Exception):
    """What the runtime said of a pull that failed."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


PING_SECONDS = 10  # an engine at work answers a ping at once; a socket that nobody serves, never
_HERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (no bind)


class _Engine(http.client.HTTPConnection):
    """Docker's API at a socket's path, or at ``tcp://host:port``; every address is this host's."""

    def __init__(self, address: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._address = address

    def connect(self) -> None:
        if self._address.startswith("tcp://"):
            parts = urlsplit(self._address)
            place = _HERE.get(parts.hostname or "", parts.hostname)
            self.sock = socket.create_connection((place, parts.port or 2375), self.timeout)
            return
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._address)


def docker_info(socket_path: str) -> dict[str, object]:
    """What ``GET /info`` tells; nothing where the engine does not answer at once."""
    connection = _Engine(socket_path, 5)
    try:
        connection.request("GET", "/info")
        return _said(connection.getresponse().read())
    except (OSError, ValueError, http.client.HTTPException):
        return {}
    finally:
        connection.close()


def docker_containers(socket_path: str) -> dict[str, bool] | None:
    """The containers that run, and whether Docker starts each again after a restart of its own.

    https://docs.docker.com/engine/containers/start-containers-automatically/. None: no answer.
    """
    connection = _Engine(socket_path, 10)
    try:
        found = {}
        for one in _listed(_got(connection, "/containers/json")):
            details = _said(_got(connection, f"/containers/{one['Id']}/json"))
            setting: Any = details.get("HostConfig") or {}
            policy = (setting.get("RestartPolicy") or {}).get("Name")
            name = str(details.get("Name") or one["Id"][:12]).lstrip("/")
            found[name] = policy in ("always", "unless-stopped")
        return found
    except (OSError, ValueError, KeyError, AttributeError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _got(connection: _Engine, path: str) -> bytes:
    connection.request("GET", path)
    return connection.getresponse().read()


def _listed(content: bytes) -> list[dict[str, Any]]:
    found = json.loads(content)
    if not isinstance(found, list):
        raise ValueError("not a list of containers")
    return found


def docker_pull(socket_path: str, verify: Verify, seconds: float) -> None:
    """``POST /images/create``, whose answer is a line of JSON a step.

    https://docs.docker.com/reference/api/engine/version/v1.40/#tag/Image/operation/ImageCreate
    """
    name, at, digest = verify.image.partition("@")
    repository, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        repository, tag = name, "latest"
    query = urlencode({"fromImage": repository, "tag": digest if at else tag})
    login = {"username": verify.username, "password": verify.password}
    header = base64.urlsafe_b64encode(json.dumps(login if verify.username else {}).encode())
    _require_answer(socket_path)
    connection = _Engine(socket_path, seconds)
    try:
        headers = {"X-Registry-Auth": header.decode("ascii")}
        connection.request("POST", f"/images/create?{query}", headers=headers)
        answer = connection.getresponse()
        lines = answer.read().splitlines()
        if answer.status >= 400:
            raise EngineError(str(_said(lines[0] if lines else b"").get("message", answer.reason)))
        for line in lines:
            said = _said(line)
            if "error" in said:
                raise EngineError(str(said["error"]))
    except socket.timeout:
        raise EngineError(f"no answer within {seconds:g} seconds") from None
    except (OSError, http.client.HTTPException) as problem:
        raise EngineError(f"Docker at {socket_path} does not answer: {problem}") from None
    finally:
        connection.close()


def _require_answer(address: str) -> None:
    """Raise EngineError where nobody serves the address: systemd may hold a socket all the same."""
    connection = _Engine(address, PING_SECONDS)
    try:
        connection.request("GET", "/_ping")
        connection.getresponse().read()
    except (OSError, ValueError, http.client.HTTPException) as problem:
        raise EngineError(f"Docker at {address} does not answer: {problem}") from None
    finally:
        connection.close()


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


def _said(line: bytes) -> dict[str, object]:
    try:
        data = json.loads(line)
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}
