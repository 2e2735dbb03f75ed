"""The engine's own words when a push or pull fails -> what that means here and how to cure it.

Pure, and a table: another message is another row. The first row that matches counts. The codes are
the agent's (``agent/proof/verify.py``): one cause, one name, wherever it is met.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from moorage.errors import MoorageError


class _Row(NamedTuple):
    pattern: str
    code: str
    message: str
    cure: str


_TRUST = "inv registry.up makes this machine's engine trust the registry"
_ROWS = (
    _Row(
        r"missing key \S+ for client certificate|missing client certificate \S+ for key"
        r"|private key does not match public key|failed to load X509 key pair",
        "client-certificate",
        "a client's certificate or key in /etc/docker/certs.d/{name} is without its other half",
        "ls -l /etc/docker/certs.d/{name}; a CA's file has to end with .crt, half a pair has to go",
    ),
    _Row(
        r"x509: certificate signed by unknown authority",
        "x509-unknown-authority",
        "this machine's engine does not trust {name}",
        _TRUST,
    ),
    _Row(
        r"x509: certificate has expired|not yet valid",
        "x509-expired",
        "the certificate of {name} is not valid at this machine's time",
        "inv certs.show tells its dates; check the clock, then inv registry.up",
    ),
    _Row(
        r"x509: .*(?:is valid for|not valid for any names|doesn't contain any|Common Name)",
        "x509-wrong-name",
        "the certificate of {name} is for another name",
        "inv registry.up issues one for the name in invoke.yaml",
    ),
    _Row(
        r"x509:|tls: ",
        "tls-failed",
        "this machine's engine and {name} do not agree on TLS",
        "inv certs.show; inv registry.up",
    ),
    _Row(
        r"server gave HTTP response to HTTPS client",
        "plain-http",
        "what answers at {name} speaks no TLS",
        "inv registry.status tells what should be there; another program may hold the port",
    ),
    _Row(
        r"no such host|server misbehaving|name resolution",
        "name-unresolved",
        "this machine's engine does not know the name {name}",
        "inv registry.up adds it to /etc/hosts",
    ),
    _Row(
        r"toomanyrequests|too many requests",
        "rate-limit",
        "{name} limits how much is pulled and pushed",
        "wait, then run this again",
    ),
    _Row(
        r"(?<!token response: )invalid character '<'|<!DOCTYPE|<html|media type text/",
        "not-a-registry",
        "whatever answers for {name} is not a registry: it sends a web page",
        "inv registry.status tells what should be there; curl -i https://{name}/v2/ what is",
    ),
    _Row(
        r"unauthorized|no basic auth credentials|authentication required|\b401 [A-Z]"
        r"|insufficient_scope",
        "login-refused",
        "{name} refuses the login",
        "inv registry.up gives the registry the login in .moorage/registry again",
    ),
    _Row(
        r"\bdenied: |resource is denied|access forbidden|\b403 [A-Z]",
        "access-denied",
        "{name} does not allow it",
        "is the reference in invoke.yaml (image.name) one you may write?",
    ),
    _Row(
        r"proxyconnect|proxy authentication required",
        "proxy",
        "this machine's engine asks a proxy for {name}",
        "add the registry's name to NO_PROXY of the Docker service",
    ),
    _Row(
        r"connection refused",
        "registry-refused",
        "nothing answers at {name}",
        "inv registry.up",
    ),
    _Row(
        r"i/o timeout|deadline exceeded|request canceled",
        "registry-timeout",
        "{name} does not answer this machine's engine in time",
        "check what /etc/hosts says of the name, and a firewall; inv doctor",
    ),
    _Row(
        r"no route to host|unreachable",
        "no-route",
        "this machine's engine finds no way to {name}",
        "check what /etc/hosts says of the name; inv doctor",
    ),
    _Row(
        r"manifest unknown|name unknown|repository name not known",
        "image-missing",
        "{name} has no such image",
        "inv image.build image.push",
    ),
    _Row(
        r"no space left on device",
        "disk-full",
        "the disk is full",
        "docker system df tells what takes the room; make some, then run this again",
    ),
)

# What is in a name, a URL or a digest says nothing of the cause.
_NAMES = re.compile(r'"?https?://[^"\s]+"?|sha256:[0-9a-f]+|\b\S+:\d+/\S+|\bdenied for \S+')


def explain(words: str, name: str, what: str) -> MoorageError:
    """The error for the engine's ``words``; ``name`` is the registry's, ``what`` was tried."""
    plain = _NAMES.sub(" ", words)
    for row in _ROWS:
        if re.search(row.pattern, plain, re.IGNORECASE):
            return MoorageError(
                row.code,
                f"{what} failed: {row.message.format(name=name)}",
                cause=words.strip(),
                cure=row.cure.format(name=name),
            )
    return MoorageError(
        "engine-failed", f"{what} failed", cause=words.strip(), cure="inv doctor; inv registry.logs"
    )
