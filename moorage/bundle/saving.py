"""A bundle made: each kind of thing into a folder beside it, then all of it into one tar.

The folder (``FILE.parts``) stays until the tar is whole, so a run that was killed, or an image that
failed, is the same command again. An image that fails keeps no other from being fetched, and keeps
the tar from being written: half a bundle shows only where nothing can be added.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from agent.wire.version import __version__
from moorage.actions import Action
from moorage.bundle import checkout, engine_images, fetching, packages, packing, system, wheels
from moorage.bundle.fetching import FetchWish
from moorage.docker import debian, engine
from moorage.errors import MoorageError, Refused
from moorage.files import (
    link_or_copy,
    passing_folder,
    private_folder,
    remove_folder,
    write_atomically,
)
from moorage.images import skopeo
from moorage.images.outcome import ImageOutcome
from moorage.mix import ContainerdLine, parse_mix
from moorage.references import Reference
from moorage.supply import manifest
from moorage.supply.manifest import BundleFile, BundleManifest, EngineImage
from moorage.supply.room import room

if TYPE_CHECKING:
    from docker import DockerClient

    from moorage.output import Progress
    from moorage.settings import Settings


@dataclass(frozen=True)
class SaveWish:
    """What goes into the bundle ``file``. ``since``: the bundle whose members are left out."""

    file: Path
    images: tuple[Reference, ...] = ()
    authfile: str = ""
    platform: str = ""
    update: bool = False
    at_once: int = 4
    since: Path | None = None


@dataclass(frozen=True)
class BundlePart:
    """A kind of thing in a bundle: how many, and their bytes; None: not known beforehand."""

    what: str
    count: int
    size: int | None


class Saved(NamedTuple):
    """The bundle's id ("" if none was written), what is in it, and what became of each image."""

    id: str
    manifest: BundleManifest | None
    left_out: int
    outcomes: list[ImageOutcome]


def pending(settings: Settings, wish: SaveWish) -> list[Action]:
    """What has to be installed or started here to make a bundle.

    Raises Refused if it cannot be, or if there is no commit (``not-committed``).
    """
    checkout.commit(settings)
    steps = [*engine.pending(settings), *debian.pending(settings)]
    return [*steps, *(skopeo.pending() if wish.images else [])]


def first_of(wish: SaveWish) -> packing.Opened | None:
    """The bundle that this one is a difference to. Raises Refused for a bad one."""
    return packing.opened(wish.since) if wish.since is not None else None


def foretold(
    settings: Settings, wish: SaveWish, progress: Progress
) -> tuple[list[BundlePart], list[ImageOutcome]]:
    """What would go in, and the digests of the images that were asked for. Writes no bundle."""
    before = first_of(wish)
    require_place(wish.file)
    with progress("asking apt"), passing_folder(wish.file.parent, f".{wish.file.name}.") as work:
        needed = packages.needed(work)
    outcomes: list[ImageOutcome] = []
    if wish.images:
        with skopeo.access(settings, None, wish.authfile) as allowed:
            outcomes = fetching.asked(wish.images, allowed, _fetch_wish(wish, before), progress)
    names = (1 if settings.registry.external else 3) + len(set(_lines(settings)))
    return [
        BundlePart("repository at this commit", 1, None),
        BundlePart("wheels of the locks", len(manifest.LOCKS), None),
        BundlePart("packages", len(needed), sum(one.size for one in needed)),
        BundlePart("images for the engine", names, None),
        BundlePart("images asked for", len(wish.images), None),
    ], outcomes


def save(settings: Settings, client: DockerClient, wish: SaveWish, progress: Progress) -> Saved:
    """Makes the bundle ``wish.file``. Raises MoorageError for what stops it as a whole."""
    before = first_of(wish)
    had = before.manifest if before else None
    require_place(wish.file)
    parts = private_folder(wish.file.with_name(f"{wish.file.name}.parts"))
    with room(parts, "the bundle could not be made"):
        commit = checkout.commit(settings)
        with progress("packing the repository"):
            checkout.write(settings, commit, parts)
        outcomes = _images(settings, wish, before, parts, progress)
        if any(one.fault is not None for one in outcomes):
            return Saved("", None, 0, outcomes)
        names = _engine_names(settings, client, progress)
        with progress("saving the engine's images") as update:
            engines = engine_images.save(client, names, parts, update, had.engine if had else ())
        with progress("fetching wheels"):
            carried = wheels.fetch(settings, client, engines[0], parts, had)
        with progress("fetching packages"):
            carried += _packages(parts, had)
        with progress("packing the bundle"):
            one = _described(settings, wish, had, parts, commit, engines, carried)
            if before:
                one = replace(one, since=before.id)
            absent = frozenset(before.manifest.files if before else ())
            content = packing.pack(wish.file, one, parts, absent)
    remove_folder(parts)
    left_out = sum(file in absent for file in one.files)
    return Saved(manifest.identity(content), one, left_out, outcomes)


