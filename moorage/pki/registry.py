"""The registry's CA and certificate: what is on disk, what is missing, and how it is put there.

Issuing again reuses what is still good; :mod:`moorage.pki.deciding` says what that is, and
:mod:`moorage.pki.folder` how the files are kept.
"""

from __future__ import annotations

import datetime
import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moorage.actions import Action
from moorage.errors import Refused
from moorage.files import private_folder, write_atomically
from moorage.output import Note, Warn
from moorage.pki import deciding
from moorage.pki import folder as files

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from moorage.pki.certificates import CertificateFacts
    from moorage.settings import Settings

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_NEXT_CA = "inv certs.rotate-ca has every node trust the one that follows it"
_EXTERNAL_CA = "inv registry.ca --fetch, or name its PEM file as registry.ca in invoke.yaml"


@dataclass(frozen=True)
class Issued:
    """Where the certificates are, and whether this call made any. ``made`` says which and why;
    ``notes``, what people are told of it, and of what ends soon."""

    ca_path: Path
    cert_path: Path
    key_path: Path
    changed: bool
    made: tuple[str, ...] = ()
    notes: tuple[Note | Warn, ...] = ()


@dataclass(frozen=True)
class Shown:
    """The facts of both certificates; ``registry`` is None if only a CA is there.

    ``chain``: what follows the registry's certificate in its file; ``made_here``: by Moorage.
    ``further``: the other CAs of the CA's file, of which there are two while one follows the other.
    """

    ca: CertificateFacts
    registry: CertificateFacts | None
    chain: tuple[CertificateFacts, ...] = ()
    made_here: bool = True
    further: tuple[CertificateFacts, ...] = ()


def pending(settings: Settings, *, new_ca: bool = False) -> list[Action]:
    """What :func:`issue` would do. Raises Refused exactly where it would."""
    decision = deciding.decide(settings, _now(), new_ca=new_ca)
    return [Action(text, path=path) for text, path in decision.actions(settings)]


def issue(settings: Settings, *, new_ca: bool = False, renew: bool = False) -> Issued:
    """Makes the CA and the registry's certificate, or what is missing of them.

    ``new_ca``: replaces the CA, the old one kept as a dated copy. ``renew``: makes another leaf
    even if the present one is good, unless somebody else made that. Raises Refused, with nothing
    changed, where ``ca.crt`` or ``ca.key`` is there and cannot be used.
    """
    from moorage.pki import certificates

    now = _now()
    decision = deciding.decide(settings, now, new_ca=new_ca)
    if renew:
        decision = deciding.with_another_leaf(settings, decision)
    folder = settings.certs_dir
    made = tuple(text for text, _ in decision.actions(settings))
    with files.understood(folder):
        private_folder(folder)
        files.settle(folder)
        ca, ca_key = decision.ca, decision.ca_key
        if decision.make_ca:
            files.keep_copies(folder, ("ca.crt", "ca.key"), now)
            ca_key = certificates.new_key(settings.certs.key)
            ca = certificates.make_ca(
                ca_key,
                common_name=ca_name(settings, now),
                days=settings.certs.ca_days,
                now=now,
                permitted=deciding.names(settings) if settings.certs.name_constraints else None,
            )
            files.install_ca(folder, certificates.key_pem(ca_key), certificates.certificate_pem(ca))
        if decision.make_leaf:
            if ca is None or ca_key is None:
                raise AssertionError("deciding has to refuse a leaf that nobody can sign")
            if decision.foreign_leaf:
                files.keep_copies(folder, ("registry.crt", "registry.key"), now)
            key = certificates.new_key(settings.certs.key)
            leaf = certificates.make_leaf(
                key,
                ca=ca,
                ca_key=ca_key,
                names=deciding.names(settings),
                days=settings.certs.days,
                now=now,
            )
            # The key first: a run killed between the two leaves a pair that does not match, which
            # the next run sees and replaces. The running registry has its own copy of both.
            write_atomically(folder / "registry.key", certificates.key_pem(key), mode=files.SECRET)
            content = certificates.certificate_pem(leaf) + _bridge_to(folder, ca)
            write_atomically(folder / "registry.crt", content, mode=files.PUBLIC)
        for name in ("ca.key", "registry.key"):
            files.keep_private(folder / name)
    ending = (*_ends_soon(settings, ca, now), *_anothers_ends_soon(settings, now))
    return Issued(
        ca_path=folder / "ca.crt",
        cert_path=folder / "registry.crt",
        key_path=folder / "registry.key",
        changed=bool(made),
        made=made,
        notes=(*map(Note, made), *ending),
    )


def show(settings: Settings) -> Shown:
    """What the certificates on disk say. Raises Refused if there are none, or none readable."""
    from moorage.pki import certificates

    folder = settings.certs_dir
    cas = [certificates.facts(one) for one in _ca_certificates(settings)]
    # Of somebody else's registry only the CA is here.
    pem = None if settings.registry.external else files.read(folder / "registry.crt")
    try:
        served = [] if pem is None else certificates.load_certificates(pem)
    except ValueError as problem:
        raise Refused(
            "certificate-unreadable",
            f"{folder / 'registry.crt'} cannot be used",
            cause=str(problem),
            cure="inv certs.issue makes a new one",
            path=str(folder / "registry.crt"),
        ) from None
    said = [certificates.facts(one) for one in served]
    made_here = not served or certificates.is_made_here(served[0])
    leaf = said[0] if said else None
    return Shown(cas[0], leaf, tuple(said[1:]), made_here, tuple(cas[1:]))


