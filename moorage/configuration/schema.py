"""The JSON Schema of ``invoke.yaml``, for editors: made from the dataclasses and their limits.

What only several values together can get wrong stays with :mod:`moorage.configuration.parsing`.
Draft 7 is what yaml-language-server reads: https://json-schema.org/draft-07
"""

from __future__ import annotations

import re
import tomllib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moorage import settings
from moorage.configuration import allowed
from moorage.configuration.origins import INVOKES_OWN

_MEANINGS = Path(settings.__file__).with_name("meanings.toml")
_WORDS = {"type": "array", "items": {"type": "string"}}


def schema() -> dict[str, Any]:
    """What ``invoke.yaml`` may hold, as JSON Schema."""
    meanings = tomllib.loads(_MEANINGS.read_text(encoding="utf-8"))
    kinds = settings.sections()
    ours = {
        section: _section(section, kind, meanings[section], settings.defaults()[section])
        for section, kind in kinds.items()
    }
    invokes = {name: {"description": "Invoke's own."} for name in sorted(INVOKES_OWN)}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Settings of Moorage (invoke.yaml)",
        "type": ["object", "null"],
        "additionalProperties": False,
        "properties": ours | invokes,
    }


def _section(
    section: str, kind: Any, meanings: Mapping[str, str], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    keys = {
        key: {
            "description": meanings[key],
            "default": defaults[key],
            **_value(f"{section}.{key}", hint),
        }
        for key, hint in hints.items()
    }
    return {"type": ["object", "null"], "additionalProperties": False, "properties": keys}


def _value(place: str, hint: Any) -> dict[str, Any]:
    if place in allowed.EACH:
        known = [*allowed.EACH[place].names, *allowed.EACH[place].others]
        word = "|".join(map(re.escape, known))
        words = rf"^\s*(?:(?:{word})?\s*,\s*)*(?:{word})?\s*$"
        items = {"type": "array", "items": {"enum": known}}
        return {"anyOf": [items, {"type": "string", "pattern": words}]}
    if typing.get_origin(hint) is tuple:
        return {"anyOf": [_WORDS, {"type": "string"}]}
    if typing.get_origin(hint) is not None:  # Mapping[str, str]
        return {"type": "object", "additionalProperties": {"type": "string"}}
    if place in allowed.CHOICES:
        return {"enum": list(allowed.CHOICES[place])}
    if place in allowed.SPANS:
        span = allowed.SPANS[place]
        return {"type": "integer", "minimum": span.low, "maximum": span.high}
    if place in allowed.FORMS:
        return {"type": "string", "pattern": f"^(?:{allowed.FORMS[place].pattern})$"}
    return {"type": {str: "string", int: "integer", bool: "boolean"}[hint]}
