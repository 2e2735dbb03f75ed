"""The fleet's own CA, apart from the registry's: who may command agents, and who is which.

    certs/fleet/ (0700)   ca.crt  ca.key (0600)  operator.crt  operator.key (0600)  checked.json
                          viewer.crt  viewer.key (0600)

A role is a URI in the subject alternative name: ``urn:moorage:operator:<generation>`` or
``urn:moorage:viewer``, with the extended key usage clientAuth alone, or ``urn:moorage:node:<id>``,
with serverAuth alone. A node refuses an operator's certificate of an earlier generation than it has
met. Every node's certificate has one DNS name besides, the same for all: Prometheus, as all that is
written in Go, verifies a server's certificate by a name only.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from moorage.errors import Refused
from moorage.files import private_folder, write_atomically

if TYPE_CHECKING:
    import ssl

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.x509 import Certificate, ObjectIdentifier

    from moorage.pki.certificates import Key
    from moorage.pki.roster import Roster
    from moorage.settings import Settings

CA_DAYS = 3650
OPERATOR_DAYS = 365
NODE_DAYS = 90
# A node's certificate is renewed on the first visit within so many days of its end.
RENEW_DAYS = 60
VIEWER_DAYS = 90
AGENT_NAME = "agent.moorage.internal"
VIEWER = "urn:moorage:viewer"
# Certificates begin an hour before they are made; a clock may be behind by nearly that.
CLOCK_SECONDS = 55 * 60

# The operator's certificate is made anew in its last days.
_LAST_DAYS = datetime.timedelta(days=30)
# The viewer's is kept until so near its end: whoever scrapes has to be given the new one.
_VIEWER_LAST_DAYS = datetime.timedelta(days=45)
_CHECKED = "checked.json"

_guard = threading.Lock()


@dataclass(frozen=True)
class NodeCertificate:
    """A certificate for a node: PEM, its serial number in hexadecimal, its end since 1970."""

    pem: str
    serial: str
    until: int


@dataclass(frozen=True)
class Viewer:
    """The viewer's certificate and key in PEM, its end since 1970, whether it was just made."""

    pem: str
    key: str = field(repr=False)
    until: int
    renewed: bool


