"""What runtimes said of a call that failed."""

from __future__ import annotations


class CriError(Exception):
    """A call that failed: the runtime's own words, and whether it answered at all."""

    def __init__(self, message: str, answered: bool) -> None:
        super().__init__(message)
        self.message = message
        self.answered = answered


class EngineError(Exception):
    """What the runtime said of a pull that failed."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
