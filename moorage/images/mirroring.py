"""Images of other registries into ours, each under its registry's name, digests as they are.

What is there already is found out by two HEAD requests; the rest is skopeo's, several at once. An
image is copied by the digest that was asked for first, so what comes is what was seen. Nothing is
remembered: a run that was killed is the same command again.
"""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from moorage import references, registry
from moorage.errors import MoorageError, Refused
from moorage.images import asking, skopeo
from moorage.images.asking import Asker, Login
from moorage.images.outcome import ImageOutcome
from moorage.images.skopeo import SkopeoAccess
from moorage.references import Reference
from moorage.registry import client
from moorage.registry.caches import upstreams
from moorage.registry.logins import external

if TYPE_CHECKING:
    from moorage.output import Progress
    from moorage.registry.logins.credentials import Credentials
    from moorage.settings import Settings
    from moorage.ui import UI

_PLATFORM = re.compile(r"[a-z0-9]+/[a-z0-9_]+(?:/[a-z0-9.]+)?")
_SCARCE = 64 << 20  # bytes: a disk with less is what a failing registry suffers from


@dataclass(frozen=True)
class MirrorWish:
    """How images are mirrored. ``platform``: that one alone, as linux/arm64; "" for all.

    ``update``: a tag that moved at its registry since is moved here too. ``at_once``: images.
    """

    platform: str = ""
    update: bool = False
    at_once: int = 4
    dry_run: bool = False


def platform(text: str) -> str:
    """Raises Refused (``wrong-use``) unless ``text`` is OS/ARCH or OS/ARCH/VARIANT, or empty."""
    if text and not _PLATFORM.fullmatch(text):
        raise Refused(
            "wrong-use",
            f"invalid --platform={text}: not OS/ARCH or OS/ARCH/VARIANT",
            cause="one platform is meant, such as linux/arm64",
            cure="leave it out for all platforms of each image",
        )
    return text


def mirror(
    settings: Settings, images: Sequence[Reference], authfile: str, wish: MirrorWish, ui: UI
) -> list[ImageOutcome]:
    """Mirrors ``images`` and returns what became of each; one that fails stops no other.

    ``authfile``: logins of their registries; "" for those that skopeo finds. Raises MoorageError if
    our own registry cannot be reached, before anything is asked for.
    """
    login = registry.credentials(settings)
    client.check_login(settings, login)
    skopeo.require_name(settings)
    skopeo.ensure(ui, settings, dry_run=wish.dry_run)
    with skopeo.access(settings, login, authfile) as allowed:
        work = _Work(settings, login, allowed, wish, tuple(images))
        found = dict(_at_once(work, images, ui.progress))
    return [found[image] for image in images]


def _at_once(
    work: _Work, images: Sequence[Reference], progress: Progress
) -> Iterator[tuple[Reference, ImageOutcome]]:
    pool = ThreadPoolExecutor(work.wish.at_once)
    try:
        what = "one image" if len(images) == 1 else f"{len(images)} images"
        with progress(f"mirroring {what}") as update:
            begun = {pool.submit(work.one, image): image for image in images}
            for done, future in enumerate(as_completed(begun), 1):
                update(done=done, total=len(images))
                yield begun[future], future.result()
    finally:
        work.stop.set()
        pool.shutdown(cancel_futures=True)


