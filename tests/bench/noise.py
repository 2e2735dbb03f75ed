"""Whether this is a place to measure in: others at work on its processors, or runs that differ.

What misses its target there is neither held nor missed: it is told as noisy, and ends a bench with
0. A target that is held in a noisy place is held.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from tests.bench.measure import Row

# Of all processors, by others, while a bench itself sleeps. What a bench has set up and leaves idle
# (sixteen nodes with their daemons) takes 1 to 3 %.
OTHERS = 0.10
# Of a row's middle half of pairs: see Row.spread.
SPREAD = 0.25
SECONDS = 2.0


@dataclass(frozen=True)
class Place:
    """The share of this machine's processors that others took, a hypervisor's among them."""

    others: float

    @property
    def noisy(self) -> bool:
        return self.others > OTHERS

    def verdict(self, row: Row) -> str:
        """``held``, ``MISSED``, or ``noisy`` for a miss that says nothing."""
        if row.held:
            return "held"
        return "noisy" if self.noisy or row.spread > SPREAD else "MISSED"

    @property
    def words(self) -> str:
        """What a reader of the table should know; "" in a quiet place."""
        if not self.noisy:
            return ""
        return (
            f"others take {self.others:.0%} of this machine's processors: what misses its target "
            "here is noisy, not missed; measure again when they have ended"
        )


def look(seconds: float = SECONDS) -> Place:
    """Sleeps, and sees what the processors did meanwhile. Source: proc_stat(5)."""
    busy, total = _times()
    time.sleep(seconds)
    busy_now, total_now = _times()
    return Place((busy_now - busy) / max(total_now - total, os.cpu_count() or 1))


def _times() -> tuple[int, int]:
    """Clock ticks of all processors since boot: at work or stolen, and all."""
    words = Path("/proc/stat").read_text("ascii").partition("\n")[0].split()[1:9]
    user, nice, system, idle, waiting, *interrupts_and_stolen = map(int, words)
    busy = user + nice + system + sum(interrupts_and_stolen)
    return busy, busy + idle + waiting
