"""Signals that stop a run, heard by the loop that runs: none breaks into the middle of another."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def heard(put: Callable[[int], None]) -> Iterator[None]:
    """``put`` gets the number of each for the length of a block; in the main thread, or never.

    It is called from a handler, for which ``queue.SimpleQueue.put`` is made: library/queue,
    "SimpleQueue Objects".
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in STOPPING}
    try:
        for number in STOPPING:
            signal.signal(number, lambda got, _frame: put(got))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
