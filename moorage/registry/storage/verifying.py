"""Reads every blob against its digest, and says which images the wrong ones belong to."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from moorage import files
from moorage.registry.storage import manifest
from moorage.registry.storage.layout import Blob, Layout
from moorage.registry.storage.manifest import MAX_MANIFEST, Manifest
from moorage.registry.storage.marking import reach

# Distribution writes a manifest in place: one as young as this is read again before it is blamed.
_YOUNG_SECONDS = 5.0


@dataclass(frozen=True)
class Wrong:
    """A blob that is not what its digest says. ``found``: the digest of what is there, or "" for
    nothing; ``images``: what cannot be pulled for it, as ``repository:tag`` or ``@digest``."""

    digest: str
    found: str
    images: tuple[str, ...]


@dataclass(frozen=True)
class Verified:
    """``blobs`` and ``size`` (bytes): what was read."""

    blobs: int
    size: int
    wrong: tuple[Wrong, ...]


def verify(layout: Layout, update: Callable[[int], None] = lambda _: None) -> Verified:
    """Reads the whole store, by as many threads as there are cores. Raises OSError."""
    blobs = list(layout.blobs())
    wrong: dict[str, str] = {}
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        for done, (blob, found) in enumerate(
            zip(blobs, pool.map(lambda one: _read(layout, one), blobs), strict=True), 1
        ):
            update(done)
            if found != blob.digest:
                wrong[blob.digest] = found
    needed = _owners(layout)
    there = {blob.digest for blob in blobs}
    wrong |= {digest: "" for digest in needed.keys() - there if not layout.blob(digest).exists()}
    told = (Wrong(d, wrong[d], tuple(sorted(needed.get(d, ())))) for d in sorted(wrong))
    return Verified(len(blobs), sum(blob.size for blob in blobs), tuple(told))


def _read(layout: Layout, blob: Blob) -> str:
    found = _digest(layout, blob.digest)
    if found != blob.digest and time.time() - blob.written < _YOUNG_SECONDS:
        time.sleep(1)
        found = _digest(layout, blob.digest)
    return found or blob.digest  # collected meanwhile


def _digest(layout: Layout, digest: str) -> str:
    try:
        return f"sha256:{files.digest(layout.blob(digest))}"
    except FileNotFoundError:
        return ""


def _owners(layout: Layout) -> Mapping[str, set[str]]:
    """Every digest that a manifest needs -> the images that cannot do without it."""
    owners: dict[str, set[str]] = {}
    for repository in layout.repositories():
        tags = layout.tags(repository)
        names = {f"{repository}:{tag}": link.digest for tag, link in tags.items()}
        untagged = layout.revisions(repository).keys() - names.values()
        names |= {f"{repository}@{digest}": digest for digest in untagged}
        for name, digest in names.items():
            for part in _required(layout, (digest,)):
                owners.setdefault(part, set()).add(name)
    return owners


def _required(layout: Layout, roots: Iterable[str]) -> frozenset[str]:
    """What the roots reach, as far as it can be read; what an index names need not be there."""
    optional: set[str] = set()

    def read(digest: str) -> Manifest | None:
        made = lenient(layout, digest)
        optional.update(made.children if made else ())
        return made

    found = reach(roots, read)
    return frozenset(one for one in found if one not in optional or layout.blob(one).exists())


def lenient(layout: Layout, digest: str) -> Manifest | None:
    """A manifest as far as it can be read; None for one that is not there, or is none."""
    content = layout.read(digest, MAX_MANIFEST)
    try:
        return None if content is None else manifest.parse(content)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
