"""The registry's next CA, in ``certs/next`` until it is the only one.

    certs/next/ (0700)   ca.crt  ca.key (0600)  registry.crt  registry.key (0600)  bridge.crt
                         to-prove.pem (0600)

Every function may be called again after a death in the middle of it, and then ends the work. While
``certs/next/ca.crt`` is there, ``certs/ca.crt`` holds two CAs, and ``certs/ca.key`` may be the key
of either (:mod:`moorage.pki.registry` signs by the one that it belongs to).
"""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from moorage.errors import Refused
from moorage.files import private_folder, write_atomically
from moorage.pki import deciding
from moorage.pki import folder as files
from moorage.pki import registry as pki

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from moorage.pki.certificates import Key
    from moorage.settings import Settings

_PUBLIC, _SECRET = 0o644, 0o600
# The certificate that proves the new CA serves for one run of the rotation.
_PROOF_DAYS = 2


@dataclass(frozen=True)
class Heir:
    """The CA to come. ``bridged``: the present one can vouch for it."""

    fingerprint: str
    bridged: bool


def folder(settings: Settings) -> Path:
    """Where the CA to come is kept."""
    return settings.certs_dir / "next"


def under_way(settings: Settings) -> bool:
    """Whether there is a CA to come."""
    return (folder(settings) / "ca.crt").exists()


def require_ours(settings: Settings) -> None:
    """Raises Refused unless a CA is there whose certificates Moorage makes."""
    pki.pending(settings)  # refuses what is spoilt, with its own words
    shown = pki.show(settings)
    if not shown.made_here:
        raise Refused(
            "rotation-foreign",
            "this CA cannot be rotated: Moorage did not make the certificate it signed",
            cause=f"{settings.certs_dir / 'registry.crt'} was issued by {shown.ca.subject}",
            cure="append the CA that follows to certs/ca.crt and run inv nodes.trust; then put the "
            "new pair there and run inv certs.renew; then take the old CA out, and trust again",
            path=str(settings.certs_dir / "registry.crt"),
        )


def make(settings: Settings, addresses: Sequence[str]) -> Heir:
    """Makes the CA to come if there is none, and hands it out beside the present one.

    ``addresses``: of the registry, as nodes know it; a certificate for them proves the CA.
    """
    from moorage.pki import certificates

    if not under_way(settings):
        _clear(settings)
    place, now = private_folder(folder(settings)), _now()
    crt, key_file = place / "ca.crt", place / "ca.key"
    if not crt.exists():
        key = certificates.new_key(settings.certs.key)
        names = (*deciding.names(settings), *addresses)
        made = certificates.make_ca(
            key,
            common_name=pki.ca_name(settings, now, _present(settings)),
            days=settings.certs.ca_days,
            now=now,
            permitted=tuple(dict.fromkeys(names)) if settings.certs.name_constraints else None,
        )
        write_atomically(key_file, certificates.key_pem(key), mode=_SECRET)
        write_atomically(crt, certificates.certificate_pem(made), mode=_PUBLIC)
    heir, present = _heir(settings), _present(settings)
    if heir not in present:
        _write_cas(settings, [*present, heir])
    # Now, and not at the switch: the old key may have been taken away by then.
    _make_bridge(settings)
    return Heir(certificates.facts(heir).fingerprint, bool(bridge(settings)))


def pair_to_prove(settings: Settings, addresses: Sequence[str]) -> bytes:
    """A certificate of the CA to come and its key, for the registry's addresses; kept nowhere."""
    from moorage.pki import certificates

    key, now, heir = certificates.new_key(settings.certs.key), _now(), _heir(settings)
    wanted = dict.fromkeys((*deciding.names(settings), *addresses))
    leaf = certificates.make_leaf(
        key,
        ca=heir,
        ca_key=_heirs_key(settings),
        # An address that the machine has only since is none of the heir's constraints.
        names=tuple(one for one in wanted if not certificates.forbidden_name(heir, [one])),
        days=_PROOF_DAYS,
        now=now,
    )
    return certificates.certificate_pem(leaf) + certificates.key_pem(key)


def pem(settings: Settings) -> str:
    """The CA to come alone (PEM)."""
    from moorage.pki import certificates

    return certificates.certificate_pem(_heir(settings)).decode("ascii")


def set_to_prove(settings: Settings, pair: bytes | None) -> None:
    """Puts the pair where the front takes it for clients that name no server; None: no more."""
    path = folder(settings) / "to-prove.pem"
    if pair is None:
        path.unlink(missing_ok=True)
    else:
        write_atomically(path, pair, mode=_SECRET)


