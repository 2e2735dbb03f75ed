"""What is to be made of the registry's CA and certificate, and why. Reads files, changes none.

Issuing again reuses what is still good. The registry's own certificate is replaced as needed; a CA
is never overwritten unasked, because every node that trusts it would have to learn the new one. A
pair that Moorage did not make (a company's, with its root as ca.crt and no ca.key) is served as it
is once it has been proved; what is wrong with it is said, and nothing is put in its place.
"""

from __future__ import annotations

import dataclasses
import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from moorage.errors import Refused
from moorage.pki import folder as files

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from moorage.pki.certificates import Key
    from moorage.settings import Settings

_NEW_CA = "inv certs.issue --new-ca (keeps the old files as dated copies; nodes need trust again)"


def names(settings: Settings) -> tuple[str, ...]:
    """What the registry's certificate is valid for; the first is its subject.

    Nodes reach the registry by its name, so no node's view of its address belongs here; an address
    that the user has set does.
    """
    registry = settings.registry
    address = () if registry.address == "auto" else (registry.address,)
    return tuple(dict.fromkeys((registry.host, *settings.certs.names, *address)))


@dataclass(frozen=True)
class Issuing:
    """``make_ca`` and ``make_leaf`` hold the reason, or "" if there is nothing to make.

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


def decide(settings: Settings, now: datetime.datetime, *, new_ca: bool) -> Issuing:
    folder = settings.certs_dir
    if settings.home.is_relative_to(folder.resolve()):
        raise Refused(
            "bad-setting",
            f"certs.dir cannot be {settings.certs.dir!r}",
            cause="the folder is closed to everybody else (0700), and this one holds the project",
            cure="name a folder of its own, such as certs",
            path=settings.file.name,
        )
    if new_ca:
        return Issuing("you asked for a new one", "it has to be signed by the new CA", True)
    certificate, key = files.staged_or_settled(folder)
    wrong = ""
    if _is_anothers(folder, key):
        try:
            return _served_as_it_is(settings, certificate, now)
        except Refused as problem:
            if not _ours_can_sign_it(folder, certificate, key):
                raise
            wrong = problem.cause
    if certificate is None and key is None:
        return Issuing("there is none yet", "this CA has not signed one yet", True)
    authorities = _usable_cas(folder, certificate, now)
    ca, ca_key = authorities[0], None
    if key is not None:
        ca, ca_key = _usable_ca_key(folder, key, authorities)
    reason, foreign = _leaf_reason(settings, ca, authorities, now)
    reason, foreign = reason or wrong, foreign or bool(wrong)
    if reason:
        _require_able(settings, ca, ca_key)
    return Issuing("", reason, foreign, ca, ca_key)


def with_another_leaf(settings: Settings, decision: Issuing) -> Issuing:
    folder = settings.certs_dir
    anothers = _is_anothers(folder, files.read(folder / "ca.key"))
    if decision.make_leaf or anothers or decision.ca is None:
        return decision
    _require_able(settings, decision.ca, decision.ca_key)
    return dataclasses.replace(decision, make_leaf="you asked for a new one")


def _is_anothers(folder: Path, ca_key: bytes | None) -> bool:
    """Whether a pair is there that Moorage did not make: that one is served as long as it can be.

    It is replaced only where its own CA's key is here as well.
    """
    from moorage.pki import certificates

    pem = files.read(folder / "registry.crt")
    if pem is None or files.read(folder / "registry.key") is None:
        return False
    try:
        return not certificates.is_made_here(certificates.load_certificates(pem)[0])
    except ValueError:
        return ca_key is None  # with it, a damaged one is made anew


def _ours_can_sign_it(folder: Path, ca_pem: bytes | None, ca_key_pem: bytes | None) -> bool:
    """Whether the pair was signed by a CA whose key is here: made by hand, and made again by us."""
    from moorage.pki import certificates

    pem = files.read(folder / "registry.crt")
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


def _served_as_it_is(settings: Settings, ca_pem: bytes | None, now: datetime.datetime) -> Issuing:
    """Nothing to make. Raises Refused if nodes would not accept what is there."""
    from moorage.pki import certificates, chain

    folder = settings.certs_dir
    if ca_pem is None:
        raise refused_ca(
            "ca-certificate-missing",
            folder / "ca.crt",
            "registry.crt was not made by Moorage, and the CA that nodes are to trust is missing",
            f"put the root of registry.crt there, as PEM; or {_NEW_CA}",
        )
    authorities = _in_force(folder, _readable_cas(folder, ca_pem), now)
    pem = b"".join(map(certificates.certificate_pem, authorities)).decode("ascii")
    wanted = (settings.registry.host, *settings.certs.names)
    with files.understood(folder):
        found = chain.trouble(folder, pem, tuple(dict.fromkeys(wanted)), now)
    if found is not None:
        raise refused_ca(found.code, found.path, found.cause, f"{found.cure}; or {_NEW_CA}")
    return Issuing("", "", ca=authorities[0])


def _readable_cas(folder: Path, pem: bytes | None) -> list[Certificate]:
    from moorage.pki import certificates

    path = folder / "ca.crt"
    if pem is None:
        raise refused_ca(
            "ca-certificate-missing",
            path,
            f"{folder / 'ca.key'} is there without it, and a CA is never replaced unasked",
            f"put ca.crt back, or {_NEW_CA}",
        )
    try:
        return certificates.load_certificates(pem)
    except ValueError as problem:
        raise refused_ca("ca-unreadable", path, str(problem)) from None


def _in_force(
    folder: Path, authorities: list[Certificate], now: datetime.datetime
) -> list[Certificate]:
    """Those whose time it is. Raises Refused, of the first, if it is nobody's."""
    good = [one for one in authorities if one.not_valid_before_utc <= now < one.not_valid_after_utc]
    if good:
        return good
    path, first = folder / "ca.crt", authorities[0]
    if first.not_valid_after_utc <= now:
        ended = f"it ended on {first.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
        raise refused_ca("ca-expired", path, ended)
    raise refused_ca(
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
        raise refused_ca("ca-foreign", folder / "ca.crt", cause)
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
        raise refused_ca("ca-key-unreadable", path, str(problem)) from None
    for ca in authorities:
        if certificates.same_key(ca, key):
            return ca, key
    raise refused_ca(
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
    pem, key_pem = files.read(folder / "registry.crt"), files.read(folder / "registry.key")
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
        raise refused_ca(
            "ca-key-missing",
            folder / "ca.key",
            "a new certificate has to be signed, and the CA's key is not there",
            "put ca.key back beside ca.crt, or a whole pair of its own "
            f"(registry.crt, registry.key), or {_NEW_CA}",
        )
    name = certificates.forbidden_name(ca, names(settings))
    if name is not None:
        raise refused_ca(
            "name-not-permitted",
            folder / "ca.crt",
            f"its name constraints do not allow {name}",
            f"take {name} out of the settings, or {_NEW_CA}",
        )


def refused_ca(code: str, path: Path, cause: str, cure: str = "") -> Refused:
    return Refused(
        code,
        f"{path} cannot be used; nothing was changed",
        cause=cause,
        cure=cure or f"put the right file back, or {_NEW_CA}",
        path=str(path),
    )
