"""Timing whole commands side by side, and the row a figure becomes."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Row:
    """One figure: ours beside its peer's in ``unit``; good while ``ratio`` <= ``target``.

    Where the target is absolute, ``peer`` is that limit and the target 1.
    """

    name: str
    ours: float
    peer: float
    unit: str
    target: float

    @property
    def ratio(self) -> float:
        return self.ours / self.peer

    @property
    def held(self) -> bool:
        return self.ratio <= self.target

    def to_json(self) -> dict[str, object]:
        """The keys that build/bench.json promises: name, ours, peer, unit, ratio, target."""
        row = asdict(self)
        return {
            "name": row["name"],
            "ours": round(self.ours, 3),
            "peer": round(self.peer, 3),
            "unit": row["unit"],
            "ratio": round(self.ratio, 3),
            "target": row["target"],
        }


def command(argv: Sequence[str]) -> Callable[[], None]:
    """A run of ``argv`` to its successful end, its output thrown away."""

    def run() -> None:
        subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )

    return run


def side_by_side(
    ours: Callable[[], None], peer: Callable[[], None], *, runs: int
) -> tuple[float, float]:
    """Medians in seconds of ``runs`` alternating runs, after one of each to warm the caches.

    Alternating, so that a machine that slows down in the middle slows both.
    """
    ours()
    peer()
    spent: tuple[list[float], list[float]] = ([], [])
    for _ in range(runs):
        for times, work in zip(spent, (ours, peer), strict=True):
            started = time.perf_counter()
            work()
            times.append(time.perf_counter() - started)
    return statistics.median(spent[0]), statistics.median(spent[1])


def in_turn(
    runs_of: Mapping[str, Callable[[], None]],
    runs: int,
    before: Callable[[str], None] = lambda _name: None,
) -> dict[str, float]:
    """Medians in seconds of ``runs`` runs of each, in turn; ``before`` each run is not timed."""
    spent: dict[str, list[float]] = {name: [] for name in runs_of}
    for _ in range(runs):
        for name, run in runs_of.items():
            before(name)
            started = time.perf_counter()
            run()
            spent[name].append(time.perf_counter() - started)
    return {name: statistics.median(times) for name, times in spent.items()}
