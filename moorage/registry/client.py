"""Talks to the registry over HTTPS as a node does: its own CA, its name, its login.

It connects to where our own registry listens on this machine, so neither DNS nor /etc/hosts has to
know the name yet; the TLS handshake asks for the name all the same. One of somebody else's is asked
at ``registry.address``, or where its name leads.
"""

from __future__ import annotations

import http.client
import ipaddress
import logging
import socket
import ssl
import string
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, urljoin, urlsplit

from moorage.errors import MoorageError
from moorage.registry.logins import external

if TYPE_CHECKING:
    from moorage.registry.logins.credentials import Credentials
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
_REDIRECTS, MOST_REDIRECTS = (301, 302, 303, 307, 308), 5
# A backslash ends the host for urllib3 and is a part of it for urllib.
_LEFT_AS_IT_IS = string.punctuation.replace("\\", "")


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
    """One request, and where a GET or HEAD is sent on to, there. ``timeout`` in seconds;
    ``content_type`` is that of ``body``.

    Raises MoorageError: ``registry-down``, ``registry-timeout``, ``registry-certificate`` or
    ``registry-broken`` (no HTTP came back).
    """
    from moorage.registry import tls
    from moorage.registry.logins import tokens

    headers = {"Accept": accept, **basic(login)}
    if content_type:
        headers["Content-Type"] = content_type
    request = (method, path, body)
    answer = _once(settings, tls.context(settings), request, headers, timeout)
    wanted = tokens.challenge(answer.headers.get("www-authenticate", ""))
    if answer.status == 401 and wanted is not None:
        own, at = tokens.is_issued_by(settings.registry_hosts, wanted), place(settings)[0]
        systems = tls.context(settings, with_systems=True, presenting=own)
        token = tokens.fetch(settings, wanted, basic(login), systems, timeout, at)
        if token is None:
            return answer
        headers["Authorization"] = f"Bearer {token}"
        answer = _once(settings, tls.context(settings), request, headers, timeout)
    return _followed(settings, answer, request, headers, timeout)


def _followed(
    settings: Settings,
    answer: Answer,
    request: tuple[str, str, bytes | None],
    headers: Mapping[str, str],
    timeout: float,
) -> Answer:
    """What a redirect leads to: Pulp 2.27 sends even a HEAD on a manifest to another program.

    As runtimes do (net/http), the login goes with it to the registry's own host alone. One that
    leads away from HTTPS is not followed.
    """
    from moorage.registry import tls

    method, path, _ = request
    url = f"https://{settings.registry_name}{path}"
    for _ in range(MOST_REDIRECTS):
        url = onward(url, answer.status, answer.headers.get("location", ""))
        if not url or method not in ("GET", "HEAD"):
            break
        there = urlsplit(url)
        host, port = there.hostname or "", there.port or 443
        wanted = (method, f"{there.path or '/'}{'?' * bool(there.query)}{there.query}", None)
        if host != settings.registry.host:
            headers = {key: value for key, value in headers.items() if key != "Authorization"}
        own = host in settings.registry_hosts
        context = tls.context(settings, with_systems=True, presenting=own)
        answer = _once(settings, context, wanted, headers, timeout, at=(host, port))
    return answer


def onward(url: str, status: int, location: str) -> str:
    """Where an answer to ``url`` sends on to; "" if to nowhere, or away from HTTPS. Pure.

    ``location``: as http.client reads a header, in Latin-1; what no URL may hold is escaped.
    """
    if status not in _REDIRECTS or not location:
        return ""
    try:
        escaped = quote(location, safe=_LEFT_AS_IT_IS, encoding="latin-1")
        found = urljoin(url, escaped)
        there = urlsplit(found)
        host, _ = (there.hostname or "").encode("idna"), there.port
    except ValueError:
        return ""
    return found if there.scheme == "https" and host else ""


def basic(login: Credentials | None) -> dict[str, str]:
    """The header of a login (RFC 7617); none for None. Pure."""
    if login is None:
        return {}
    word = b64encode(f"{login.user}:{login.password}".encode()).decode()
    return {"Authorization": f"Basic {word}"}


def _once(
    settings: Settings,
    context: ssl.SSLContext,
    request: tuple[str, str, bytes | None],
    headers: Mapping[str, str],
    timeout: float,
    at: tuple[str, int] | None = None,
) -> Answer:
    """One exchange with the registry, or with the host and port ``at``."""
    from agent.wire import client_pair

    registry = settings.registry
    host, port = at or (registry.host, registry.port)
    written = f"[{host}]" if ":" in host else host
    name = written if port == 443 else f"{written}:{port}"
    of_it = host == registry.host
    itself = of_it and port == registry.port
    where = (place(settings)[0], port) if of_it else (host, port)
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        raw = socket.create_connection(where, timeout=timeout)
        connection.sock = raw
        line = context.wrap_socket(raw, server_hostname=host, do_handshake_on_connect=False)
        connection.sock = line
        line.do_handshake()
        method, path, body = request
        connection.request(method, path, body, {"Host": name, **headers})
        answer = connection.getresponse()
        _log.info("%s https://%s%s: %d", method, name, path.partition("?")[0], answer.status)
        fields = {name.lower(): value for name, value in answer.getheaders()}
        found = Answer(answer.status, fields, answer.read())
        words = client_pair.refusal(found.status, found.body) if of_it else ""
        if words:
            raise _of_the_pair(settings, words)
        return found
    except OSError as problem:
        said = client_pair.last_word(connection.sock, problem)
        agreed = isinstance(connection.sock, ssl.SSLSocket) and connection.sock.cipher() is not None
        if of_it and (words := client_pair.alert(said, agreed)):
            raise _of_the_pair(settings, words) from None
        told = explained(settings, said) if itself else _astray(settings, name, said)
        raise external.advised(settings, told) from None
    except http.client.HTTPException as problem:
        told = explained(settings, problem) if itself else _astray(settings, name, problem)
        raise external.advised(settings, told) from None
    finally:
        connection.close()


