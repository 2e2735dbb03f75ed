"""Where the login comes from: the registry's own, a file, or standard input. Never argv."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from moorage.errors import Refused
from moorage.registry import Credentials

if TYPE_CHECKING:
    from moorage.settings import Settings

_MOST = 4096


def read(settings: Settings, source: str) -> Credentials:
    """``source``: "" for the registry's own login, ``-`` for standard input, else a file.

    One line, ``user:password``. Raises Refused where there is none, or it is something else; what
    it holds is never repeated.
    """
    if not source:
        from moorage.registry import credentials

        return credentials(settings)
    if source == "-":
        return _parsed(sys.stdin.buffer.read(_MOST + 1), "standard input")
    try:
        with Path(source).expanduser().open("rb") as file:
            return _parsed(file.read(_MOST + 1), source)
    except OSError as problem:
        raise Refused(
            "no-credentials",
            f"{source} cannot be read",
            cause=problem.strerror or str(problem),
            cure="name a file with one line user:password, or - for standard input",
            path=source,
        ) from None


def _parsed(content: bytes, source: str) -> Credentials:
    try:
        text = content.decode("utf-8").strip("\r\n")
    except UnicodeDecodeError:
        raise _refused(source, "it is not UTF-8 text") from None
    user, colon, password = text.partition(":")
    if len(content) > _MOST:
        raise _refused(source, f"it is longer than {_MOST} bytes")
    if not colon or not user or not password:
        raise _refused(source, "it is not of the form user:password")
    if any(ord(mark) < 32 or ord(mark) == 127 for mark in text):
        raise _refused(source, "it has more than one line, or another control character")
    return Credentials(user, password)


def _refused(source: str, why: str) -> Refused:
    return Refused(
        "bad-credentials",
        f"no login can be read from {source}",
        cause=why,
        cure="give one line, user:password",
    )
