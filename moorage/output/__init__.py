"""What people are shown, as values: pure functions compose them, :mod:`moorage.ui` prints them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from moorage.errors import MoorageError


class Line(NamedTuple):
    """A line of the result."""

    text: str


class Table(NamedTuple):
    """A table of the result."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


class Patch(NamedTuple):
    """A unified diff."""

    text: str


class Diff(NamedTuple):
    """One file or object as it is and as it shall be; None stands for one that is not there."""

    path: str
    before: str | None
    after: str | None


class Note(NamedTuple):
    """A line worth noticing, beside the result."""

    text: str


class Warn(NamedTuple):
    """A line that somebody has to look at, beside the result."""

    text: str


class PartFailure(NamedTuple):
    """An error that did not end the run."""

    problem: MoorageError


Part = Line | Table | Patch | Diff | Note | Warn | PartFailure
Parts = Iterable[Part]


def lines(texts: Iterable[str]) -> Parts:
    """Each text as a line of the result."""
    return map(Line, texts)


# update(done=…, total=…, text=…): each optional; done and total in any one unit.
Update = Callable[..., None]
# progress(what), as a with-block: shows what goes on, and how far it is. Who takes this instead of
# a UI can neither print nor ask.
Progress = Callable[[str], AbstractContextManager[Update]]


def size(count: float) -> str:
    """Bytes in the unit that fits: ``1.5 MB``, by powers of ten."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def unheard(**_progress: object) -> None:
    """An ``Update`` of which nobody hears."""


@contextmanager
def silent(_what: str) -> Iterator[Update]:
    """A ``Progress`` of which nobody hears: for work beside other work that is shown."""
    yield unheard