def switch(settings: Settings) -> str:
    """Puts a pair of the new CA, and its key, into their places; returns the leaf's fingerprint.

    The leaf is made once, so that a run which was killed here serves the same after all.
    """
    from moorage.pki import certificates

    certs, place = settings.certs_dir, folder(settings)
    if not _switched(settings):
        files.keep_copies(certs, ("ca.crt", "ca.key", "registry.crt", "registry.key"), _now())
    _make_bridge(settings)
    _make_leaf(settings)
    leaf = (place / "registry.crt").read_bytes()
    # The order of moorage.pki.registry: a pair that does not match is seen and made again.
    write_atomically(certs / "registry.key", (place / "registry.key").read_bytes(), mode=_SECRET)
    write_atomically(certs / "registry.crt", leaf + bridge(settings), mode=_PUBLIC)
    write_atomically(certs / "ca.key", (place / "ca.key").read_bytes(), mode=_SECRET)
    heir = _heir(settings)
    _write_cas(settings, [heir, *(one for one in _present(settings) if one != heir)])
    return certificates.facts(certificates.load_certificates(leaf)[0]).fingerprint


def narrow(settings: Settings) -> None:
    """The new CA is the only one; the served leaf needs no other to vouch for it."""
    from moorage.pki import certificates

    crt = settings.certs_dir / "registry.crt"
    leaf = certificates.load_certificates(crt.read_bytes())[0]
    if under_way(settings):
        _write_cas(settings, [_heir(settings)])
    write_atomically(crt, certificates.certificate_pem(leaf), mode=_PUBLIC)
    _clear(settings)


def withdraw(settings: Settings) -> None:
    """The CA to come is none any more: its key is gone, whoever may still hold its certificate."""
    if under_way(settings):
        heir = _heir(settings)
        _write_cas(settings, [one for one in _present(settings) if one != heir])
    _clear(settings)


def bridge(settings: Settings) -> bytes:
    """The new CA as the old one vouches for it (PEM); nothing if that one cannot."""
    try:
        return (folder(settings) / "bridge.crt").read_bytes()
    except FileNotFoundError:
        return b""


def _make_leaf(settings: Settings) -> None:
    from moorage.pki import certificates

    place = folder(settings)
    if (place / "registry.crt").exists():
        return
    key = certificates.new_key(settings.certs.key)
    leaf = certificates.make_leaf(
        key,
        ca=_heir(settings),
        ca_key=_heirs_key(settings),
        names=deciding.names(settings),
        days=settings.certs.days,
        now=_now(),
    )
    write_atomically(place / "registry.key", certificates.key_pem(key), mode=_SECRET)
    write_atomically(place / "registry.crt", certificates.certificate_pem(leaf), mode=_PUBLIC)


def _switched(settings: Settings) -> bool:
    """Whether the new CA's key has taken its place."""
    ours = settings.certs_dir / "ca.key"
    return ours.exists() and ours.read_bytes() == (folder(settings) / "ca.key").read_bytes()


def _make_bridge(settings: Settings) -> None:
    path = folder(settings) / "bridge.crt"
    made = None if path.exists() else _bridge(settings)
    if made is not None:
        write_atomically(path, made, mode=_PUBLIC)


def _bridge(settings: Settings) -> bytes | None:
    """The heir, signed by the present CA; None if that has no key here, or may sign no CA."""
    from moorage.pki import certificates

    heir = _heir(settings)
    try:
        key = certificates.load_key((settings.certs_dir / "ca.key").read_bytes())
    except (OSError, ValueError):
        return None
    ca = next((one for one in _present(settings) if certificates.same_key(one, key)), None)
    if ca is None or ca == heir or not certificates.may_sign_ca(ca):
        return None
    made = certificates.cross_signed(heir, ca=ca, ca_key=key, now=_now())
    return certificates.certificate_pem(made)


def _heir(settings: Settings) -> Certificate:
    from moorage.pki import certificates

    path = folder(settings) / "ca.crt"
    try:
        return certificates.load_certificates(path.read_bytes())[0]
    except (OSError, ValueError) as problem:
        raise _spoilt(path, str(problem)) from None


def _heirs_key(settings: Settings) -> Key:
    from moorage.pki import certificates

    path = folder(settings) / "ca.key"
    try:
        key = certificates.load_key(path.read_bytes())
    except (OSError, ValueError) as problem:
        raise _spoilt(path, str(problem)) from None
    if not certificates.same_key(_heir(settings), key):
        raise _spoilt(path, "it is not the key of ca.crt beside it")
    return key


def _present(settings: Settings) -> list[Certificate]:
    from moorage.pki import certificates

    return certificates.load_certificates(pki.ca_pem(settings).encode("ascii"))


def _write_cas(settings: Settings, cas: Sequence[Certificate]) -> None:
    from moorage.pki import certificates

    content = b"".join(map(certificates.certificate_pem, cas))
    write_atomically(settings.certs_dir / "ca.crt", content, mode=_PUBLIC)


def _clear(settings: Settings) -> None:
    shutil.rmtree(folder(settings), ignore_errors=True)


def _spoilt(path: Path, why: str) -> Refused:
    return Refused(
        "rotation-spoilt",
        f"{path} cannot be used, so the rotation cannot go on",
        cause=why,
        cure="put the file back from a backup; before the switch inv certs.rotate-ca --abort "
        "does, too",
        path=str(path),
    )


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