def summed(one: BundleManifest) -> list[BundlePart]:
    """What is in a bundle, by kind. Pure."""
    kinds: dict[str, Callable[[str], bool]] = {
        "repository at this commit": lambda path: path == manifest.REPOSITORY,
        "wheels of the locks": lambda path: path.startswith(manifest.WHEELS),
        "packages": lambda path: path.endswith(".deb"),
    }
    rows = [
        BundlePart(what, *_counted([file for file in one.files if fits(file.path)]))
        for what, fits in kinds.items()
    ]
    engines = [file for file in one.files if file.path.startswith("engine/")]
    images = [file for file in one.files if file.path.startswith(f"{manifest.IMAGES}/")]
    return [
        *rows,
        BundlePart("images for the engine", len(one.engine), _counted(engines)[1]),
        BundlePart("images asked for", len(one.images), _counted(images)[1]),
    ]


def _counted(files: Sequence[BundleFile]) -> tuple[int, int]:
    return len(files), sum(file.size for file in files)


def require_place(path: Path) -> None:
    """Raises Refused (``wrong-use``) if the bundle cannot be there."""
    if path.is_dir() or not path.parent.is_dir():
        raise Refused(
            "wrong-use",
            f"{path} cannot be written",
            cause="it is a folder" if path.is_dir() else f"there is no folder {path.parent}",
            cure="inv bundle.save FILE, in a folder with room for twice the bundle",
            path=str(path),
        )


def _fetch_wish(wish: SaveWish, before: packing.Opened | None) -> FetchWish:
    there = {one.reference: one for one in before.manifest.images} if before else {}
    return FetchWish(wish.platform, wish.update, wish.at_once, there)


def _images(
    settings: Settings,
    wish: SaveWish,
    before: packing.Opened | None,
    parts: Path,
    progress: Progress,
) -> list[ImageOutcome]:
    if not wish.images:
        return []
    with skopeo.access(settings, None, wish.authfile) as allowed:
        return fetching.fetch(wish.images, allowed, _fetch_wish(wish, before), parts, progress)


def _engine_names(settings: Settings, client: DockerClient, progress: Progress) -> list[str]:
    """Images that are made here unless they are there: the demo's base first, then the others."""
    from lab.machines import images as nodes
    from moorage import images
    from moorage.registry import image

    names = [images.base_image(settings, client, progress)]
    own = () if settings.registry.external else (image.REGISTRY, image.FRONT)
    names += [image.ensure(settings, client, progress, one)[0] for one in own]
    lines = _lines(settings)
    if nodes.missing(settings, client, lines):
        base = nodes.base(settings, client, progress)
        with progress("building the lab's nodes") as update:
            nodes.ensure(settings, client, lines, base, update)
    return [*names, *(nodes.reference(settings, line) for line in dict.fromkeys(lines))]


def _lines(settings: Settings) -> tuple[ContainerdLine, ...]:
    """The lab's, unless there are nodes of the user's: then no lab is made."""
    return () if settings.nodes.hosts else parse_mix(settings.lab.nodes, source="lab.nodes")


def _packages(parts: Path, before: BundleManifest | None) -> list[BundleFile]:
    """The packages and their list, as an archive in one folder; those that ``before`` has."""
    needed = packages.needed(parts / "apt")
    absent = packages.lacking(needed, before)
    try:
        fetched = packages.fetch(parts / "apt", absent)
    except MoorageError as problem:
        raise fetching.cured(problem, parts) from None
    remove_folder(parts / manifest.DEBS)
    for one, path in zip(absent, fetched, strict=True):
        link_or_copy(path, parts / one.path)
    private_folder(parts / manifest.DEBS)
    path = parts / manifest.DEBS / packages.LIST
    write_atomically(path, packages.listed(needed), mode=0o644)
    there = before.by_path if before else {}
    return [there[one.path] for one in needed if one not in absent]


def _described(
    settings: Settings,
    wish: SaveWish,
    before: BundleManifest | None,
    parts: Path,
    commit: str,
    engines: tuple[EngineImage, ...],
    had: Sequence[BundleFile],
) -> BundleManifest:
    """The manifest of what is in ``parts``; of a difference, of what the first bundle has too."""
    there = {one.reference: one for one in before.images} if before else {}
    images = tuple(fetching.noted(parts, image) or there[str(image)] for image in wish.images)
    inner = [path for one in engines for path in (one.config, *one.layers)]
    inner += [path for one in images for path in one.paths]
    paths = [*_paths(settings, parts), *dict.fromkeys(inner)]
    files = packing.described(parts, [path for path in paths if (parts / path).exists()])
    here = {one.path for one in files}
    more = {one.path: one for one in had}
    more |= {path: before.by_path[path] for path in inner if before and path not in here}
    carried = [one for path, one in more.items() if path not in here]
    return BundleManifest(
        version=__version__,
        commit=commit,
        system=system.here(),
        files=(*files, *carried),
        packages=packages.PACKAGES,
        locks=checkout.locks(settings.root),
        engine=engines,
        images=images,
        update=wish.update,
    )


def _paths(settings: Settings, parts: Path) -> list[str]:
    """What comes first in the tar: what `run` needs."""
    folders = [
        f"{name}/{path.name}"
        for name in (*manifest.LOCKS.values(), manifest.DEBS)
        for path in sorted((parts / name).iterdir())
    ]
    return [manifest.RUN, manifest.REPOSITORY, settings.file.name, *folders]
