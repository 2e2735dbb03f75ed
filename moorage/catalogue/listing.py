"""What the registry holds, a repository at a time: tags, manifests, platforms, sizes, ages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from moorage.errors import Refused
from moorage.references import split
from moorage.registry.storage import manifest
from moorage.registry.storage.layout import DIGEST, Layout, Link
from moorage.registry.storage.manifest import Manifest
from moorage.registry.storage.verifying import lenient
from moorage.settings import REPOSITORY, TAG

if TYPE_CHECKING:
    from moorage.settings import Settings


@dataclass(frozen=True)
class HeldManifest:
    """A manifest that a repository has, tagged or not; ``pushed`` in seconds since 1970."""

    manifest: Manifest
    pushed: float


@dataclass(frozen=True)
class Repository:
    """A repository: its tags, and its manifests by digest."""

    name: str
    tags: Mapping[str, Link]
    manifests: Mapping[str, HeldManifest]

    def size(self, digest: str) -> int:
        """Bytes of a manifest's layers and configuration, and of its children's."""
        held = self.manifests.get(digest)
        if held is None:
            return 0
        return held.manifest.size + sum(self.size(child) for child in held.manifest.children)


def repositories(layout: Layout, name: str = "") -> list[Repository]:
    """Those that hold something, or the one of that name. Raises Refused (``no-repository``)."""
    names = [name] if name else layout.repositories()
    found = [_read(layout, one) for one in names]
    held = [one for one in found if one.manifests or one.tags]
    if name and not held:
        raise Refused(
            "no-repository",
            f"the registry has no image in {name!r}",
            cause="a repository is the part between the registry's name and the tag",
            cure="inv images.list lists every repository",
        )
    return held


def platforms(layout: Layout, repository: Repository, digest: str) -> tuple[str, ...]:
    """An index says its platforms itself; of an image, its configuration does."""
    held = repository.manifests.get(digest)
    if held is None:
        return ()
    if held.manifest.platforms or not held.manifest.config:
        return held.manifest.platforms
    try:
        content = layout.read(held.manifest.config, manifest.MAX_MANIFEST) or b"{}"
        words = json.loads(content.decode())
        found = manifest.platform(words)
    except (ValueError, AttributeError):
        return ()
    return (found,) if found else ()


def _read(layout: Layout, name: str) -> Repository:
    if Path(name).is_absolute() or ".." in Path(name).parts:
        return Repository(name, {}, {})
    return Repository(
        name,
        layout.tags(name),
        {
            digest: HeldManifest(lenient(layout, digest) or Manifest(), pushed)
            for digest, pushed in layout.revisions(name).items()
        },
    )


def reference(settings: Settings, text: str) -> tuple[str, str, str]:
    """``REPOSITORY:TAG`` or ``REPOSITORY@DIGEST``, with our registry's name before it or without
    -> repository, tag, digest. Raises Refused (``wrong-use``)."""
    name, tag, digest = split(text.removeprefix(f"{settings.registry_name}/"))
    right = REPOSITORY.fullmatch(name) and (
        (DIGEST.fullmatch(digest) and not tag) or (TAG.fullmatch(tag) and "@" not in text)
    )
    if not right:
        raise Refused(
            "wrong-use",
            f"invalid image {text!r}: not REPOSITORY:TAG, and not REPOSITORY@sha256:...",
            cause="a deletion takes the whole name: no tag is guessed",
            cure="inv images.list shows the names",
        )
    return name, tag, digest
