"""A bundle as a tar: its first member is the manifest, its second the manifest's digest.

What is read is judged before it is used; what is written is the same for the same members.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from moorage.errors import Refused
from moorage.files import digest, write_tar
from moorage.supply import manifest
from moorage.supply.manifest import BundleFile, BundleManifest

_MOST_MANIFEST = 64 << 20
_CHUNK = 1 << 20


class Opened(NamedTuple):
    """A bundle's manifest, and its bytes."""

    manifest: BundleManifest
    content: bytes

    @property
    def id(self) -> str:
        return manifest.identity(self.content)


class BundleMember(NamedTuple):
    """A member after the manifest: its name, its size, its content if it is a regular file."""

    name: str
    size: int
    content: IO[bytes] | None

    def chunks(self) -> Iterator[bytes]:
        """Raises tarfile.ReadError where the file is cut."""
        while self.content is not None and (chunk := self.content.read(_CHUNK)):
            yield chunk


def opened(path: Path) -> Opened:
    """The manifest of the bundle ``path``. Raises Refused: ``bad-bundle``, ``bundle-version``."""
    try:
        with tarfile.open(path, "r:") as tar:
            content, said = (_first(tar, name) for name in (manifest.NAME, manifest.SUM))
    except FileNotFoundError:
        raise Refused(
            "bad-bundle",
            f"there is no {path}",
            cause="no file has that name",
            cure="inv bundle.save FILE makes one, on a machine that has a network",
            path=str(path),
        ) from None
    except (tarfile.TarError, EOFError, ValueError) as problem:
        raise manifest.bad(str(path), f"it does not begin as a bundle does: {problem}") from None
    except OSError as problem:
        raise manifest.bad(str(path), problem.strerror or str(problem)) from None
    wanted, found = said.decode("ascii", "replace").partition(" ")[0], manifest.identity(content)
    if wanted != found:
        why = f"its {manifest.NAME} is sha256:{found} and should be sha256:{wanted[:64]}"
        raise manifest.bad(str(path), why)
    return Opened(manifest.parse(content, str(path)), content)


def members(path: Path) -> Iterator[BundleMember]:
    """What comes after the manifest, as it lies there. Ends without a word where the tar is cut."""
    with tarfile.open(path, "r:") as tar:
        try:
            for member in tar:
                if member.name not in (manifest.NAME, manifest.SUM):
                    content = tar.extractfile(member) if member.isreg() else None
                    yield BundleMember(member.name, member.size, content)
        except (tarfile.TarError, EOFError, ValueError):
            return


def described(folder: Path, paths: Iterable[str]) -> tuple[BundleFile, ...]:
    """The files ``paths`` below ``folder``, with digest and size."""
    found = ((path, folder / path) for path in paths)
    return tuple(BundleFile(path, digest(file), file.stat().st_size) for path, file in found)


def pack(path: Path, one: BundleManifest, folder: Path, without: Iterable[BundleFile]) -> bytes:
    """Writes the bundle ``path`` from the files below ``folder``; returns its manifest's bytes.

    ``without``: those that are left out, if they are here under the same path: `run` finds them in
    the bundle before by that.
    """
    content = manifest.written(one)
    absent = frozenset(without)
    head: list[tuple[str, Path | bytes]] = [
        (manifest.NAME, content),
        (manifest.SUM, f"{manifest.identity(content)}  {manifest.NAME}\n".encode()),
    ]
    rest = [(file.path, folder / file.path) for file in one.files if file not in absent]
    write_tar(path, [*head, *rest])
    return content


def _first(tar: tarfile.TarFile, name: str) -> bytes:
    """The next member, which has to have this name. Raises ValueError."""
    member = tar.next()
    file = tar.extractfile(member) if member is not None and member.isreg() else None
    if member is None or file is None or member.name != name or member.size > _MOST_MANIFEST:
        raise ValueError(f"{name} is not where it should be")
    return file.read()
