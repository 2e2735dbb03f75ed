"""What can go wrong in a way the user can act on.

Every such error carries where it happened, the cause and the cure; it is formatted once, in
``moorage.ui``. Anything else that escapes a task is a defect of ours and may show a traceback.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from agent.wire.faults import Failure

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

# What reading a document of our own raises once something else has changed it.
SPOILT = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError)
_TYPES = {"str": str, "int": int, "bool": bool}


class MoorageError(Failure):
    """A failure on the operator's side. ``exit_code`` is 1: something failed."""

    exit_code = 1

    def to_json(self) -> dict[str, str]:
        """The fault as plain JSON types (:meth:`agent.wire.faults.Fault.to_json`)."""
        return self.fault.to_json()


class Refused(MoorageError):
    """Wrong use, bad input, or something we will not do unasked. Nothing was changed. Exit 2."""

    exit_code = 2


def wrong_use(why: str, cure: str) -> Refused:
    """The refusal of options or arguments that do not go together."""
    return Refused("wrong-use", why, cure=cure)


def spoilt(code: str, path: Path, problem: Exception, cure: str) -> Refused:
    """The refusal of a file of our own that something else has changed."""
    cause = str(problem) or type(problem).__name__
    return Refused(code, f"{path} cannot be used", cause=cause, cure=cure, path=str(path))


def require_types(record: DataclassInstance) -> None:
    """Judges a record as it was read back: raises TypeError for a text, number or truth value of
    it that is none."""
    for one in fields(record):
        found = getattr(record, one.name)
        if type(found) is not _TYPES.get(str(one.type), type(found)):
            raise TypeError(f"its {one.name} is {found!r}")
