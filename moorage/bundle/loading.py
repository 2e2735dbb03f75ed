"""A bundle unpacked into the user's cache, each member judged by its digest before it is used.

What is whole stays whatever happens: a load that was killed, or met a damaged member, is the same
command again. A difference takes what it leaves out from bundles that were loaded before.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from moorage.bundle import checkout, packing, system
from moorage.bundle.packing import BundleMember, Opened
from moorage.errors import SPOILT, MoorageError, Refused
from moorage.files import (
    digest,
    link_or_copy,
    link_to,
    locked_beside,
    private_folder,
    remove_file,
    remove_folder,
    settle,
    write_atomically,
    write_whole,
)
from moorage.supply import loaded, manifest
from moorage.supply.manifest import BundledImage, BundleFile, BundleManifest, System
from moorage.supply.room import room

if TYPE_CHECKING:
    from moorage.output import Progress
    from moorage.settings import Settings


class Damage(NamedTuple):
    """A member that is not as the manifest says; ``found``: what it is instead, in words.

    ``sha256``: "" for a member that no bundle has.
    """

    path: str
    sha256: str
    found: str


class Loaded(NamedTuple):
    """A bundle that is in use. ``unpacked`` and ``shared``: files of this run, by their way."""

    id: str
    folder: Path
    manifest: BundleManifest
    changed: bool
    unpacked: int = 0
    shared: int = 0


def judge(one: BundleManifest, here: System, locks: dict[str, str], place: str) -> None:
    """Raises Refused for a bundle of another system or version than this machine and checkout."""
    if (one.system.name, one.system.architecture) != (here.name, here.architecture):
        raise Refused(
            "bundle-system",
            f"{place} was made for another system",
            cause=f"it is for {one.system}, and this is {here}",
            cure="make it on a machine of the same release and architecture",
            path=place,
        )
    differ = [name for name, digest in locks.items() if (one.locks or {}).get(name) != digest]
    if differ:
        raise Refused(
            "bundle-version",
            f"{place} is a bundle of another version",
            cause=f"{differ[0]} of this checkout is another one; the bundle is of {one.version},"
            f" commit {one.commit[:12]}",
            cure=f"begin in an empty folder: tar -xf {place} run && ./run --bundle {place} inv up",
            path=place,
        )


def look(settings: Settings, path: Path) -> tuple[Opened, Loaded]:
    """What a load of ``path`` would do. Raises what :func:`load` raises before it writes."""
    one = packing.opened(path)
    judge(one.manifest, system.here(), checkout.locks(settings.root), str(path))
    current = loaded.current(settings.root)
    there = current is not None and current.folder.name == one.id
    return one, Loaded(one.id, loaded.cache() / one.id, one.manifest, not there)


def load(settings: Settings, path: Path, progress: Progress) -> Loaded:
    """Unpacks the bundle ``path`` and lets this checkout take packages and images from it.

    Raises Refused (``bad-bundle``, ``bundle-version``, ``bundle-system``, ``bundle-first``),
    MoorageError (``bundle-damaged``, ``disk-full``).
    """
    one, found = look(settings, path)
    if not found.changed:
        return found
    private_folder(found.folder.parent)
    what = "the bundle could not be unpacked"
    with locked_beside(found.folder), room(found.folder.parent, what):
        private_folder(found.folder)
        unpacked = shared = 0
        if not (found.folder / loaded.WHOLE).exists():
            unpacked, shared = _fill(path, one, found.folder, progress)
        private_folder(loaded.pointer(settings.root).parent)
        write_atomically(loaded.pointer(settings.root), f"{found.folder}\n".encode())
    return found._replace(unpacked=unpacked, shared=shared)


def drop(settings: Settings) -> bool:
    """Takes nothing from a bundle any more, and deletes what it unpacked; whether there was one."""
    pointer = loaded.pointer(settings.root)
    try:
        folder = Path(pointer.read_text().strip())
    except FileNotFoundError:
        return False
    if folder.parent == loaded.cache():
        remove_folder(folder)
    return remove_file(pointer)


def names(image: BundledImage, content: bytes) -> dict[str, str]:
    """The files of an image as skopeo's ``dir:`` layout calls them -> the digests (hex). Pure.

    ``content``: its manifest, or its index, whose manifests have names of their own.
    """
    top = image.digest.removeprefix("sha256:")
    found = {**{name: name for name in image.blobs}, "manifest.json": top}
    try:
        rows = json.loads(content).get("manifests", ())
        inner = [str(row["digest"]).removeprefix("sha256:") for row in rows]
    except (*SPOILT, RecursionError):
        inner = []
    return found | {f"{name}.manifest.json": name for name in inner if name in image.blobs}


def damaged(path: Path, found: list[Damage]) -> MoorageError:
    """The error for a bundle with members that are not whole. Pure."""
    first, count = found[0], len(found)
    more = f", and {count - 1} more" if count > 1 else ""
    what = f"is not sha256:{first.sha256}" if first.sha256 else "does not belong to it"
    return MoorageError(
        "bundle-damaged",
        f"{path} is cut or changed: {first.path} {what}{more}",
        cause=f"{first.path}: {first.found}",
        cure="copy the file again and compare sha256sum of both; then run the same command again:"
        " what is whole stays",
        path=str(path),
    )


def _fill(path: Path, one: Opened, folder: Path, progress: Progress) -> tuple[int, int]:
    """Brings every file of the manifest into ``folder``; how many came from where."""
    write_atomically(folder / manifest.NAME, one.content, mode=0o644)
    with progress("unpacking the bundle") as update:
        missing = dict(one.manifest.by_path)
        damage: list[Damage] = []
        unpacked, done = 0, 0
        for member in packing.members(path):
            file = missing.pop(member.name, None)
            if file is None:
                damage.append(Damage(member.name, "", "its manifest does not name it"))
                continue
            if not _whole(folder / file.path, file):
                why = _unpack(member, file, folder)
                damage += [Damage(file.path, file.sha256, why)] if why else []
                unpacked += not why
            done += file.size
            update(done=done, total=one.manifest.size)
    with progress("comparing with bundles that were loaded before"):
        left, shared = _shared(missing, folder)
    if left and one.manifest.since and not damage:
        raise _needs_first(path, one.manifest, left[0])
    damage += [Damage(file.path, file.sha256, "it is not there") for file in left]
    if damage:
        raise damaged(path, damage)
    _finish(one.manifest, folder)
    return unpacked, shared


def _unpack(member: BundleMember, file: BundleFile, folder: Path) -> str:
    """Why the member could not be unpacked; "" once it is there."""
    if member.content is None:
        return "it is not a regular file"
    if member.size != file.size:
        return f"it has {member.size} bytes instead of {file.size}"
    try:
        found = write_whole(folder / file.path, member.chunks(), file.sha256)
    except (tarfile.TarError, EOFError):
        return f"the file ends in the middle of its {file.size} bytes"
    return "" if found == file.sha256 else f"its content is sha256:{found}"


def _shared(missing: dict[str, BundleFile], folder: Path) -> tuple[list[BundleFile], int]:
    """Links what other unpacked bundles have; what nobody has, and how many were linked."""
    others = dict(_others(folder)) if missing else {}
    left, shared = [], 0
    for file in missing.values():
        if _whole(folder / file.path, file):
            continue
        source = next((one for one in others.get(file.sha256, ()) if _whole(one, file)), None)
        if source is None:
            left.append(file)
            continue
        link_or_copy(source, folder / file.path)
        shared += 1
    return left, shared


def _others(folder: Path) -> Iterator[tuple[str, list[Path]]]:
    """Files of other bundles in the cache, by digest."""
    found: dict[str, list[Path]] = {}
    for other in folder.parent.glob(f"*/{manifest.NAME}"):
        if other.parent != folder:
            try:
                files = manifest.parse(other.read_bytes(), str(other)).files
            except (OSError, MoorageError):
                continue
            for file in files:
                found.setdefault(file.sha256, []).append(other.parent / file.path)
    yield from found.items()


def _finish(one: BundleManifest, folder: Path) -> None:
    """What is derived from the manifest; the mark comes last, when all else is on the disk."""
    private_folder(folder / loaded.LISTS / "partial")
    write_atomically(folder / loaded.SOURCES, loaded.apt_line(folder).encode(), mode=0o644)
    for image in one.images:
        place = loaded.image_folder(folder, image.digest)
        content = (folder / manifest.BLOBS / image.digest.removeprefix("sha256:")).read_bytes()
        for name, blob in names(image, content).items():
            link_to(place / name, Path("../../blobs/sha256") / blob)
    settle()
    write_atomically(folder / loaded.WHOLE, b"")


def _whole(path: Path, file: BundleFile) -> bool:
    try:
        return path.stat().st_size == file.size and digest(path) == file.sha256
    except OSError:
        return False


def _needs_first(path: Path, one: BundleManifest, file: BundleFile) -> Refused:
    return Refused(
        "bundle-first",
        f"{path} is the difference to another bundle, which is not loaded here",
        cause=f"it leaves out {file.path} (sha256:{file.sha256}), which the bundle with the id"
        f" {one.since} has",
        cure="inv bundle.load that one first, then this one",
        path=str(path),
    )
