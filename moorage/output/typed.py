"""How a command of Moorage is typed here: ``./run inv …``, or ``inv …`` in its environment."""

from __future__ import annotations

import os
import re
from typing import Any

# Set by ``run``; what people read says ``inv``, whoever wrote it: this side, or an agent.
VARIABLE = "MOORAGE_TYPED"
_COMMAND = re.compile(r"(?<![\w./-])inv (?=[A-Za-z-])")
# The keys of a document that hold commands to type.
_TYPED_KEYS = frozenset(("cure", "next"))


def typed(text: str) -> str:
    """The text with each of its commands as it must be typed here."""
    prefix = os.environ.get(VARIABLE, "inv")
    return text if prefix == "inv" else _COMMAND.sub(f"{prefix} ", text)


def typed_document(document: Any, *, is_typed: bool = False) -> Any:
    """A JSON-ready document whose cures and next steps can be typed; all else is as it was."""
    if isinstance(document, str):
        return typed(document) if is_typed else document
    if isinstance(document, dict):
        return {
            key: typed_document(one, is_typed=is_typed or key in _TYPED_KEYS)
            for key, one in document.items()
        }
    if isinstance(document, list | tuple):
        return [typed_document(one, is_typed=is_typed) for one in document]
    return document
