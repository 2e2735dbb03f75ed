"""What a session by hand says while it works, and how long a piece of it took."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

Given = ParamSpec("Given")
Found = TypeVar("Found")


def timed(
    what: str, work: Callable[Given, Found], *words: Given.args, **more: Given.kwargs
) -> Found:
    """Returns what the work returns, and says how long it took."""
    began = time.monotonic()
    found = work(*words, **more)
    say(f"{what}: {time.monotonic() - began:.0f} s")
    return found


def say(text: str) -> None:
    """Writes a line at once."""
    print(text, flush=True)  # noqa: T201 - programs of their own
