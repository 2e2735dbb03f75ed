"""Certificates that are wrong in one way each, put under the running registry."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from contextlib import contextmanager

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from moorage.registry.front.configuration import NAMELESS, PAIR
from moorage.settings import Settings
from tests.k8s.journey import Journey


def leaf(settings: Settings, *, name: str = "", expired: bool = False, san: bool = True) -> bytes:
    """The registry's certificate by its own CA and key, but with another name, expired, or with
    the name as Common Name only (``san`` False)."""
    folder = settings.certs_dir
    ca = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
    ca_key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    key = serialization.load_pem_private_key((folder / "registry.key").read_bytes(), None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    host = name or settings.registry.host
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)]))
        .issuer_name(ca.subject)
        .public_key(key.public_key())  # type: ignore[arg-type]
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 3 * day)
        .not_valid_after(now - day if expired else now + 90 * day)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    )
    if san:
        made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
    return made.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@contextmanager
def serving(journey: Journey, certificate: bytes) -> Iterator[None]:
    """The registry serves this certificate, and what is in certs/ is it as well."""
    container = journey.front_container()
    settings = journey.settings
    issued = settings.certs_dir / "registry.crt"
    front = settings.state / "registry" / "front"
    good = issued.read_bytes()
    # In place: owner and mode stay, and a mounted file keeps its inode.
    issued.write_bytes(certificate)
    for pair in (front / PAIR, front / NAMELESS):  # who asks for no name of the one gets the other
        pair.write_bytes(certificate + (settings.certs_dir / "registry.key").read_bytes())
    container.restart(timeout=2)
    try:
        yield
    finally:
        if issued.read_bytes() == certificate:
            issued.write_bytes(good)
        journey.registry_up()
