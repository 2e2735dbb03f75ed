"""Where Distribution's filesystem driver keeps what; reads it while the registry serves.

https://github.com/distribution/distribution/blob/v2.8.2/registry/storage/paths.go. What is gone
between two looks is passed over: the registry goes on meanwhile.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HEX = re.compile(r"[0-9a-f]{64}")
# Distribution writes a link in place, so that a reader may meet it empty.
_TRIES, _AGAIN_SECONDS = 20, 0.01


@dataclass(frozen=True)
class Link:
    """A tag of a repository: what it stands for, and when it was pushed (seconds since 1970)."""

    digest: str
    pushed: float


@dataclass(frozen=True)
class Blob:
    """Content in the store: its size in bytes, and when it was written (seconds since 1970)."""

    digest: str
    size: int
    written: float


@dataclass(frozen=True)
class Layout:
    """The paths below the folder that the container has as ``/var/lib/registry``."""

    data: Path

    @property
    def top(self) -> Path:
        return self.data / "docker" / "registry" / "v2"

    @property
    def aside(self) -> Path:
        """Where a collection keeps what it took out of the store; Distribution never looks."""
        return self.data / "moorage" / "aside"

    def blob(self, digest: str) -> Path:
        """The content of ``digest``, whether it is there or not."""
        name = digest.removeprefix("sha256:")
        return self.top / "blobs" / "sha256" / name[:2] / name / "data"

    def layer_link(self, repository: str, digest: str) -> Path:
        """What lets ``repository`` serve a layer, or a configuration, of ``digest``."""
        return self._links(repository, "_layers/sha256") / digest.removeprefix("sha256:") / "link"

    def revision_link(self, repository: str, digest: str) -> Path:
        """What lets ``repository`` serve the manifest ``digest``."""
        name = digest.removeprefix("sha256:")
        return self._links(repository, "_manifests/revisions/sha256") / name / "link"

    def tag_link(self, repository: str, tag: str) -> Path:
        return self._links(repository, "_manifests/tags") / tag / "current" / "link"

    def repositories(self) -> list[str]:
        """Every repository, also one that holds nothing any more."""
        top = self.top / "repositories"
        return sorted(str(path.relative_to(top)) for path in _repositories(top))

    def tags(self, repository: str) -> dict[str, Link]:
        """The tags of ``repository``; none if there is no such repository."""
        found = {}
        for entry in _entries(self._links(repository, "_manifests/tags")):
            if link := _link(f"{entry.path}/current/link"):
                found[entry.name] = link
        return found

    def revisions(self, repository: str) -> dict[str, float]:
        """The manifests of ``repository``, tagged or not, and when each was pushed."""
        return self._linked(repository, "_manifests/revisions/sha256")

    def layers(self, repository: str) -> dict[str, float]:
        """What ``repository`` may serve beside manifests, and since when."""
        return self._linked(repository, "_layers/sha256")

    def blobs(self) -> Iterator[Blob]:
        """The whole store."""
        for shelf in _entries(self.top / "blobs" / "sha256"):
            for entry in _entries(Path(shelf.path)):
                if not _HEX.fullmatch(entry.name):
                    continue
                try:
                    found = os.stat(f"{entry.path}/data")  # noqa: PTH116 - a Path costs more
                except FileNotFoundError:
                    continue
                yield Blob(f"sha256:{entry.name}", found.st_size, found.st_mtime)

    def read(self, digest: str, most: int = -1) -> bytes | None:
        """At most so many bytes of ``digest``; None if it is not in the store. Raises OSError."""
        name = digest.removeprefix("sha256:")
        try:
            with open(f"{self._blobs}/{name[:2]}/{name}/data", "rb", 0) as file:  # noqa: PTH123
                # Python makes room for all that is asked for before it reads.
                size = os.fstat(file.fileno()).st_size
                return file.read(size if most < 0 else min(size, most))
        except FileNotFoundError:
            return None

    @cached_property
    def _blobs(self) -> str:
        return str(self.top / "blobs" / "sha256")

    def _links(self, repository: str, kind: str) -> Path:
        return self.top / "repositories" / repository / kind

    def _linked(self, repository: str, kind: str) -> dict[str, float]:
        found = {}
        for entry in _entries(self._links(repository, kind)):
            try:
                written = os.stat(f"{entry.path}/link").st_mtime  # noqa: PTH116
            except FileNotFoundError:
                continue
            if _HEX.fullmatch(entry.name):
                found[f"sha256:{entry.name}"] = written
        return found


def _repositories(folder: Path) -> Iterator[Path]:
    """Repositories nest (``a`` and ``a/b``); what begins with ``_`` is Distribution's own."""
    names = [entry.name for entry in _entries(folder)]
    if "_manifests" in names or "_layers" in names:
        yield folder
    for name in names:
        if not name.startswith("_"):
            yield from _repositories(folder / name)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return sorted((one for one in found if one.is_dir()), key=lambda one: one.name)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _link(path: str) -> Link | None:
    """What a link says; None for one that is gone, or that stays unreadable."""
    for _ in range(_TRIES):
        try:
            with open(path, "rb", 0) as file:  # noqa: PTH123 - a Path costs more
                digest = file.read(200).decode("ascii", "replace").strip()
                written = os.fstat(file.fileno()).st_mtime
        except FileNotFoundError:
            return None
        if DIGEST.fullmatch(digest):
            return Link(digest, written)
        time.sleep(_AGAIN_SECONDS)
    return None
