"""Talks to the registry over HTTPS as a node does: its own CA, its name, its login.

It connects to where the registry listens on this machine, so neither DNS nor /etc/hosts has to
know the name yet; the TLS handshake asks for the name all the same.
"""

from __future__ import annotations

import http.client
import ipaddress
import logging
import socket
import ssl
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from moorage.errors import MoorageError

if TYPE_CHECKING:
    from moorage.registry.credentials import Credentials
    from moorage.settings import RegistrySettings, Settings

# https://github.com/distribution/distribution/blob/main/docs/content/spec/api.md
_log = logging.getLogger("moorage.registry")

MANIFEST_TYPES = ", ".join(
    (
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json",
    )
)


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def ask(
    settings: Settings,
    path: str,
    *,
    login: Credentials | None,
    method: str = "GET",
    accept: str = "*/*",
    body: bytes | None = None,
    content_type: str = "",
    timeout: float = 10,
) -> Answer:
    """One request. ``timeout`` in seconds; ``content_type`` is that of ``body``.

    Raises MoorageError: ``registry-down``, ``registry-timeout``, ``registry-certificate`` or
    ``registry-broken`` (no HTTP came back).
    """
    from moorage.pki import chain
    from moorage.pki import registry as pki

    context = chain.client_context(pki.ca_pem(settings))
    registry = settings.registry
    headers = {"Accept": accept, "Host": settings.registry_name}
    if content_type:
        headers["Content-Type"] = content_type
    if login is not None:
        token = b64encode(f"{login.user}:{login.password}".encode()).decode()
        headers["Authorization"] = f"Basic {token}"
    connection = http.client.HTTPConnection(registry.host, registry.port, timeout=timeout)
    try:
        raw = socket.create_connection(listening(registry), timeout=timeout)
        connection.sock = context.wrap_socket(raw, server_hostname=registry.host)
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        _log.info("%s https://%s%s: %d", method, settings.registry_name, path, answer.status)
        fields = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, fields, answer.read())
    except (OSError, http.client.HTTPException) as problem:
        raise explained(settings, problem) from None
    finally:
        connection.close()


def check_login(settings: Settings, login: Credentials, *, timeout: float = 10) -> None:
    """Proves TLS and the login. Raises MoorageError (:func:`ask`'s, or ``registry-refuses``)."""
    answer = ask(settings, "/v2/", login=login, timeout=timeout)
    if answer.status == 401:
        raise MoorageError(
            "registry-refuses",
            f"https://{settings.registry_name} refuses the login of {login.user}",
            cause="it answers 401; another registry may be listening there",
            cure="inv registry.up",
        )
    if answer.status != 200:
        raise MoorageError(
            "registry-broken",
            f"https://{settings.registry_name} answers {answer.status}",
            cause=answer.body[:200].decode(errors="replace").strip() or "it says no more",
            cure="inv registry.logs",
        )


def manifest_digest(settings: Settings, login: Credentials, repository: str, tag: str) -> str:
    """The digest under which the registry holds ``repository:tag``; "" where it has none."""
    path = f"/v2/{repository}/manifests/{tag}"
    answer = ask(settings, path, login=login, method="HEAD", accept=MANIFEST_TYPES)
    if answer.status == 401:
        check_login(settings, login)
    return answer.headers.get("docker-content-digest", "") if answer.status == 200 else ""


def listening(registry: RegistrySettings) -> tuple[str, int]:
    """Where the registry answers on this machine: an address of its own, and its port."""
    address = ipaddress.ip_address(registry.listen)
    if not address.is_unspecified:
        return registry.listen, registry.port
    return ("127.0.0.1" if address.version == 4 else "::1"), registry.port


def explained(settings: Settings, problem: Exception) -> MoorageError:
    """What a connection's failure says about the registry."""
    url = f"https://{settings.registry_name}"
    if isinstance(problem, ssl.SSLCertVerificationError):
        return MoorageError(
            "registry-certificate",
            f"{url} shows a certificate that its CA here does not vouch for",
            cause=problem.verify_message or str(problem),
            cure="inv registry.up",
        )
    if isinstance(problem, ConnectionRefusedError):
        return MoorageError(
            "registry-down",
            f"nothing answers at {url}",
            cause=f"port {settings.registry.port} of this machine is closed",
            cure="inv registry.up",
        )
    if isinstance(problem, TimeoutError):
        return MoorageError(
            "registry-timeout",
            f"{url} does not answer in time",
            cause="the connection was made or tried, and nothing came back",
            cure="inv registry.logs",
        )
    return MoorageError(
        "registry-broken",
        f"{url} does not speak HTTPS as a registry does",
        cause=str(problem) or type(problem).__name__,
        cure="inv registry.logs",
    )
