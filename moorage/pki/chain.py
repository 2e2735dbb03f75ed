"""Whether nodes will accept a server's certificate that somebody else issued.

It is judged by a TLS handshake in memory, of the files as they are, so that OpenSSL decides about
chain and names; what fails is then looked for, to be said in one sentence with its file.
"""

from __future__ import annotations

import datetime
import shlex
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

# Go takes each certificate it is given for a root, an intermediate too (crypto/x509, CertPool);
# OpenSSL does with this flag. Python has a name for it since 3.10.
_PARTIAL_CHAIN = ssl.VerifyFlags(0x80000)


@dataclass(frozen=True)
class ChainTrouble:
    """Why a certificate cannot be served; ``path`` is the file, ``cure`` what puts it right."""

    code: str
    path: Path
    cause: str
    cure: str


def client_context(ca: str) -> ssl.SSLContext:
    """A client that trusts the certificates in ``ca`` (PEM), and judges a chain as Go does.

    Python 3.13 asks for more (VERIFY_X509_STRICT): extensions that many a company's root has not.
    A common name is not a host name, for Go since 1.15. Raises ssl.SSLError, which is a ValueError,
    if ``ca`` has no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    context.verify_flags |= _PARTIAL_CHAIN
    context.load_verify_locations(cadata=ca)
    return context


def trouble(
    folder: Path, ca: str, names: Sequence[str], now: datetime.datetime
) -> ChainTrouble | None:
    """What keeps ``registry.crt`` and ``registry.key`` in ``folder`` from being served, or None.

    ``ca``: the certificates that nodes are given (PEM); ``names``: what it has to be valid for.
    Raises OSError if a file cannot be read.
    """
    from moorage.pki import certificates

    crt, key = folder / "registry.crt", folder / "registry.key"
    try:
        chain = certificates.load_certificates(crt.read_bytes())
    except ValueError as problem:
        return ChainTrouble(
            "certificate-unreadable", crt, str(problem), f"put it there as PEM: {crt}"
        )
    return (
        _of_the_key(crt, key, chain)
        or _of_the_time(crt, chain, now)
        or _of_the_chain(crt, key, chain, ca)
        or _of_the_names(crt, key, chain[0], ca, names)
    )


def _of_the_key(crt: Path, path: Path, chain: Sequence[Certificate]) -> ChainTrouble | None:
    from moorage.pki import certificates

    try:
        public = certificates.public_key_of(path.read_bytes())
    except certificates.Encrypted as problem:
        whole, opened = (shlex.quote(f"{path}{end}") for end in ("", ".open"))
        cure = f"openssl pkey -in {whole} -out {opened} && mv {opened} {whole}"
        return ChainTrouble("certificate-key-unreadable", path, str(problem), cure)
    except ValueError as problem:
        cure = f"put the private key of {crt.name} there, as PEM"
        return ChainTrouble("certificate-key-unreadable", path, str(problem), cure)
    fits = [number for number, one in enumerate(chain, 1) if one.public_key() == public]
    if not fits:
        cause = f"it is not the key of {crt} ({_name(chain[0])})"
        return ChainTrouble(
            "certificate-key-mismatch", path, cause, f"put the key of {crt.name} there"
        )
    if fits[0] > 1:
        said = f"{path.name} belongs to certificate {fits[0]} in it ({_name(chain[fits[0] - 1])})"
        cure = "put the server's certificate first in the file, then the one that signed it"
        return ChainTrouble(
            "certificate-order", crt, f"{said}, and the server's has to be first", cure
        )
    return None


def _of_the_time(
    crt: Path, chain: Sequence[Certificate], now: datetime.datetime
) -> ChainTrouble | None:
    for one in chain:
        begin, end = one.not_valid_before_utc, one.not_valid_after_utc
        if end <= now:
            cause = f"{_name(one)} in it ended on {end:%Y-%m-%d %H:%M} UTC"
            cure = "put the certificate that follows it there, with its key and its chain"
            return ChainTrouble("certificate-expired", crt, cause, cure)
        if begin > now:
            cause = f"{_name(one)} in it begins on {begin:%Y-%m-%d %H:%M} UTC"
            cure = "set this machine's clock (timedatectl), or wait until then"
            return ChainTrouble("certificate-not-yet-valid", crt, cause, cure)
    return None


def _of_the_chain(
    crt: Path, key: Path, chain: Sequence[Certificate], ca: str
) -> ChainTrouble | None:
    from moorage.pki import certificates

    words = _refusal(crt, key, ca, None)
    if not words:
        return None
    roots = certificates.load_certificates(ca.encode("ascii"))
    last, seen = chain[0], 1
    while seen <= len(chain) and not any(certificates.issued_by(last, root) for root in roots):
        above = next((one for one in chain if certificates.issued_by(last, one)), None)
        if above is None:
            cause = (
                f"{_name(last)} was issued by {_issuer(last)}, which is neither in it nor in ca.crt"
            )
            cure = f"append the certificate of {_issuer(last)} to {crt}, or put it into ca.crt"
            return ChainTrouble("certificate-chain", crt, cause, cure)
        if above == last:
            cause = f"it leads to {_name(last)}, which is not in ca.crt"
            return ChainTrouble("certificate-chain", crt, cause, f"put {_name(last)} into ca.crt")
        last, seen = above, seen + 1
    root, given = (shlex.quote(str(one)) for one in (crt.parent / "ca.crt", crt))
    cure = f"openssl verify -CAfile {root} -untrusted {given} {given} says more"
    return ChainTrouble("certificate-chain", crt, f"OpenSSL refuses it: {words}", cure)


def _of_the_names(
    crt: Path, key: Path, leaf: Certificate, ca: str, names: Sequence[str]
) -> ChainTrouble | None:
    from moorage.pki import certificates

    has = certificates.facts(leaf).names
    for name in names:
        # A pattern is no host: the certificate has it, or has it not.
        fits = name in has if "*" in name else not _refusal(crt, key, ca, name)
        if not fits:
            cause = f"it is valid for {', '.join(has) or 'no name'}, not for {name}"
            if not has:
                cause += "; clients no longer accept a common name (CN) alone"
            cure = f"get one that has {name}, or take {name} out of invoke.yaml"
            return ChainTrouble("certificate-names", crt, cause, cure)
    return None


def _refusal(crt: Path, key: Path, ca: str, name: str | None) -> str:
    """A handshake in memory: OpenSSL's words if the client refuses the server, else ""."""
    client, server = client_context(ca), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client.check_hostname = name is not None
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        server.load_cert_chain(crt, key)
        ends = (
            client.wrap_bio(to_client, to_server, server_hostname=name),
            server.wrap_bio(to_server, to_client, server_side=True),
        )
        for _ in range(4):  # a handshake has three flights at most
            for end in ends:
                try:
                    end.do_handshake()
                except ssl.SSLWantReadError:
                    continue
    except ssl.SSLCertVerificationError as problem:
        return problem.verify_message
    except ssl.SSLError as problem:
        return problem.reason or str(problem)
    return ""


def _name(certificate: Certificate) -> str:
    return certificate.subject.rfc4514_string() or f"serial {certificate.serial_number:x}"


def _issuer(certificate: Certificate) -> str:
    return certificate.issuer.rfc4514_string()
