"""Threads beside the main one, which alone heeds signals: it holds them off while it rolls back."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


def begin(work: Callable[[], None], name: str) -> threading.Thread:
    """Starts ``work`` in a thread that no signal is given to, and that no exit waits for."""
    thread = threading.Thread(target=work, name=name, daemon=True)
    old = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)
    return thread


class Awaited(Generic[Answer]):
    """A question whose answer is waited for later: other work goes on in the meantime."""

    def __init__(self, ask: Callable[[], Answer]) -> None:
        self._ask = ask
        self._answers: list[Answer] = []
        self._problem: BaseException | None = None
        self._thread = begin(self._run, "asked")

    def _run(self) -> None:
        try:
            self._answers.append(self._ask())
        except BaseException as problem:  # it is raised where the answer is wanted
            self._problem = problem

    def answer(self) -> Answer:
        """The answer, or what kept it from coming is raised."""
        self._thread.join()
        if self._problem is not None:
            raise self._problem
        return self._answers[0]
