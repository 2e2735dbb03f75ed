"""Images of the loaded bundle, put into the engine: under their names, as if they had been made."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from moorage.docker import building, pulled
from moorage.errors import MoorageError
from moorage.supply import loaded

if TYPE_CHECKING:
    from docker import DockerClient

    from moorage.output import Progress
    from moorage.settings import Settings
    from moorage.supply.manifest import EngineImage

_CHUNK = 1 << 20


def known(settings: Settings, *names: str) -> str:
    """The first of ``names`` that the loaded bundle has; "" if it has none."""
    found = loaded.engine_image(settings.root, *names)
    return found.image.name if found else ""


def bring(settings: Settings, client: DockerClient, progress: Progress, *names: str) -> str:
    """Puts the first of ``names`` that the loaded bundle has into the engine; returns it, or "".

    Raises MoorageError with the engine's words.
    """
    found = loaded.engine_image(settings.root, *names)
    if found is None:
        return ""
    name = found.image.name
    if building.exists(client, name):
        return name
    with progress(f"loading {name} from the bundle"):
        said = client.api.load_image(archive(*found))  # type: ignore[no-untyped-call]
        errors = [str(event["error"]) for event in said or () if "error" in event]
        if errors or not building.exists(client, name):
            raise MoorageError(
                "import-failed",
                f"the engine refused the image {name} of the bundle",
                cause=" ".join(errors) or "it said nothing",
                cure="is its disk full? docker system df",
            )
        pulled.note(settings, name)
    return name


def archive(image: EngineImage, folder: Path) -> Iterator[bytes]:
    """An archive of the image as ``docker load`` takes it, from the files below ``folder``.

    https://github.com/moby/docker-image-spec; layers may be compressed.
    """
    row = {"Config": image.config, "RepoTags": [image.name], "Layers": list(image.layers)}
    yield from _member("manifest.json", json.dumps([row]).encode())
    for path in dict.fromkeys((image.config, *image.layers)):
        yield from _file(path, folder / path)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _member(name: str, content: bytes) -> Iterator[bytes]:
    yield _header(name, len(content))
    yield content + bytes(-len(content) % tarfile.BLOCKSIZE)


def _file(name: str, path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        yield _header(name, size)
        while chunk := file.read(_CHUNK):
            yield chunk
    yield bytes(-size % tarfile.BLOCKSIZE)


def _header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = size
    return member.tobuf(tarfile.GNU_FORMAT)
