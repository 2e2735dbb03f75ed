"""Who is who in the lab's cluster: a CA of its own, and the key that signs service accounts.

Everything else is issued from it in memory when it is needed, put where it is used, and not kept:
one file has to be whole, and every certificate is as old as what it stands in.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from moorage.files import private_folder, write_atomically

if TYPE_CHECKING:
    from cryptography import x509

    from moorage.pki.certificates import Key

_DAYS = 3650
# A lab that is so old is made anew rather than found dead one morning.
_RENEW_BEFORE = datetime.timedelta(days=30)
_LEAF_DAYS = 365


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, both PEM."""

    certificate: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True)
class Authority:
    """The cluster's CA. ``service_key``: PEM of the key that signs service accounts' tokens."""

    certificate: x509.Certificate
    key: Key = field(repr=False)
    service_key: bytes = field(repr=False)

    @property
    def pem(self) -> bytes:
        """The CA's certificate."""
        from moorage.pki import certificates

        return certificates.certificate_pem(self.certificate)

    @property
    def service_public_key(self) -> bytes:
        from cryptography.hazmat.primitives import serialization as form

        from moorage.pki import certificates

        public = certificates.load_key(self.service_key).public_key()
        return public.public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)

    def client(self, user: str, *groups: str) -> Pair:
        """A client certificate: Kubernetes reads the user from CN and the groups from O.

        https://kubernetes.io/docs/reference/access-authn-authz/authentication/#x509-client-certificates
        """
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

        from moorage.pki import certificates

        key = certificates.new_key("ec-p256")
        names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        names.append(x509.NameAttribute(NameOID.COMMON_NAME, user))
        now = datetime.datetime.now(datetime.UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(names))
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - certificates.BACKDATE)
            .not_valid_after(now + datetime.timedelta(days=_LEAF_DAYS))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return Pair(certificates.certificate_pem(made), certificates.key_pem(key))

    def server(self, names: Sequence[str]) -> Pair:
        """A server certificate for DNS names and addresses."""
        from moorage.pki import certificates

        key = certificates.new_key("ec-p256")
        made = certificates.make_leaf(
            key,
            ca=self.certificate,
            ca_key=self.key,
            names=names,
            days=_LEAF_DAYS,
            now=datetime.datetime.now(datetime.UTC),
        )
        return Pair(certificates.certificate_pem(made), certificates.key_pem(key))


def load(path: Path) -> Authority | None:
    """The CA in ``path``; None if there is none, or none that is of use."""
    from moorage.pki import certificates

    try:
        text = path.read_bytes()
        certificate = certificates.load_certificates(text)[0]
        keys = [part + _END for part in text.split(_END) if _BEGIN in part]
        key, _ = (certificates.load_key(part[part.index(_BEGIN) :]) for part in keys)
        service_key = keys[1][keys[1].index(_BEGIN) :] + b"\n"
    except (FileNotFoundError, ValueError):
        return None
    made = certificate.not_valid_before_utc
    leaves_end = made + datetime.timedelta(days=_LEAF_DAYS) - _RENEW_BEFORE
    if datetime.datetime.now(datetime.UTC) > leaves_end:
        return None
    return Authority(certificate, key, service_key)


def ensure(path: Path) -> Authority:
    """The CA in ``path`` (one file, 0600), made where none of use is there. Raises OSError."""
    present = load(path)
    if present is not None:
        return present
    from moorage.pki import certificates

    key, service = certificates.new_key("ec-p256"), certificates.new_key("ec-p256")
    now = datetime.datetime.now(datetime.UTC)
    made = certificates.make_ca(
        key, common_name=f"Moorage lab cluster {now:%Y%m%dT%H%M%SZ}", days=_DAYS, now=now
    )
    parts = (
        certificates.certificate_pem(made),
        certificates.key_pem(key),
        certificates.key_pem(service),
    )
    private_folder(path.parent)
    write_atomically(path, b"".join(parts))
    return Authority(made, key, parts[2])


_BEGIN, _END = b"-----BEGIN PRIVATE KEY-----", b"-----END PRIVATE KEY-----"
