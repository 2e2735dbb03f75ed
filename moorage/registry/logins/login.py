"""Where a login comes from: a file, or standard input. Never argv."""

from __future__ import annotations

import sys

from moorage.errors import Refused
from moorage.files import user_path
from moorage.redaction import keep_secret
from moorage.registry.logins.credentials import Credentials

_MOST = 4096


def read(source: str) -> Credentials:
    """``source``: ``-`` for standard input, else a file.

    One line, ``user:password``. Raises Refused if there is none, or it is something else; what
    it holds is never repeated.
    """
    if source == "-":
        return parsed(sys.stdin.buffer.read(_MOST + 1), "standard input")
    try:
        with user_path(source).open("rb") as file:
            return parsed(file.read(_MOST + 1), source)
    except OSError as problem:
        raise Refused(
            "no-credentials",
            f"{source} cannot be read",
            cause=problem.strerror or str(problem),
            cure="name a file with one line user:password, or - for standard input",
            path=source,
        ) from None


def parsed(content: bytes, source: str) -> Credentials:
    """The login in ``content``, of ``source``. Raises Refused (``bad-credentials``)."""
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
    return Credentials(user, keep_secret(password))


def _refused(source: str, why: str) -> Refused:
    return Refused(
        "bad-credentials",
        f"no login can be read from {source}",
        cause=why,
        cure="give one line, user:password",
    )
