"""HAProxy's configuration for the front: TLS, logins, roles, and the way to the registry. Pure.

Every rule stands here and none depends on who has a login: logins and what they are granted are
rows of one map (:mod:`moorage.registry.front.roles`), which changes while the front serves.
Keywords: https://docs.haproxy.org/2.6/configuration.html. Routes:
https://github.com/distribution/distribution/blob/v2.8.2/registry/api/v2/descriptors.go.
"""

from __future__ import annotations

import json
import string
from dataclasses import dataclass
from pathlib import Path

CONFIG, PAIR, LOGINS = "haproxy.cfg", "tls.pem", "logins.map"
# The pair for clients that name no server, and the list that says so of it.
NAMELESS, PAIRS = "nameless.pem", "pairs.list"
FRONT_SOCKET, REGISTRY_SOCKET, _WAIT_SOCKET = "front.sock", "registry.sock", "wait.sock"
# Who proves the CA that follows: the login, what sends it on to an address, and its ticket there.
PROVING, TICKET = "moorage-proof", "moorage-token"
# A request waits about so long for a registry that is being started again, a second per attempt.
HOLD_SECONDS = 60


@dataclass(frozen=True)
class Places:
    """Where the front finds its files and sockets, and where it listens, as itself sees them.

    ``bind`` is HAProxy's address, as ``:5000``, and ``health`` that of its own health check;
    ``etc`` holds the files, ``run`` the sockets.
    """

    bind: str
    health: str
    etc: str
    run: str


class _Template(string.Template):
    delimiter = "@"  # HAProxy has a meaning for $, for % and for braces


def pairs_list(etc: str) -> bytes:
    """Which certificate is for whom: the first for clients that name no server, or another's.

    ``!*`` keeps its names out of the tree of names (crt-list in HAProxy's manual).
    """
    return f"{etc}/{NAMELESS} !*\n{etc}/{PAIR}\n".encode()


def proving_name(address: str) -> str:
    """The login that is sent on to ``address`` (of the registry, as a node knows it). Pure.

    A colon ends the name in HTTP's basic authentication (RFC 7617, section 2).
    """
    return f"{PROVING}/{f'[{address}]' if ':' in address else address}".replace(":", "_")


_NAME = "[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*"
_LAST = "[A-Za-z0-9_=-][A-Za-z0-9_.:+=-]*"
_REST = f"(?:manifests|referrers)/{_LAST}|tags/list|blobs/{_LAST}|blobs/uploads/(?:{_LAST})?"

_CHALLENGE = "hdr WWW-Authenticate 'Basic realm=\"Moorage\"'"


def _refusal(code: str, message: str) -> str:
    """The error document of the OCI distribution specification, quoted for HAProxy."""
    document = {"errors": [{"code": code, "message": message, "detail": None}]}
    return "'" + json.dumps(document, separators=(",", ":")) + "'"


_NAMED = "%[var(txn.name)]"
_REPOSITORY = "%[var(txn.repository)]"
_REFUSALS = {
    "bad_request": _refusal("UNSUPPORTED", "this is not a request that the registry understands"),
    "cut_off": _refusal("UNAVAILABLE", "the registry ended during this request; try again"),
    "silent": _refusal("UNAVAILABLE", "the registry is not running; try again in a minute"),
    "no_route": _refusal("NAME_INVALID", "this path is not one of a registry"),
    "no_method": _refusal("UNSUPPORTED", "this method is not one of a registry"),
    "who": _refusal("UNAUTHORIZED", "authentication required"),
    "over": _refusal("UNAUTHORIZED", f"the login {_NAMED} has expired"),
    "not_listed": _refusal("DENIED", f"the login {_NAMED} may not list all repositories"),
    "not_granted": _refusal("DENIED", f"the login {_NAMED} may not use {_REPOSITORY}"),
    "not_pushed": _refusal("DENIED", f"the login {_NAMED} may pull {_REPOSITORY} but not push"),
    "not_deleted": _refusal("DENIED", f"the login {_NAMED} may not delete {_REPOSITORY}"),
}


def haproxy_cfg(places: Places, key: str, *, drain_seconds: int) -> bytes:
    """The configuration file. ``key``: of the logins' HMAC, in Base64; it is a secret."""
    text = _Template(Path(__file__).with_name("haproxy.cfg.in").read_text()).substitute(
        _REFUSALS,
        bind=places.bind,
        health=places.health,
        etc=places.etc,
        run=places.run,
        pairs=PAIRS,
        proving=PROVING,
        ticket=TICKET,
        logins=LOGINS,
        front_socket=FRONT_SOCKET,
        registry_socket=REGISTRY_SOCKET,
        wait_socket=_WAIT_SOCKET,
        key=key,
        name=_NAME,
        rest=_REST,
        json="content-type application/json",
        challenge=_CHALLENGE,
        drain=drain_seconds,
        hold=HOLD_SECONDS,
    )
    return text.encode()
