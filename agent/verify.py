"""Proves what the changes are for: the registry by TLS, the runtime by CRI, the trust by a pull.

Whether a failure is about trust decides what happens next: a ``TrustError`` is rolled back, any
other failure leaves what is right where it is.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import re
import socket
import ssl
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from agent.faults import AgentError, TrustError
from agent.plan import Plan, Registry, Verify, reference

if TYPE_CHECKING:
    from agent.cri.client import Cri
    from agent.resources import Proof

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
MANIFESTS = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)


class Trouble(NamedTuple):
    """A row of the table of pull failures: the words it is known by, and what to say of it."""

    words: str
    code: str
    trust: bool
    message: str
    cause: str
    cure: str


# What runtimes say (containerd 1.5 to 2.x and Docker, in Go's words), first match wins.
TROUBLES: tuple[Trouble, ...] = (
    Trouble(
        r"unable to (read|load) CA cert|failed to load X509 key pair",
        "ca-unreadable", True,
        "the runtime cannot read the CA file it was pointed to",
        "the file that hosts.toml names is missing or damaged",
        "inv nodes.trust again; inv nodes.diff shows what differs",
    ),
    Trouble(
        # Of a proxy that refuses, Go says the status' words alone, where a registry's status has
        # its number: https://go.dev/src/net/http/transport.go (dialConn, CONNECT).
        r"proxyconnect|(Proxy|proxy) Authentication Required|via proxy|lookup \S*proxy\S*:"
        r"|(Head|Get)\s*: [A-Z][a-z]+( [A-Z][a-z]+)*\s*$",
        "proxy", False,
        "the runtime asks a proxy for the registry",
        "HTTPS_PROXY stands in its environment and the registry is not in NO_PROXY",
        "inv nodes.trust --fix-proxy, or add {host} to NO_PROXY of the service and restart it",
    ),
    Trouble(
        r"x509: certificate signed by unknown authority|unknown certificate authority",
        "x509-unknown-authority", True,
        "the runtime does not trust the registry's certificate",
        "it does not read the CA where this agent put it, or the certificate is another CA's",
        "compare inv certs.show with what the registry presents; then inv nodes.trust again",
    ),
    Trouble(
        r"x509: certificate is (valid for|not valid for any names)|legacy Common Name"
        r"|doesn't contain any IP SANs|x509: cannot validate certificate for",
        "x509-wrong-name", True,
        "the registry's certificate is for another name than {name}",
        "its subject alternative names do not have {host}",
        "issue it again with that name: inv certs.issue",
    ),
    Trouble(
        r"x509: certificate has expired or is not yet valid",
        "x509-expired", True,
        "the registry's certificate has expired or is not yet valid",
        "its time is over, or this node's clock is wrong (it says {now})",
        "check `date` on the node, else issue it again: inv certs.issue",
    ),
    Trouble(
        r"x509:|tls: |remote error: tls",
        "tls-failed", True,
        "TLS with the registry fails",
        "the runtime and the registry do not agree on a secure connection",
        "look at the runtime's words in this message",
    ),
    Trouble(
        r"gave HTTP response to HTTPS client|first record does not look like a TLS handshake",
        "plain-http", True,
        "{name} answers plain HTTP where TLS is expected",
        "something other than the TLS registry listens on that port",
        "check the port, and that the registry serves TLS: inv registry.status",
    ),
    Trouble(
        r"no such host|server misbehaving|Temporary failure in name resolution",
        "name-unresolved", False,
        "the name {host} does not resolve on this node",
        "there is neither a hosts entry nor a DNS record for it",
        "let nodes.trust make a hosts entry (registry.address in invoke.yaml), or add a DNS record",
    ),
    Trouble(
        r"connection refused",
        "registry-refused", False,
        "{name} refuses the connection",
        "nothing listens on port {port} there",
        "start the registry: inv registry.up",
    ),
    Trouble(
        r"no route to host|network is unreachable",
        "no-route", False,
        "there is no route from this node to {name}",
        "the address is wrong, or a network or firewall stands between",
        "check registry.address in invoke.yaml, then from the node: ip route get ADDRESS",
    ),
    Trouble(
        r"i/o timeout|deadline exceeded|Client\.Timeout|no answer within|handshake timeout"
        r"|\b50[234]\b",
        "registry-timeout", False,
        "{name} did not answer in time",
        "the address is wrong, a firewall drops packets, or the registry is too busy",
        "check the way from the node to the registry, then run again",
    ),
    Trouble(
        r"401|unauthorized|no basic auth credentials|authentication required|incorrect username",
        "login-refused", False,
        "{name} refuses the login",
        "the user name or the password is wrong, or none was given",
        "check the login with the registry: inv registry.status",
    ),
    Trouble(
        r"403|forbidden|denied",
        "access-denied", False,
        "{name} accepts the login but denies the image",
        "this user may not pull it",
        "give the user the right, or pull with another one",
    ),
    Trouble(  # before image-missing: containerd ends it with "not found" as well
        r"no match for platform|no matching manifest|no child with platform",
        "wrong-platform", False,
        "{image} is not made for this node's processor",
        "no manifest of it fits this platform",
        "build and push it for this platform too",
    ),
    Trouble(
        r"not found|manifest unknown|name unknown|NAME_UNKNOWN|MANIFEST_UNKNOWN|does not exist",
        "image-missing", False,
        "there is no image {image}",
        "the name or the tag is wrong, or it was never pushed",
        "push it (inv image.push), or name another image",
    ),
    Trouble(
        r"no space left on device",
        "disk-full", False,
        "the image does not fit on this node's disk",
        "the disk with the runtime's images is full",
        "make room (df -h), then run again",
    ),
)  # fmt: skip


def classify(words: str, registry: Registry, image: str = "", said: bool = True) -> AgentError:
    """A complaint about a pull as an error with code, cause and cure.

    ``said`` quotes the words in the message: they are a runtime's own.
    """
    values: dict[str, object] = {
        "name": registry.name,
        "host": registry.host,
        "port": registry.port,
        "image": image or registry.name,
        "now": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }
    # The image and its URL stand in the complaint; their digits must not pass for a status code.
    plain = words.replace(image, " ") if image else words
    plain = re.sub(r'"?https?://[^"\s]+"?|"[^"]*"|sha256:[0-9a-f]+', " ", plain)
    for row in TROUBLES:
        if re.search(row.words, plain):
            kind = TrustError if row.trust else AgentError
            message = row.message.format(**values) + (
                f" (it said: {words.strip()})" if said else ""
            )
            return kind(row.code, message, row.cause.format(**values), row.cure.format(**values))
    return AgentError(
        "pull-failed",
        f"the pull failed: {words.strip()}",
        cause="the runtime's words are not among those this agent knows",
        cure=f"try the same by hand on the node: crictl pull {values['image']}",
    )


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
        status, challenge = _request(connection, registry, "GET", "/v2/", headers)
        basic = challenge.lower().startswith("basic")
        if status not in (200, 401, 403):
            raise AgentError(
                "not-a-registry",
                f"{registry.name} answers /v2/ with HTTP {status}",
                cause="what answers there is no image registry, or it is out of order",
                cure="check the name and the port, and the registry: inv registry.status",
            )
        if status == 401 and basic and verify is not None:
            raise classify("401 unauthorized", registry, verify.image, said=False)
        # A bearer challenge leads to a token server: that way is left to the runtime's own pull.
        image = reference(verify.image, registry.name) if verify is not None else None
        if status != 200 or image is None or verify is None:
            return
        path = f"/v2/{image.repository}/manifests/{image.version}"
        status, _ = _request(connection, registry, "HEAD", path, {**headers, "Accept": MANIFESTS})
        if status in (401, 403, 404):
            words = {401: "401 unauthorized", 403: "403 forbidden", 404: "not found"}[status]
            raise classify(words, registry, verify.image, said=False)
    finally:
        connection.close()


def _connect(registry: Registry, address: str | None) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection(registry.host, registry.port)
    try:
        plain = socket.create_connection((address or registry.host, registry.port), CONNECT_SECONDS)
    except OSError as problem:
        raise classify(_network_words(problem), registry, said=False) from None
    # Else a request waits until TLS's last word is acknowledged, which servers put off for 40 ms.
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sock = plain
    if registry.plain_http:
        return connection
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False  # Go, and so every runtime here, does not either
    context.verify_flags |= _PARTIAL_CHAIN
    context.load_verify_locations(cadata=registry.ca)
    try:
        connection.sock = context.wrap_socket(plain, server_hostname=registry.host)
    except OSError as problem:
        plain.close()
        raise classify(_tls_words(problem), registry, said=False) from None
    return connection


def _request(
    connection: http.client.HTTPConnection,
    registry: Registry,
    method: str,
    path: str,
    headers: dict[str, str],
) -> tuple[int, str]:
    """The status, and the challenge of a 401."""
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
        raise classify(_network_words(problem), registry, said=False) from None
    return answer.status, answer.headers.get("WWW-Authenticate", "")


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


def _tls_words(problem: OSError) -> str:
    if isinstance(problem, ssl.SSLCertVerificationError):
        known = _VERIFY_WORDS.get(problem.verify_code)
        return known or f"x509: {problem.verify_message}"
    if isinstance(problem, ssl.SSLError):
        if problem.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"):
            return "first record does not look like a TLS handshake"
        return f"tls: {problem.reason or problem}"
    return _network_words(problem)


Answer = TypeVar("Answer")


def with_cri(socket_path: str, ask: Callable[[Cri], Coroutine[Any, Any, Answer]]) -> Answer:
    """Ask the runtime behind a socket something, in an event loop of its own."""

    async def session() -> Answer:
        from agent.cri.client import Cri

        async with Cri(socket_path) as cri:
            return await ask(cri)

    return asyncio.run(session())


def cri_serves(socket_path: str) -> bool:
    """Whether CRI serves right now."""
    from agent.cri.client import CriError

    try:
        return with_cri(socket_path, lambda cri: cri.ready())
    except CriError:
        return False


def wait_for_cri(socket_path: str, seconds: float = READY_SECONDS) -> None:
    """Wait until CRI serves. One that does not in time is reason to roll back."""

    async def until_ready(cri: Cri) -> None:
        from agent.cri.client import CriError

        deadline = time.monotonic() + seconds
        pause, why = 0.05, "it is not ready"
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                try:
                    if await asyncio.wait_for(cri.ready(), 5):
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
            await asyncio.sleep(pause)
            pause = min(pause * 1.6, 1)

    with_cri(socket_path, until_ready)


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
    from agent.cri.client import CriError
    from agent.engines import EngineError, docker_pull, podman_pull

    try:
        if proof.kind == "docker":
            docker_pull(proof.socket, verify, seconds)
        elif proof.kind == "podman":
            podman_pull(proof.socket, registry, verify, seconds)
        else:
            with_cri(proof.socket, lambda cri: cri.pull(verify, seconds))
    except (CriError, EngineError) as problem:
        raise classify(problem.message, registry, verify.image) from None
