"""Makes and reads X.509 certificates, in memory only: no files, no clock, no settings.

What stands in them follows RFC 5280 so strictly that ``openssl verify -x509_strict``, Python's ssl
and Go accept the chain; ``moorage.pki.registry`` decides when to make one and where it is kept.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

# Nodes at the edge boot with a clock that may be behind until NTP has answered.
BACKDATE = datetime.timedelta(hours=1)
# RFC 5280, appendix A.1: ub-common-name. Longer names live in the SAN alone.
_COMMON_NAME_MAX = 64
_ORGANIZATION = "Moorage"


@dataclass(frozen=True)
class CertificateFacts:
    """What a certificate says. Times are UTC; ``fingerprint`` is the SHA-256 of its DER form."""

    subject: str
    issuer: str
    serial: str
    names: tuple[str, ...]
    key: str
    is_ca: bool
    not_before: datetime.datetime
    not_after: datetime.datetime
    fingerprint: str

    def days_left(self, now: datetime.datetime) -> int:
        """Whole days until it ends; negative once it has."""
        return (self.not_after - now).days


def new_key(kind: str) -> Key:
    """A fresh private key; ``kind`` is ``ec-p256`` or ``rsa-4096``."""
    if kind == "rsa-4096":
        return rsa.generate_private_key(public_exponent=65537, key_size=4096)
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: Key) -> bytes:
    """PKCS #8 without a passphrase: the registry has nobody to type one."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def certificate_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


class Encrypted(ValueError):
    """A private key that asks for a passphrase."""


def public_key_of(pem: bytes) -> PublicKeyTypes:
    """The public half of a private key of any kind. Raises ValueError, :class:`Encrypted` too."""
    return _private_key(pem).public_key()


def load_key(pem: bytes) -> Key:
    """Raises ValueError with the reason where ``pem`` is no usable private key."""
    key = _private_key(pem)
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise ValueError(f"it is of a kind that not every client knows ({type(key).__name__})")
    return key


def _private_key(pem: bytes) -> PrivateKeyTypes:
    try:
        return serialization.load_pem_private_key(pem, password=None)
    except TypeError:
        raise Encrypted("it is protected by a passphrase, which nobody could type") from None
    except Exception:  # the parser's many reasons would only show bytes of the key
        raise ValueError("it is not a whole private key in PEM form") from None


def is_made_here(certificate: x509.Certificate) -> bool:
    """Whether the certificate's own subject says that Moorage made it."""
    return certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME) == [
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, _ORGANIZATION)
    ]


def load_certificates(pem: bytes) -> list[x509.Certificate]:
    """The certificates in ``pem``, at least one. Raises ValueError with the reason."""
    try:
        certificates = x509.load_pem_x509_certificates(pem)
        for certificate in certificates:
            facts(certificate)
    except UnsupportedAlgorithm as problem:
        raise ValueError(f"its key is of a kind that is not supported ({problem})") from None
    except ValueError as problem:
        raise ValueError(f"it is not a whole certificate in PEM form ({problem})") from None
    return certificates