class Authority:
    """The CA and the operator's certificate, made where they are not there yet."""

    def __init__(self, folder: Path, ca: Certificate, key: Key, ca_pem: bytes) -> None:
        self.folder = folder
        self._ca = ca
        self._key = key
        self.pem = ca_pem.decode("ascii")

    @classmethod
    def open(cls, settings: Settings) -> Authority:
        """Raises Refused if the files are spoilt, half there, not of one another, or not those
        that the agents in the roster obey."""
        from moorage.pki import certificates
        from moorage.pki.roster import Roster

        folder, roster = settings.certs_dir / "fleet", Roster(settings)
        with _guard:
            now = datetime.datetime.now(datetime.UTC)
            crt, key_file = folder / "ca.crt", folder / "ca.key"
            if not crt.exists() and not key_file.exists():
                _refuse_lost(crt, len(roster.residents()))
                private_folder(settings.certs_dir)
                private_folder(folder)
                key = certificates.new_key("ec-p256")
                name = f"Moorage fleet CA {now:%Y%m%dT%H%M%SZ}"
                made = certificates.make_ca(key, common_name=name, days=CA_DAYS, now=now)
                write_atomically(key_file, certificates.key_pem(key))
                write_atomically(crt, certificates.certificate_pem(made), mode=0o644)
            ca, key, pem = _read_ca(crt, key_file, now)
            _refuse_anothers(crt, ca, roster)
            authority = cls(folder, ca, key, pem)
            if authority._operator_ends() < now + _LAST_DAYS:
                authority._make_operator(max(authority.generation(), 1), now)
            authority._note_checked(roster.authority)
            return authority

    def _note_checked(self, obeyed: str) -> None:
        """For :func:`checked_context`: these very bytes are good, and until when."""
        until = min(self._ca.not_valid_after_utc, self._operator_ends() - _LAST_DAYS)
        note = {
            "digest": _digest(self.folder, obeyed),
            "since": int(self._ca.not_valid_before_utc.timestamp()),
            "until": int(until.timestamp()),
        }
        content = json.dumps(note).encode()
        path = self.folder / _CHECKED
        if not path.exists() or path.read_bytes() != content:
            write_atomically(path, content)

    def generation(self) -> int:
        """The operator's generation; 0 where there is no certificate of this CA yet."""
        certificate = self._operator()
        if certificate is None:
            return 0
        match = re.fullmatch(r"urn:moorage:operator:(\d+)", _role(certificate))
        return int(match[1]) if match else 0

    def replace_operator(self) -> int:
        """A new key and certificate of the next generation. Returns that."""
        with _guard:
            generation = self.generation() + 1
            self._make_operator(generation, datetime.datetime.now(datetime.UTC))
        return generation

    def sign(self, request: str, identity: str) -> NodeCertificate:
        """A node's certificate for its request. Raises ValueError where that is none."""
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID

        from moorage.pki import certificates

        csr = x509.load_pem_x509_csr(request.encode("ascii"))
        key = csr.public_key()
        if not csr.is_signature_valid or not isinstance(key, ec.EllipticCurvePublicKey):
            raise ValueError("the request is not signed with an elliptic key of its own")
        if not re.fullmatch(r"[0-9a-f]{32}", identity):
            raise ValueError("the node's number is none")
        made = self._leaf(
            key,
            f"urn:moorage:node:{identity}",
            ExtendedKeyUsageOID.SERVER_AUTH,
            NODE_DAYS,
            datetime.datetime.now(datetime.UTC),
            (AGENT_NAME,),
        )
        return NodeCertificate(
            certificates.certificate_pem(made).decode("ascii"),
            f"{made.serial_number:x}",
            int(made.not_valid_after_utc.timestamp()),
        )

    def context(self) -> ssl.SSLContext:
        """The operator's side of TLS; who answers is checked by its role, not by its name."""
        return _context(self.folder, self.pem)

    def viewer(self) -> Viewer:
        """The certificate that opens an agent's metrics and nothing that changes; made or renewed
        if it is missing, not of this CA, or ends within 45 days."""
        with _guard:
            now = datetime.datetime.now(datetime.UTC)
            found = self._own("viewer")
            renewed = found is None or found.not_valid_after_utc < now + _VIEWER_LAST_DAYS
            if found is None or renewed:
                found = self._make_client("viewer", VIEWER, VIEWER_DAYS, now)
        return Viewer(
            (self.folder / "viewer.crt").read_text("ascii"),
            (self.folder / "viewer.key").read_text("ascii"),
            int(found.not_valid_after_utc.timestamp()),
            renewed,
        )

    def _operator(self) -> Certificate | None:
        return self._own("operator")

    def _own(self, name: str) -> Certificate | None:
        """The certificate of that name, if it is this CA's and its key is beside it."""
        from moorage.pki import certificates

        try:
            pem = (self.folder / f"{name}.crt").read_bytes()
            key = certificates.load_key((self.folder / f"{name}.key").read_bytes())
            found = certificates.load_certificates(pem)[0]
        except (OSError, ValueError):
            return None
        own = certificates.issued_by(found, self._ca) and certificates.same_key(found, key)
        return found if own else None

    def _operator_ends(self) -> datetime.datetime:
        found = self._operator()
        return _never() if found is None else found.not_valid_after_utc

    def _make_operator(self, generation: int, now: datetime.datetime) -> None:
        self._make_client("operator", f"urn:moorage:operator:{generation}", OPERATOR_DAYS, now)

    def _make_client(self, name: str, role: str, days: int, now: datetime.datetime) -> Certificate:
        """A new key and certificate of a client, as ``<name>.key`` and ``<name>.crt``."""
        from cryptography.x509.oid import ExtendedKeyUsageOID

        from moorage.pki import certificates

        key = certificates.new_key("ec-p256")
        made = self._leaf(_elliptic(key), role, ExtendedKeyUsageOID.CLIENT_AUTH, days, now)
        write_atomically(self.folder / f"{name}.key", certificates.key_pem(key))
        content = certificates.certificate_pem(made)
        write_atomically(self.folder / f"{name}.crt", content, mode=0o644)
        return made

    def _leaf(
        self,
        key: EllipticCurvePublicKey,
        uri: str,
        usage: ObjectIdentifier,
        days: int,
        now: datetime.datetime,
        names: tuple[str, ...] = (),
    ) -> Certificate:
        from moorage.pki import certificates

        return certificates.make_role(
            key,
            ca=self._ca,
            ca_key=self._key,
            role=uri,
            usage=usage,
            days=days,
            now=now,
            names=names,
        )


