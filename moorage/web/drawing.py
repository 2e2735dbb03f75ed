"""A plot as lines and words: coordinates for an SVG, and the same numbers for who cannot see it.

Pure. The picture is 600 wide and 120 high, and stretched by the style sheet.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moorage.web.history import Point
    from moorage.web.story import Plot

WIDTH, HEIGHT = 600.0, 120.0
# A longer time without a number is a gap in the line.
GAP_SECONDS = 400.0
MOST_ROWS = 24


@dataclass(frozen=True)
class Drawn:
    """``lines``: points for a polyline each; ``rows``: what the table has, newest first; the rest
    are words. All are empty if there are fewer than two points, but for ``latest``."""

    name: str
    latest: str = ""
    lines: tuple[str, ...] = ()
    rows: tuple[tuple[str, str], ...] = ()
    lowest: str = ""
    highest: str = ""
    first_time: str = ""
    last_time: str = ""


def drawn(plot: Plot) -> Drawn:
    """The picture of a plot. Times are this machine's."""
    points = plot.points
    name = f"plot-{plot.title.replace(' ', '-')}"
    latest = number(points[-1].value) if points else ""
    if len(points) < 2:
        return Drawn(name, latest)
    values = [one.value for one in points]
    begin, end, top = points[0].at, points[-1].at, max(*values, 1.0)

    def place(one: Point) -> str:
        across = (one.at - begin) / max(end - begin, 1.0) * WIDTH
        return f"{across:.1f},{HEIGHT - one.value / top * HEIGHT:.1f}"

    lines = tuple(" ".join(map(place, part)) for part in _parts(points))
    step = max(len(points) // MOST_ROWS, 1)
    rows = tuple((when(one.at), number(one.value)) for one in points[::-step][:MOST_ROWS])
    return Drawn(
        name, latest, lines, rows, number(min(values)), number(max(values)), when(begin), when(end)
    )


def _parts(points: Sequence[Point]) -> list[list[Point]]:
    """The points between gaps."""
    parts = [[points[0]]]
    for one in points[1:]:
        if one.at - parts[-1][-1].at > GAP_SECONDS:
            parts.append([])
        parts[-1].append(one)
    return parts


def number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def when(seconds: float) -> str:
    return time.strftime("%m-%d %H:%M", time.localtime(seconds))
