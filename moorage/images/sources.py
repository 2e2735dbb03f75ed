"""What can be pushed: an image of this engine, an archive, an OCI layout. Names are read here.

https://github.com/opencontainers/image-spec/blob/main/image-layout.md; an archive of `docker save`
has ``manifest.json``: https://github.com/moby/docker-image-spec
"""

from __future__ import annotations

import json
import shlex
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moorage import references
from moorage.errors import MoorageError, Refused
from moorage.files import passing_folder, user_path, write_stream
from moorage.references import Reference

if TYPE_CHECKING:
    from moorage.settings import Settings

_MOST = 16 << 20
_NAME = "io.containerd.image.name"
_TAG = "org.opencontainers.image.ref.name"
# What skopeo passes over when it looks for a tag: "no descriptor found for reference" (1.9.3).
_HIDDEN = frozenset(
    f"application/vnd.docker.distribution.manifest{kind}.v2+json" for kind in ("", ".list")
)


@dataclass(frozen=True)
class Source:
    """One image to be pushed: skopeo's word for it, and where it goes.

    ``exactly``: with every platform, its digests kept; an engine's layers are packed on the way.
    """

    word: str
    target: Reference
    exactly: bool


def target(settings: Settings, name: str) -> Reference:
    """Where an image of that name goes in our registry. Raises Refused (``bad-reference``).

    A name without a registry, or one that `podman build` gave (localhost/…), goes under its own
    path; one of another registry lands where ``image.mirror`` would put it.
    """
    found = references.parse(name.removeprefix("localhost/"), home=settings.registry_name)
    return references.landing(settings, replace(found, digest="", tag=found.tag or "latest"))


def is_file(name: str) -> bool:
    """Whether ``name`` is an archive or a layout here, not an image of the engine."""
    if name.startswith(("/", "./", "../", "~")):
        return True
    try:
        path = Path(name)
        return path.is_file() or (path / "oci-layout").is_file()
    except OSError:  # no file's name is as long
        return False


def of_file(settings: Settings, name: str, wanted: str) -> tuple[Source, ...]:
    """The images in an archive or a layout. ``wanted``: where its only image goes, if said.

    Raises Refused: ``no-such-archive``, ``bad-image-archive``, ``bad-reference``.
    """
    path = user_path(name).resolve()
    if ":" in str(path):
        raise _bad(path, "its path has a colon, at which skopeo would cut it", "rename it")
    if path.is_dir():
        index = _parsed(path, _read(path / "index.json"))
        return _of_index(settings, path, "oci", index, wanted)
    members = _members(path)
    if "index.json" in members and "oci-layout" in members:
        index = _parsed(path, members["index.json"])
        rows = _rows(index)
        by_tag = len(rows) < 2 or not (any(map(_is_hidden, rows)) or _shared(rows))
        if "manifest.json" in members and not by_tag:
            return _of_docker(settings, path, _parsed(path, members["manifest.json"]), wanted)
        return _of_index(settings, path, "oci-archive", index, wanted)
    if "manifest.json" in members:
        return _of_docker(settings, path, _parsed(path, members["manifest.json"]), wanted)
    raise _bad(path, "it has neither index.json with oci-layout nor manifest.json")


@contextmanager
def of_engine(settings: Settings, name: str, wanted: str, folder: Path) -> Iterator[Source]:
    """An image of this machine's engine, saved below ``folder`` for the length of a block.

    Raises MoorageError if no engine answers, Refused (``no-image``) if it has no such image.
    """
    from docker.errors import ImageNotFound, NullResource

    from moorage.docker import engine

    place = target(settings, wanted or name)
    client = engine.connect(settings)
    try:
        image = client.images.get(name)
        with passing_folder(folder, "saved-") as passing:
            file = passing / "image.tar"
            write_stream(file, image.save(named=False))
            yield Source(f"docker-archive:{file}", place, exactly=False)
    except (ImageNotFound, NullResource):
        raise Refused(
            "no-image",
            f"there is no image {name} to push",
            cause="this engine has none of that name, and there is no such file",
            cure="docker image ls shows its images; name an archive or a layout by its path",
        ) from None
    finally:
        client.close()


