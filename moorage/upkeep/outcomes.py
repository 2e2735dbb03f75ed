"""How each part of the upkeep last went: kept in ``.moorage/upkeep.json``, shown to node_exporter.

A part that is done by hand (``inv registry.collect``) leaves the same note as one by a timer.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from moorage.errors import MoorageError, Refused
from moorage.files import private_folder, write_atomically
from moorage.unforeseen import as_ours
from moorage.upkeep import textfile

if TYPE_CHECKING:
    from pathlib import Path

    from moorage.settings import Settings
    from moorage.ui import UI

PARTS = ("renew", "prune", "collect", "backup")
_FILE = "upkeep.json"


@dataclass(frozen=True)
class PartOutcome:
    """How one part last went. Times in seconds since 1970, 0 for never; ``seconds``: how long the
    last attempt took. ``code`` and ``message`` are those of a failure that no success has followed.
    """

    succeeded: int = 0
    failed: int = 0
    seconds: float = 0.0
    code: str = ""
    message: str = ""


@dataclass(frozen=True)
class Notes:
    """``ran``: when ``inv upkeep`` last came to its end, in seconds since 1970, 0 for never."""

    ran: int = 0
    parts: Mapping[str, PartOutcome] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {"ran": self.ran, "parts": {name: asdict(one) for name, one in self.parts.items()}}


def path(settings: Settings) -> Path:
    """Where the notes are."""
    return settings.state / _FILE


def read(settings: Settings) -> Notes:
    """The notes; none if they are not there or damaged: then everything counts as never done."""
    try:
        said = json.loads(path(settings).read_bytes())
        parts = {name: _outcome(said["parts"][name]) for name in PARTS if name in said["parts"]}
        return Notes(int(said["ran"]), parts)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return Notes()


class BlockNote:
    """What a block says of itself. ``wanted``: False if it turned out that nothing was tried;
    ``problem``: a failure that the block ended well with, all the same."""

    def __init__(self) -> None:
        self.wanted = True
        self.problem: MoorageError | None = None


@contextmanager
def noted(settings: Settings, ui: UI, part: str, *, refusals: bool = False) -> Iterator[BlockNote]:
    """Notes how the block went; what it raises goes on.

    ``refusals``: a Refused counts as a failure too. To a person who typed a wrong word it does not:
    nothing was tried then. A block that is stopped by Ctrl-C or SIGTERM leaves no note.
    """
    began, note = time.time(), BlockNote()
    try:
        yield note
    except Exception as problem:
        if refusals or not isinstance(problem, Refused):
            _note(settings, ui, part, began, as_ours(problem))
        raise
    if note.wanted:
        _note(settings, ui, part, began, note.problem)


def ran(settings: Settings) -> None:
    """Notes that ``inv upkeep`` came to its end. Raises OSError, also of node_exporter's file."""
    notes = replace(read(settings), ran=int(time.time()))
    _write(settings, notes)
    textfile.write(settings, notes)


def _note(settings: Settings, ui: UI, part: str, began: float, problem: Exception | None) -> None:
    now, notes = time.time(), read(settings)
    before = notes.parts.get(part, PartOutcome())
    spent = round(max(now - began, 0.0), 3)
    if problem is None:
        outcome = replace(before, succeeded=int(now), seconds=spent, code="", message="")
    else:
        code = problem.code if isinstance(problem, MoorageError) else "defect"
        outcome = replace(before, failed=int(now), seconds=spent, code=code, message=str(problem))
    notes = replace(notes, parts={**notes.parts, part: outcome})
    try:
        _write(settings, notes)
        textfile.write(settings, notes)
    except OSError as refused:  # what was done counts, not the note of it
        ui.warn(f"how it went was not written down: {refused}")


def _write(settings: Settings, notes: Notes) -> None:
    private_folder(settings.state)
    write_atomically(path(settings), (json.dumps(notes.to_json()) + "\n").encode())


def _outcome(said: Mapping[str, Any]) -> PartOutcome:
    return PartOutcome(
        int(said["succeeded"]),
        int(said["failed"]),
        float(said["seconds"]),
        str(said["code"]),
        str(said["message"]),
    )
