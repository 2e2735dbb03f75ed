"""What a manifest names: its parts, its children, its subject. Pure.

https://github.com/opencontainers/image-spec/blob/v1.1.0/manifest.md and image-index.md;
https://distribution.github.io/distribution/spec/manifest-v2-2/.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from moorage.registry.storage.layout import DIGEST

# Distribution takes no larger one: registry/handlers/manifests.go, maxManifestBodySize.
MAX_MANIFEST = 4 << 20


@dataclass(frozen=True)
class Manifest:
    """A manifest or an index. ``parts``: layers and configuration; ``children``: an index's
    manifests; ``size``: bytes of the parts; ``platforms``: an index's own words of its children."""

    config: str = ""
    parts: frozenset[str] = frozenset()
    children: tuple[str, ...] = ()
    subject: str = ""
    size: int = 0
    platforms: tuple[str, ...] = ()


def checked(digest: str, content: bytes) -> Manifest:
    """The manifest of that digest. Raises ValueError if the content is another, or none."""
    if f"sha256:{hashlib.sha256(content).hexdigest()}" != digest:
        raise ValueError("its content has another digest")
    try:
        return parse(content)
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise ValueError(f"it is not a manifest: {problem}") from None


def parse(content: bytes) -> Manifest:
    """Raises ValueError if it is not a manifest: whoever marks must not guess what it names."""
    document = json.loads(content.decode())
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")
    config = _descriptors([document["config"]] if document.get("config") else [])
    # `blobs` is what ORAS' artifact manifests of 2022 have, `fsLayers` what schema 1 has.
    layers = _descriptors([*_list(document, "layers"), *_list(document, "blobs")])
    old = [{"digest": one["blobSum"]} for one in _list(document, "fsLayers")]
    children = _descriptors(_list(document, "manifests"))
    parts = (*config, *layers, *_descriptors(old))
    if not parts and not children and "manifests" not in document and "layers" not in document:
        raise ValueError("it names no layers and no manifests")
    return Manifest(
        config=config[0]["digest"] if config else "",
        parts=frozenset(one["digest"] for one in parts),
        children=tuple(one["digest"] for one in children),
        subject=str((document.get("subject") or {}).get("digest", "")),
        size=sum(one.get("size", 0) for one in parts),
        platforms=tuple(word for one in children if (word := platform(one.get("platform") or {}))),
    )


def platform(words: Mapping[str, Any]) -> str:
    """``linux/arm64/v8``; "" for none, and for the attestations that BuildKit adds (unknown)."""
    parts = [str(words.get(key) or "") for key in ("os", "architecture", "variant")]
    if not parts[0] or "unknown" in parts[:2]:
        return ""
    return "/".join(part for part in parts if part)


def _list(document: Mapping[str, Any], key: str) -> list[Any]:
    found = document.get(key) or []
    if not isinstance(found, list):
        raise ValueError(f"{key} is not a list")
    return found


def _descriptors(found: Iterable[Any]) -> list[dict[str, Any]]:
    listed = list(found)
    for one in listed:
        if not isinstance(one, dict) or not DIGEST.fullmatch(str(one.get("digest"))):
            raise ValueError("a descriptor has no sha256 digest")
    return listed