def _of_index(
    settings: Settings, path: Path, transport: str, index: Any, wanted: str
) -> tuple[Source, ...]:
    images = _rows(index)
    if not images:
        raise _bad(path, "its index.json lists no image")
    shared = _shared(images)
    sources = []
    for image in images:
        tag = _annotation(image, _TAG)
        told = _annotation(image, _NAME) or (tag if set("/:") & set(tag) else "")
        name = wanted or _familiar(told)
        if tag in shared:
            raise _bad(
                path,
                f"several of its images have the tag {tag}, and skopeo takes the first for each",
                "one layout per image, or docker save, whose archive has a manifest.json as well",
            )
        hidden = bool(tag) and _is_hidden(image)
        if hidden and len(images) > 1:
            raise _bad(
                path,
                f"skopeo finds no {tag} among its images: that manifest is of Docker's kind",
                "one layout per image, or OCI's kinds: docker buildx build "
                "--output=type=oci,oci-mediatypes=true",
            )
        word = f"{transport}:{path}{f':{tag}' if tag and not hidden else ''}"
        sources.append(Source(word, _named(settings, path, name), exactly=True))
    return _one_if(path, wanted, sources)


def _rows(index: Any) -> list[dict[str, Any]]:
    """What an ``index.json`` lists."""
    found = index.get("manifests") if isinstance(index, dict) else None
    return [one for one in _list(found) if isinstance(one, dict)]


def _annotation(image: dict[str, Any], key: str) -> str:
    said = image.get("annotations")
    return _text(said.get(key)) if isinstance(said, dict) else ""


def _shared(images: list[dict[str, Any]]) -> frozenset[str]:
    """The tags that stand for several images, as `ctr images export` of app:1 and db:1 has 1."""
    digests: dict[str, set[str]] = {}
    for image in images:
        digests.setdefault(_annotation(image, _TAG), set()).add(_text(image.get("digest")))
    return frozenset(tag for tag, held in digests.items() if tag and len(held) > 1)


def _is_hidden(image: dict[str, Any]) -> bool:
    return _text(image.get("mediaType")) in _HIDDEN


def _of_docker(settings: Settings, path: Path, manifest: Any, wanted: str) -> tuple[Source, ...]:
    rows = [one for one in _list(manifest) if isinstance(one, dict)]
    sources = [
        Source(f"docker-archive:{path}:@{place}", _named(settings, path, name), exactly=False)
        for place, row in enumerate(rows)
        for name in ([wanted] if wanted else map(_familiar, _tags(row) or [""]))
    ]
    if not sources:
        raise _bad(path, "its manifest.json lists no image")
    return _one_if(path, wanted, sources)


def _familiar(name: str) -> str:
    """As Docker shows a name: programs write docker.io before those that have no registry."""
    short = name.removeprefix(f"{references.HUB}/")
    return short.removeprefix("library/") if short != name else name


def _tags(row: dict[str, Any]) -> list[str]:
    return [tag for tag in _list(row.get("RepoTags")) if isinstance(tag, str)]


def _list(found: Any) -> list[Any]:
    return found if isinstance(found, list) else []


def _text(found: Any) -> str:
    return found if isinstance(found, str) else ""


def _one_if(path: Path, wanted: str, sources: list[Source]) -> tuple[Source, ...]:
    if wanted and len(sources) > 1:
        raise _bad(path, f"it has {len(sources)} images, and --target is for one", "leave it out")
    return tuple(sources)


def _named(settings: Settings, path: Path, name: str) -> Reference:
    if not name:
        raise _bad(path, "it does not say what its image is called", "name it: --target=NAME:TAG")
    return target(settings, name)


def _members(path: Path) -> dict[str, bytes]:
    """The few files of an archive that say what is in it; skopeo reads the others."""
    wanted = {"index.json", "oci-layout", "manifest.json"}
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                file = archive.extractfile(member) if name in wanted and member.isfile() else None
                if file is not None:
                    found[name] = file.read(_MOST)
    except FileNotFoundError:
        raise _absent(path) from None
    except (tarfile.TarError, EOFError, OSError, ValueError) as problem:
        raise _bad(path, f"it is not a whole tar archive: {problem}") from None
    return found


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MOST)
    except OSError as problem:
        raise _bad(path.parent, f"{path.name}: {problem.strerror}") from None


def _parsed(path: Path, content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as problem:
        raise _bad(path, f"its index is not JSON: {problem}") from None


def _absent(path: Path) -> MoorageError:
    return Refused(
        "bad-image-archive",
        f"there is no {path}",
        cause="no archive, no OCI layout and no image of this engine has that name",
        cure=f"ls -l {shlex.quote(str(path.parent))}",
        path=str(path),
    )


def _bad(path: Path, why: str, cure: str = "") -> Refused:
    return Refused(
        "bad-image-archive",
        f"{path} cannot be pushed",
        cause=why,
        cure=cure or "give an archive (docker save, skopeo copy) or an OCI layout",
        path=str(path),
    )
