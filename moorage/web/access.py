"""Who may look at the page: whoever used the link once, on this machine, under its own name.

The link's token is good for one login; the browser then has a cookie that no other site can make it
send (SameSite=Strict). A request under any other host name is refused, for that is how a page of
somebody else's reads a server on loopback (DNS rebinding). Pure but for the random numbers.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

from moorage.errors import Refused

DEFAULT = "127.0.0.1:8765"
MOST_SESSIONS = 16

# No script, style, picture or connection but our own, no frame around us, nothing kept.
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "moorage",
}

# What a page with a form needs beside: to send it to us, and to say that it came from us. With
# "no-referrer" a browser sends "Origin: null" (https://fetch.spec.whatwg.org, "Origin header").
FORM_HEADERS: Mapping[str, str] = {
    **HEADERS,
    "Content-Security-Policy": HEADERS["Content-Security-Policy"].replace(
        "form-action 'none'", "form-action 'self'"
    ),
    "Referrer-Policy": "same-origin",
}
FORM = "application/x-www-form-urlencoded"
MOST_FORM_BYTES = 4096


@dataclass(frozen=True)
class PagePlace:
    """Where the page is served: an address of loopback, and a port (0: any that is free)."""

    address: str
    port: int

    @classmethod
    def parse(cls, text: str) -> PagePlace:
        """From ``ADDRESS:PORT``, ``[::1]:PORT`` or ``PORT``. Raises Refused."""
        host, _, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        address = {"": "127.0.0.1", "localhost": "127.0.0.1"}.get(host, host)
        try:
            is_loopback = ipaddress.ip_address(address).is_loopback
            number = int(port) if port.isascii() and port.isdigit() else -1
        except ValueError:
            raise _refused(text, f"{host!r} is not an IP address") from None
        if not 0 <= number <= 65535:
            raise _refused(text, f"{port!r} is not a port")
        if not is_loopback:
            raise Refused(
                "not-loopback",
                f"invalid --listen={text}: {address} is reachable from other machines",
                cause="the page has no TLS, and its cookie would travel in the clear",
                cure=f"inv web --listen={DEFAULT}, and from elsewhere through SSH: "
                f"ssh -L 8765:{DEFAULT} THIS-MACHINE",
            )
        return cls(address, number)

    @property
    def url(self) -> str:
        return f"http://{self._name(self.address)}:{self.port}"

    @property
    def hosts(self) -> frozenset[str]:
        """The values of a request's ``Host`` that are this page's."""
        names = {self._name(self.address), "localhost"}
        bare = names if self.port == 80 else set()
        return frozenset({f"{name}:{self.port}" for name in names} | bare)

    @staticmethod
    def _name(address: str) -> str:
        return f"[{address}]" if ":" in address else address


def _refused(text: str, why: str) -> Refused:
    return Refused(
        "bad-listen",
        f"invalid --listen={text}: {why}",
        cause="an address of this machine and a port were expected",
        cure=f"inv web --listen={DEFAULT}",
    )


class Access:
    """The one link and the sessions that came of it."""

    def __init__(self) -> None:
        self.token = secrets.token_urlsafe(32)
        self._is_used = False
        self._key = secrets.token_bytes(32)
        self._sessions: list[str] = []

    def log_in(self, token: str) -> str | None:
        """A new session's cookie for the link's token, once; None for any other, and afterwards."""
        fits = hmac.compare_digest(_bytes(token), self.token.encode())
        if not fits or self._is_used:
            return None
        self._is_used = True
        session = secrets.token_urlsafe(32)
        self._sessions = [*self._sessions, session][-MOST_SESSIONS:]
        return session

    def knows(self, session: str) -> bool:
        """Whether the cookie is a session's; each is compared in constant time."""
        given = _bytes(session)
        return sum(hmac.compare_digest(given, one.encode()) for one in self._sessions) > 0

    def form_token(self, session: str) -> str:
        """What a form of this session has to bring back, so that no other site can fill one in."""
        return hmac.new(self._key, _bytes(session), hashlib.sha256).hexdigest()

    def is_form_of(self, session: str, token: str) -> bool:
        """Whether a form with ``token`` was given to that session; in constant time."""
        return hmac.compare_digest(_bytes(token), self.form_token(session).encode())

    @staticmethod
    def short(session: str) -> str:
        """A session's name in logs, which lets nobody in."""
        return hashlib.sha256(_bytes(session)).hexdigest()[:8]


def form_fields(body: bytes) -> tuple[str, str] | None:
    """A form's ``of`` and ``token``; None for a body that is no such form, each once and alone."""
    try:
        fields = parse_qsl(body.decode(), strict_parsing=True, max_num_fields=2, errors="strict")
    except ValueError:  # UnicodeDecodeError is one
        return None
    found = dict(fields)
    if len(fields) != 2 or found.keys() != {"of", "token"}:
        return None
    return found["of"], found["token"]


def _bytes(text: str) -> bytes:
    """What a browser sent; bytes that are no text come from aiohttp as lone surrogates."""
    return text.encode(errors="surrogateescape")
