"""Where the login for pull Secrets comes from: the registry's own, a file, or standard input."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moorage.registry import Credentials

if TYPE_CHECKING:
    from moorage.settings import Settings


def read(settings: Settings, source: str) -> Credentials:
    """``source``: "" for the registry's own login, ``-`` for standard input, else a file.

    Raises Refused where there is none, or it is something else than one line ``user:password``.
    """
    from moorage.registry import credentials, login

    return login.read(source) if source else credentials(settings)
