"""The few words an agent says to the API server: read Secret and Node, watch, annotate, untaint.

Standard library only. The token is read at each request: kubelets renew it in place.
"""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from agent.daemonset.surroundings import Surroundings

SECONDS = 15
MAX_BYTES = 4 << 20
_MERGE = "application/merge-patch+json"


class ApiTrouble(Exception):
    """No useful answer. ``status``: HTTP's, 0 where none came."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class NodeApi:
    """The cluster's API server, as this pod's ServiceAccount."""

    def __init__(self, here: Surroundings) -> None:
        self._here = here
        self._secret = f"/api/v1/namespaces/{quote(here.namespace)}/secrets"
        self._node = f"/api/v1/nodes/{quote(here.node)}"

    def node(self) -> dict[str, Any]:
        """Our own Node."""
        return self._ask("GET", self._node)

    def plan(self) -> dict[str, Any]:
        """The Secret with the plan."""
        return self._ask("GET", f"{self._secret}/{quote(self._here.secret)}")

    def patch_node(self, change: dict[str, Any]) -> dict[str, Any]:
        """A merge patch of our own Node and of no other."""
        return self._ask("PATCH", self._node, change)

    def plans(self, version: str, seconds: int) -> Iterator[dict[str, Any]]:
        """The Secret each time it changes, for that many seconds."""
        query = (
            f"?watch=true&fieldSelector=metadata.name%3D{quote(self._here.secret)}"
            f"&resourceVersion={quote(version)}&timeoutSeconds={seconds}"
        )
        connection = self._connect(seconds + SECONDS)
        try:
            answer = self._request(connection, "GET", self._secret + query)
            if answer.status != 200:
                raise ApiTrouble(f"HTTP {answer.status}", answer.status)
            while True:
                line = answer.readline(MAX_BYTES)
                if not line:
                    return
                event = json.loads(line)
                if event.get("type") == "ERROR":
                    raise ApiTrouble("the watch is too old", 410)
                if event.get("type") in ("ADDED", "MODIFIED"):
                    yield event["object"]
        except (OSError, http.client.HTTPException, ValueError) as problem:
            raise ApiTrouble(str(problem) or type(problem).__name__) from None
        finally:
            connection.close()

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        connection = self._connect(SECONDS)
        try:
            answer = self._request(connection, method, path, body)
            content = answer.read(MAX_BYTES)
            document = json.loads(content)
        except (OSError, http.client.HTTPException, ValueError) as problem:
            raise ApiTrouble(str(problem) or type(problem).__name__) from None
        finally:
            connection.close()
        if not 200 <= answer.status < 300 or not isinstance(document, dict):
            said = document.get("message", "") if isinstance(document, dict) else ""
            raise ApiTrouble(f"HTTP {answer.status}: {said}", answer.status)
        return document

    def _connect(self, seconds: float) -> http.client.HTTPSConnection:
        context = ssl.create_default_context(cafile=f"{self._here.account}/ca.crt")
        return http.client.HTTPSConnection(
            self._here.api_host, self._here.api_port, timeout=seconds, context=context
        )

    def _request(
        self,
        connection: http.client.HTTPSConnection,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
    ) -> http.client.HTTPResponse:
        token = Path(self._here.account, "token").read_text("ascii").strip()
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        payload = None
        if body is not None:
            headers["Content-Type"] = _MERGE
            payload = json.dumps(body).encode()
        connection.request(method, path, payload, headers)
        return connection.getresponse()
