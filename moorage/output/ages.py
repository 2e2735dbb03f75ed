"""How long ago something was, as people say it."""

from __future__ import annotations

from moorage.output.said import Said, said

DAY = 86400


def age(seconds: float) -> Said:
    """A time in the largest unit of which there are two, or one minute: ``90 d``, ``5 min``."""
    seconds = max(seconds, 0)
    for unit, size in (("{count} d", DAY), ("{count} h", 3600), ("{count} min", 60)):
        if seconds >= 2 * size or (size == 60 and seconds >= size):
            return said(unit, count=f"{seconds // size:,.0f}")
    return said("{count} s", count=f"{seconds:.0f}")