class _Work:
    """One run: what its threads share."""

    def __init__(
        self,
        settings: Settings,
        login: Credentials,
        allowed: SkopeoAccess,
        wish: MirrorWish,
        images: tuple[Reference, ...],
    ) -> None:
        self.settings, self.login, self.allowed, self.wish = settings, login, allowed, wish
        self.stop = threading.Event()
        logins: dict[str, Login] = {
            **asking.logins(allowed.sources),
            settings.registry_name: (login.user, login.password),
        }
        self._asker = Asker(logins, self._authorities, wish.at_once)
        self._redirected = {
            one: asking.is_redirected(one) for one in {image.registry for image in images}
        }
        self._cached = {one.name for one in upstreams.read(settings)}
        # Tags that another image of this run claims: one by digest beside it goes without.
        self._claimed = {(one.name, one.tag) for one in images if not one.digest}

    def one(self, image: Reference) -> ImageOutcome:
        """What becomes of one image."""
        place = ""
        try:
            landed = self._landing(image)
            place = str(landed)
            return self._mirrored(image, landed)
        except MoorageError as problem:
            told = external.advised(self.settings, self._judged(problem))
            return ImageOutcome(str(image), place, fault=told.fault)

    def _mirrored(self, image: Reference, landed: Reference) -> ImageOutcome:
        wanted = self._wanted(image)
        there = self._there(replace(landed, digest=image.digest and wanted))
        if there == wanted:
            return ImageOutcome(str(image), str(landed), wanted)
        if image.tag and not image.digest and there and not self.wish.update:
            raise _moved(image, landed, there, wanted)
        if self.wish.dry_run:
            return ImageOutcome(str(image), str(landed), wanted, changed=True)
        source = replace(image, digest=wanted)
        aim = replace(landed, digest="") if landed.tag else replace(landed, digest=wanted)
        skopeo.copy(f"docker://{source.pinned}", aim, self.allowed, exactly=True, stop=self.stop)
        after = self._there(aim) or client.manifest_digest(
            self.settings, self.login, aim.repository, aim.version
        )
        if after != wanted:
            raise _changed(image, wanted, after)
        return ImageOutcome(str(image), str(landed), wanted, changed=True)

    def _landing(self, image: Reference) -> Reference:
        if image.registry in self._cached:
            raise _is_cached(image)
        landed = references.landing(self.settings, image)
        if image.digest and (not image.tag or (image.name, image.tag) in self._claimed):
            return replace(landed, tag="")
        return landed

    def _wanted(self, image: Reference) -> str:
        """The digest that shall be here: of the whole image, or of its one platform."""
        if not self.wish.platform:
            return image.digest or self._asked(image) or skopeo.digest_of(self._manifest(image))
        return self._of_platform(image, self._manifest(image))

    def _asked(self, image: Reference) -> str:
        return "" if self._redirected[image.registry] else self._asker.digest(image)

    def _manifest(self, image: Reference) -> bytes:
        content = b"" if self._redirected[image.registry] else self._asker.manifest(image)
        if content and (not image.digest or skopeo.digest_of(content) == image.digest):
            return content
        return skopeo.manifest(image, self.allowed)

    def _of_platform(self, image: Reference, content: bytes) -> str:
        document = _parsed(image, content)
        rows = document.get("manifests")
        if isinstance(rows, list):
            digest = choose(rows, self.wish.platform)
            if not digest:
                raise _no_platform(image, self.wish.platform, offered(rows))
            return digest
        said = _parsed(image, skopeo.manifest(image, self.allowed, config=True))
        only = "/".join(str(said.get(key)) for key in ("os", "architecture"))
        if only != "/".join(self.wish.platform.split("/")[:2]):
            raise _no_platform(image, self.wish.platform, [only])
        return skopeo.digest_of(content)

    def _there(self, landed: Reference) -> str:
        return self._asker.digest(landed)

    def _authorities(self, name: str) -> tuple[str, ...]:
        if name != self.settings.registry_name:
            return asking.authorities(name)
        return (f"{self.allowed.certs}/ca.crt",) if self.allowed.certs else ()

    def _judged(self, problem: MoorageError) -> MoorageError:
        """A registry whose disk is full says only that something went wrong (500)."""
        if self.settings.registry.external or problem.code not in ("engine-failed", "copy-failed"):
            return problem
        data = self.settings.registry_data
        if not data.exists() or shutil.disk_usage(data).free > _SCARCE:
            return problem
        words = f"{problem.cause}: no space left on device"
        return skopeo.explain(words, self.settings.registry_name, "copying")


def choose(rows: Sequence[Any], wanted: str) -> str:
    """The digest of the platform in an index's rows, "" if it has none. Pure.

    A platform without a variant takes the first of its architecture.
    """
    for row in rows:
        if isinstance(row, dict) and f"{_name(row)}/".startswith(f"{wanted}/"):
            return str(row.get("digest", ""))
    return ""


def offered(rows: Sequence[Any]) -> list[str]:
    """The platforms of an index, those of attestations left out. Pure."""
    names = (_name(row) for row in rows if isinstance(row, dict))
    return [name for name in dict.fromkeys(names) if name and "unknown" not in name]


def _name(row: dict[str, Any]) -> str:
    said = row.get("platform")
    if not isinstance(said, dict):
        return ""
    words = (said.get(key) for key in ("os", "architecture", "variant"))
    return "/".join(str(word) for word in words if word)


def _parsed(image: Reference, content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):  # RecursionError: nested deeper than it can be read
        found = None
    if isinstance(found, dict):
        return found
    raise MoorageError(
        "copy-failed",
        f"asking for {image} failed",
        cause=f"{image.registry} sent something else than a manifest",
        cure=f"curl -v https://{image.registry}/v2/ shows who answers",
    )


def _is_cached(image: Reference) -> MoorageError:
    return MoorageError(
        "cached-path",
        f"{image} needs no mirroring: {image.registry} has a cache here",
        cause="below that path images come from the cache, which fills itself by pulls",
        cure=f"pull it here once; or inv registry.cache {image.registry} --remove, then mirror it",
    )


def _moved(image: Reference, landed: Reference, there: str, wanted: str) -> MoorageError:
    return MoorageError(
        "tag-moved",
        f"{image} is another image than the one that was mirrored",
        cause=f"here it is {there}, there it is {wanted} now, or another --platform was meant",
        cure="--update takes the new one; by digest in the list it stays what it is",
    )


def _changed(image: Reference, wanted: str, after: str) -> MoorageError:
    return MoorageError(
        "digest-changed",
        f"{image} has another digest here than there",
        cause=f"it is {after or 'not there'} here and {wanted} there",
        cure="run this again; if it stays so, something between changes what is sent",
    )


def _no_platform(image: Reference, wanted: str, there: Sequence[str]) -> MoorageError:
    return MoorageError(
        "wrong-platform",
        f"{image} is not made for {wanted}",
        cause=f"it is there for {', '.join(there) or 'no platform that it names'}",
        cure="name one of those, leave --platform out, or leave the image out of the list",
    )
