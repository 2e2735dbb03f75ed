"""The images that are asked for, into the folder a bundle is made in; digests as they are.

Each is copied into a folder of its own and then taken apart into blobs by digest, which images
share. What became of each is noted once it is whole: the same command again goes on from there.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from moorage.errors import SPOILT, MoorageError
from moorage.files import digest, move, passing_folder, private_folder, write_atomically
from moorage.images import several, skopeo
from moorage.images.outcome import ImageOutcome
from moorage.images.skopeo import SkopeoAccess
from moorage.images.upstream import Upstreams, moved
from moorage.output import Progress
from moorage.references import Reference
from moorage.supply import manifest
from moorage.supply.manifest import BLOBS, BundledImage
from moorage.supply.room import full


@dataclass(frozen=True)
class FetchWish:
    """``platform``: that one alone, or ""; ``update``: a tag may have moved; ``at_once``: images.

    ``before``: the images of the first bundle, by reference, if this one is a difference.
    """

    platform: str = ""
    update: bool = False
    at_once: int = 4
    before: Mapping[str, BundledImage] | None = None


def fetch(
    images: Sequence[Reference],
    allowed: SkopeoAccess,
    wish: FetchWish,
    folder: Path,
    progress: Progress,
) -> list[ImageOutcome]:
    """Fetches ``images`` below ``folder``, and returns what became of each."""
    work = _Work(images, allowed, wish, folder)
    return several.each(
        images,
        work.one,
        at_once=wish.at_once,
        stop=work.stop,
        progress=progress,
        title="fetching {images}",
    )


def asked(
    images: Sequence[Reference], allowed: SkopeoAccess, wish: FetchWish, progress: Progress
) -> list[ImageOutcome]:
    """The digests that ``images`` would come by; nothing is fetched."""
    work = _Work(images, allowed, wish, None)
    return several.each(
        images,
        work.judged,
        at_once=wish.at_once,
        stop=work.stop,
        progress=progress,
        title="asking for {images}",
    )


def noted(folder: Path, image: Reference) -> BundledImage | None:
    """What an earlier run noted of ``image``; None if it is not whole."""
    try:
        found = manifest.image(json.loads(_note(folder, image).read_bytes()))
    except SPOILT:
        return None
    whole = all((folder / path).exists() for path in found.paths)
    return found if whole and found.reference == str(image) else None


class _Work:
    """One run: what its threads share. ``folder``: None if nothing is to be fetched."""

    def __init__(
        self,
        images: Sequence[Reference],
        allowed: SkopeoAccess,
        wish: FetchWish,
        folder: Path | None,
    ) -> None:
        self.stop = threading.Event()
        self._allowed, self._wish, self._folder = allowed, wish, folder
        self._upstreams = Upstreams(images, allowed, wish.platform, wish.at_once)

    def one(self, image: Reference) -> ImageOutcome:
        """Fetches one image."""
        try:
            return self._fetched(image)
        except MoorageError as problem:
            return ImageOutcome(str(image), fault=cured(problem, self._folder or Path()).fault)

    def judged(self, image: Reference) -> ImageOutcome:
        """Which digest one image would come by."""
        try:
            digest = self._wanted(image)
        except MoorageError as problem:
            return ImageOutcome(str(image), fault=problem.fault)
        return ImageOutcome(str(image), digest=digest, changed=not self._had(image, digest))

    def _fetched(self, image: Reference) -> ImageOutcome:
        wanted = self._wanted(image)
        folder = self._folder
        if folder is None or self._had(image, wanted):
            return ImageOutcome(str(image), digest=wanted)
        before = noted(folder, image)
        if before is not None and before.digest == wanted:
            return ImageOutcome(str(image), digest=wanted)
        if before is not None and image.tag and not image.digest and not self._wish.update:
            raise moved(image, "an earlier run fetched", _where(before.digest, wanted))
        key = hashlib.sha256(str(image).encode()).hexdigest()[:16]
        with passing_folder(folder / "copies", f"{key}-") as passing:
            skopeo.fetch(replace(image, digest=wanted), passing / "image", self._allowed, self.stop)
            fetched = taken_apart(image, wanted, passing / "image", folder)
        private_folder(folder / "notes")
        write_atomically(_note(folder, image), json.dumps(asdict(fetched)).encode())
        return ImageOutcome(str(image), digest=wanted, changed=True)

    def _wanted(self, image: Reference) -> str:
        wanted = self._upstreams.wanted(image)
        before = (self._wish.before or {}).get(str(image))
        fixed = not image.tag or image.digest or self._wish.update
        if before is not None and before.digest != wanted and not fixed:
            raise moved(image, "the first bundle has", _where(before.digest, wanted))
        return wanted

    def _had(self, image: Reference, digest: str) -> bool:
        before = (self._wish.before or {}).get(str(image))
        return before is not None and before.digest == digest


def cured(problem: MoorageError, folder: Path) -> MoorageError:
    """What went wrong; a full disk with where to make room."""
    if problem.code != "disk-full":
        return problem
    return full(problem.message, problem.fault.cause, folder)


def taken_apart(image: Reference, wanted: str, copy: Path, folder: Path) -> BundledImage:
    """skopeo's copy of an image -> blobs by digest below ``folder``.

    Raises MoorageError (``digest-changed``) for a file that is not what its name says.
    """
    blobs = {}
    for path in sorted(copy.iterdir()):
        name = path.name.removesuffix(".manifest.json")
        if path.name == "manifest.json":
            name = wanted.removeprefix("sha256:")
        elif len(name) != 64:  # version, signature-1
            continue
        found = digest(path)
        if found != name:
            raise MoorageError(
                "digest-changed",
                f"{image} came with another digest than its registry says",
                cause=f"a part of it is sha256:{found} here and sha256:{name} there",
                cure="run this again; if it stays so, something between changes what is sent",
            )
        blobs[name] = path
    for name, path in blobs.items():
        move(path, folder / BLOBS / name)
    return BundledImage(str(image), wanted, tuple(sorted(blobs)))


def _note(folder: Path, image: Reference) -> Path:
    return folder / "notes" / f"{hashlib.sha256(str(image).encode()).hexdigest()}.json"


def _where(before: str, wanted: str) -> str:
    return f"there it is {before}, and at its registry {wanted} now"
