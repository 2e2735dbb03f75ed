"""Taking one change back: which apply was the last one, and a file without what it did there.

Pure. Where nothing else changed the old bytes are known; where something did, the lines between
are matched, and only those that the change put there are turned back.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

from agent.journal.record import Record


def last_apply(records: Sequence[Record]) -> Record | None:
    """The newest apply that still stands; ``records`` newest first.

    One that changed no file (it made up for a restart alone) has nothing to take back.
    """
    undone: set[int | None] = set()
    untrusted: set[str] = set()
    for record in records:
        if record.operation == "undo":
            undone.add(record.undoes)
        elif record.operation == "untrust":
            untrusted.add(record.registry)
        elif record.changes and record.number not in undone and record.registry not in untrusted:
            return record
    return None


def before(records: Sequence[Record], last: Record) -> Record | None:
    """The one before ``last``; ``records`` newest first."""
    return next((one for one in records if one.number < last.number), None)


def too_short(earlier: Record | None, last: Record) -> bool:
    """Whether the record before ``last``, which tells what was ours then, is kept no more."""
    return earlier is None and last.number > 1


def is_done(records: Sequence[Record], run: str) -> bool:
    """Whether an undo of this run was made here: its answer was lost, and it is asked for again."""
    return bool(run) and any(record.operation == "undo" and record.run == run for record in records)


def without(before: bytes, after: bytes, now: bytes) -> bytes | None:
    """``now`` with the edit from ``before`` to ``after`` taken back.

    None where somebody else has changed the very lines that edit changed.
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
            return None
        result += [*theirs[done:start], *old[old_first:old_last]]
        done = start + last - first
    return b"".join([*result, *theirs[done:]])


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
