"""Proves what the changes are for: the registry by TLS, the runtime by CRI, the trust by a pull.

Whether a failure is about trust decides what happens next: a ``TrustError`` is rolled back, any
other failure leaves what is right where it is.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import re
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from agent.clients.cri import with_cri
from agent.clients.failures import CriError
from agent.node.tree import Tree
from agent.proof import mirrors
from agent.wire.faults import AgentError, TrustError
from agent.wire.plan import Plan, Registry, Verify

if TYPE_CHECKING:
    from agent.clients.cri_calls import Cri
    from agent.formats.proposal import Proof

CONNECT_SECONDS = 10
# Go takes every certificate of a CA file for a root, an intermediate's too (crypto/x509, CertPool).
# ssl.VERIFY_X509_PARTIAL_CHAIN has its name since Python 3.10.
_PARTIAL_CHAIN = ssl.VerifyFlags(0x80000)
# Runtimes read /etc/hosts through Go's resolver, which keeps what it read for five seconds
# (cacheMaxAge in https://go.dev/src/net/hosts.go). Where no restart was needed, an entry made a
# moment ago is not seen before.
HOSTS_CACHE_SECONDS = 5.5
READY_SECONDS = 20
RELOAD_SECONDS = 2
# What a registry's refusal of an image means, in words that the table knows.
_REFUSALS = {
    401: "401 unauthorized",
    403: "403 Forbidden",
    404: "manifest unknown",
    429: "429 Too Many Requests",
}
MANIFESTS = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)


class Reply(NamedTuple):
    """What a registry answered: the status, the challenge of a 401, whether it is a web page."""

    status: int
    challenge: str
    page: bool


def ask_registry(plan: Plan, address: str | None = None) -> None:
    """TLS to the registry with the plan's CA, then login and image where the plan has them.

    ``address`` asks there instead of where the node resolves the name, as before a hosts entry.
    """
    registry, verify = plan.registry, plan.verify
    for further in registry.each[1:]:  # a name the certificate does not have shows here
        _connect(further, address).close()
    connection = _connect(registry, address)
    try:
        headers = _basic(verify)
        reply = _request(connection, registry, "GET", "/v2/", headers)
        _require_registry(reply, registry)
        basic = reply.challenge.lower().startswith("basic")
        if reply.status == 401 and basic and verify is not None:
            raise _trouble("401 unauthorized", registry, verify.image, said=False)
        image = registry.reference(verify.image) if verify is not None else None
        if image is None or verify is None:
            return
        if reply.status == 401:
            token = _token(reply.challenge, registry, verify, image.repository, address)
            if not token:
                return
            headers = {"Authorization": f"Bearer {token}"}
        elif reply.status != 200:
            return
        path = f"/v2/{image.repository}/manifests/{image.version}"
        headers["Accept"] = MANIFESTS
        reply = _request(connection, registry, "HEAD", path, headers)
        if reply.page and reply.status == 200:
            raise _trouble("media type text/html", registry, verify.image, said=False)
        if reply.status in _REFUSALS:
            raise _trouble(_REFUSALS[reply.status], registry, verify.image, said=False)
    finally:
        connection.close()


def _trouble(
    words: str, registry: Registry, image: str = "", said: bool = True, runtime: str = "cri"
) -> AgentError:
    """What the table of troubles says of it; the table is loaded when something fails."""
    from agent.wire.troubles.told import classify

    return classify(words, registry, image, said, runtime)


def _token(
    challenge: str, registry: Registry, verify: Verify, repository: str, address: str | None
) -> str:
    """A token for the pull; "" if none can be had here, which says nothing of the runtime's.

    Raises an AgentError (``login-refused``) if the token server refuses the login.
    """
    from agent.proof import tokens

    found = tokens.server(challenge, repository)
    if found is None:
        return ""

    def connect(host: str, port: int) -> http.client.HTTPConnection:
        there = replace(registry, host=host, port=port, names=(), insecure=None)
        # Runtimes ask it with the CAs of the host, most of them with the registry's as well.
        return _connect(there, address if host == registry.host else None, with_systems=True)

    try:
        status, token = tokens.fetch(found, _basic(verify), connect)
    except (OSError, http.client.HTTPException, AgentError):
        return ""
    if status in tokens.REFUSED and verify.username is not None:
        raise _trouble("insufficient_scope", registry, verify.image, said=False)
    return token if status == 200 else ""


def _require_registry(reply: Reply, registry: Registry) -> None:
    """Refuse what answers /v2/ otherwise than a registry: it may be a portal's page with a 200."""
    if reply.status == 429:
        raise _trouble(_REFUSALS[429], registry, said=False)
    # Before a registry, nginx asks for the login, by a 401 whose body is a page: that is right.
    if reply.page and reply.status != 401:
        raise _trouble("media type text/html", registry, said=False)
    if reply.status not in (200, 401, 403):
        raise AgentError(
            "not-a-registry",
            f"{registry.name} answers /v2/ with HTTP {reply.status}",
            cause="whatever answers there is not an image registry, or it is broken",
            cure="check the name and the port, and the registry: inv registry.status",
        )


