"""Frees the blobs that no manifest needs, while the registry serves pushes and pulls.

Mark, take the links aside, mark again, take the blobs aside, mark again; delete a day later, after
one more mark. docs/registry.md ("How a collection avoids losing an image") goes through the
interleavings; the order here is what that rests on.
"""

from __future__ import annotations

import errno
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from moorage.errors import MoorageError
from moorage.registry.storage import setting_aside as aside
from moorage.registry.storage.layout import Layout
from moorage.registry.storage.marking import Marked, Marker
from moorage.registry.storage.setting_aside import Batch


@dataclass(frozen=True)
class CollectionPolicy:
    """All but one in seconds. ``grace``: no blob is taken that was pushed or linked less long ago;
    longer than any push lasts. ``settle``: longer than the registry takes from looking whether a
    blob is there to writing the link that relies on it. ``keep``: how long the way back stays open.
    ``at_once``: so many blobs are taken between two looks at the links."""

    grace: float = 3600.0
    settle: float = 10.0
    keep: float = 86400.0
    look_every: float = 1.0
    at_once: int = 100


@dataclass
class Collected:
    """What a collection did; sizes in bytes. ``returned``: taken, then needed by a push."""

    aside: int = 0
    aside_bytes: int = 0
    freed_bytes: int = 0
    returned: set[str] = field(default_factory=set)
    taken: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Clock:
    """Now, in seconds since 1970, and a wait in seconds."""

    now: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep


def candidates(layout: Layout, marked: Marked, before: float) -> dict[str, int]:
    """Blobs that nothing needs and that neither they nor a link to them is younger than
    ``before`` (seconds since 1970) -> their sizes."""
    return {
        blob.digest: blob.size
        for blob in layout.blobs()
        if blob.digest not in marked.needed
        and max(blob.written, marked.linked.get(blob.digest, 0.0)) <= before
    }


def collect(layout: Layout, policy: CollectionPolicy, clock: Clock | None = None) -> Collected:
    """One collection. Raises MoorageError (``registry-damaged``, ``collect-refused``); then
    everything that this run took is back in its place.

    A run that is killed leaves some of it aside; the next one begins by bringing back whatever a
    manifest needs.
    """
    clock = clock or Clock()
    run = _Collection(layout, policy, clock)
    aside.forget_halves(layout)
    earlier = aside.batches(layout)
    marked = run.marker.mark()
    run.bring_back(earlier, marked)
    chosen = candidates(layout, marked, clock.now() - policy.grace)
    if chosen:
        run.take(chosen, marked)
    run.forget(clock.now() - policy.keep)
    return run.done


def planned(layout: Layout, policy: CollectionPolicy, clock: Clock | None = None) -> dict[str, int]:
    """The blobs that :func:`collect` would take, and their sizes. Changes nothing."""
    clock = clock or Clock()
    marked = Marker(layout, lambda digest: aside.content(layout, digest)).mark()
    return candidates(layout, marked, clock.now() - policy.grace)


def restore(layout: Layout) -> set[str]:
    """Brings back everything that is aside -> the digests of the blobs. Raises OSError."""
    found = set()
    for batch in aside.batches(layout):
        found |= aside.give_back_all(layout, batch)
        aside.forget(batch)
    return found


class _Collection:
    """One collection under way."""

    def __init__(self, layout: Layout, policy: CollectionPolicy, clock: Clock) -> None:
        self.layout = layout
        self.policy = policy
        self.clock = clock
        self.marker = Marker(layout, lambda digest: aside.content(layout, digest))
        self.done = Collected()

    def bring_back(self, batches: Sequence[Batch], marked: Marked) -> None:
        """What is aside and needed all the same goes back to its place.

        So do the blobs of links that appeared since: a push found the blob an instant before.
        """
        for batch in batches:
            wanted = marked.needed | marked.linked.keys()
            self.done.returned |= aside.give_back_all(self.layout, batch, wanted)

    def take(self, chosen: dict[str, int], marked: Marked) -> None:
        batch = aside.begin(self.layout, self.clock.now())
        with self._undone_on_failure(batch):
            self._take_links(batch, chosen, marked)
            left = self._settled(batch, dict(chosen))
            listed = list(left.items())
            for start in range(0, len(listed), self.policy.at_once):
                self._take_blobs(batch, listed[start : start + self.policy.at_once])
            self._settled(batch, self.done.taken)
        kept = {k: v for k, v in self.done.taken.items() if k not in self.done.returned}
        self.done.aside, self.done.aside_bytes = len(kept), sum(kept.values())

    def forget(self, before: float) -> None:
        """Deletes what has been aside long enough, after one more look at what is needed."""
        old = [batch for batch in aside.batches(self.layout) if batch.since <= before]
        if not old:
            return
        self.bring_back(old, self.marker.mark())
        self.done.freed_bytes += sum(aside.forget(batch) for batch in old)

    def _take_links(self, batch: Batch, chosen: dict[str, int], marked: Marked) -> None:
        """From here on a push is told that it has to send the blob."""
        linked = chosen.keys() & marked.linked.keys()
        for repository in self.layout.repositories() if linked else ():
            for digest in self.layout.layers(repository).keys() & linked:
                self._take(batch, self.layout.layer_link(repository, digest))

    def _settled(self, batch: Batch, chosen: dict[str, int]) -> dict[str, int]:
        """What of ``chosen`` nothing came to rely on, once every request has ended that may have
        looked before. What is relied on goes back within a second, and not at the end alone."""
        looks = math.ceil(self.policy.settle / self.policy.look_every)
        left = dict(chosen)
        for look in range(looks + 1):
            if look:
                self.clock.sleep(self.policy.look_every)
            marked = self.marker.mark()
            relied = left.keys() & (marked.needed | marked.linked.keys())
            if relied:
                self.done.returned |= aside.give_back_all(self.layout, batch, relied)
                left = {digest: size for digest, size in left.items() if digest not in relied}
            if not left:
                break
        return left

    def _take_blobs(self, batch: Batch, some: Sequence[tuple[str, int]]) -> None:
        """The last look is as near to the renames as it can be."""
        marked = self.marker.mark()
        for digest, size in some:
            if digest in marked.needed or digest in marked.linked:
                aside.give_back_all(self.layout, batch, {digest})
            elif self._take(batch, self.layout.blob(digest)):
                self.done.taken[digest] = size

    def _take(self, batch: Batch, path: Path) -> bool:
        return aside.take(self.layout, batch, path.relative_to(self.layout.top))

    @contextmanager
    def _undone_on_failure(self, batch: Batch) -> Iterator[None]:
        try:
            yield
        except OSError as problem:
            aside.give_back_all(self.layout, batch)
            raise _refused(problem) from None
        except BaseException:
            aside.give_back_all(self.layout, batch)
            raise


def _refused(problem: OSError) -> MoorageError:
    full = problem.errno in (errno.ENOSPC, errno.EDQUOT)
    return MoorageError(
        "collect-refused",
        "nothing was collected: the storage folder could not be changed",
        cause=f"{problem.strerror}: {problem.filename}"
        + ("; setting blobs aside takes a few folders' room" if full else ""),
        cure="df -h and df -i on that folder; then inv registry.collect again"
        if full
        else "run this as the user that runs inv registry.up",
        path=str(problem.filename or ""),
    )
