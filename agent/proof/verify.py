"""Proves what the changes are for: the registry by TLS, the runtime by CRI, the trust by a pull.

Whether a failure is about trust decides what happens next: a ``TrustError`` is rolled back, any
other failure leaves what is right where it is.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import re
import ssl
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from agent.clients.cri import with_cri
from agent.clients.failures import CriError
from agent.node.tree import Tree
from agent.proof import mirrors
from agent.proof.asking import Reply, connect, request, trouble, trusting_nobody
from agent.wire.faults import AgentError, TrustError
from agent.wire.plan import Plan, Registry, Verify

if TYPE_CHECKING:
    from agent.clients.cri_calls import Cri
    from agent.formats.proposal import Proof

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


def ask_registry(plan: Plan, address: str | None = None) -> None:
    """TLS to the registry with the plan's CA, then login and image where the plan has them.

    ``address`` asks there instead of where the node resolves the name, as before a hosts entry.
    """
    registry, verify = plan.registry, plan.verify
    for further in registry.each[1:]:  # a name the certificate does not have shows here
        connect(further, address).close()
    connection = connect(registry, address)
    try:
        headers = _basic(verify)
        reply = request(connection, registry, "GET", "/v2/", headers)
        _require_registry(reply, registry)
        basic = reply.challenge.lower().startswith("basic")
        if reply.status == 401 and basic and verify is not None:
            raise trouble("401 unauthorized", registry, verify.image, said=False)
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
        reply = request(connection, registry, "HEAD", path, headers)
        if reply.page and reply.status == 200:
            raise trouble("media type text/html", registry, verify.image, said=False)
        if reply.status in _REFUSALS:
            raise trouble(_REFUSALS[reply.status], registry, verify.image, said=False)
    finally:
        connection.close()


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

    def opened(host: str, port: int) -> http.client.HTTPConnection:
        own = host in (registry.host, *registry.names)
        there = replace(registry, host=host, port=port, names=(), insecure=None)
        if not own:  # the client's certificate is for the registry's own names alone
            there = replace(there, client=None)
        # Runtimes ask it with the CAs of the host, most of them with the registry's as well.
        return connect(there, address if own else None, with_systems=True)

    try:
        status, token = tokens.fetch(found, _basic(verify), opened)
    except (OSError, http.client.HTTPException, AgentError):
        return ""
    if status in tokens.REFUSED and verify.username is not None:
        raise trouble("insufficient_scope", registry, verify.image, said=False)
    return token if status == 200 else ""


def _require_registry(reply: Reply, registry: Registry) -> None:
    """Refuse what answers /v2/ otherwise than a registry: it may be a portal's page with a 200."""
    if reply.refusal:
        raise trouble(reply.refusal, registry, said=False)
    if reply.status == 429:
        raise trouble(_REFUSALS[429], registry, said=False)
    # Before a registry, nginx asks for the login, by a 401 whose body is a page: that is right.
    if reply.page and reply.status != 401:
        raise trouble("media type text/html", registry, said=False)
    if reply.status not in (200, 401, 403):
        raise AgentError(
            "not-a-registry",
            f"{registry.name} answers /v2/ with HTTP {reply.status}",
            cause="whatever answers there is not an image registry, or it is broken",
            cure="check the name and the port, and the registry: inv registry.status",
        )


def _basic(verify: Verify | None) -> dict[str, str]:
    if verify is None or verify.username is None:
        return {}
    login = f"{verify.username}:{verify.password or ''}".encode()
    return {"Authorization": "Basic " + base64.b64encode(login).decode("ascii")}


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
    context = trusting_nobody()
    for place in map(Path, proof.reads):
        for cert in sorted(place.glob("*.cert")) if place.is_dir() else ():
            with contextlib.suppress(OSError):  # ssl.SSLError is one
                context.load_cert_chain(cert, cert.with_suffix(".key"), password="")
        for path in sorted(place.glob("*.crt")) if place.is_dir() else [place]:
            for block in _blocks(path):
                # One that is damaged is passed over, as Go does (x509.AppendCertsFromPEM).
                with contextlib.suppress(ssl.SSLError):
                    context.load_verify_locations(cadata=block)
    connection = connect(registry, None, context=context)
    try:
        if registry.client is not None:  # by TLS 1.3 a refusal of ours shows in the answer alone
            _require_registry(request(connection, registry, "GET", "/v2/", {}), registry)
    finally:
        connection.close()


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
            cause="it read /etc/hosts when it started, and does not read it again until "
            "it is restarted",
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
        told = trouble(problem.message, registry, verify.image, runtime=proof.kind)
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
            connect(host, None, with_systems=True).close()
        except (AgentError, ssl.SSLError, ValueError) as problem:
            if getattr(problem, "code", "") == "client-wanted":  # its pair is the runtime's alone
                continue
            return AgentError(
                problem.code if isinstance(problem, AgentError) else "ca-unreadable",
                f"{told}; and its mirror {host.name} could not be asked: {problem}",
                cause=f"{one.path} names {host.name} before {registry.name}, which lacks the image",
                cure=f"put the CA of {host.name} into {' or '.join(one.cas) or one.path}, "
                f"or take it out of {one.path}; or push the image to {registry.name}",
            )
    return None
