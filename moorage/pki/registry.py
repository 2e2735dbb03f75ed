"""The registry's CA and certificate: what is on disk, what is missing, and how it is put there.

Issuing again reuses what is still good. The registry's own certificate is replaced as needed; a CA
is never overwritten unasked, because every node that trusts it would have to learn the new one. A
pair that Moorage did not make (a company's, with its root as ca.crt and no ca.key) is served as it
is once it has been proved; what is wrong with it is said, and nothing is put in its place.

    certs/ (0700)   ca.crt  ca.key (0600)  registry.crt  registry.key (0600)
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moorage.actions import Action
from moorage.errors import Refused
from moorage.files import private_folder, write_atomically
from moorage.output import Warn

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from moorage.pki.certificates import CertificateFacts, Key
    from moorage.settings import Settings
    from moorage.ui import UI

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_PUBLIC, _SECRET = 0o644, 0o600
# A new CA is complete under these names before it replaces anything: two renames are not atomic,
# and a run killed between them is finished by the next one.
_STAGED = ".next"
_NEW_CA = "inv certs.issue --new-ca (keeps the old files as dated copies; nodes need trust again)"
_NEXT_CA = "inv certs.rotate-ca has every node trust the one that follows it"
_EXTERNAL_CA = "inv registry.ca --fetch, or name its PEM file as registry.ca in invoke.yaml"


@dataclass(frozen=True)
class Issued:
    """Where the certificates are, and whether this call made any. ``made`` says which and why."""

    ca_path: Path
    cert_path: Path
    key_path: Path
    changed: bool
    made: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shown:
    """The facts of both certificates; ``registry`` is None where only a CA is there.

    ``chain``: what follows the registry's certificate in its file; ``made_here``: by Moorage.
    ``further``: the other CAs of the CA's file, of which there are two while one follows the other.
    """

    ca: CertificateFacts
    registry: CertificateFacts | None
    chain: tuple[CertificateFacts, ...] = ()
    made_here: bool = True
    further: tuple[CertificateFacts, ...] = ()


def names(settings: Settings) -> tuple[str, ...]:
    """What the registry's certificate is valid for; the first is its subject.

    Nodes reach the registry by its name, so no node's view of its address belongs here; an address
    that the user has set does.
    """
    registry = settings.registry
    address = () if registry.address == "auto" else (registry.address,)
    return tuple(dict.fromkeys((registry.host, *settings.certs.names, *address)))


def pending(settings: Settings, *, new_ca: bool = False) -> list[Action]:
    """What :func:`issue` would do. Raises Refused exactly where it would."""
    decision = _decide(settings, _now(), new_ca=new_ca)
    return [Action(text, path=path) for text, path in decision.actions(settings)]


def issue(
    settings: Settings, ui: UI | None = None, *, new_ca: bool = False, renew: bool = False
) -> Issued:
    """Makes the CA and the registry's certificate, or what is missing of them.

    ``new_ca``: replaces the CA, the old one kept as a dated copy. ``renew``: makes another leaf
    even if the present one is good, unless somebody else made that. Raises Refused, with nothing
    changed, where ``ca.crt`` or ``ca.key`` is there and cannot be used.
    """
    from moorage.pki import certificates

    now = _now()
    decision = _decide(settings, now, new_ca=new_ca)
    if renew:
        decision = _with_another_leaf(settings, decision)
    folder = settings.certs_dir
    made = tuple(text for text, _ in decision.actions(settings))
    with _understood(folder):
        private_folder(folder)
        _settle(folder)
        ca, ca_key = decision.ca, decision.ca_key
        if decision.make_ca:
            keep_copies(folder, ("ca.crt", "ca.key"), now)
            ca_key = certificates.new_key(settings.certs.key)
            ca = certificates.make_ca(
                ca_key,
                common_name=ca_name(settings, now),
                days=settings.certs.ca_days,
                now=now,
                permitted=names(settings) if settings.certs.name_constraints else None,
            )
            _install_ca(folder, certificates.key_pem(ca_key), certificates.certificate_pem(ca))
        if decision.make_leaf:
            if ca is None or ca_key is None:
                raise AssertionError("deciding has to refuse a leaf that nobody can sign")
            if decision.foreign_leaf:
                keep_copies(folder, ("registry.crt", "registry.key"), now)
            key = certificates.new_key(settings.certs.key)
            leaf = certificates.make_leaf(
                key,
                ca=ca,
                ca_key=ca_key,
                names=names(settings),
                days=settings.certs.days,
                now=now,
            )
            # The key first: a run killed between the two leaves a pair that does not match, which
            # the next run sees and replaces. The running registry has its own copy of both.
            write_atomically(folder / "registry.key", certificates.key_pem(key), mode=_SECRET)
            content = certificates.certificate_pem(leaf) + _bridge_to(folder, ca)
            write_atomically(folder / "registry.crt", content, mode=_PUBLIC)
        for name in ("ca.key", "registry.key"):
            _keep_private(folder / name)
    if ui is not None:
        for text in made:
            ui.note(text)
        ui.present(_ends_soon(settings, ca, now))
        ui.present(_anothers_ends_soon(settings, now))
    return Issued(
        ca_path=folder / "ca.crt",
        cert_path=folder / "registry.crt",
        key_path=folder / "registry.key",
        changed=bool(made),
        made=made,
    )


def show(settings: Settings) -> Shown:
    """What the certificates on disk say. Raises Refused where there are none, or none readable."""
    from moorage.pki import certificates

    folder = settings.certs_dir
    cas = [certificates.facts(one) for one in _ca_certificates(settings)]
    # Of somebody else's registry only the CA is here.
    pem = None if settings.registry.external else _read(folder / "registry.crt")
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
    """The CA certificate as nodes need it (PEM, no key). Raises Refused where there is none."""
    import ssl  # cryptography takes longer to load than a resident agent to answer

    blocks = _CERTIFICATE.findall(_read(settings.ca_file) or b"")
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

    Raises Refused where ``registry.ca`` names a file of the user's, which is left alone.
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
    with _understood(path):
        if _read(path) == pem:
            return False
        private_folder(settings.certs_dir)
        private_folder(path.parent)
        write_atomically(path, pem, mode=_PUBLIC)
    return True


# -- deciding: reads files, changes none ------------------------------------------------------


@dataclass(frozen=True)
class _Decision:
    """``make_ca`` and ``make_leaf`` hold the reason, or "" where there is nothing to make.

    ``foreign_leaf``: the pair that is there may be wanted again, so a copy is kept.
    """

    make_ca: str
    make_leaf: str
    foreign_leaf: bool = False
    ca: Certificate | None = None
    ca_key: Key | None = None

    def actions(self, settings: Settings) -> list[tuple[str, str]]:
        """(what will be done and why, path) for each file that will be written."""
        folder = settings.certs_dir
        texts = []
        if self.make_ca:
            texts.append((f"make a CA: {self.make_ca}", str(folder / "ca.crt")))
        if self.make_leaf:
            host = settings.registry.host
            text = f"issue the certificate of {host}: {self.make_leaf}"
            texts.append((text, str(folder / "registry.crt")))
        return texts


def _decide(settings: Settings, now: datetime.datetime, *, new_ca: bool) -> _Decision:
    folder = settings.certs_dir
    if settings.root.is_relative_to(folder.resolve()):
        raise Refused(
            "bad-setting",
            f"certs.dir cannot be {settings.certs.dir!r}",
            cause="the folder is closed to everybody else (0700), and this one holds the project",
            cure="name a folder of its own, such as certs",
            path="invoke.yaml",
        )
    if new_ca:
        return _Decision("you asked for a new one", "it has to be signed by the new CA", True)
    certificate, key = _staged_or_settled(folder)
    wrong = ""
    if _is_anothers(folder, key):
        try:
            return _served_as_it_is(settings, certificate, now)
        except Refused as problem:
            if not _ours_can_sign_it(folder, certificate, key):
                raise
            wrong = problem.cause
    if certificate is None and key is None:
        return _Decision("there is none yet", "there is none of this CA yet", True)
    authorities = _usable_cas(folder, certificate, now)
    ca, ca_key = authorities[0], None
    if key is not None:
        ca, ca_key = _usable_ca_key(folder, key, authorities)
    reason, foreign = _leaf_reason(settings, ca, authorities, now)
    reason, foreign = reason or wrong, foreign or bool(wrong)
    if reason:
        _require_able(settings, ca, ca_key)
    return _Decision("", reason, foreign, ca, ca_key)


def _with_another_leaf(settings: Settings, decision: _Decision) -> _Decision:
    folder = settings.certs_dir
    anothers = _is_anothers(folder, _read(folder / "ca.key"))
    if decision.make_leaf or anothers or decision.ca is None:
        return decision
    _require_able(settings, decision.ca, decision.ca_key)
    return dataclasses.replace(decision, make_leaf="you asked for a new one")


def _is_anothers(folder: Path, ca_key: bytes | None) -> bool:
    """Whether a pair is there that Moorage did not make: that one is served as long as it can be.

    It is replaced only where its own CA's key is here as well.
    """
    from moorage.pki import certificates

    pem = _read(folder / "registry.crt")
    if pem is None or _read(folder / "registry.key") is None:
        return False
    try:
        return not certificates.is_made_here(certificates.load_certificates(pem)[0])
    except ValueError:
        return ca_key is None  # with it, a damaged one is made anew


def _ours_can_sign_it(folder: Path, ca_pem: bytes | None, ca_key_pem: bytes | None) -> bool:
    """Whether the pair was signed by a CA whose key is here: made by hand, and made again by us."""
    from moorage.pki import certificates

    pem = _read(folder / "registry.crt")
    if pem is None or ca_pem is None or ca_key_pem is None:
        return False
    try:
        leaf = certificates.load_certificates(pem)[0]
        authorities = certificates.load_certificates(ca_pem)
        key = certificates.load_key(ca_key_pem)
    except ValueError:
        return False
    return any(
        certificates.issued_by(leaf, one) and certificates.same_key(one, key) for one in authorities
    )


def _served_as_it_is(settings: Settings, ca_pem: bytes | None, now: datetime.datetime) -> _Decision:
    """Nothing to make. Raises Refused where nodes would not accept what is there."""
    from moorage.pki import certificates, chain

    folder = settings.certs_dir
    if ca_pem is None:
        raise _refused_ca(
            "ca-certificate-missing",
            folder / "ca.crt",
            "registry.crt was not made by Moorage, and the CA that nodes shall trust is not there",
            f"put the root of registry.crt there, as PEM; or {_NEW_CA}",
        )
    authorities = _in_force(folder, _readable_cas(folder, ca_pem), now)
    pem = b"".join(map(certificates.certificate_pem, authorities)).decode("ascii")
    wanted = (settings.registry.host, *settings.certs.names)
    with _understood(folder):
        found = chain.trouble(folder, pem, tuple(dict.fromkeys(wanted)), now)
    if found is not None:
        raise _refused_ca(found.code, found.path, found.cause, f"{found.cure}; or {_NEW_CA}")
    return _Decision("", "", ca=authorities[0])


def _readable_cas(folder: Path, pem: bytes | None) -> list[Certificate]:
    from moorage.pki import certificates

    path = folder / "ca.crt"
    if pem is None:
        raise _refused_ca(
            "ca-certificate-missing",
            path,
            f"{folder / 'ca.key'} is there without it, and a CA is never replaced unasked",
            f"put ca.crt back, or {_NEW_CA}",
        )
    try:
        return certificates.load_certificates(pem)
    except ValueError as problem:
        raise _refused_ca("ca-unreadable", path, str(problem)) from None


def _in_force(
    folder: Path, authorities: list[Certificate], now: datetime.datetime
) -> list[Certificate]:
    """Those whose time it is. Raises Refused, of the first, where it is none's."""
    good = [one for one in authorities if one.not_valid_before_utc <= now < one.not_valid_after_utc]
    if good:
        return good
    path, first = folder / "ca.crt", authorities[0]
    if first.not_valid_after_utc <= now:
        ended = f"it ended on {first.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
        raise _refused_ca("ca-expired", path, ended)
    raise _refused_ca(
        "ca-not-yet-valid",
        path,
        f"it begins on {first.not_valid_before_utc:%Y-%m-%d %H:%M} UTC, "
        f"and now is {now:%Y-%m-%d %H:%M}",
        "set this machine's clock (timedatectl), then run this again",
    )


