"""As much of a client of the cluster's API as standing it up takes; the rest is `moorage.cluster`.

Loads in no time, which the ``kubernetes`` package does not.
"""

from __future__ import annotations

import http.client
import json
import logging
import socket
import ssl
from pathlib import Path
from typing import Any

from lab.kubernetes.kubeconfig import SERVER_NAME

_log = logging.getLogger("moorage.kubernetes")

PORT = 6443
_SECONDS = 5


class Api:
    """The API server at ``address``. ``identity``: a file with a client certificate and key."""

    def __init__(self, address: str, ca: bytes, identity: Path) -> None:
        self._address = address
        self._context = ssl.create_default_context(cadata=ca.decode())
        self._context.load_cert_chain(identity)

    def ask(self, method: str, path: str) -> tuple[int, Any]:
        """(status, parsed answer or text). Raises OSError if nobody answers."""
        connection = http.client.HTTPConnection(self._address, PORT, timeout=_SECONDS)
        plain = socket.create_connection((self._address, PORT), timeout=_SECONDS)
        try:
            connection.sock = self._context.wrap_socket(plain, server_hostname=SERVER_NAME)
            connection.request(method, path)
            answer = connection.getresponse()
            _log.info("%s %s of the lab's API server: %d", method, path, answer.status)
            text = answer.read().decode(errors="replace")
        except http.client.HTTPException as problem:
            raise ConnectionError(str(problem) or type(problem).__name__) from None
        finally:
            plain.close()
            connection.close()
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, text

    def ready(self) -> str:
        """Why the API server does not serve yet; empty if it does."""
        try:
            status, text = self.ask("GET", "/readyz")
        except OSError as problem:
            return str(problem)
        return "" if status == 200 else f"{status}: {text}"

    def nodes(self) -> dict[str, str]:
        """Name of each node -> why it is not ready; empty if it is. Raises OSError."""
        status, answer = self.ask("GET", "/api/v1/nodes")
        if status != 200:
            raise ConnectionError(f"the API server answers {status}")
        return {item["metadata"]["name"]: _trouble(item) for item in answer["items"]}

    def delete_node(self, name: str) -> None:
        """Raises OSError."""
        self.ask("DELETE", f"/api/v1/nodes/{name}")


def _trouble(node: Any) -> str:
    for condition in node.get("status", {}).get("conditions", ()):
        if condition["type"] == "Ready":
            ready = condition["status"] == "True"
            return "" if ready else str(condition.get("message") or condition["status"])
    return "its kubelet has not reported yet"
