"""Work that goes on beside its caller."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Answer = TypeVar("Answer")


def begin(work: Callable[[], Answer], name: str) -> Future[Answer]:
    """Begins ``work``. Who began it waits with ``result()``, or ends without: it keeps nobody.

    An executor's threads are joined when the interpreter ends; a daemon thread is not.
    """
    done: Future[Answer] = Future()

    def run() -> None:
        try:
            answer = work()
        except BaseException as problem:
            done.set_exception(problem)
        else:
            done.set_result(answer)

    threading.Thread(target=run, name=name, daemon=True).start()
    return done
