"""Reads TOML with whichever parser this Python has; imported late, for it costs milliseconds."""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import Any

from agent.edit.utf8 import encoding

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class TomlError(ValueError):
    """Not UTF-8, or not TOML; the message says where."""


def parse(content: bytes) -> dict[str, Any]:
    """The document's tables. Raises :class:`TomlError` and nothing else.

    A byte order mark is passed over: whether a program does so too is that program's to say.
    """
    try:
        return tomllib.loads(content.decode(encoding(content)))
    except UnicodeDecodeError as problem:
        raise TomlError(f"byte {problem.start} is not UTF-8") from None
    except (tomllib.TOMLDecodeError, RecursionError) as problem:
        raise TomlError(str(problem) or "nested too deep") from None


@lru_cache(maxsize=4)
def shared(content: bytes) -> dict[str, Any]:
    """The same for a long document that is asked several things: it is read once, and by none
    changed."""
    return parse(content)


def at(tables: dict[str, Any], *keys: str) -> Any:
    """The value under a chain of keys, or None if the chain breaks."""
    value: Any = tables
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            return None
        value = value[key]
    return value