def _usable_cas(folder: Path, pem: bytes | None, now: datetime.datetime) -> list[Certificate]:
    """The CAs of ca.crt that can sign: two are there while one follows the other."""
    from moorage.pki import certificates

    authorities = _readable_cas(folder, pem)
    able = [one for one in authorities if certificates.facts(one).is_ca]
    if not able:
        said = certificates.facts(authorities[0])
        cause = f"it is not a CA's but that of {said.subject}"
        raise _refused_ca("ca-foreign", folder / "ca.crt", cause)
    return _in_force(folder, able, now)


def _usable_ca_key(
    folder: Path, pem: bytes, authorities: list[Certificate]
) -> tuple[Certificate, Key]:
    """The CA that the key belongs to, and the key."""
    from moorage.pki import certificates

    path = folder / "ca.key"
    try:
        key = certificates.load_key(pem)
    except ValueError as problem:
        raise _refused_ca("ca-key-unreadable", path, str(problem)) from None
    for ca in authorities:
        if certificates.same_key(ca, key):
            return ca, key
    raise _refused_ca(
        "ca-key-mismatch",
        path,
        f"it is not the key of {folder / 'ca.crt'} ({authorities[0].subject.rfc4514_string()})",
        f"put the matching ca.key or ca.crt back, or {_NEW_CA}",
    )


