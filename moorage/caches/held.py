"""What a cache holds: images, their size, and when the upstream last confirmed each.

Distribution writes a tag's link anew each time its upstream tells what the tag stands for, and
leaves the link alone while the upstream says nothing (measured with 2.8.2, docs/registry.md). So a
link's time is the age of what is served.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from moorage.registry.storage.layout import Layout


@dataclass(frozen=True)
class Image:
    """A tag that was pulled: ``confirmed`` by the upstream last, in seconds since 1970."""

    repository: str
    tag: str
    digest: str
    confirmed: float


@dataclass(frozen=True)
class Held:
    """All of a cache: ``size`` in bytes, of what lies in its store."""

    images: tuple[Image, ...] = ()
    size: int = 0

    @property
    def newest(self) -> float:
        """When an upstream confirmed something last; 0 for never."""
        return max((one.confirmed for one in self.images), default=0.0)

    @property
    def oldest(self) -> float:
        """When that image was confirmed whose confirmation is the oldest; 0 without images."""
        return min((one.confirmed for one in self.images), default=0.0)


def held(store: Path) -> Held:
    """What ``store`` holds; nothing if it is not there. Raises OSError if it may not be read."""
    layout = Layout(store)
    images = tuple(
        Image(repository, tag, link.digest, link.pushed)
        for repository in layout.repositories()
        for tag, link in layout.tags(repository).items()
    )
    return Held(images, sum(blob.size for blob in layout.blobs()))
