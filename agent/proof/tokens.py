"""A bearer token for one image, as a runtime fetches it before it pulls.

https://distribution.github.io/distribution/spec/auth/token/. Only a clear answer counts: whatever
keeps a token from being had here is left to the runtime's own pull: it has other CAs and proxies.
"""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple, Optional
from urllib.parse import urlencode, urlsplit

REFUSED = (401, 403)
_MOST = 1 << 20


class TokenServer(NamedTuple):
    """Where tokens are issued, and for what: a ``Bearer`` challenge, taken apart."""

    host: str
    port: int
    path: str


def server(challenge: str, repository: str) -> Optional[TokenServer]:  # noqa: UP045  (3.9)
    """The server of a challenge, asked for a pull of ``repository``; None if a login may not go
    there, since the address is not https. Pure."""
    scheme, _, rest = challenge.partition(" ")
    found = {key.lower(): value for key, value in re.findall(r'(\w+)="([^"]*)"', rest)}
    try:
        realm = urlsplit(found.get("realm", ""))
        host, port = realm.hostname, realm.port or 443
    except ValueError:
        return None
    if scheme.lower() != "bearer" or realm.scheme != "https" or not host:
        return None
    asked = {"service": found["service"]} if found.get("service") else {}
    asked["scope"] = f"repository:{repository}:pull"
    query = "&".join(filter(None, (realm.query, urlencode(asked))))
    path = f"{realm.path or '/'}?{query}"
    return TokenServer(host, port, path) if re.fullmatch(r"[\x21-\x7e]+", path) else None


def fetch(
    found: TokenServer,
    headers: Mapping[str, str],
    connect: Callable[[str, int], http.client.HTTPConnection],
) -> tuple[int, str]:
    """The status and the token, "" if none came. Raises OSError or HTTPException."""
    connection = connect(found.host, found.port)
    try:
        name = found.host if found.port == 443 else f"{found.host}:{found.port}"
        connection.request("GET", found.path, headers={"Host": name, **headers})
        answer = connection.getresponse()
        body = answer.read(_MOST)
    finally:
        connection.close()
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    said = document if isinstance(document, dict) else {}
    token = str(said.get("token") or said.get("access_token") or "")
    # It becomes a header: nothing that could end one.
    return answer.status, token if re.fullmatch(r"[\x21-\x7e]+", token) else ""