def _leaf_reason(
    settings: Settings, ca: Certificate, authorities: list[Certificate], now: datetime.datetime
) -> tuple[str, bool]:
    """(why a new leaf is needed or "", whether the present one is somebody else's)."""
    from moorage.pki import certificates

    folder = settings.certs_dir
    pem, key_pem = _read(folder / "registry.crt"), _read(folder / "registry.key")
    if pem is None or key_pem is None:
        return f"{'registry.crt' if pem is None else 'registry.key'} is not there", True
    try:
        leaf = certificates.load_certificates(pem)[0]
    except ValueError:
        return "registry.crt is damaged", True
    if not any(certificates.issued_by(leaf, one) for one in authorities):
        return "the present one is of another CA (kept as a dated copy)", True
    try:
        matches = certificates.same_key(leaf, certificates.load_key(key_pem))
    except ValueError:
        return "registry.key is damaged", False
    if not matches:
        return "registry.key does not match the present one", False
    said = certificates.facts(leaf)
    if set(said.names) != set(names(settings)):
        return f"it names {', '.join(said.names)}", False
    if said.not_before > now:
        return "the present one begins in the future", False
    # One that ends with its CA cannot be prolonged; _ends_soon speaks of that.
    prolongable = said.not_after < ca.not_valid_after_utc
    if said.not_after <= now or (prolongable and said.days_left(now) < settings.certs.renew_before):
        return f"the present one ends on {said.not_after:%Y-%m-%d}", False
    return "", False


