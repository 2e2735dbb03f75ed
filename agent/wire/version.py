"""The agent's version, and how two of them compare."""

from __future__ import annotations

__version__ = "0.1.0"


def older(version: str, other: str) -> bool:
    """Whether ``version`` is of an earlier release than ``other``: numbers with dots between."""
    return _numbers(version) < _numbers(other)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else 0 for part in version.split("."))
