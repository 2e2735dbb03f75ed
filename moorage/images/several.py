"""Images worked on, some at a time; one that fails stops no other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from moorage.images.outcome import ImageOutcome
from moorage.output import Progress
from moorage.references import Reference


def each(
    images: Sequence[Reference],
    work: Callable[[Reference], ImageOutcome],
    *,
    at_once: int,
    stop: threading.Event,
    progress: Progress,
    title: str,
) -> list[ImageOutcome]:
    """``work`` for all ``images``, in their order; ``stop`` is set if the caller is interrupted.

    ``title`` says in the progress what is done, with ``{images}`` for how many.
    """
    found = dict(_as_they_end(images, work, at_once, stop, progress, title))
    return [found[image] for image in images]


def _as_they_end(
    images: Sequence[Reference],
    work: Callable[[Reference], ImageOutcome],
    at_once: int,
    stop: threading.Event,
    progress: Progress,
    title: str,
) -> Iterator[tuple[Reference, ImageOutcome]]:
    pool = ThreadPoolExecutor(at_once)
    try:
        what = "one image" if len(images) == 1 else f"{len(images)} images"
        with progress(title.format(images=what)) as update:
            begun = {pool.submit(work, image): image for image in images}
            for done, future in enumerate(as_completed(begun), 1):
                update(done=done, total=len(images))
                yield begun[future], future.result()
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