def ca_pem(settings: Settings) -> str:
    """The CA certificate as nodes need it (PEM, no key). Raises Refused if there is none."""
    import ssl  # cryptography takes longer to load than a resident agent to answer

    blocks = _CERTIFICATE.findall(files.read(settings.ca_file) or b"")
    try:
        # Written anew: a file may hold words, or even a key, beside its certificates.
        ders = [ssl.PEM_cert_to_DER_cert(block.decode("ascii")) for block in blocks]
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=b"".join(ders))
    except ValueError:  # SSLError is one
        ders = []
    return "".join(map(ssl.DER_cert_to_PEM_cert, ders)) or _ca_pem_or_why_not(settings)


def _ca_pem_or_why_not(settings: Settings) -> str:
    from moorage.pki import certificates

    return b"".join(map(certificates.certificate_pem, _ca_certificates(settings))).decode("ascii")


def keep_external_ca(settings: Settings, ca: Certificate) -> bool:
    """Stores the CA of a registry of somebody else's; returns whether it is another than before.

    Raises Refused if ``registry.ca`` names a file of the user's, which is left alone.
    """
    from moorage.pki import certificates

    path, pem = settings.ca_file, certificates.certificate_pem(ca)
    if settings.registry.ca:
        raise Refused(
            "ca-file-yours",
            f"{path} is not overwritten",
            cause="registry.ca in the settings names it, so it is yours",
            cure="take registry.ca out of invoke.yaml, then run this again",
            path=str(path),
        )
    with files.understood(path):
        if files.read(path) == pem:
            return False
        private_folder(settings.certs_dir)
        private_folder(path.parent)
        write_atomically(path, pem, mode=files.PUBLIC)
    return True


def _bridge_to(folder: Path, ca: Certificate) -> bytes:
    """The CA as the one before it vouches for it, while a rotation serves both kinds of nodes."""
    from moorage.pki import certificates

    pem = files.read(folder / "next" / "bridge.crt")
    vouches = pem and certificates.load_certificates(pem)[0].public_key() == ca.public_key()
    return pem if pem and vouches else b""


def _ends_soon(settings: Settings, ca: Certificate | None, now: datetime.datetime) -> list[Warn]:
    left = settings.certs.renew_before if ca is None else (ca.not_valid_after_utc - now).days
    if left >= settings.certs.renew_before:
        return []
    return [Warn(f"the CA ends in {left} days, and every certificate with it; {_NEXT_CA}")]


def _anothers_ends_soon(settings: Settings, now: datetime.datetime) -> list[Warn]:
    """Of a pair that Moorage did not make, so nobody here renews it."""
    from moorage.pki import certificates

    path = settings.certs_dir / "registry.crt"
    leaf = certificates.load_certificates(files.read(path) or b"")[0]
    left = (leaf.not_valid_after_utc - now).days
    if left >= settings.certs.renew_before or certificates.is_made_here(leaf):
        return []
    return [
        Warn(
            f"{path} ends in {left} days, and Moorage did not make it: put the one that follows "
            "it there, with its key, then inv registry.up"
        )
    ]


def ca_name(settings: Settings, now: datetime.datetime, present: Iterable[Certificate] = ()) -> str:
    """The common name of a CA that is made now, beside those that are ``present``."""
    # The second tells two CAs of one registry apart in a node's trust store.
    taken = " ".join(one.subject.rfc4514_string() for one in present)
    seconds = itertools.count()
    names = (_ca_name(settings, now + datetime.timedelta(seconds=one)) for one in seconds)
    return next(name for name in names if name not in taken)


def _ca_name(settings: Settings, made: datetime.datetime) -> str:
    return f"CA of {settings.registry.host}"[:45] + f" {made:%Y%m%dT%H%M%SZ}"


def _ca_certificates(settings: Settings) -> list[Certificate]:
    from moorage.pki import certificates

    path, external = settings.ca_file, settings.registry.external
    pem = files.read(path)
    if pem is None:
        raise Refused(
            "no-certificates",
            f"there is no {path}",
            cause=f"the CA of {settings.registry_name} is not known here yet"
            if external
            else "no certificates have been issued yet",
            cure=_EXTERNAL_CA if external else "inv certs.issue",
            path=str(path),
        )
    try:
        return certificates.load_certificates(pem)
    except ValueError as problem:
        cure = _EXTERNAL_CA if external else ""
        raise deciding.refused_ca("ca-unreadable", path, str(problem), cure) from None


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def to_json(facts: CertificateFacts, path: Path) -> dict[str, Any]:
    """Facts for a ``--json`` document; times in ISO 8601, UTC."""
    return {
        "path": str(path),
        "subject": facts.subject,
        "issuer": facts.issuer,
        "serial": facts.serial,
        "names": list(facts.names),
        "key": facts.key,
        "ca": facts.is_ca,
        "not_before": facts.not_before.isoformat(),
        "not_after": facts.not_after.isoformat(),
        "days_left": facts.days_left(_now()),
        "sha256": facts.fingerprint,
    }
