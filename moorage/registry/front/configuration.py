"""HAProxy's configuration for the front: TLS, logins, roles, and the way to the registry. Pure.

Every rule stands here and none depends on who has a login: logins and what they are granted are
rows of one map (:mod:`moorage.registry.front.roles`), which changes while the front serves.
Keywords: https://docs.haproxy.org/2.6/configuration.html. Routes:
https://github.com/distribution/distribution/blob/v2.8.2/registry/api/v2/descriptors.go.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CONFIG, PAIR, LOGINS = "haproxy.cfg", "tls.pem", "logins.map"
# The pair for clients that name no server, and the list that says so of it.
NAMELESS, PAIRS = "nameless.pem", "pairs.list"
FRONT_SOCKET, REGISTRY_SOCKET, _WAIT_SOCKET = "front.sock", "registry.sock", "wait.sock"
_OURS_SOCKET, _CACHED_SOCKET = "ours.sock", "cached.sock"
# Who proves the CA that follows: the login, what sends it on to an address, and its ticket there.
PROVING, TICKET = "moorage-proof", "moorage-token"
# A request waits about so long for a registry that is being started again, a second per attempt.
HOLD_SECONDS = 60
# An upstream that takes a connection and says nothing holds a request so long; then what the cache
# has is served.
_SILENT_SECONDS = 20


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


@dataclass(frozen=True)
class Cached:
    """A cache, as the front finds it: ``upstream`` is the registry's name, as containerd's ``ns``
    has it; ``path`` that below which its images are asked for, without slashes around it.

    ``open``: whether everybody may read it. ``name`` is in the names of its two sockets.
    """

    upstream: str
    name: str
    path: str
    open: bool = False

    @property
    def sockets(self) -> tuple[str, str]:
        """The socket of the cache itself, and of what serves its store alone."""
        return f"{self.name}.cache.sock", f"{self.name}.kept.sock"


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
_UPSTREAM = "%[var(txn.upstream)]"
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
    "no_push": _refusal(
        "DENIED",
        f"{_REPOSITORY} is of the cache of {_UPSTREAM}: it fills itself when something is pulled, "
        "and accepts no pushes",
    ),
    "no_delete": _refusal(
        "UNSUPPORTED",
        f"{_REPOSITORY} is of the cache of {_UPSTREAM}, which goes as a whole: "
        f"inv registry.cache {_UPSTREAM} --remove",
    ),
    "not_cached": _refusal(
        "NAME_UNKNOWN",
        f"the cache of {_UPSTREAM} does not have this, and {_UPSTREAM} does not give it: "
        "inv registry.cache --list says whether it answers",
    ),
    "not_deleted": _refusal("DENIED", f"the login {_NAMED} may not delete {_REPOSITORY}"),
}


# What a request takes along to a cache: which one, what it is asked for, and of whom it is told.
_TO_CACHE = """\
    http-request set-header x-moorage-cache %[var(txn.cache)]
    http-request set-header x-moorage-path %[var(txn.below)]
    http-request set-header x-moorage-upstream %[var(txn.upstream)]
"""
# A path is rewritten once, so that a cache's own name in it is no other cache's.
_CACHE_RULES = """\
    http-request set-var(txn.by_ns) path,'regsub("^/v2/","/v2/{path}/")' if of_repository \
{{ url_param(ns),url_dec -m str {upstream} }} !{{ path_beg /v2/{path}/ }}
"""
_CACHE_FOUND = """\
    http-request set-var(txn.cache) str({name}) if {{ path -m reg '{route}' }}
    acl of-{name} var(txn.cache) -m str {name}
    http-request set-var(txn.upstream) str({upstream}) if of-{name}
    http-request set-var(txn.below) path,'regsub("^/v2/{exactly}/","/v2/")' if of-{name}
"""
_CACHE_OPEN = "    http-request set-var(txn.open) bool(true) if of-{name} reads\n"
# The cache itself does not start while its upstream is away, and may hang on one that is silent:
# then a plain Distribution over the same store answers (docs/registry.md).
_CACHE_BACKEND = """
backend cache-{name}
    balance first
    timeout server {silent}s
    retries 1
    retry-on conn-failure empty-response response-timeout 500 502 503 504
    option redispatch 1
    server cache unix@{run}/{cache} id 1 check inter 1s rise 1 fall 1
    server kept unix@{run}/{kept} id 2
"""


def _cache_rules(caches: Sequence[Cached]) -> str:
    asked = [_CACHE_RULES.format(path=one.path, upstream=one.upstream) for one in caches]
    rewritten = "    http-request set-path %[var(txn.by_ns)] if { var(txn.by_ns) -m found }\n"
    found = [
        _CACHE_FOUND.format(
            name=one.name,
            exactly=re.escape(one.path),
            route=f"^/v2/{re.escape(one.path)}/{_NAME}/(?:{_REST})$",
            upstream=one.upstream,
        )
        + (_CACHE_OPEN.format(name=one.name) if one.open else "")
        for one in caches
    ]
    return "".join([*asked, *([rewritten] if caches else []), *found])


def _cache_backends(places: Places, caches: Sequence[Cached]) -> str:
    return "".join(
        _CACHE_BACKEND.format(
            name=one.name,
            silent=_SILENT_SECONDS,
            run=places.run,
            cache=one.sockets[0],
            kept=one.sockets[1],
        )
        for one in caches
    )


def haproxy_cfg(places: Places, key: str, *, caches: Sequence[Cached] = ()) -> bytes:
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
        hold=HOLD_SECONDS,
        ours_socket=_OURS_SOCKET,
        cached_socket=_CACHED_SOCKET,
        to_cache=_TO_CACHE,
        caches=_cache_rules(caches),
        cache_backends=_cache_backends(places, caches),
    )
    return text.encode()
