"""The door to a runtime's CRI; its calls (:mod:`agent.clients.cri_calls`) load gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from agent.clients.cri_calls import Cri

Answer = TypeVar("Answer")


def with_cri(socket_path: str, ask: Callable[[Cri], Coroutine[Any, Any, Answer]]) -> Answer:
    """Ask the runtime behind a socket something, in an event loop of its own."""

    async def session() -> Answer:
        from agent.clients.cri_calls import Cri

        async with Cri(socket_path) as cri:
            return await ask(cri)

    return asyncio.run(session())
