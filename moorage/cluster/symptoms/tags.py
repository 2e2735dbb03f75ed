"""Tags of an image in the order of people, and those nearest to one that is missing. Pure."""

from __future__ import annotations

import difflib
import re
from bisect import bisect
from collections.abc import Sequence

# So many are named; of these so many for how they are written, the others for their place.
_SHOWN = 8
_ALIKE = 2


def natural(tag: str) -> tuple[tuple[int, int, str], ...]:
    """A key that sorts 1.9 before 1.10, and v1.9 beside 1.9."""
    bare = re.sub(r"^[vV](?=\d)", "", tag)
    parts = re.split(r"(\d+)", bare)
    return tuple((0, int(one), "") if one.isdigit() else (1, 0, one) for one in parts if one)


def nearest(tags: Sequence[str], asked: str) -> list[str]:
    """Up to eight of the tags, sorted: those around the place of ``asked`` and those written alike.

    A registry lists tags as its folders lie on the disk (Distribution 2.8) or as bytes sort (3).
    """
    ordered = sorted(set(tags), key=lambda tag: (natural(tag), tag))
    if not asked:
        return ordered[-_SHOWN:]
    alike = difflib.get_close_matches(asked, ordered, _ALIKE)
    others = [tag for tag in ordered if tag not in alike]
    place = bisect([natural(tag) for tag in others], natural(asked))
    count = _SHOWN - len(alike)
    first = max(0, min(place - count // 2, len(others) - count))
    chosen = {*alike, *others[first : first + count]}
    return [tag for tag in ordered if tag in chosen]
