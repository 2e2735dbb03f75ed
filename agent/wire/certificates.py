"""The CA of a plan: certificates in PEM and nothing else, each of which can sign a registry's."""

from __future__ import annotations

import base64
import binascii
import re

from agent.wire.faults import PlanError

BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END \1-----", re.DOTALL)


def certificates(text: str | None) -> str | None:
    """The certificates in ``text`` and nothing else, written the way OpenSSL writes them.

    Raises PlanError for a private key, and for what no runtime would take for a CA.
    """
    if text is None:
        return None
    blocks = BLOCK.findall(text)
    kinds = {kind for kind, _ in blocks}
    if any("PRIVATE KEY" in kind for kind in kinds):
        raise PlanError(
            "ca-has-key",
            "registry.ca holds a private key",
            cause="the CA's key must never leave the operator's machine",
            cure="send the certificate alone (ca.crt, not ca.key)",
        )
    bodies = [_der(body) for kind, body in blocks if kind == "CERTIFICATE"]
    if not bodies or kinds != {"CERTIFICATE"} or text.count("-----BEGIN ") != len(bodies):
        raise _bad_certificate("there is no whole PEM certificate in it")
    _check_ca(bodies)
    return "".join(pem(body) for body in bodies)


def _der(body: str) -> bytes:
    try:
        der = base64.b64decode("".join(body.split()).encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise _bad_certificate("its base64 is damaged") from None
    # One DER SEQUENCE with a two-byte length and nothing after it: a truncated file shows here.
    if der[:2] != b"\x30\x82" or int.from_bytes(der[2:4], "big") + 4 != len(der):
        raise _bad_certificate("it is cut short or is not a certificate")
    return der


def pem(der: bytes, kind: str = "CERTIFICATE") -> str:
    """A block of PEM, as OpenSSL writes it."""
    text = base64.b64encode(der).decode("ascii")
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return "\n".join([f"-----BEGIN {kind}-----", *lines, f"-----END {kind}-----", ""])


def _check_ca(found: list[bytes]) -> None:
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=b"".join(found))
    except (ssl.SSLError, ValueError) as problem:
        raise _bad_certificate(f"OpenSSL cannot read it ({problem})") from None
    # Go, and so every runtime, takes a server's certificate for its own CA if it signed itself. One
    # that a CA signed it takes as well; that trust would end when the certificate is renewed.
    if context.cert_store_stats()["x509_ca"] == 0 and not any(map(_signs_itself, found)):
        raise _bad_certificate(
            "it is a server's certificate that a CA signed, not that CA's own",
            "send the PEM of the CA that signed it: openssl x509 -noout -issuer -in FILE",
        )


def _signs_itself(certificate: bytes) -> bool:
    """Whether the issuer is the subject: RFC 5280, section 4.1.2, in DER."""
    fields = _fields(_fields(certificate)[0])
    after_version = fields[1:] if fields and fields[0][:1] == b"\xa0" else fields
    return len(after_version) > 4 and after_version[2] == after_version[4]


def _fields(element: bytes) -> list[bytes]:
    """What a DER element consists of, headers and all; what is cut short is left out."""
    content, found = element[_header(element) :], []
    while len(content) > 1:
        size = _header(content)
        end = size + (content[1] if content[1] < 0x80 else int.from_bytes(content[2:size], "big"))
        found.append(content[:end])
        content = content[end:]
    return found


def _header(element: bytes) -> int:
    return 2 if element[1] < 0x80 else 2 + (element[1] & 0x7F)


def _bad_certificate(
    why: str, cure: str = "send the PEM of the CA that signed the registry's certificate"
) -> PlanError:
    return PlanError(
        "bad-ca", f"registry.ca is not a usable CA certificate: {why}", cause=why, cure=cure
    )
