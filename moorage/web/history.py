"""Numbers that have a history, one a minute for a day, as the page's plots show them.

They are kept in memory: the page knows what it has seen itself. What shall be kept for longer is
for Prometheus (``inv monitoring.setup``).
"""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from moorage.web.story import Plot, Section, from_rows

if TYPE_CHECKING:
    from moorage.settings import Settings
    from moorage.web.story import Story

MINUTES = 24 * 60
# A plot is 600 units wide: more points than this nobody sees.
MOST_POINTS = 288
_GIB = 1 << 30


class Point(NamedTuple):
    """``at``: seconds since 1970."""

    at: float
    value: float


class Series:
    """One number over time. ``counts``: it only grows, and how much per minute is shown."""

    def __init__(self, title: str, unit: str, *, counts: bool = False) -> None:
        self.title, self.unit = title, unit
        self._counts = counts
        self._last: Point | None = None
        self._points: deque[Point] = deque(maxlen=MINUTES)

    def add(self, value: float | None, now: float) -> None:
        """What was found at ``now``; None for nothing, which leaves a gap."""
        if value is None:
            self._last = None
            return
        last, self._last = self._last, Point(now, value)
        if not self._counts:
            self._points.append(Point(now, value))
        elif last is not None and now > last.at:
            # A counter that is less than before was begun again, from nought.
            grown = value - last.value if value >= last.value else value
            self._points.append(Point(now, grown / (now - last.at) * 60))

    def plot(self) -> Plot:
        return Plot(self.title, self.unit, thinned(tuple(self._points)))


def thinned(points: tuple[Point, ...], most: int = MOST_POINTS) -> tuple[Point, ...]:
    """At most ``most`` points: the last of each of so many equal parts, with the highest value, for
    a peak is what one looks for. Pure."""
    if len(points) <= most:
        return points
    parts = [points[len(points) * n // most : len(points) * (n + 1) // most] for n in range(most)]
    return tuple(Point(part[-1].at, max(one.value for one in part)) for part in parts)


class History:
    """Asked once a minute, it looks at each number and gives the section with their plots."""

    def __init__(self, settings: Settings, story: Story, clock: Callable[[], float] = time.time):
        self._settings, self._story, self._clock = settings, story, clock
        self._pulls = Series("pulls", "a minute", counts=True)
        self._disk = Series("disk in use", "GiB")
        self._healed = Series("drift put back", "times a minute", counts=True)
        self._hurt = Series("nodes not in order", "")

    def look(self) -> Section:
        """The plots, with this minute in them."""
        now, nodes = self._clock(), self._story.standings()
        asked = [one for one in nodes if one.fault is None]
        healed = sum(one.resident.healed for one in asked if one.resident is not None)
        self._hurt.add(sum(not one.good for one in asked) if asked else None, now)
        self._healed.add(healed if asked else None, now)
        shown = [self._hurt, self._healed]
        if not self._settings.registry.external:
            self._pulls.add(self._counted(), now)
            self._disk.add(self._used(), now)
            shown = [self._pulls, self._disk, *shown]
        plots = tuple(one.plot() for one in shown)
        return replace(
            from_rows((), (), "one number per minute, since the page began"), plots=plots
        )

    def _counted(self) -> float | None:
        from moorage.registry.front import traffic

        return traffic.pulls(self._settings.registry.metrics_port)

    def _used(self) -> float | None:
        try:
            return shutil.disk_usage(self._settings.registry_data).used / _GIB
        except OSError:
            return None