def _connect(
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
        raise _trouble(_network_words(problem), registry, said=False) from None
    # Else a request waits until TLS's last word is acknowledged, which servers put off for 40 ms.
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sock = plain
    if registry.plain_http:
        return connection
    context = context or _context(registry, with_systems)
    try:
        connection.sock = context.wrap_socket(plain, server_hostname=registry.host)
    except OSError as problem:
        plain.close()
        raise _trouble(_tls_words(problem), registry, said=False) from None
    return connection


def _context(registry: Registry, with_systems: bool) -> ssl.SSLContext:
    context = _trusting_nobody()
    if with_systems:
        context.load_default_certs()
    if registry.ca or not with_systems:
        context.load_verify_locations(cadata=registry.ca)
    return context


def _trusting_nobody() -> ssl.SSLContext:
    """As strict as the runtimes are."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False  # Go, and so every runtime here, does not either
    context.verify_flags |= _PARTIAL_CHAIN
    return context


def _request(
    connection: http.client.HTTPConnection,
    registry: Registry,
    method: str,
    path: str,
    headers: dict[str, str],
) -> Reply:
    try:
        connection.request(method, path, headers={"Host": registry.name, **headers})
        answer = connection.getresponse()
        answer.read()
    except http.client.HTTPException as problem:
        raise AgentError(
            "not-a-registry",
            f"{registry.name} does not speak HTTP: {type(problem).__name__}",
            cause="what answers there is no image registry",
            cure="check the name and the port",
        ) from None
    except OSError as problem:
        raise _trouble(_tls_words(problem), registry, said=False) from None
    kind = answer.headers.get("Content-Type", "").lower()
    return Reply(
        answer.status, answer.headers.get("WWW-Authenticate", ""), kind.startswith("text/html")
    )


def _basic(verify: Verify | None) -> dict[str, str]:
    if verify is None or verify.username is None:
        return {}
    login = f"{verify.username}:{verify.password or ''}".encode()
    return {"Authorization": "Basic " + base64.b64encode(login).decode("ascii")}


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
# OpenSSL's words for the alerts of a server that wants a certificate of its clients: RFC 8446 has
# one of its own for that (6.2), Go sent the other until 1.21, and many do by TLS 1.2.
_CLIENT_WANTED = ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "SSLV3_ALERT_BAD_CERTIFICATE")


def _tls_words(problem: OSError) -> str:
    if isinstance(problem, ssl.SSLCertVerificationError):
        known = _VERIFY_WORDS.get(problem.verify_code)
        return known or f"x509: {problem.verify_message}"
    if isinstance(problem, ssl.SSLError):
        if problem.reason in _CLIENT_WANTED:
            return "tls: certificate required"
        if problem.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"):
            return "first record does not look like a TLS handshake"
        return f"tls: {problem.reason or problem}"
    return _network_words(problem)


def cri_serves(socket_path: str) -> bool:
    """Whether CRI serves right now."""
    try:
        return with_cri(socket_path, lambda cri: cri.ready())
    except CriError:
        return False


def wait_for_cri(socket_path: str, seconds: float = READY_SECONDS) -> None:
    """Wait until CRI serves. One that does not in time is reason to roll back."""

    def until_ready(cri: Cri) -> None:
        deadline = time.monotonic() + seconds
        pause, why = 0.05, "it is not ready"
        while True:
            try:
                if cri.ready():
                    return
            except CriError as problem:
                why = problem.message
            if time.monotonic() + pause > deadline:
                raise TrustError(
                    "cri-not-serving",
                    f"the runtime's CRI does not serve ({why})",
                    cause=f"nothing useful answered on {socket_path} within {seconds:g} seconds",
                    cure="read why: journalctl -u containerd -n 50; ctr plugins ls",
                )
            time.sleep(pause)
            pause = min(pause * 1.6, 1)

    with_cri(socket_path, until_ready)


def cannot(proof: Proof) -> str:
    """Why a proof cannot be made from here; on the node itself each can."""
    return ""


def trusts(proof: Proof, plan: Plan) -> None:
    """TLS by the registry's name with the certificates that a program reads, and no other.

    Raises TrustError where they do not verify the registry's.
    """
    registry = next(one for one in plan.registry.spellings if one.name == proof.name)
    context = _trusting_nobody()
    for place in map(Path, proof.reads):
        for path in sorted(place.glob("*.crt")) if place.is_dir() else [place]:
            for block in _blocks(path):
                # One that is damaged is passed over, as Go does (x509.AppendCertsFromPEM).
                with contextlib.suppress(ssl.SSLError):
                    context.load_verify_locations(cadata=block)
    _connect(registry, None, context=context).close()


_BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----[\x00-\x7f]*?-----END CERTIFICATE-----")


def _blocks(path: Path) -> list[str]:
    """The certificates in a file, each for itself; none of one that cannot be read."""
    try:
        return _BLOCK.findall(path.read_text("utf-8", "replace"))
    except OSError:
        return []


def pull(proof: Proof, registry: Registry, verify: Verify, seconds: float) -> None:
    """The proving pull, by the runtime itself, with the login from memory."""
    try:
        _pull(proof, registry, verify, seconds)
    except TrustError as problem:
        # A reload is a signal: systemctl is back before dockerd has read its file (measured).
        if proof.kind != "docker" or problem.code != "plain-http" or not registry.plain_http:
            raise
        time.sleep(RELOAD_SECONDS)
        _pull(proof, registry, verify, seconds)
    except AgentError as problem:
        # The runtime may still see the hosts file as it was before a moment.
        pause = HOSTS_CACHE_SECONDS
        if problem.code != "name-unresolved":
            pause -= _age_of_hosts_file()
        if pause <= 0:
            raise
        time.sleep(pause)
        with _hosts_of_its_own(proof):
            _pull(proof, registry, verify, seconds)


@contextlib.contextmanager
def _hosts_of_its_own(proof: Proof) -> Iterator[None]:
    """A rootless engine reads a copy of /etc/hosts that RootlessKit made when it started.

    Measured, and in ``generateEtcHosts`` of RootlessKit's ``pkg/child/hosts.go``. Only its user can
    restart it, and that stops its containers.
    """
    try:
        yield
    except AgentError as problem:
        if problem.code != "name-unresolved" or not proof.home:
            raise
        raise AgentError(
            problem.code,
            f"the rootless engine of {proof.home}: {problem}",
            cause="it has read /etc/hosts when it started, and reads it no more until it is "
            "restarted",
            cure="everything else is done; its user restarts it when its containers may stop "
            "(systemctl --user restart docker), then: inv nodes.verify",
        ) from None


def _age_of_hosts_file() -> float:
    try:
        return time.time() - Path("/etc/hosts").stat().st_mtime
    except OSError:
        return HOSTS_CACHE_SECONDS


def _pull(proof: Proof, registry: Registry, verify: Verify, seconds: float) -> None:
    from agent.clients.docker import docker_pull
    from agent.clients.failures import EngineError
    from agent.clients.programs import pull as program_pull

    try:
        if proof.kind == "docker":
            docker_pull(proof.socket, verify, seconds)
        elif proof.command:
            program_pull(proof.command, registry, verify, seconds)
        else:
            with_cri(proof.socket, lambda cri: cri.pull(verify, seconds))
    except (CriError, EngineError) as problem:
        told = _trouble(problem.message, registry, verify.image, runtime=proof.kind)
        raise _of_a_mirror(proof, registry, told) or told from None


def _of_a_mirror(proof: Proof, registry: Registry, told: AgentError) -> AgentError | None:
    """Why a mirror could not answer for an image that the registry does not have, if one could not.

    containerd 2.1 tells of the registry's answer alone, so its mirrors are asked here.
    """
    if told.code != "image-missing" or not proof.roots:
        return None
    tree = Tree()
    for one in mirrors.before(tree, proof.roots, registry):
        host = replace(one.host, ca=mirrors.pem(tree, one) or None)
        try:
            _connect(host, None, with_systems=True).close()
        except (AgentError, ssl.SSLError, ValueError) as problem:
            return AgentError(
                problem.code if isinstance(problem, AgentError) else "ca-unreadable",
                f"{told}; and its mirror {host.name} could not be asked: {problem}",
                cause=f"{one.path} names {host.name} before {registry.name}, which lacks the image",
                cure=f"put the CA of {host.name} into {' or '.join(one.cas) or one.path}, "
                f"or take it out of {one.path}; or push the image to {registry.name}",
            )
    return None