def checked_context(settings: Settings) -> ssl.SSLContext | None:
    """The operator's side of TLS where :meth:`Authority.open` has passed these files as they are.

    None if it has to look again. Without it a command that only asks agents would load all of
    cryptography to find what it found the last time.
    """
    from moorage.pki.roster import Roster

    folder = settings.certs_dir / "fleet"
    try:
        note = json.loads((folder / _CHECKED).read_bytes())
        good = note["digest"] == _digest(folder, Roster(settings).authority)
        if good and note["since"] <= time.time() < note["until"]:
            return _context(folder, (folder / "ca.crt").read_text("ascii"))
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _context(folder: Path, ca: str) -> ssl.SSLContext:
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.load_verify_locations(cadata=ca)
    context.load_cert_chain(folder / "operator.crt", folder / "operator.key")
    return context


def _digest(folder: Path, obeyed: str) -> str:
    found = hashlib.sha256(obeyed.encode())
    for name in ("ca.crt", "ca.key", "operator.crt", "operator.key"):
        found.update(hashlib.sha256((folder / name).read_bytes()).digest())
    return found.hexdigest()


def _never() -> datetime.datetime:
    return datetime.datetime.fromtimestamp(0, datetime.UTC)


def _elliptic(key: Key) -> EllipticCurvePublicKey:
    from cryptography.hazmat.primitives.asymmetric import ec

    public = key.public_key()
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise AssertionError("keys made here are elliptic")
    return public


def _role(certificate: Certificate) -> str:
    from cryptography import x509

    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    roles = names.get_values_for_type(x509.UniformResourceIdentifier)
    return str(roles[0]) if len(roles) == 1 else ""


def _read_ca(crt: Path, key_file: Path, now: datetime.datetime) -> tuple[Certificate, Key, bytes]:
    from moorage.pki import certificates

    try:
        pem = crt.read_bytes()
        ca = certificates.load_certificates(pem)[0]
        key = certificates.load_key(key_file.read_bytes())
    except FileNotFoundError as problem:
        raise _refused(
            "fleet-ca-missing",
            f"{problem.filename} is not there, but its other half is",
            "the agents on the nodes obey the CA they were adopted with, and no other",
        ) from None
    except ValueError as problem:
        raise _refused(
            "fleet-ca-unreadable", f"{crt.parent} holds no usable CA", str(problem)
        ) from None
    if not certificates.same_key(ca, key) or not certificates.facts(ca).is_ca:
        raise _refused(
            "fleet-ca-foreign",
            f"{key_file} is not the key of {crt}",
            "one of the two was replaced by another fleet's",
        )
    if not ca.not_valid_before_utc <= now < ca.not_valid_after_utc:
        raise _refused(
            "fleet-ca-ended",
            f"{crt} is valid from {ca.not_valid_before_utc:%Y-%m-%d} to "
            f"{ca.not_valid_after_utc:%Y-%m-%d}, and today is {now:%Y-%m-%d}",
            "the CA has ended, or this machine's clock is wrong (timedatectl)",
        )
    return ca, key, pem


def _refuse_lost(crt: Path, agents: int) -> None:
    """A new CA in the place of the lost one would be obeyed by nobody."""
    if agents:
        raise _refused(
            "fleet-ca-missing",
            f"{crt} and its key are not there, and {_agents(agents)} on nodes",
            "agents obey the CA they were adopted with, and no other; it was removed or moved away",
        )


def _refuse_anothers(crt: Path, ca: Certificate, roster: Roster) -> None:
    from cryptography.hazmat.primitives import hashes

    present = ca.fingerprint(hashes.SHA256()).hex()
    if roster.authority == present:
        return
    residents = roster.residents()
    if roster.authority and residents:
        raise _refused(
            "fleet-ca-foreign",
            f"{crt} is not the CA that {_agents(len(residents))} by",
            "it was replaced by another fleet's; the nodes would refuse every command",
        )
    roster.obey(present)


def _agents(count: int) -> str:
    return "an agent stays" if count == 1 else f"{count} agents stay"


def _refused(code: str, message: str, cause: str) -> Refused:
    return Refused(
        code,
        f"{message}; nothing was changed",
        cause=cause,
        cure="put certs/fleet back from a copy, or move it away and adopt the nodes again: "
        "inv nodes.adopt",
    )
