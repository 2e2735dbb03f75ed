"""The door to a runtime's CRI; its calls (:mod:`agent.clients.cri_calls`) load HTTP/2."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from agent.clients.cri_calls import Cri

Answer = TypeVar("Answer")


def with_cri(path: str, ask: Callable[[Cri], Answer]) -> Answer:
    """Ask the runtime behind a socket something."""
    from agent.clients.cri_calls import Cri

    with Cri(path) as cri:
        return ask(cri)
