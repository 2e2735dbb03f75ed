"""The engine's own words when a push or pull fails -> what that means here and how to cure it.

Pure. The rows are the ones that nodes and clusters tell of (:mod:`agent.wire.troubles`): one cause,
one name, wherever it is met.
"""

from __future__ import annotations

import re

from agent.wire.troubles.table import rows
from moorage.errors import MoorageError

_ROWS = rows("engine")

# What is in a name, a URL or a digest says nothing of the cause.
_NAMES = re.compile(r'"?https?://[^"\s]+"?|sha256:[0-9a-f]+|\b\S+:\d+/\S+|\bdenied for \S+')


def explain(words: str, name: str, what: str) -> MoorageError:
    """The error for the engine's ``words``; ``name`` is the registry's, ``what`` was tried."""
    plain = _NAMES.sub(" ", words)
    host = name.partition(":")[0]
    values = {"name": name, "registry": name, "host": host, "image": "the image"}
    for row in _ROWS:
        if re.search(row.words, plain, re.IGNORECASE):
            why = row.told.cause.format_map(values)
            return MoorageError(
                row.code,
                f"{what} failed: {row.told.message.format_map(values)}",
                cause=f"{why}: {words.strip()}" if why else words.strip(),
                cure=row.told.cure.format_map(values),
            )
    return MoorageError(
        "engine-failed", f"{what} failed", cause=words.strip(), cure="inv doctor; inv registry.logs"
    )
