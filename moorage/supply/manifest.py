"""``manifest.json`` of a bundle: what is in it, by digest. Pure: text in, values out, and back.

One file per line, in the order of the tar: `run` reads it by sed before any Python is there.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from moorage.errors import SPOILT, Refused

FORMAT = 1
NAME, SUM = "manifest.json", "manifest.sha256"
REPOSITORY, RUN = "repository.tar", "run"
_SETTINGS = r"invoke(?:\.[a-z0-9-]+)?\.yaml"
WHEELS, DEBS, LAYERS, CONFIGS, IMAGES = (
    *("wheels", "debs", "engine/layers", "engine/configs", "images"),
)
BLOBS = f"{IMAGES}/blobs/sha256"
# By path in the repository, the folder of each lock's wheels: pip would take one that another lock
# names for the best, before it looks at hashes.
LOCKS = {
    "requirements.lock": f"{WHEELS}/own",
    "agent/requirements.lock": f"{WHEELS}/agents",
    "serve_hostname/requirements.lock": f"{WHEELS}/demo",
}
# Where a member may lie; each part begins with a letter or a digit, so none leads out.
_PART = r"[A-Za-z0-9][A-Za-z0-9._+~%-]*"
_FOLDERS = "|".join((*LOCKS.values(), DEBS, LAYERS, CONFIGS, BLOBS))
_PART_ALONE = re.compile(_PART)
_PATH = re.compile(rf"(?:{RUN}|{REPOSITORY}|{_SETTINGS}|(?:{_FOLDERS})/{_PART})")
_HEX = re.compile(r"[0-9a-f]{64}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MOST_FILES = 100_000


@dataclass(frozen=True)
class BundleFile:
    """A member of a bundle: its path, its SHA-256 in hexadecimal, and its bytes' number."""

    path: str
    sha256: str
    size: int


@dataclass(frozen=True)
class EngineImage:
    """An image for the engine: its name there, and its files in the bundle."""

    name: str
    config: str
    layers: tuple[str, ...]


