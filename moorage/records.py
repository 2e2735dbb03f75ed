"""Records of ours as they are read back from a file: each value of the type that it was written."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_TYPES = {"str": str, "int": int, "bool": bool}


def require_types(record: DataclassInstance) -> None:
    """Raises TypeError for a text, number or truth value of ``record`` that is none."""
    for one in fields(record):
        found = getattr(record, one.name)
        if type(found) is not _TYPES.get(str(one.type), type(found)):
            raise TypeError(f"its {one.name} is {found!r}")
