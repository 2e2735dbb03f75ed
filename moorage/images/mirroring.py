"""Images of other registries into ours, each under its registry's name, digests as they are.

What is there already is found out by two HEAD requests; the rest is skopeo's, several at once. An
image is copied by the digest that was asked for first, so what comes is what was seen. Nothing is
remembered: a run that was killed is the same command again. An image that a loaded bundle holds
comes from there, by the digest that it had then; its registry is not asked.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from moorage import references, registry
from moorage.errors import MoorageError
from moorage.images import asking, several, skopeo
from moorage.images.outcome import ImageOutcome
from moorage.images.skopeo import SkopeoAccess
from moorage.images.upstream import OwnRegistry, Upstreams, moved
from moorage.references import Reference
from moorage.registry import client, tls
from moorage.registry.caches import upstreams
from moorage.registry.logins import external
from moorage.supply import loaded

if TYPE_CHECKING:
    import ssl

    from moorage.registry.logins.credentials import Credentials
    from moorage.settings import Settings
    from moorage.ui import UI

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
        return several.each(
            images,
            work.one,
            at_once=wish.at_once,
            stop=work.stop,
            progress=ui.progress,
            title="mirroring {images}" + (" from the bundle" if work.from_bundle else ""),
        )


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
        logins = {settings.registry_name: (login.user, login.password)}
        own = OwnRegistry(logins, self._authorities, self._present, settings.nodes.names)
        self._upstreams = Upstreams(images, allowed, wish.platform, wish.at_once, own)
        self._held = loaded.held(settings.root)
        self.from_bundle = all(str(image) in self._held for image in images)
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
        held = self._held.get(str(image), "")
        wanted = held or self._upstreams.wanted(image)
        there = self._there(replace(landed, digest=image.digest and wanted))
        if there == wanted:
            return ImageOutcome(str(image), str(landed), wanted)
        if image.tag and not image.digest and there and not self.wish.update:
            where = f"here it is {there}, there it is {wanted} now, or another --platform was meant"
            raise moved(image, "was mirrored", where)
        if self.wish.dry_run:
            return ImageOutcome(str(image), str(landed), wanted, changed=True)
        source = f"docker://{replace(image, digest=wanted).pinned}"
        if held:
            source = loaded.copied(self.settings.root, held)
        aim = replace(landed, digest="") if landed.tag else replace(landed, digest=wanted)
        skopeo.copy(source, aim, self.allowed, exactly=True, stop=self.stop)
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

    def _there(self, landed: Reference) -> str:
        return self._upstreams.asker.digest(landed)

    def _authorities(self, name: str) -> tuple[str, ...]:
        if name != self.settings.registry_name:
            return asking.authorities(name)
        return (f"{self.allowed.certs}/ca.crt",) if self.allowed.certs else ()

    def _present(self, name: str, context: ssl.SSLContext) -> None:
        if name == self.settings.registry_name:
            tls.present(self.settings, context)

    def _judged(self, problem: MoorageError) -> MoorageError:
        """A registry whose disk is full says only that something went wrong (500)."""
        if self.settings.registry.external or problem.code not in ("engine-failed", "copy-failed"):
            return problem
        data = self.settings.registry_data
        if not data.exists() or shutil.disk_usage(data).free > _SCARCE:
            return problem
        words = f"{problem.cause}: no space left on device"
        return skopeo.explain(words, self.settings.registry_name, "copying")


def _is_cached(image: Reference) -> MoorageError:
    return MoorageError(
        "cached-path",
        f"{image} needs no mirroring: {image.registry} has a cache here",
        cause="below that path images come from the cache, which fills itself by pulls",
        cure=f"pull it here once; or inv registry.cache {image.registry} --remove, then mirror it",
    )


def _changed(image: Reference, wanted: str, after: str) -> MoorageError:
    return MoorageError(
        "digest-changed",
        f"{image} has another digest here than there",
        cause=f"it is {after or 'not there'} here and {wanted} there",
        cure="run this again; if it stays so, something between changes what is sent",
    )