@dataclass(frozen=True)
class BundledImage:
    """An image that was asked for: its reference, and what it was then.

    ``blobs``: the digests (hex) of all that it needs, its manifests among them.
    """

    reference: str
    digest: str
    blobs: tuple[str, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """Where they are in a bundle."""
        return tuple(f"{BLOBS}/{name}" for name in self.blobs)


@dataclass(frozen=True)
class System:
    """A machine as packages and wheels see it: Debian's release, architecture, Python."""

    name: str
    architecture: str
    python: str

    def __str__(self) -> str:
        return f"{self.name} on {self.architecture} with Python {self.python}"


@dataclass(frozen=True)
class BundleManifest:
    """What a bundle holds. ``since``: the id of the one that has to be loaded before, or "".

    ``locks``: by path, the digests of the locks whose wheels are in it. ``update``: whether a tag
    that moved since is to be moved in the registry too.
    """

    version: str
    commit: str
    system: System
    files: tuple[BundleFile, ...]
    packages: tuple[str, ...] = ()
    locks: Mapping[str, str] | None = None
    engine: tuple[EngineImage, ...] = ()
    images: tuple[BundledImage, ...] = ()
    since: str = ""
    update: bool = False

    @property
    def by_path(self) -> dict[str, BundleFile]:
        return {one.path: one for one in self.files}

    @property
    def size(self) -> int:
        return sum(one.size for one in self.files)


def written(one: BundleManifest) -> bytes:
    """The bytes of ``manifest.json``: the same manifest gives the same bytes."""
    head = {
        "format": FORMAT,
        "version": one.version,
        "commit": one.commit,
        "system": asdict(one.system),
        "since": one.since,
        "update": one.update,
        "packages": list(one.packages),
        "locks": dict(sorted((one.locks or {}).items())),
        "engine": [asdict(image) for image in one.engine],
        "images": [asdict(image) for image in one.images],
    }
    lines = [f"{json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
    rows = ",\n".join(json.dumps(asdict(file)) for file in one.files)
    return "\n".join(["{", *lines, '"files": [', rows, "]}", ""]).encode()


def identity(content: bytes) -> str:
    """A bundle's id: the digest of its manifest, which has the digests of all else."""
    return hashlib.sha256(content).hexdigest()


def parse(content: bytes, place: str) -> BundleManifest:
    """``content`` of ``place`` (for errors). Raises Refused: ``bundle-version``, ``bad-bundle``."""
    try:
        found = json.loads(content)
        number = found["format"]
    except (*SPOILT, RecursionError) as problem:
        raise bad(place, f"its {NAME} cannot be read: {problem}") from None
    if number != FORMAT:
        raise Refused(
            "bundle-version",
            f"{place} is a bundle of another version",
            cause=f"its format is {number!r}, and this Moorage reads {FORMAT}",
            cure=f"begin in an empty folder: tar -xf {place} run && ./run --bundle {place} inv up",
            path=place,
        )
    try:
        return _parsed(found)
    except (*SPOILT, RecursionError) as problem:
        raise bad(place, f"its {NAME} is not as Moorage writes it: {problem}") from None


def bad(place: str, why: str) -> Refused:
    """The refusal of a file that cannot be read as a bundle at all."""
    return Refused(
        "bad-bundle",
        f"{place} is not a bundle of Moorage, or it is damaged",
        cause=why,
        cure="compare sha256sum of both copies, and copy it again; inv bundle.save FILE makes one",
        path=place,
    )


def _parsed(found: dict[str, Any]) -> BundleManifest:
    """Raises what a wrong document raises: ValueError, KeyError, TypeError, AttributeError."""
    files = tuple(_file(row) for row in found["files"])
    names = {one.path for one in files}
    if len(names) != len(files) or len(files) > _MOST_FILES:
        raise ValueError("a member is listed twice, or there are too many")
    return BundleManifest(
        version=_text(found["version"]),
        commit=_text(found["commit"]),
        system=System(**{key: _text(value) for key, value in found["system"].items()}),
        files=files,
        packages=tuple(_fits(_PART_ALONE, one) for one in found["packages"]),
        locks={_text(key): _fits(_HEX, value) for key, value in found["locks"].items()},
        engine=tuple(_engine(row, names) for row in found["engine"]),
        images=tuple(image(row, names) for row in found["images"]),
        since=_fits(_HEX, found["since"]) if found["since"] else "",
        update=bool(found["update"]),
    )


def _file(row: dict[str, Any]) -> BundleFile:
    return BundleFile(_fits(_PATH, row["path"]), _fits(_HEX, row["sha256"]), _size(row["size"]))


def _size(found: Any) -> int:
    if not isinstance(found, int) or found < 0:
        raise ValueError(f"{found!r} is not a size")
    return found


def _engine(row: dict[str, Any], names: set[str]) -> EngineImage:
    found = EngineImage(_text(row["name"]), _text(row["config"]), tuple(map(_text, row["layers"])))
    if missing := {found.config, *found.layers} - names:
        raise ValueError(f"{sorted(missing)[0]} of {found.name} is not listed")
    return found


def image(row: dict[str, Any], names: Collection[str] | None = None) -> BundledImage:
    """An image's row. ``names``: the members there are. Raises ValueError, KeyError, TypeError."""
    found = BundledImage(
        _text(row["reference"]),
        _fits(_DIGEST, row["digest"]),
        tuple(_fits(_HEX, one) for one in row["blobs"]),
    )
    if found.digest.removeprefix("sha256:") not in found.blobs:
        raise ValueError(f"{found.digest} of {found.reference} is not among its blobs")
    if names is not None and (missing := set(found.paths).difference(names)):
        raise ValueError(f"{sorted(missing)[0]} of {found.reference} is not listed")
    return found


def _text(found: Any) -> str:
    if not isinstance(found, str) or not found.isprintable():
        raise ValueError(f"{found!r} is not a text")
    return found


def _fits(pattern: re.Pattern[str], found: Any) -> str:
    if not isinstance(found, str) or not pattern.fullmatch(found):
        raise ValueError(f"{str(found)[:80]!r} is not allowed there")
    return found