def _astray(settings: Settings, name: str, problem: Exception) -> MoorageError:
    """A failure where the registry has sent a request on to."""
    return MoorageError(
        "registry-broken",
        f"https://{settings.registry_name} sends on to https://{name}, which does not answer",
        cause=str(problem) or type(problem).__name__,
        cure="inv registry.logs",
    )


def check_login(settings: Settings, login: Credentials | None, *, timeout: float = 10) -> None:
    """Proves TLS and the login. Raises MoorageError (:func:`ask`'s, or ``registry-refuses``)."""
    answer = ask(settings, "/v2/", login=login, timeout=timeout)
    if answer.status == 401:
        raise external.advised(settings, _refused(settings, login))
    if answer.status != 200:
        problem = MoorageError(
            "registry-broken",
            f"https://{settings.registry_name} answers {answer.status}",
            cause=answer.body[:200].decode(errors="replace").strip() or "it says no more",
            cure="inv registry.logs",
        )
        raise external.advised(settings, problem)


def _refused(settings: Settings, login: Credentials | None) -> MoorageError:
    url = f"https://{settings.registry_name}"
    if login is None:
        return MoorageError(
            "registry-refuses",
            f"{url} wants a login",
            cause="it answers 401 to a request without one",
            cure="inv registry.up",
        )
    cause = "another registry may be listening there"
    if settings.registry.external:
        cause = "the user name or the password is wrong, or has expired"
    return MoorageError(
        "registry-refuses",
        f"{url} refuses the login of {login.user}",
        cause=f"it answers 401; {cause}",
        cure="inv registry.up",
    )


def manifest_digest(settings: Settings, login: Credentials, repository: str, tag: str) -> str:
    """The digest under which the registry holds ``repository:tag``; "" if it has none."""
    path = f"/v2/{repository}/manifests/{tag}"
    answer = ask(settings, path, login=login, method="HEAD", accept=MANIFEST_TYPES)
    if answer.status == 401:
        check_login(settings, login)
    return answer.headers.get("docker-content-digest", "") if answer.status == 200 else ""


def place(settings: Settings) -> tuple[str, int]:
    """Where this machine reaches the registry: an address, or a name that DNS knows; its port."""
    registry = settings.registry
    if not registry.external:
        return listening(registry)
    return (registry.host if registry.address == "auto" else registry.address), registry.port


def listening(registry: RegistrySettings) -> tuple[str, int]:
    """Where the registry answers on this machine: an address of its own, and its port."""
    address = ipaddress.ip_address(registry.listen)
    if not address.is_unspecified:
        return registry.listen, registry.port
    return ("127.0.0.1" if address.version == 4 else "::1"), registry.port


def _of_the_pair(settings: Settings, words: str) -> MoorageError:
    """The error for a registry that wants a certificate of its clients, or another one."""
    from agent.wire.client_pair import is_refused

    name, presented = settings.registry_name, bool(settings.registry.client_cert)
    if is_refused(words, presented):
        return MoorageError(
            "client-refused",
            f"https://{name} does not accept the certificate that it is shown",
            cause=f"it says: {words}; its CA is not one that the registry asks for, or the "
            "certificate has ended there or was revoked",
            cure="ask whoever runs the registry for another pair; inv config.show has the files",
        )
    return MoorageError(
        "client-wanted",
        f"https://{name} wants a certificate of its clients",
        cause=f"it says: {words}; it lets in only who presents one (mutual TLS)",
        cure="set registry.client_cert and registry.client_key in invoke.yaml to the files of a "
        "pair that it accepts",
    )


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
    if isinstance(problem, socket.gaierror):
        return MoorageError(
            "name-unresolved",
            f"the name {settings.registry.host} does not resolve on this machine",
            cause=problem.strerror or str(problem),
            cure="correct registry.host in invoke.yaml, or set registry.address to its address",
        )
    if isinstance(problem, ConnectionRefusedError):
        where = place(settings)[0] if settings.registry.external else "this machine"
        return MoorageError(
            "registry-down",
            f"nothing answers at {url}",
            cause=f"port {settings.registry.port} of {where} is closed",
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
