"""The certificates that a server presents, looked at before any of them is trusted.

Which one nodes would have to trust is decided here; that it is the right one only a person can say,
who compares its fingerprint with what the registry's owner says.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from moorage.errors import MoorageError, Refused

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

# What the certificate to be trusted is.
ROOT, INTERMEDIATE, SERVER, OWN, PUBLIC = (
    "the CA that signed its chain",
    "the highest CA that it presents; its root is not among them",
    "the server's own certificate: it presents no CA, so a renewed one will need trust again",
    "the server's certificate, which is its own CA",
    "a CA that this machine trusts already, as nodes probably do",
)


# What ends the handshake of who shows no certificate, by TLS 1.2 (RFC 5246, 7.4.6).
_CLIENT_WANTED = ("SSLV3_ALERT_HANDSHAKE_FAILURE", "SSLV3_ALERT_BAD_CERTIFICATE")


@dataclass(frozen=True)
class Presented:
    """A server's chain, its own certificate first; ``anchor``: the one to trust; ``kind``: what
    the anchor is."""

    chain: tuple[Certificate, ...]
    anchor: Certificate
    kind: str


def chosen(shown: Sequence[Certificate], public: Certificate | None) -> Presented:
    """Which certificate of ``shown`` (the server's first) is to be trusted. Pure.

    ``public``: the root of this machine's own store that vouches for it, None if there is none.
    The chain is followed by its signatures: servers present stray certificates as well.
    """
    from moorage.pki import certificates

    last, left = shown[0], list(shown[1:])
    while above := next((one for one in left if certificates.issued_by(last, one)), None):
        last = above
        left.remove(above)
    if public is not None:
        return Presented(tuple(shown), public, PUBLIC)
    if certificates.issued_by(last, last):
        return Presented(tuple(shown), last, OWN if last is shown[0] else ROOT)
    return Presented(tuple(shown), last, SERVER if last is shown[0] else INTERMEDIATE)


Present = Callable[[ssl.SSLContext], None]


def nothing(context: ssl.SSLContext) -> None:
    """No certificate of a client's is shown."""


def chain(
    place: str, host: str, port: int, timeout: float, present: Present = nothing
) -> list[Certificate]:
    """The certificates that the server at ``place`` (an address or a name) presents as ``host``,
    its own first, whoever vouches for them.

    Nothing is sent to it but the handshake; ``present`` puts the client's certificate into that.
    ``timeout`` in seconds. Raises OSError if nothing answers there, or no TLS.
    """
    from moorage.pki import certificates

    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname = False
    blind.verify_mode = ssl.CERT_NONE  # also one that has ended has to be seen
    present(blind)
    with (
        socket.create_connection((place, port), timeout) as raw,
        blind.wrap_socket(raw, server_hostname=host) as tls,
    ):
        ders = _ders(tls, "get_unverified_chain")
    return [certificates.load_certificates(_pem(der))[0] for der in ders]


def look(
    place: str, host: str, port: int, timeout: float = 10, present: Present = nothing
) -> Presented:
    """What the server presents, and which of it is to be trusted (:func:`chain`'s parameters).

    Raises MoorageError: ``registry-unseen``; ``client-wanted`` if by TLS 1.2 it ends the handshake
    of who shows it no certificate. By TLS 1.3 it says so later, and is seen.
    """
    try:
        shown = chain(place, host, port, timeout, present)
    except OSError as problem:
        if getattr(problem, "reason", "") in _CLIENT_WANTED:
            raise MoorageError(
                "client-wanted",
                f"https://{host}:{port} wants a certificate of its clients, or another one",
                cause=f"it ends the handshake: {problem}",
                cure="set registry.client_cert and registry.client_key in invoke.yaml to a pair "
                "that it accepts, then run this again",
            ) from None
        raise MoorageError(
            "registry-unseen",
            f"https://{host}:{port} presents no certificate",
            cause=str(problem) or type(problem).__name__,
            cure="correct registry.host and registry.port in invoke.yaml, or set registry.address",
        ) from None
    return chosen(shown, _public_root(place, host, port, timeout, present))


def require_fingerprint(found: Presented, wanted: str) -> None:
    """Raises Refused unless ``wanted``, hexadecimal digits with or without colons, is the anchor's
    SHA-256."""
    from moorage.pki import certificates

    has = certificates.facts(found.anchor).fingerprint

    def digits(text: str) -> str:
        return text.replace(":", "").strip().lower()

    if digits(wanted) != digits(has):
        raise Refused(
            "ca-fingerprint",
            "the CA that the registry presents is not the one you expect",
            cause=f"its SHA-256 is {has}, not {wanted}",
            cure="ask the registry's owner which is right; another server may answer in its place",
        )


def _public_root(
    place: str, host: str, port: int, timeout: float, present: Present
) -> Certificate | None:
    from moorage.pki import certificates

    careful = ssl.create_default_context()
    present(careful)
    try:
        with (
            socket.create_connection((place, port), timeout) as raw,
            careful.wrap_socket(raw, server_hostname=host) as tls,
        ):
            return certificates.load_certificates(_pem(_ders(tls, "get_verified_chain")[-1]))[0]
    except OSError:  # ssl.SSLError is one
        return None


def _ders(tls: ssl.SSLSocket, which: str) -> list[bytes]:
    # Public since Python 3.13 (https://docs.python.org/3/library/ssl.html), as lists of DER; in
    # 3.10 to 3.12 the same method of the object below gives certificates.
    if hasattr(tls, which):
        return [bytes(one) for one in getattr(tls, which)()]
    inner = getattr(tls, "_sslobj", None)
    return [ssl.PEM_cert_to_DER_cert(one.public_bytes()) for one in getattr(inner, which)()]


def _pem(der: bytes) -> bytes:
    return ssl.DER_cert_to_PEM_cert(der).encode("ascii")