def _require_able(settings: Settings, ca: Certificate, ca_key: Key | None) -> None:
    from moorage.pki import certificates

    folder = settings.certs_dir
    if ca_key is None:
        raise _refused_ca(
            "ca-key-missing",
            folder / "ca.key",
            "a new certificate has to be signed, and the CA's key is not there",
            "put ca.key back beside ca.crt, or a whole pair of its own "
            f"(registry.crt, registry.key), or {_NEW_CA}",
        )
    name = certificates.forbidden_name(ca, names(settings))
    if name is not None:
        raise _refused_ca(
            "name-not-permitted",
            folder / "ca.crt",
            f"its name constraints do not allow {name}",
            f"take {name} out of the settings, or {_NEW_CA}",
        )


def _refused_ca(code: str, path: Path, cause: str, cure: str = "") -> Refused:
    return Refused(
        code,
        f"{path} cannot be used; nothing was changed",
        cause=cause,
        cure=cure or f"put the right file back, or {_NEW_CA}",
        path=str(path),
    )


# -- doing -----------------------------------------------------------------------------------


def _install_ca(folder: Path, key: bytes, certificate: bytes) -> None:
    write_atomically(folder / f"ca.key{_STAGED}", key, mode=_SECRET)
    write_atomically(folder / f"ca.crt{_STAGED}", certificate, mode=_PUBLIC)
    _settle(folder)


