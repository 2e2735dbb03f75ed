"""An OCI layout: an index of images by platform, in a folder that skopeo copies from.

https://github.com/opencontainers/image-spec/blob/main/image-layout.md
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moorage.errors import SPOILT
from moorage.files import link_or_copy, move, private_folder, write_atomically
from moorage.images.demo import tree
from moorage.images.demo.tree import LayerFile, PackedLayer

if TYPE_CHECKING:
    from moorage.platforms import ImagePlatform

_BLOBS = "blobs/sha256"
_KIND = "application/vnd.oci.image"
_INDEX, _MANIFEST, _CONFIG, _LAYER = (
    *(f"{_KIND}.index.v1+json", f"{_KIND}.manifest.v1+json"),
    *(f"{_KIND}.config.v1+json", f"{_KIND}.layer.v1.tar+gzip"),
)
# Names that containerd, skopeo and our own image.push read.
_TAG, _NAME = "org.opencontainers.image.ref.name", "io.containerd.image.name"
_INPUTS = "io.moorage.inputs"
# No time is in what is made, so that the same files are the same image.
_CREATED = "1970-01-01T00:00:00Z"


@dataclass(frozen=True)
class BuiltIndex:
    """An index in a layout. ``inputs``: the digest of all that it was made from."""

    folder: Path
    reference: str
    digest: str
    platforms: tuple[str, ...]
    inputs: str


def read(folder: Path) -> BuiltIndex | None:
    """The index in ``folder``; None if there is none that is whole."""
    try:
        index = json.loads((folder / "index.json").read_bytes())
        (row,) = index["manifests"]
        content = (folder / _BLOBS / row["digest"].removeprefix("sha256:")).read_bytes()
        rows = json.loads(content)["manifests"]
        platforms = tuple(_named(one["platform"]) for one in rows)
        reference, inputs = row["annotations"][_NAME], index["annotations"][_INPUTS]
        return BuiltIndex(folder, reference, row["digest"], platforms, inputs)
    except SPOILT:
        return None


def _named(platform: Mapping[str, str]) -> str:
    words = (platform.get(key) for key in ("os", "architecture", "variant"))
    return "/".join(word for word in words if word)


class LayoutWriter:
    """Fills an empty folder: images one by one, then :meth:`close`. Each raises OSError."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        private_folder(folder / _BLOBS)
        self._rows: list[dict[str, Any]] = []

    def taken(self, path: Path, layer: PackedLayer) -> PackedLayer:
        """Takes over a layer that was packed elsewhere."""
        link_or_copy(path, self._place(layer.digest))
        return layer

    def packed(self, files: Mapping[str, LayerFile]) -> PackedLayer:
        """Packs a layer."""
        draft = self.folder / _BLOBS / "draft"
        layer = tree.pack(files, draft)
        move(draft, self._place(layer.digest))
        return layer

    def image(
        self, platform: ImagePlatform, layers: Sequence[PackedLayer], config: Mapping[str, Any]
    ) -> None:
        """Adds the image of ``platform``; ``config``: how its container runs."""
        described = {
            "created": _CREATED,
            **platform.described,
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [one.diff for one in layers]},
            "history": [{"created": _CREATED, "created_by": "moorage"} for _ in layers],
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": self._written(described, _CONFIG),
            "layers": [
                {"mediaType": _LAYER, "digest": one.digest, "size": one.size} for one in layers
            ],
        }
        self._rows.append({**self._written(manifest, _MANIFEST), "platform": platform.described})

    def close(self, reference: str, inputs: str) -> str:
        """Writes the index of all images under ``reference``; returns its digest."""
        index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": self._rows}
        row = self._written(index, _INDEX)
        names = {_NAME: reference, _TAG: reference.rpartition(":")[2]}
        listed = {
            "schemaVersion": 2,
            "manifests": [{**row, "annotations": names}],
            "annotations": {_INPUTS: inputs},
        }
        write_atomically(self.folder / "index.json", _json(listed), mode=0o644)
        version = _json({"imageLayoutVersion": "1.0.0"})
        write_atomically(self.folder / "oci-layout", version, mode=0o644)
        return str(row["digest"])

    def _written(self, document: Mapping[str, Any], kind: str) -> dict[str, Any]:
        content = _json(document)
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        write_atomically(self._place(digest), content, mode=0o644)
        return {"mediaType": kind, "digest": digest, "size": len(content)}

    def _place(self, digest: str) -> Path:
        return self.folder / _BLOBS / digest.removeprefix("sha256:")


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
