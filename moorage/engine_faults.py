"""The engine's own words when a push or pull fails -> what that means here and how to cure it.

Pure, and a table: another message is another row. The first row that matches counts.
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
        r"x509: certificate signed by unknown authority",
        "untrusted",
        "this machine's engine does not trust {name}",
        _TRUST,
    ),
    _Row(
        r"x509: certificate has expired|not yet valid",
        "certificate-time",
        "the certificate of {name} is not valid at this machine's time",
        "inv certs.show tells its dates; check the clock, then inv registry.up",
    ),
    _Row(
        r"x509: .*(?:is valid for|not valid for any names|doesn't contain any|Common Name)",
        "certificate-name",
        "the certificate of {name} is for another name",
        "inv registry.up issues one for the name in invoke.yaml",
    ),
    _Row(
        r"x509:|tls: ",
        "tls",
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
        "name-unknown",
        "this machine's engine does not know the name {name}",
        "inv registry.up adds it to /etc/hosts",
    ),
    _Row(
        r"unauthorized|no basic auth credentials|authentication required|401",
        "unauthorized",
        "{name} refuses the login",
        "inv registry.up gives the registry the login in .moorage/registry again",
    ),
    _Row(
        r"denied|403",
        "denied",
        "{name} does not allow it",
        "is the reference in invoke.yaml (image.name) one you may write?",
    ),
    _Row(
        r"proxyconnect|proxy",
        "proxy",
        "this machine's engine asks a proxy for {name}",
        "add the registry's name to NO_PROXY of the Docker service",
    ),
    _Row(
        r"connection refused",
        "refused",
        "nothing answers at {name}",
        "inv registry.up",
    ),
    _Row(
        r"i/o timeout|deadline exceeded|request canceled|no route to host|unreachable",
        "unreachable",
        "{name} cannot be reached by this machine's engine",
        "check what /etc/hosts says of the name, and a firewall; inv doctor",
    ),
    _Row(
        r"manifest unknown|not found",
        "not-there",
        "{name} has no such image",
        "inv image.push",
    ),
    _Row(
        r"no space left on device",
        "disk-full",
        "the disk is full",
        "docker system df tells what takes the room; make some, then run this again",
    ),
)


def explain(words: str, name: str, what: str) -> MoorageError:
    """The error for the engine's ``words``; ``name`` is the registry's, ``what`` was tried."""
    for row in _ROWS:
        if re.search(row.pattern, words, re.IGNORECASE):
            return MoorageError(
                row.code,
                f"{what} failed: {row.message.format(name=name)}",
                cause=words.strip(),
                cure=row.cure,
            )
    return MoorageError(
        "engine-said", f"{what} failed", cause=words.strip(), cure="inv doctor; inv registry.logs"
    )
