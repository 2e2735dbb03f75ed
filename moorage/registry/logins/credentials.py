"""The registry's login: made once, kept in files that only the operator can read.

The password is in ``.moorage/registry/password``; the front sees an HMAC of it alone.
"""

from __future__ import annotations

import secrets
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from moorage.errors import Refused
from moorage.files import private_folder, write_atomically
from moorage.redaction import keep_secret
from moorage.registry.logins import external

if TYPE_CHECKING:
    from moorage.settings import Settings

_MOST_BYTES = 72  # what bcrypt hashes: a registry of an earlier build may come back


@dataclass(frozen=True)
class Credentials:
    """A login. No ``repr`` shows the password."""

    user: str
    password: str = field(repr=False)


def folder(settings: Settings) -> Path:
    """Where the registry's secrets and configuration are kept (0700)."""
    return settings.state / "registry"


def credentials(settings: Settings) -> Credentials:
    """The login. Raises Refused if none has been made yet, or its file was spoilt."""
    if settings.registry.external:
        return _stored(settings)
    path = folder(settings) / "password"
    try:
        password = path.read_text(encoding="utf-8").removesuffix("\n")
    except FileNotFoundError:
        raise Refused(
            "no-credentials",
            "the registry has no login yet",
            cause=f"there is no {path}",
            cure="inv registry.up",
            path=str(path),
        ) from None
    except (OSError, UnicodeDecodeError) as problem:
        raise _unusable(path, str(problem)) from None
    if not password or any(ord(mark) < 32 or ord(mark) == 127 for mark in password):
        raise _unusable(path, "it is empty or holds a line break or another control character")
    if len(password.encode()) > _MOST_BYTES:
        raise _unusable(path, f"it is longer than {_MOST_BYTES} bytes")
    return Credentials(settings.registry.user, keep_secret(password))


def login_file(settings: Settings) -> Path:
    """Where the login for somebody else's registry is kept (0600): by the registry's name, so that
    a login is never sent to another one."""
    return folder(settings) / "external" / f"{settings.registry_name}.login"


def if_any(settings: Settings) -> Credentials | None:
    """The login; None for a registry of somebody else's that is asked without one.

    Raises Refused if its file is spoilt, or our own registry has none yet.
    """
    if settings.registry.external and not login_file(settings).exists():
        return None
    return credentials(settings)


def keep(settings: Settings, login: Credentials) -> bool:
    """Stores the login for somebody else's registry; returns whether it is another than before."""
    path, content = login_file(settings), f"{login.user}:{login.password}\n".encode()
    private_folder(path.parent.parent)
    private_folder(path.parent)
    if path.exists() and path.read_bytes() == content:
        return False
    write_atomically(path, content)
    return True


def _stored(settings: Settings) -> Credentials:
    path = login_file(settings)
    try:
        text = path.read_text(encoding="utf-8").removesuffix("\n")
    except FileNotFoundError:
        raise Refused(
            "no-credentials",
            f"there is no login for {settings.registry_name} yet",
            cause=f"there is no {path}",
            cure=external.LOGIN,
            path=str(path),
        ) from None
    except (OSError, UnicodeDecodeError) as problem:
        raise _unusable(path, str(problem), external.LOGIN) from None
    user, _, password = text.partition(":")
    if not user or not password or "\n" in text:
        raise _unusable(path, "it is not one line user:password", external.LOGIN)
    return Credentials(user, keep_secret(password))


def ensure(settings: Settings) -> Credentials:
    """The login, made where there is none."""
    path = folder(settings) / "password"
    if not path.exists():
        private_folder(path.parent)
        write_atomically(path, f"{secrets.token_urlsafe(24)}\n".encode())
    return credentials(settings)


def ensure_http_secret(settings: Settings) -> str:
    """What the registry signs its upload URLs with: kept, so that a restart breaks no push."""
    path = folder(settings) / "http-secret"
    try:
        secret = path.read_text(encoding="ascii").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        secret = ""
    if len(secret) < 64 or set(secret) - set("0123456789abcdef"):
        secret = secrets.token_hex(32)
        private_folder(path.parent)
        write_atomically(path, f"{secret}\n".encode())
    return secret


def _unusable(path: Path, why: str, cure: str = "") -> Refused:
    return Refused(
        "credentials-unusable",
        f"{path} cannot be used",
        cause=why,
        cure=cure
        or "correct it, or remove it and run inv registry.up for a new password: "
        f"rm {shlex.quote(str(path))}",
        path=str(path),
    )
