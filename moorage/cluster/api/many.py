"""The same on many objects at once, in bounded threads, with the results in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from moorage.output import Update, unheard

Item = TypeVar("Item")
Result = TypeVar("Result")


def each(
    items: Iterable[Item],
    work: Callable[[Item], Result],
    *,
    parallel: int,
    update: Update = unheard,
) -> list[Result]:
    """``work`` on each item; what it raises is raised here, after those under way have ended.

    Ctrl-C ends it after the calls under way: none is cut off in the middle, none begun.
    """
    from concurrent.futures import ThreadPoolExecutor

    listed = list(items)
    if len(listed) < 2:
        return [work(item) for item in listed]
    pool = ThreadPoolExecutor(max_workers=min(parallel, len(listed)))
    try:
        futures = [pool.submit(work, item) for item in listed]
        results = []
        for done, future in enumerate(futures, 1):
            results.append(future.result())
            update(done=done, total=len(listed))
        return results
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
