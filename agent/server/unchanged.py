"""Answers an apply that has nothing to do from the server itself, without a process for it.

A thread looks, decides and proves as the engine does; it writes nothing, runs nothing and reads no
long file. Anything but "unchanged" is None, and is done in a process as ever: a change, a failure,
a pull, a program to be asked. So is what takes more than a moment, on a disk or a runtime that
hangs: its thread is left to itself, and until it has come back no other is begun.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from agent.journal import desired
from agent.journal.ledger import Store
from agent.journal.lock import unmoved
from agent.node import threads
from agent.wire.plan import Plan
from agent.wire.report import Event

if TYPE_CHECKING:
    from agent.engine.engine import Engine

# A registry on another continent takes half of it.
SECONDS = 2.0


class Unchanged:
    """Looks of one node, one at a time."""

    def __init__(self, store: Store, engine: Callable[[], Engine]) -> None:
        """``engine`` is made anew for each look, and runs nothing (``host.Onlooker``)."""
        self._store = store
        self._engine = engine
        self._hangs = False

    async def apply(self, plan: Plan) -> list[Event] | None:
        """The events of an apply that found everything as planned, and proved it; else None."""
        if self._hangs:
            return None
        with unmoved(self._store) as still:
            if not still:
                return None
            loop = asyncio.get_running_loop()
            found: asyncio.Future[list[Event] | None] = loop.create_future()

            def tell(answer: list[Event] | None) -> None:
                self._hangs = False
                if not found.done():
                    found.set_result(answer)

            def look() -> None:
                answer = None
                try:
                    answer = self._look(plan)
                finally:
                    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                        loop.call_soon_threadsafe(tell, answer)

            threads.begin(look, "unchanged")
            try:
                return await asyncio.wait_for(found, SECONDS)
            except asyncio.TimeoutError:
                self._hangs = True
                return None

    def _look(self, plan: Plan) -> list[Event] | None:
        try:
            return self._engine().unchanged(plan) if desired.holds(self._store, plan) else None
        except Exception:  # a process will meet it again, and say it
            return None
