"""The folder of certificates: read, a CA put there whole, copies kept of what is replaced.

certs/ (0700)   ca.crt  ca.key (0600)  registry.crt  registry.key (0600)
"""

from __future__ import annotations

import contextlib
import datetime
import shlex
from collections.abc import Iterator
from pathlib import Path

from moorage.errors import Refused
from moorage.files import content_of, write_atomically

PUBLIC, SECRET = 0o644, 0o600
# A new CA is complete under these names before it replaces anything: two renames are not atomic,
# and a run killed between them is finished by the next one.
_STAGED = ".next"


def install_ca(folder: Path, key: bytes, certificate: bytes) -> None:
    write_atomically(folder / f"ca.key{_STAGED}", key, mode=SECRET)
    write_atomically(folder / f"ca.crt{_STAGED}", certificate, mode=PUBLIC)
    settle(folder)


def settle(folder: Path) -> None:
    """Gives a staged CA its names, of this run or of one that was killed; drops half a one."""
    key, certificate = folder / f"ca.key{_STAGED}", folder / f"ca.crt{_STAGED}"
    if certificate.exists():
        if key.exists():
            key.replace(folder / "ca.key")
        certificate.replace(folder / "ca.crt")
    else:
        key.unlink(missing_ok=True)


def staged_or_settled(folder: Path) -> tuple[bytes | None, bytes | None]:
    """(ca.crt, ca.key) as :func:`settle` will leave them."""
    certificate = read(folder / f"ca.crt{_STAGED}")
    key = None if certificate is None else read(folder / f"ca.key{_STAGED}")
    return (
        read(folder / "ca.crt") if certificate is None else certificate,
        read(folder / "ca.key") if key is None else key,
    )


def keep_copies(folder: Path, present: tuple[str, ...], now: datetime.datetime) -> None:
    """Copies of these files, with the time in their names."""
    for name in present:
        content = read(folder / name)
        if content is not None:
            copy = folder / f"{name}.{now:%Y%m%dT%H%M%SZ}"
            write_atomically(copy, content, mode=SECRET if name.endswith(".key") else PUBLIC)


def keep_private(path: Path) -> None:
    if path.exists() and path.stat().st_mode & 0o077:
        path.chmod(SECRET)


def read(path: Path) -> bytes | None:
    with understood(path):
        return content_of(path)


@contextlib.contextmanager
def understood(path: Path) -> Iterator[None]:
    """An OSError becomes a sentence."""
    try:
        yield
    except OSError as problem:
        where = str(problem.filename or path)
        raise Refused(
            "certs-not-accessible",
            f"{where} cannot be read or written",
            cause=problem.strerror or str(problem),
            cure=f"ls -la {shlex.quote(str(path.parent))}; was it made by another user (sudo)? "
            "Then chown it",
            path=where,
        ) from None