def _settle(folder: Path) -> None:
    """Gives a staged CA its names, of this run or of one that was killed; drops half a one."""
    key, certificate = folder / f"ca.key{_STAGED}", folder / f"ca.crt{_STAGED}"
    if certificate.exists():
        if key.exists():
            key.replace(folder / "ca.key")
        certificate.replace(folder / "ca.crt")
    else:
        key.unlink(missing_ok=True)


def _staged_or_settled(folder: Path) -> tuple[bytes | None, bytes | None]:
    """(ca.crt, ca.key) as :func:`_settle` will leave them."""
    certificate = _read(folder / f"ca.crt{_STAGED}")
    key = None if certificate is None else _read(folder / f"ca.key{_STAGED}")
    return (
        _read(folder / "ca.crt") if certificate is None else certificate,
        _read(folder / "ca.key") if key is None else key,
    )


def _bridge_to(folder: Path, ca: Certificate) -> bytes:
    """The CA as the one before it vouches for it, while a rotation serves both kinds of nodes."""
    from moorage.pki import certificates

    pem = _read(folder / "next" / "bridge.crt")
    vouches = pem and certificates.load_certificates(pem)[0].public_key() == ca.public_key()
    return pem if pem and vouches else b""


def keep_copies(folder: Path, present: tuple[str, ...], now: datetime.datetime) -> None:
    """Copies of these files, with the time in their names."""
    for name in present:
        content = _read(folder / name)
        if content is not None:
            copy = folder / f"{name}.{now:%Y%m%dT%H%M%SZ}"
            write_atomically(copy, content, mode=_SECRET if name.endswith(".key") else _PUBLIC)


def _keep_private(path: Path) -> None:
    if path.exists() and path.stat().st_mode & 0o077:
        path.chmod(_SECRET)


def _ends_soon(settings: Settings, ca: Certificate | None, now: datetime.datetime) -> list[Warn]:
    left = settings.certs.renew_before if ca is None else (ca.not_valid_after_utc - now).days
    if left >= settings.certs.renew_before:
        return []
    return [Warn(f"the CA ends in {left} days, and every certificate with it; {_NEXT_CA}")]


def _anothers_ends_soon(settings: Settings, now: datetime.datetime) -> list[Warn]:
    """Of a pair that Moorage did not make, so nobody here renews it."""
    from moorage.pki import certificates

    path = settings.certs_dir / "registry.crt"
    leaf = certificates.load_certificates(_read(path) or b"")[0]
    left = (leaf.not_valid_after_utc - now).days
    if left >= settings.certs.renew_before or certificates.is_made_here(leaf):
        return []
    return [
        Warn(
            f"{path} ends in {left} days, and Moorage did not make it: put the one that follows "
            "it there, with its key, then inv registry.up"
        )
    ]


def ca_name(settings: Settings, now: datetime.datetime) -> str:
    """The common name of a CA that is made now."""
    # The second tells two CAs of one registry apart in a node's trust store.
    return f"CA of {settings.registry.host}"[:45] + f" {now:%Y%m%dT%H%M%SZ}"


# -- reading ---------------------------------------------------------------------------------


def _ca_certificates(settings: Settings) -> list[Certificate]:
    from moorage.pki import certificates

    path, external = settings.ca_file, settings.registry.external
    pem = _read(path)
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
        raise _refused_ca("ca-unreadable", path, str(problem), cure) from None


def _read(path: Path) -> bytes | None:
    with _understood(path):
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None


@contextlib.contextmanager
def _understood(path: Path) -> Iterator[None]:
    """An OSError becomes a sentence."""
    try:
        yield
    except OSError as problem:
        where = str(problem.filename or path)
        raise Refused(
            "certs-not-accessible",
            f"{where} cannot be read or written",
            cause=problem.strerror or str(problem),
            cure=f"ls -la {path.parent}; was it made by another user (sudo)? Then chown it",
            path=where,
        ) from None


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
