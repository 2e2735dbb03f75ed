"""A connection to a registry as a runtime makes it, and what its failure says in Go's words."""

from __future__ import annotations

import http.client
import socket
import ssl
from typing import NamedTuple

from agent.wire import client_pair
from agent.wire.faults import AgentError
from agent.wire.plan import Registry

CONNECT_SECONDS = 10
# Go takes every certificate of a CA file for a root, an intermediate's too (crypto/x509, CertPool).
# ssl.VERIFY_X509_PARTIAL_CHAIN has its name since Python 3.10.
_PARTIAL_CHAIN = ssl.VerifyFlags(0x80000)


class Reply(NamedTuple):
    """What a registry answered: the status, the challenge of a 401, whether it is a web page.

    ``refusal``: of whoever did not present a certificate, or not a right one, in Go's words.
    """

    status: int
    challenge: str
    page: bool
    refusal: str = ""


def trouble(
    words: str, registry: Registry, image: str = "", said: bool = True, runtime: str = "cri"
) -> AgentError:
    """What the table of troubles says of it; the table is loaded when something fails."""
    from agent.wire.troubles.told import classify

    return classify(words, registry, image, said, runtime)


def connect(
    registry: Registry,
    address: str | None,
    with_systems: bool = False,
    context: ssl.SSLContext | None = None,
) -> http.client.HTTPConnection:
    """A connection; ``with_systems`` trusts the CAs of this host as well, as a runtime does.

    ``context`` is for certificates in the place of the plan's CA.
    """
    connection = http.client.HTTPConnection(registry.host, registry.port)
    try:
        plain = socket.create_connection((address or registry.host, registry.port), CONNECT_SECONDS)
    except OSError as problem:
        raise trouble(_network_words(problem), registry, said=False) from None
    # Else a request waits until TLS's last word is acknowledged, which servers put off for 40 ms.
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sock = plain
    if registry.plain_http:
        return connection
    context = context or _context(registry, with_systems)
    tls = context.wrap_socket(plain, server_hostname=registry.host, do_handshake_on_connect=False)
    connection.sock = tls
    try:
        tls.do_handshake()
    except OSError as problem:
        words = _tls_words(problem, agreed=tls.cipher() is not None)
        tls.close()
        raise trouble(words, registry, said=False) from None
    return connection


def _context(registry: Registry, with_systems: bool) -> ssl.SSLContext:
    context = trusting_nobody()
    if with_systems:
        context.load_default_certs()
    if registry.ca or not with_systems:
        context.load_verify_locations(cadata=registry.ca)
    if registry.client is not None:
        registry.client.present(context)
    return context


def trusting_nobody() -> ssl.SSLContext:
    """As strict as the runtimes are."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False  # Go, and so every runtime here, does not either
    context.verify_flags |= _PARTIAL_CHAIN
    return context


def request(
    connection: http.client.HTTPConnection,
    registry: Registry,
    method: str,
    path: str,
    headers: dict[str, str],
) -> Reply:
    """One request. Raises an AgentError if no answer of HTTP comes."""
    try:
        connection.request(method, path, headers={"Host": registry.name, **headers})
        answer = connection.getresponse()
        body = answer.read()
    except http.client.HTTPException as problem:
        raise AgentError(
            "not-a-registry",
            f"{registry.name} does not speak HTTP: {type(problem).__name__}",
            cause="whatever answers there is not an image registry",
            cure="check the name and the port",
        ) from None
    except OSError as problem:
        words = _tls_words(client_pair.last_word(connection.sock, problem))
        raise trouble(words, registry, said=False) from None
    page = answer.headers.get("Content-Type", "").lower().startswith("text/html")
    challenge = answer.headers.get("WWW-Authenticate", "")
    return Reply(answer.status, challenge, page, client_pair.refusal(answer.status, body))


def _network_words(problem: OSError) -> str:
    if isinstance(problem, socket.gaierror):
        return "no such host"
    if isinstance(problem, socket.timeout):
        return "i/o timeout"
    return (problem.strerror or str(problem)).lower()


# OpenSSL's verify codes in Go's words: https://docs.openssl.org/3.0/man1/openssl-verification-options
_VERIFY_WORDS = {
    9: "x509: certificate has expired or is not yet valid",
    10: "x509: certificate has expired or is not yet valid",
    18: "x509: certificate signed by unknown authority",
    19: "x509: certificate signed by unknown authority",
    20: "x509: certificate signed by unknown authority",
    21: "x509: certificate signed by unknown authority",
    62: "x509: certificate is valid for other names",
    64: "x509: certificate is valid for other names",
}


def _tls_words(problem: OSError, agreed: bool = False) -> str:
    """``agreed``: the handshake came as far as a cipher."""
    if isinstance(problem, ssl.SSLCertVerificationError):
        known = _VERIFY_WORDS.get(problem.verify_code)
        return known or f"x509: {problem.verify_message}"
    if isinstance(problem, ssl.SSLError):
        if words := client_pair.alert(problem, agreed):
            return words
        if problem.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"):
            return "first record does not look like a TLS handshake"
        return f"tls: {problem.reason or problem}"
    return _network_words(problem)
