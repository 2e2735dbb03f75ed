"""The certificate that is presented to a registry which asks its clients for one, and its key;
and what such a registry says to who has none, or not a right one."""

from __future__ import annotations

import base64
import binascii
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.wire.certificates import BLOCK, pem
from agent.wire.faults import PlanError

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Mapping

_KEYS = frozenset(("PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"))


@dataclass(frozen=True)
class ClientPair:
    """Both in PEM and nothing else. ``certificate`` may have its chain behind it."""

    certificate: str
    key: str = field(repr=False)

    @classmethod
    def of(cls, document: Mapping[str, str] | None, insecure: str | None) -> ClientPair | None:
        """The pair of a plan, None for none; ``insecure``: as in its registry.

        Raises PlanError (``bad-client-pair``). No message quotes the key.
        """
        if document is None:
            return None
        if insecure:
            raise _bad("certificate", "a registry without TLS asks for none")
        import ssl

        chain = _blocks(document["certificate"], frozenset(("CERTIFICATE",)), "certificate")
        keys = _blocks(document["key"], _KEYS, "key")
        if len(keys) > 1:
            raise _bad("key", "there is more than one private key in it")
        found = cls("".join(chain), keys[0])
        try:
            found.present(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        except (ssl.SSLError, OSError) as problem:
            why = f"it is not the certificate's key, or OpenSSL cannot read it ({problem})"
            raise _bad("key", why) from None
        return found

    def present(self, context: ssl.SSLContext) -> None:
        """Have the connections of a context present the pair. Raises ssl.SSLError if it is none.

        OpenSSL takes files alone: this one exists in memory only (memfd_create(2)).
        """
        held = os.memfd_create("client")
        try:
            os.write(held, (self.certificate + self.key).encode("ascii"))
            context.load_cert_chain(f"/proc/self/fd/{held}", password="")  # it asks for none then
        finally:
            os.close(held)


def _blocks(text: str, kinds: frozenset[str], what: str) -> list[str]:
    """The blocks of a PEM text, written the way OpenSSL writes them; there are no others in it."""
    found = BLOCK.findall(text)
    if not found or text.count("-----BEGIN ") != len(found) or {one for one, _ in found} - kinds:
        raise _bad(what, f"there is not just a whole PEM {what} in it")
    written = []
    for kind, body in found:
        try:
            der = base64.b64decode("".join(body.split()).encode("ascii"), validate=True)
        except (binascii.Error, UnicodeEncodeError):
            raise _bad(what, "its base64 is damaged, or the key is encrypted") from None
        written.append(pem(der, kind))
    return written


def _bad(what: str, why: str) -> PlanError:
    return PlanError(
        "bad-client-pair",
        f"registry.client.{what} cannot be used: {why}",
        cause=why,
        cure="send a client's certificate and the key that belongs to it, unencrypted, both in PEM",
    )


# OpenSSL's words for the alerts of a server that wants a certificate of its clients (RFC 8446, 6.2;
# Go sent the second until 1.21), or does not take the one that it got; in Go's words.
_ALERTS = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "tls: certificate required",
    "SSLV3_ALERT_BAD_CERTIFICATE": "tls: bad certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "remote error: tls: unknown certificate authority",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "remote error: tls: expired certificate",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "remote error: tls: revoked certificate",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "remote error: tls: unknown certificate",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "remote error: tls: unsupported certificate",
    "TLSV1_ALERT_ACCESS_DENIED": "remote error: tls: access denied",
}
_FAILURE = "SSLV3_ALERT_HANDSHAKE_FAILURE"
# What nginx answers, with status 400 (ngx_http_special_response.c).
_PAGES = {
    b"No required SSL certificate was sent": "tls: certificate required",
    b"The SSL certificate error": "tls: bad certificate",
}


def alert(problem: OSError, agreed: bool) -> str:
    """Go's words for an alert that is about a client's certificate; "" for any other problem.

    ``agreed``: the handshake came as far as a cipher. A server that fails it then by TLS 1.2 wanted
    a certificate (RFC 5246, 7.4.6); one that fails it before has no cipher in common.
    """
    reason = getattr(problem, "reason", None) or ""
    if reason == _FAILURE:
        return "tls: handshake failure" if agreed else ""
    return _ALERTS.get(reason, "")


def refusal(status: int, body: bytes) -> str:
    """The same of a page that is answered in the place of an alert."""
    return next((words for page, words in _PAGES.items() if status == 400 and page in body), "")


def last_word(line: socket.socket | None, problem: OSError) -> OSError:
    """What a server said by TLS before it closed a connection, else the problem itself.

    By TLS 1.3 it judges a client's certificate when the client has begun to send.
    """
    import ssl

    cut = isinstance(problem, ssl.SSLEOFError) or not isinstance(problem, ssl.SSLError)
    if isinstance(line, ssl.SSLSocket) and cut:
        line.settimeout(1)
        try:
            line.recv(1)
        except ssl.SSLError as said:
            return said
        except OSError:
            pass
    return problem


def is_refused(words: str, presented: bool) -> bool:
    """Whether it is the pair that is refused, and not the want of one."""
    if "certificate required" in words:
        return False
    return presented or not re.search(r"tls: (bad certificate|handshake failure)", words)
