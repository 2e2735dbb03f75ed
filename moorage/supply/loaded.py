"""The bundle that this checkout was given: what pip, apt, the engine and skopeo are told of it.

Each function answers for one kind of thing, with nothing if no bundle is loaded or the bundle has
it not; whoever asks goes to the network then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from moorage.files import user_cache
from moorage.supply import manifest
from moorage.supply.manifest import BundleManifest, EngineImage

WHOLE = ".whole"
SOURCES, LISTS = "apt/sources.list", "apt/lists"


@dataclass(frozen=True)
class Supply:
    """A bundle that was unpacked whole into ``folder``, which is named after its id."""

    folder: Path
    manifest: BundleManifest


class SuppliedImage(NamedTuple):
    """An image for the engine, its files below ``folder``."""

    image: EngineImage
    folder: Path


def cache() -> Path:
    """Where bundles are unpacked."""
    return user_cache() / "bundle"


def pointer(root: Path) -> Path:
    """The file of a checkout that names its bundle's folder."""
    return root / ".moorage" / "bundle"


def current(root: Path) -> Supply | None:
    """The bundle that the checkout in ``root`` takes things from; None if there is none."""
    try:
        folder = Path(pointer(root).read_text().strip())
        content = (folder / manifest.NAME).read_bytes()
        whole = (folder / WHOLE).exists()
    except (OSError, ValueError):
        return None
    if not whole or manifest.identity(content) != folder.name:
        return None
    return Supply(folder, manifest.parse(content, str(folder / manifest.NAME)))


def pip_words(root: Path, lock: Path) -> list[str]:
    """What pip is told to find the wheels of ``lock``; without these words it asks its index."""
    found = current(root)
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    locks = (found.manifest.locks or {}) if found else {}
    folder = next((manifest.LOCKS.get(name) for name, one in locks.items() if one == digest), None)
    if found is None or folder is None:
        return []
    # --isolated: neither the user's own index nor his folders.
    return ["--isolated", "--no-index", "--find-links", str(found.folder / folder)]


def apt_words(root: Path, packages: Sequence[str]) -> list[str]:
    """What apt is told to install ``packages`` from the bundle alone, if it has all of them.

    Trusted as a file: each byte was compared with the digest in the manifest when it was unpacked.
    """
    found = current(root)
    if found is None or not set(packages) <= set(found.manifest.packages):
        return []
    return apt_options(found.folder)


def apt_options(folder: Path) -> list[str]:
    """apt's options for a folder with ``apt/sources.list``: no other source counts."""
    options = {
        "Dir::Etc::SourceList": folder / SOURCES,
        "Dir::Etc::SourceParts": "-",
        "Dir::State::Lists": folder / LISTS,
        "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": "",
        "Acquire::Languages": "none",
        # Its own user may not read a folder of root's or of the user's.
        "APT::Sandbox::User": "root",
    }
    return [word for key, value in options.items() for word in ("-o", f"{key}={value}")]


def apt_line(folder: Path) -> str:
    """The only line of ``apt/sources.list``."""
    return f"deb [trusted=yes] file:{quote(str(folder / manifest.DEBS))} ./\n"


def engine_image(root: Path, *names: str) -> SuppliedImage | None:
    """The image for the engine of the first of ``names`` that the bundle has."""
    found = current(root)
    images = {one.name: one for one in found.manifest.engine} if found else {}
    image = next((images[name] for name in names if name in images), None)
    return SuppliedImage(image, found.folder) if found and image else None


def held(root: Path) -> dict[str, str]:
    """The images that were asked for when the bundle was made: digests by reference."""
    found = current(root)
    return {one.reference: one.digest for one in found.manifest.images} if found else {}


def copied(root: Path, digest: str) -> str:
    """skopeo's word for the held image of that digest: a folder as skopeo's own copies are.

    Not an OCI layout: skopeo finds no image of Docker's older kinds in one.
    """
    found = current(root)
    return f"dir:{image_folder(found.folder, digest)}" if found else ""


def image_folder(folder: Path, digest: str) -> Path:
    """Where links to all that an image has are, by the names that skopeo looks for."""
    return folder / manifest.IMAGES / "by-digest" / digest.removeprefix("sha256:")
