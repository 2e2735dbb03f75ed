"""The node's own key: made here by OpenSSL's program, never sent; what travels is a request.

Python's standard library can use a key but not make one, so ``openssl`` does (Debian's
ca-certificates brings it along); where it is missing, a word says how to get it.
"""

from __future__ import annotations

import json
import ssl
from dataclasses import replace
from pathlib import Path

from agent.node.disk import write_own
from agent.node.host import Host
from agent.resident.home import AgentSettings, Home
from agent.wire.faults import AgentError


def request(host: Host, key: Path) -> str:
    """A new key in ``key`` (0600) and the request to sign it, in PEM.

    The request names nobody: the operator alone decides what stands in the certificate.
    """
    write_own(key, b"", 0o600)  # openssl writes into it, and its mode stays
    program = host.which("openssl")
    if program is None:
        raise AgentError(
            "no-openssl",
            "there is no openssl on this node to make the agent's key with",
            cause="Python alone cannot make a key, and it must not be made elsewhere",
            cure="install it (apt-get install openssl), or leave the node without an agent",
        )
    binary = host.outside(program)
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    made = [*curve, "-nodes", "-keyout", str(key)]
    return _run(host, [binary, "req", "-new", *made, "-sha256", "-subj", "/O=Moorage"])


def take(home: Home, settings: AgentSettings, document: bytes) -> AgentSettings:
    """Puts a renewed certificate in the place of the old one, with its key.

    Raises AgentError if it does not belong to the key of the last request, or not to the CA.
    """
    try:
        data = json.loads(document)
        certificate, until = data["certificate"], data["until"]
        if set(data) != {"certificate", "until"} or type(until) is not int:
            raise ValueError("certificate and until")
        content = certificate.encode("ascii")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise AgentError(
            "bad-certificate",
            "what was sent is not a renewed certificate",
            cause='{"certificate": PEM, "until": seconds} was expected',
            cure="inv nodes.status renews it in the right way",
        ) from None
    write_own(home.next_certificate, content, 0o600)
    try:
        check(home.next_certificate, home.next_key, home.authority)
    except AgentError:
        home.next_certificate.unlink()
        raise
    renewed = replace(settings, until=until)
    home.write_settings(renewed)
    settle(home)
    return renewed


def settle(home: Home) -> None:
    """Gives a renewed pair its names, of this run or of one that a power cut ended half-way."""
    if home.next_certificate.exists():
        write_own(home.key, home.next_key.read_bytes(), 0o600)
        write_own(home.certificate, home.next_certificate.read_bytes(), 0o600)
        home.next_certificate.unlink()
        home.next_key.unlink()


def check(certificate: Path, key: Path, authority: Path) -> None:
    """Raises AgentError if the three do not belong together."""
    try:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(str(certificate), str(key))
        made.load_verify_locations(cafile=str(authority))
    except (OSError, ValueError) as problem:
        raise AgentError(
            "bad-certificate",
            f"the certificate does not belong to this node's key: {problem}",
            cause="it was made for another request, or it was cut short",
            cure="inv nodes.adopt makes a new pair",
        ) from None


def _run(host: Host, argv: list[str]) -> str:
    done = host.run(argv)
    if not done.ok:
        raise AgentError(
            "openssl-failed",
            f"openssl cannot make the agent's key: {done.complaint}",
            cause="the program on this node is broken, or older than 1.1.1",
            cure=f"run it by hand on the node: {' '.join(argv)}",
        )
    return done.out
