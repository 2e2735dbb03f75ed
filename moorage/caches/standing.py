"""How the caches stand: do they run, do their upstreams answer, how old is what is served."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moorage.caches import answering, held
from moorage.caches.answering import Answering
from moorage.caches.held import Held
from moorage.output import Table
from moorage.registry import caching, container
from moorage.registry.caches import upstreams

if TYPE_CHECKING:
    from collections.abc import Sequence

    from docker import DockerClient

    from moorage.registry.caches.upstreams import Upstream
    from moorage.settings import Settings


@dataclass(frozen=True)
class CacheStanding:
    """A cache as it is. ``below``: where its images are asked for, as image names spell it."""

    upstream: Upstream
    below: str
    running: bool
    answering: Answering
    held: Held

    @property
    def fine(self) -> bool:
        """Whether it runs and fetches what it does not have."""
        return self.running and self.answering.state == answering.ANSWERS

    @property
    def problem(self) -> str:
        """What is wrong, with the age of what is served all the same; "" for nothing."""
        if not self.running:
            return "the cache does not run"
        if self.fine:
            return ""
        said = _SAID[self.answering.state].format(name=self.upstream.name, why=self.answering.why)
        return f"{said}; {self.age}"

    @property
    def age(self) -> str:
        """When the upstream last confirmed what is served."""
        if not self.held.images:
            return "nothing was pulled before"
        newest, oldest = _words(self.held.newest), _words(self.held.oldest)
        images = f"the {len(self.held.images)} images that were pulled"
        if len(self.held.images) == 1:
            return f"the image that was pulled is served as it was at {newest}"
        return f"{images} are served as they were at {oldest} to {newest}"

    @property
    def cure(self) -> str:
        """What helps; "" if nothing is wrong."""
        return self.answering.cure if self.running else "inv registry.up"

    def to_json(self, *, images: bool = False) -> dict[str, Any]:
        """What may be shown: no password. ``images``: each of them, too."""
        listed = [{**vars(one), "confirmed": _iso(one.confirmed)} for one in self.held.images]
        return {
            "upstream": self.upstream.name,
            "url": self.upstream.url,
            "below": self.below,
            "open": self.upstream.open,
            "user": self.upstream.login.user if self.upstream.login else "",
            "running": self.running,
            "state": self.answering.state,
            "problem": self.problem,
            "images": len(self.held.images),
            "bytes": self.held.size,
            "newest": _iso(self.held.newest),
            "oldest": _iso(self.held.oldest),
            **({"listed": listed} if images else {}),
        }


_SAID = {
    answering.AWAY: "{name} does not answer: {why}",
    answering.LIMITS: "{name} accepts no more requests for now: {why}",
    answering.UNTRUSTED: "{name} shows a certificate that is not trusted: {why}",
    answering.REFUSES: "{name} does not let the cache in: {why}",
}


def all_of(settings: Settings, client: DockerClient | None) -> list[CacheStanding]:
    """Every cache, by the name of its upstream. ``client`` None: no engine answers.

    Raises Refused for what cannot be read, or for a container that is not ours.
    """
    each = upstreams.read(settings)
    if not each:
        return []
    asked = answering.ask_all(settings, each)
    return [
        CacheStanding(
            one,
            f"{settings.registry_name}/{upstreams.path(settings, one)}",
            _runs(settings, client, one),
            asked[one.name],
            held.held(upstreams.store(settings, one)),
        )
        for one in each
    ]


def table(found: Sequence[CacheStanding]) -> Table:
    """Caches, a row each. Pure."""
    return Table(
        ("cache", "upstream", "state", "read by", "images", "size", "confirmed"),
        [
            [
                one.below,
                one.upstream.name,
                one.answering.state if one.running else "does not run",
                "everybody" if one.upstream.open else "logins",
                str(len(one.held.images)),
                f"{one.held.size:,}",
                f"{_words(one.held.oldest)} to {_words(one.held.newest)}"
                if one.held.images
                else "-",
            ]
            for one in found
        ],
    )


def images(one: CacheStanding) -> Table:
    """What a cache holds, a row per image. Pure."""
    return Table(
        ("image", "digest", "confirmed"),
        [
            [f"{row.repository}:{row.tag}", row.digest[7:19], _words(row.confirmed)]
            for row in one.held.images
        ],
    )


def _runs(settings: Settings, client: DockerClient | None, one: Upstream) -> bool:
    if client is None:
        return False
    found = container.find(settings, client, caching.name(settings, one))
    return found is not None and found.status == "running"


def _iso(seconds: float) -> str | None:
    if not seconds:
        return None
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")


def _words(seconds: float) -> str:
    return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%d %H:%M} UTC"
