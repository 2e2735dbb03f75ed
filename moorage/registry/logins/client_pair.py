"""The certificate that this machine and the nodes present to a registry that asks for one.

``registry.client_cert`` and ``registry.client_key`` name its files, which are the user's: they are
read and never written.
"""

from __future__ import annotations

import datetime
import os
import re
import shlex
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from moorage.errors import Refused

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from agent.wire.client_pair import ClientPair
    from moorage.settings import Settings

_KEY = re.compile(
    r"-----BEGIN (?:RSA |EC |ENCRYPTED )?PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----\n?",
    re.DOTALL,
)


def files(settings: Settings) -> tuple[Path, Path] | None:
    """The certificate's file and the key's, from the project's folder; None if none are named."""
    registry = settings.registry
    if not registry.client_cert:
        return None
    return settings.root / registry.client_cert, settings.root / registry.client_key


def read(settings: Settings) -> ClientPair | None:
    """The pair; None if the settings name none.

    Raises Refused: ``client-pair`` for files that are none, or that everybody may read,
    ``client-pair-ended`` for one that is not valid now.
    """
    named = files(settings)
    if named is None:
        return None
    from agent.wire.client_pair import ClientPair
    from agent.wire.faults import PlanError
    from moorage.pki import certificates

    cert, key = named
    chain = leaf_first(cert, key)
    now = datetime.datetime.now(datetime.UTC)
    begin, end = chain[0].not_valid_before_utc, chain[0].not_valid_after_utc
    if not begin <= now < end:
        said = (
            f"ended on {end:%Y-%m-%d %H:%M}" if end <= now else f"begins on {begin:%Y-%m-%d %H:%M}"
        )
        raise Refused(
            "client-pair-ended",
            f"the client's certificate in {cert} is not valid now",
            cause=f"it {said} UTC",
            cure="ask whoever runs the registry for the pair that follows it, and put it there"
            if end <= now
            else "set this machine's clock (timedatectl), or wait until then",
            path=str(cert),
        )
    pem = "".join(certificates.certificate_pem(one).decode("ascii") for one in chain)
    found = _KEY.findall(_text(key))
    try:
        return ClientPair.of({"certificate": pem, "key": found[0] if found else ""}, None)
    except PlanError as problem:
        raise _unusable(key, problem.fault.cause, "put the certificate's own key there") from None


def leaf_first(cert: Path, key: Path) -> list[Certificate]:
    """The certificates, the client's own first; the key belongs to it. Raises Refused."""
    from moorage.pki import certificates

    try:
        chain = certificates.load_certificates(_text(cert).encode())
    except ValueError as problem:
        raise _unusable(cert, str(problem), "put the client's certificate there, in PEM") from None
    _require_private(key)
    try:
        public = certificates.public_key_of(_text(key).encode())
    except certificates.Encrypted as problem:
        whole, opened = (shlex.quote(f"{key}{end}") for end in ("", ".open"))
        cure = f"(umask 077; openssl pkey -in {whole} -out {opened}) && mv {opened} {whole}"
        raise _unusable(key, str(problem), cure) from None
    except ValueError as problem:
        raise _unusable(key, str(problem), "put the certificate's own key there, in PEM") from None
    fits = next((one for one in chain if one.public_key() == public), None)
    if fits is None:
        subject = chain[0].subject.rfc4514_string()
        cause = f"it is not the key of {cert} ({subject})"
        raise _unusable(key, cause, "put the certificate's own key there")
    return [fits, *(one for one in chain if one is not fits)]


def _require_private(key: Path) -> None:
    """As ssh does it for its keys (sshkey_perm_ok), the group of another's file may read it."""
    try:
        found = key.stat()
    except OSError as problem:
        raise _unusable(key, problem.strerror or str(problem), _NAMED) from None
    mode, ours = stat.S_IMODE(found.st_mode), found.st_uid == os.geteuid()
    if mode & (0o077 if ours else 0o007):
        who = "everybody on this machine" if mode & 0o007 else "its group"
        cause = f"its mode is {mode:04o}, so {who} may read or change it"
        raise _unusable(key, cause, f"chmod 600 {shlex.quote(str(key))}")


_NAMED = "correct registry.client_cert and registry.client_key in invoke.yaml"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError as problem:
        raise _unusable(path, problem.strerror or str(problem), _NAMED) from None


def _unusable(path: Path, why: str, cure: str) -> Refused:
    return Refused("client-pair", f"{path} cannot be used", cause=why, cure=cure, path=str(path))
