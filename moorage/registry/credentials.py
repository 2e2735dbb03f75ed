"""The registry's login: made once, kept in files that only the operator can read.

The password is in ``.moorage/registry/password``; the front sees an HMAC of it alone.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from moorage.errors import Refused
from moorage.files import private_folder, write_atomically
from moorage.redaction import keep_secret

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
    """The login. Raises Refused where none has been made yet, or its file was spoilt."""
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


def _unusable(path: Path, why: str) -> Refused:
    return Refused(
        "credentials-unusable",
        f"{path} cannot be used",
        cause=why,
        cure=f"correct it, or remove it and run inv registry.up for a new password: rm {path}",
        path=str(path),
    )
