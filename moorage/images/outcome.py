"""What became of each image, and what went wrong, summed up by cause. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from agent.wire.faults import Fault
from moorage.errors import MoorageError
from moorage.output import Note, Part, PartFailure

_SHOWN = 5


@dataclass(frozen=True)
class ImageOutcome:
    """One image: ``image`` as it was asked for, ``landed`` where it is now, with its ``digest``.

    ``changed``: the registry did not have it before. ``fault``: why it is not there.
    """

    image: str
    landed: str = ""
    digest: str = ""
    changed: bool = False
    fault: Fault | None = None

    def to_json(self) -> dict[str, Any]:
        found = {"image": self.image, "reference": self.landed, "digest": self.digest}
        error = {} if self.fault is None else {"error": self.fault.to_json()}
        return {**found, "changed": self.changed, **error}


@dataclass(frozen=True)
class CommonCause:
    """A cause that several images share, with the first one's words."""

    fault: Fault
    images: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {**self.fault.to_json(), "images": list(self.images)}


def causes(outcomes: Sequence[ImageOutcome]) -> tuple[CommonCause, ...]:
    """The causes, the most frequent first: faults of one code and one cure are one."""
    found: dict[tuple[str, str], list[ImageOutcome]] = {}
    for one in outcomes:
        if one.fault is not None:
            found.setdefault((one.fault.code, one.fault.cure), []).append(one)
    rows = [
        CommonCause(_first(group), tuple(one.image for one in group)) for group in found.values()
    ]
    return tuple(sorted(rows, key=lambda row: -len(row.images)))


def told(outcomes: Sequence[ImageOutcome]) -> Iterator[Part]:
    """What went wrong, each cause once with its images."""
    for row in causes(outcomes):
        yield PartFailure(MoorageError.of(row.fault))
        if len(row.images) > 1:
            shown = ", ".join(row.images[:_SHOWN])
            more = f" and {len(row.images) - _SHOWN} more" if len(row.images) > _SHOWN else ""
            yield Note(f"the same of {len(row.images)} images: {shown}{more}")


def document(outcomes: Sequence[ImageOutcome]) -> dict[str, Any]:
    """The result as JSON types; ``ok`` only if every image is there."""
    failed = sum(one.fault is not None for one in outcomes)
    return {
        "ok": not failed,
        "changed": any(one.changed for one in outcomes),
        "images": [one.to_json() for one in outcomes],
        "failed": failed,
        "causes": [row.to_json() for row in causes(outcomes)],
    }


def _first(group: Sequence[ImageOutcome]) -> Fault:
    return next(one.fault for one in group if one.fault is not None)
