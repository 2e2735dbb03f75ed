"""Docker through its API: what it is, what runs, and a pull whose login travels in a header."""

from __future__ import annotations

import base64
import http.client
import json
import socket
from typing import Any
from urllib.parse import urlencode, urlsplit

from agent.clients.failures import EngineError
from agent.wire import unix_sockets
from agent.wire.plan import Verify

PING_SECONDS = 10  # an engine at work answers a ping at once; a socket that nobody serves, never
_HERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (no bind)


class _Engine(http.client.HTTPConnection):
    """Docker's API at a socket's path, or at ``tcp://host:port``; every address is this host's."""

    def __init__(self, address: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._address, self._seconds = address, timeout

    def connect(self) -> None:
        if self._address.startswith("tcp://"):
            parts = urlsplit(self._address)
            place = _HERE.get(parts.hostname or "", parts.hostname)
            self.sock = socket.create_connection((place, parts.port or 2375), self.timeout)
            return
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        unix_sockets.connect(self.sock, self._address, self._seconds)


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


def docker_images(socket_path: str) -> tuple[str, ...] | None:
    """Names, digests and ids of every image, and of what containers were made of. None: no answer.

    https://docs.docker.com/reference/api/engine/version/v1.40/#tag/Image/operation/ImageList
    """
    connection = _Engine(socket_path, 30)
    try:
        images = _listed(_got(connection, "/images/json?all=1"))
        containers = _listed(_got(connection, "/containers/json?all=1"))
        words = [one["Id"] for one in images]
        words += [word for one in images for word in one.get("RepoTags") or ()]
        words += [word for one in images for word in one.get("RepoDigests") or ()]
        words += [word for one in containers for word in (one["Image"], one["ImageID"])]
        return tuple(dict.fromkeys(map(str, words)))
    except (OSError, ValueError, KeyError, AttributeError, TypeError, http.client.HTTPException):
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


def _said(line: bytes) -> dict[str, object]:
    try:
        data = json.loads(line)
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}
