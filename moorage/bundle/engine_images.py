"""Images out of the engine, as files of a bundle: each layer once, compressed, named by its digest.

What is written is the same for the same layer, so two bundles share it.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from moorage.errors import MoorageError
from moorage.files import (
    passing_folder,
    private_folder,
    write_atomically,
    write_stream,
    write_whole,
)
from moorage.supply import manifest
from moorage.supply.manifest import EngineImage

if TYPE_CHECKING:
    from docker import DockerClient

    from moorage.output import Update

_CHUNK = 1 << 20
_MOST_TEXT = 16 << 20
_GZIP = zlib.MAX_WBITS + 16
_PACKED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd")  # gzip, zstd


def save(
    client: DockerClient,
    names: Sequence[str],
    folder: Path,
    update: Update,
    before: Sequence[EngineImage] = (),
) -> tuple[EngineImage, ...]:
    """Writes the images ``names`` below ``folder``. A layer that is there already stays.

    ``before``: those of a first bundle; what is the same is not written again. Raises MoorageError
    for an archive that is not as the engine's documentation has it.
    """
    found = []
    for done, name in enumerate(names):
        update(done=done, total=len(names), text=f"saving {name}")
        image = client.images.get(name)
        config = f"{manifest.CONFIGS}/{str(image.id).removeprefix('sha256:')}.json"
        same = [one for one in before if (one.name, one.config) == (name, config)]
        if same:
            found += same
            continue
        with passing_folder(folder, "saved-") as passing:
            path = passing / "image.tar"
            write_stream(path, image.save(named=False, chunk_size=_CHUNK))
            found.append(unpacked(name, path, folder))
    return tuple(found)


def unpacked(name: str, path: Path, folder: Path) -> EngineImage:
    """The image in an archive of `docker save`, as files below ``folder``."""
    try:
        with tarfile.open(path) as archive:
            (row,) = json.loads(_text(archive, "manifest.json"))
            config = _text(archive, row["Config"])
            diffs = json.loads(config)["rootfs"]["diff_ids"]
            layers = tuple(
                _layer(archive, member, diff, folder)
                for member, diff in zip(row["Layers"], diffs, strict=True)
            )
    except (tarfile.TarError, KeyError, ValueError, TypeError, EOFError) as problem:
        raise MoorageError(
            "engine-failed",
            f"{name} could not be taken out of the engine",
            cause=f"its archive is not as expected: {problem!r}",
            cure=f"try it by hand: docker save {name}",
        ) from None
    place = f"{manifest.CONFIGS}/{hashlib.sha256(config).hexdigest()}.json"
    private_folder((folder / place).parent)
    write_atomically(folder / place, config, mode=0o644)
    return EngineImage(name, place, layers)


def _layer(archive: tarfile.TarFile, member: str, diff: Any, folder: Path) -> str:
    """The layer's path in the bundle. ``diff``: the digest of its plain bytes."""
    place = f"{manifest.LAYERS}/{str(diff).removeprefix('sha256:')}.tar.gz"
    path = folder / place
    if not path.exists():
        with _opened(archive, member) as file:
            write_whole(path, _packed(file))
    return place


def _packed(file: IO[bytes]) -> Iterator[bytes]:
    """The bytes compressed, without a time in them; as they are if they are compressed."""
    head = file.read(4)
    file.seek(0)
    if head.startswith(_PACKED):
        while chunk := file.read(_CHUNK):
            yield chunk
        return
    packer = zlib.compressobj(wbits=_GZIP)
    while chunk := file.read(_CHUNK):
        yield packer.compress(chunk)
    yield packer.flush()


def _text(archive: tarfile.TarFile, member: str) -> bytes:
    with _opened(archive, member) as file:
        return file.read(_MOST_TEXT)


def _opened(archive: tarfile.TarFile, member: str) -> IO[bytes]:
    """Follows links within the archive: older engines write a layer once."""
    file = archive.extractfile(member)
    if file is None:
        raise KeyError(member)
    return file
