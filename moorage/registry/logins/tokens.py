"""Bearer tokens: the login that Harbor, GitLab and Docker Hub take, by a server that issues tokens.

https://distribution.github.io/distribution/spec/auth/token/
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

from moorage.errors import MoorageError
from moorage.redaction import keep_secret

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from moorage.settings import Settings

_MOST = 1 << 20
# A server that does not take the login says so by one of these; GitLab uses the second.
_REFUSED = (401, 403)


def challenge(header: str) -> dict[str, str] | None:
    """A ``WWW-Authenticate`` header taken apart; None unless it asks for a bearer token. Pure."""
    scheme, _, rest = header.partition(" ")
    if scheme.lower() != "bearer":
        return None
    found = {key.lower(): value for key, value in re.findall(r'(\w+)="([^"]*)"', rest)}
    return found if found.get("realm") else None


def is_issued_by(hosts: Collection[str], wanted: Mapping[str, str]) -> bool:
    """Whether the token server of a challenge is one of these hosts, on whichever port. Pure.

    Only then a client's certificate is shown to it, as to no host but the registry's own.
    """
    try:
        return urlsplit(wanted["realm"]).hostname in hosts
    except ValueError:
        return False


def asked(wanted: Mapping[str, str]) -> dict[str, str]:
    """The query by which a challenge's token is asked for. Pure."""
    return {key: wanted[key] for key in ("service", "scope") if wanted.get(key)}


def of_answer(body: bytes) -> str:
    """The token in a server's answer, kept out of logs from now on; "" if there is none."""
    try:
        document = json.loads(body)
    except ValueError:
        return ""
    if not isinstance(document, dict):
        return ""
    token = document.get("token") or document.get("access_token")
    # It becomes a header: nothing that could end one.
    right = isinstance(token, str) and re.fullmatch(r"[\x21-\x7e]+", token)
    return keep_secret(str(token)) if right else ""


def fetch(
    settings: Settings,
    wanted: Mapping[str, str],
    headers: Mapping[str, str],
    context: ssl.SSLContext,
    timeout: float,
    address: str = "",
) -> str | None:
    """The token for ``wanted`` (a challenge); None if the server refuses the login.

    ``headers`` hold the login, or nothing for an anonymous token; ``timeout`` in seconds;
    ``address``: where the registry's own names are reached, if not by DNS. Raises MoorageError
    (``token-server``) if no token comes back.
    """
    try:
        realm = urlsplit(wanted["realm"])
        host, port = realm.hostname, realm.port or 443
    except ValueError:
        raise _none(settings, f"{wanted['realm']} is not an address") from None
    if realm.scheme != "https" or not host:
        raise _none(settings, f"it is at {wanted['realm']}, and a login is sent over HTTPS alone")
    query = "&".join(filter(None, (realm.query, urlencode(asked(wanted)))))
    path = f"{realm.path or '/'}?{query}" if query else realm.path or "/"
    led = address in ("", settings.registry.host)  # each name to where DNS has it
    where = host if led or host not in settings.registry_hosts else address
    connection = http.client.HTTPSConnection(host, port, timeout=timeout)
    try:
        connection.sock = socket.create_connection((where, port), timeout)
        connection.sock = context.wrap_socket(connection.sock, server_hostname=host)
        connection.request("GET", path, headers={"Accept": "application/json", **headers})
        answer = connection.getresponse()
        body = answer.read(_MOST)
    except (OSError, http.client.HTTPException, UnicodeError) as problem:
        why = str(problem) or type(problem).__name__
        raise _none(settings, f"{realm.netloc} does not answer: {why}") from None
    finally:
        connection.close()
    if answer.status in _REFUSED:
        return None
    token = of_answer(body)
    if answer.status != 200 or not token:
        raise _none(settings, f"{realm.netloc} answers {answer.status} without a token")
    return token


def _none(settings: Settings, cause: str) -> MoorageError:
    name = settings.registry_name
    return MoorageError(
        "token-server",
        f"the token server of {name} issues no token",
        cause=cause,
        cure=f"look at it: curl -si https://{name}/v2/ | grep -i realm",
    )
