"""Builds that go on beside their caller, over a connection of their own to the engine."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar

from moorage.docker import engine

if TYPE_CHECKING:
    from docker import DockerClient

    from moorage.settings import Settings

Answer = TypeVar("Answer")


def begin(settings: Settings, build: Callable[[DockerClient], Answer], name: str) -> Future[Answer]:
    """Begins ``build``. Who began it waits with ``result()``, or ends without: it keeps nobody.

    An executor's threads are joined when the interpreter ends; a daemon thread is not.
    """
    done: Future[Answer] = Future()

    def run() -> None:
        try:
            own = engine.connect(settings)
            try:
                answer = build(own)
            finally:
                own.close()
        except BaseException as problem:
            done.set_exception(problem)
        else:
            done.set_result(answer)

    threading.Thread(target=run, name=name, daemon=True).start()
    return done
