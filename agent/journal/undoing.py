"""Taking one change back: which apply was the last one, and a file without what it did there.

Pure. Where nothing else changed the old bytes are known; where something did, the lines between
are matched, and only those that the change put there are turned back.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

from agent.journal.record import Record


def last_apply(records: Sequence[Record], registry: str) -> Record | None:
    """The newest apply for a registry that still stands; ``records`` newest first.

    One that changed no file (it made up for a restart alone) has nothing to take back.
    """
    undone: set[int | None] = set()
    for record in records:
        if record.operation == "undo":
            undone.add(record.undoes)
        elif record.registry != registry:
            continue
        elif record.operation == "untrust":
            return None
        elif record.changes and record.number not in undone:
            return record
    return None


def standing(records: Sequence[Record]) -> list[str]:
    """The registries of which an apply still stands, each once."""
    names = dict.fromkeys(record.registry for record in records)
    return [name for name in names if last_apply(records, name) is not None]


def before(records: Sequence[Record], last: Record) -> Record | None:
    """The one before ``last``; ``records`` newest first."""
    return next((one for one in records if one.number < last.number), None)


def too_short(earlier: Record | None, last: Record) -> bool:
    """Whether the record before ``last``, which tells what was ours then, is no longer kept."""
    return earlier is None and last.number > 1


def is_done(records: Sequence[Record], run: str) -> bool:
    """Whether an undo of this run was made here: its answer was lost, and it is asked for again."""
    return bool(run) and any(record.operation == "undo" and record.run == run for record in records)


def without(before: bytes, after: bytes, now: bytes) -> bytes | None:
    """``now`` with the edit from ``before`` to ``after`` taken back.

    None if somebody else has changed the very lines that edit changed.
    """
    old, ours, theirs = (one.splitlines(keepends=True) for one in (before, after, now))
    place: dict[int, int] = {}
    for block in SequenceMatcher(None, ours, theirs, autojunk=False).get_matching_blocks():
        place.update({block.a + k: block.b + k for k in range(block.size)})
    result: list[bytes] = []
    done = 0
    for tag, first, last, old_first, old_last in SequenceMatcher(
        None, ours, old, autojunk=False
    ).get_opcodes():
        if tag == "equal":
            continue
        start = _start(place, first, last)
        if start is None:
            start = _only(ours[first:last], theirs)
        if start is None or start < done:
            return None
        result += [*theirs[done:start], *old[old_first:old_last]]
        done = start + last - first
    return b"".join(_ended([*result, *theirs[done:]]))


def _ended(lines: list[bytes]) -> list[bytes]:
    """Lines of which each but the last has an end: one that was the last has others behind it."""
    ended = (one if one.endswith((b"\n", b"\r")) else one + b"\n" for one in lines[:-1])
    return [*ended, *lines[-1:]]


def _start(place: dict[int, int], first: int, last: int) -> int | None:
    """Where lines ``first`` to ``last`` of ours stand now, all together, or None."""
    if first == last:  # lines that were taken out come back behind the one before them
        if first == 0:
            return 0
        return place[first - 1] + 1 if first - 1 in place else place.get(first)
    start = place.get(first)
    whole = start is not None and all(
        place.get(line) == start + line - first for line in range(first, last)
    )
    return start if whole else None


def _only(lines: list[bytes], theirs: list[bytes]) -> int | None:
    """Where lines stand all together, if they do so once: of equal lines a match may take others.

    None for no lines.
    """
    size = len(lines)
    found = [k for k in range(len(theirs) - size + 1) if theirs[k : k + size] == lines]
    return found[0] if size and len(found) == 1 else None
