"""What is due of the registry's upkeep, done: renew, prune, collect, back up.

One part that fails does not stop the others; how each went is kept (:mod:`.outcomes`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from moorage.errors import MoorageError
from moorage.unforeseen import as_ours
from moorage.upkeep import due, outcomes

if TYPE_CHECKING:
    from moorage.settings import Settings
    from moorage.ui import UI

DONE, WOULD, NOTHING, FAILED = "done", "would", "not-due", "failed"
# The note for node_exporter, if it is wanted: it can fail as the parts can.
TEXTFILE = "textfile"


@dataclass(frozen=True)
class Result:
    """What became of a part: ``state`` is done, would (a dry run), not-due or failed."""

    part: str
    state: str
    words: str
    figures: Mapping[str, Any] = field(default_factory=dict)
    error: MoorageError | None = None

    def to_json(self) -> dict[str, Any]:
        error = {"error": self.error.to_json()} if self.error is not None else {}
        return {"state": self.state, "words": self.words, **self.figures, **error}


def keep_up(settings: Settings, ui: UI, *, dry_run: bool = False) -> list[Result]:
    """Every part in its order. ``dry_run`` looks and changes nothing, nor notes anything.

    Whatever the system or a room of ours refuses stands in the results; a defect of ours is raised
    once the other parts are done.
    """
    results: list[Result] = []
    defects: list[Exception] = []
    for part, look in due.PARTS.items():
        try:
            results.append(_kept(settings, ui, part, look, dry_run=dry_run))
        except Exception as problem:
            explained = as_ours(problem)
            if isinstance(explained, MoorageError):
                results.append(Result(part, FAILED, explained.message, error=explained))
            else:
                defects.append(problem)
    if not dry_run:
        results += _told(settings)
    if defects:
        raise defects[0]
    return results


def _kept(settings: Settings, ui: UI, part: str, look: due.Look, *, dry_run: bool) -> Result:
    if dry_run:
        found = look(settings)
        ui.present(found.notes)
        return Result(part, WOULD if found.work else NOTHING, found.words, found.figures)
    with outcomes.noted(settings, ui, part, refusals=True) as note:
        found = look(settings)
        ui.present(found.notes)
        if found.work is not None:
            ui.say(f"{part}: {found.words}")
            done = found.work(ui)
            return Result(part, DONE, done.words, done.figures)
        note.wanted = found.asked
        return Result(part, NOTHING, found.words, found.figures)


def _told(settings: Settings) -> list[Result]:
    """Notes that the upkeep ran, also for node_exporter."""
    try:
        outcomes.ran(settings)
    except OSError as problem:
        path = str(problem.filename or settings.upkeep.textfile)
        error = MoorageError(
            "textfile-unwritten",
            f"nobody is told that the upkeep ran: {path} cannot be written",
            cause=problem.strerror or str(problem),
            cure="make its folder and let this user write there, or correct upkeep.textfile",
            path=path,
        )
        return [Result(TEXTFILE, FAILED, error.message, error=error)]
    return []


__all__ = ["DONE", "FAILED", "NOTHING", "TEXTFILE", "WOULD", "Result", "keep_up"]