def make_ca(
    key: Key,
    *,
    common_name: str,
    days: int,
    now: datetime.datetime,
    permitted: Sequence[str] | None = None,
) -> x509.Certificate:
    """A self-signed CA that signs servers and, with path length 1, the CA that follows it.

    A node that trusts this CA alone accepts a server of the next CA if this one has signed the
    next (RFC 5280, section 4.2.1.9: the length counts the CAs between a root and the server).
    ``permitted``: the DNS names and addresses it may sign and nothing else; None: any.
    """
    name = _name(common_name)
    builder = (
        _builder(name, name, key, now - BACKDATE, now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(_authority_of(key), critical=False)
    )
    if permitted is not None:
        builder = builder.add_extension(_constraints(permitted), critical=True)
    return builder.sign(key, _hash())


def may_sign_ca(ca: x509.Certificate) -> bool:
    """Whether a chain may lead through a further CA below this one (RFC 5280, 4.2.1.9)."""
    basic = ca.extensions.get_extension_for_class(x509.BasicConstraints).value
    return basic.ca and basic.path_length != 0


def cross_signed(
    heir: x509.Certificate, *, ca: x509.Certificate, ca_key: Key, now: datetime.datetime
) -> x509.Certificate:
    """The CA ``heir``, as ``ca`` vouches for it: of the same name and key, and no root.

    It outlives neither. Whoever trusts ``ca`` alone accepts the heir's servers that send it along.
    """
    builder = (
        x509.CertificateBuilder()
        .subject_name(heir.subject)
        .issuer_name(ca.subject)
        .public_key(heir.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(max(now - BACKDATE, ca.not_valid_before_utc))
        .not_valid_after(min(heir.not_valid_after_utc, ca.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(_authority(ca), critical=False)
    )
    for kind in (x509.SubjectKeyIdentifier, x509.NameConstraints):
        for found in heir.extensions:
            if isinstance(found.value, kind):
                builder = builder.add_extension(found.value, critical=found.critical)
    return builder.sign(ca_key, _hash())


def make_leaf(
    key: Key,
    *,
    ca: x509.Certificate,
    ca_key: Key,
    names: Sequence[str],
    days: int,
    now: datetime.datetime,
) -> x509.Certificate:
    """A server's certificate for ``names`` (DNS names and addresses; the first is its subject).

    It never outlives the CA.
    """
    begin = max(now - BACKDATE, ca.not_valid_before_utc)
    end = min(now + datetime.timedelta(days=days), ca.not_valid_after_utc)
    is_rsa = isinstance(key, rsa.RSAPrivateKey)
    return (
        _builder(_name(names[0]), ca.subject, key, begin, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        # TLS 1.2's RSA key exchange enciphers; elliptic keys only sign.
        .add_extension(_usage(digital_signature=True, key_encipherment=is_rsa), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False
        )
        .add_extension(_authority(ca), critical=False)
        .sign(ca_key, _hash())
    )


def make_role(
    key: ec.EllipticCurvePublicKey,
    *,
    ca: x509.Certificate,
    ca_key: Key,
    role: str,
    usage: x509.ObjectIdentifier,
    days: int,
    now: datetime.datetime,
    names: Sequence[str] = (),
) -> x509.Certificate:
    """A certificate that says what its holder is, by the URI ``role``, and serves one ``usage``.

    It never outlives the CA. ``names``: DNS names for clients that know servers by no other thing.
    """
    said = [x509.UniformResourceIdentifier(role), *(x509.DNSName(name) for name in names)]
    begin = max(now - BACKDATE, ca.not_valid_before_utc)
    end = min(now + datetime.timedelta(days=days), ca.not_valid_after_utc)
    return (
        _builder(_name(role), ca.subject, key, begin, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(x509.SubjectAlternativeName(said), critical=False)
        .add_extension(_authority(ca), critical=False)
        .sign(ca_key, _hash())
    )


def facts(certificate: x509.Certificate) -> CertificateFacts:
    """What ``certificate`` says. Raises ValueError where it contradicts its own format."""
    return CertificateFacts(
        subject=certificate.subject.rfc4514_string(),
        issuer=certificate.issuer.rfc4514_string(),
        serial=f"{certificate.serial_number:x}",
        names=_names(certificate),
        key=_describe_key(certificate),
        is_ca=_is_ca(certificate),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(":").upper(),
    )


def same_key(certificate: x509.Certificate, key: Key) -> bool:
    """Whether ``key`` is the private half of the certificate's public key."""
    return certificate.public_key() == key.public_key()


def issued_by(certificate: x509.Certificate, ca: x509.Certificate) -> bool:
    """Whether ``ca`` signed ``certificate``."""
    try:
        certificate.verify_directly_issued_by(ca)
    except Exception:  # InvalidSignature, another issuer's name, an unknown algorithm: all mean no
        return False
    return True


def forbidden_name(ca: x509.Certificate, names: Sequence[str]) -> str | None:
    """The first of ``names`` that the CA's name constraints do not allow, or None."""
    try:
        constraints = ca.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return None
    permitted = list(constraints.permitted_subtrees or ())
    excluded = list(constraints.excluded_subtrees or ())
    for name in names:
        kind = type(_general_name(name))
        of_kind = [tree for tree in permitted if isinstance(tree, kind)]
        # RFC 5280, section 4.2.1.10: a kind without a permitted subtree is free.
        allowed = not of_kind or any(_within(name, tree) for tree in of_kind)
        if not allowed or any(_within(name, tree) for tree in excluded):
            return name
    return None


# -- the pieces ------------------------------------------------------------------------------


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: Key | ec.EllipticCurvePublicKey,
    begin: datetime.datetime,
    end: datetime.datetime,
) -> x509.CertificateBuilder:
    public = key if isinstance(key, ec.EllipticCurvePublicKey) else key.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _hash() -> hashes.SHA256:
    return hashes.SHA256()


def _name(common_name: str) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, _ORGANIZATION)]
    if len(common_name) <= _COMMON_NAME_MAX:
        parts.append(x509.NameAttribute(NameOID.COMMON_NAME, common_name))
    return x509.Name(parts)


def _usage(
    *,
    digital_signature: bool = False,
    key_encipherment: bool = False,
    key_cert_sign: bool = False,
    crl_sign: bool = False,
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_encipherment=key_encipherment,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_of(key: Key) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _authority(ca: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    # A foreign CA may number its key in its own way; the leaf has to repeat that number.
    try:
        identifier = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.public_key())  # type: ignore[arg-type]
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _constraints(permitted: Sequence[str]) -> x509.NameConstraints:
    dns = [x509.DNSName(name.removeprefix("*.")) for name in permitted if not _address(name)]
    addresses = [x509.IPAddress(ipaddress.ip_network(n)) for n in permitted if _address(n)]
    # Without a permitted address every address would be free, so all are excluded by name.
    everything = [x509.IPAddress(ipaddress.ip_network(net)) for net in ("0.0.0.0/0", "::/0")]
    return x509.NameConstraints(
        permitted_subtrees=[*dns, *addresses],
        excluded_subtrees=None if addresses else everything,
    )


def _within(name: str, tree: x509.GeneralName) -> bool:
    address = _address(name)
    if isinstance(tree, x509.IPAddress):
        network = tree.value
        return (
            address is not None
            and isinstance(network, ipaddress.IPv4Network | ipaddress.IPv6Network)
            and address in network
        )
    if isinstance(tree, x509.DNSName) and address is None:
        base = tree.value.removeprefix(".").lower()
        return not base or f".{name.removeprefix('*.')}".endswith(f".{base}")
    return False


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def _general_name(name: str) -> x509.DNSName | x509.IPAddress:
    address = _address(name)
    return x509.DNSName(name) if address is None else x509.IPAddress(address)


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    dns = names.get_values_for_type(x509.DNSName)
    addresses = names.get_values_for_type(x509.IPAddress)
    return (*dns, *(str(address) for address in addresses))


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return False
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return basic.ca
    return basic.ca and usage.key_cert_sign


def _describe_key(certificate: x509.Certificate) -> str:
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size}"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"EC {key.curve.name}"
    return type(key).__name__.strip("_").removesuffix("PublicKey")
