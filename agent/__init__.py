"""What runs on a node. Stands alone: CPython 3.9+, nothing from ``moorage``, no network."""

__version__ = "0.1.0"


def older(version: str, other: str) -> bool:
    """Whether ``version`` is of an earlier release than ``other``: numbers with dots between."""
    return _numbers(version) < _numbers(other)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else 0 for part in version.split("."))
