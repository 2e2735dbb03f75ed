"""Timing whole commands side by side, and the row a figure becomes."""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Row:
    """One figure: ours beside its peer's in ``unit``; good while ``ratio`` <= ``target``.

    If the target is absolute, ``peer`` is that limit and the target 1. ``pairs``: the ratio of each
    turn in which both were measured, one after the other; their median is then the ratio.
    """

    name: str
    ours: float
    peer: float
    unit: str
    target: float
    pairs: tuple[float, ...] = ()

    @property
    def ratio(self) -> float:
        return statistics.median(self.pairs) if self.pairs else self.ours / self.peer

    @property
    def spread(self) -> float:
        """How far the middle half of the pairs lies apart, as a share of the ratio."""
        if len(self.pairs) < 2:
            return 0.0
        first, _, third = statistics.quantiles(self.pairs, method="inclusive")
        return (third - first) / self.ratio

    @property
    def held(self) -> bool:
        return self.ratio <= self.target

    def to_json(self) -> dict[str, object]:
        """What build/bench.json promises: name, ours, peer, unit, ratio, target, spread."""
        row = asdict(self)
        return {
            "name": row["name"],
            "ours": round(self.ours, 3),
            "peer": round(self.peer, 3),
            "unit": row["unit"],
            "ratio": round(self.ratio, 3),
            "target": row["target"],
            "spread": round(self.spread, 3),
        }


def paired(
    name: str, ours: Sequence[float], peer: Sequence[float], unit: str, target: float
) -> Row:
    """The row of two that were measured in turns: medians, and the ratio of each turn."""
    ratios = tuple(one / other for one, other in zip(ours, peer, strict=True))
    return Row(name, statistics.median(ours), statistics.median(peer), unit, target, ratios)


def limited(name: str, ours: Sequence[float], limit: float, unit: str) -> Row:
    """The row of one that was measured several times beside an absolute ``limit``."""
    ratios = tuple(one / limit for one in ours)
    return Row(name, statistics.median(ours), limit, unit, 1, ratios)


@dataclass(frozen=True)
class Spent:
    """What one run of a command took, in seconds: of the clock; of this machine's processors, by
    the command and its children; and of the nodes' processors, 0 if they were not asked."""

    clock: float
    operator: float
    nodes: float = 0.0


def spent(argv: Sequence[str], environment: Mapping[str, str], good: Sequence[int] = (0,)) -> Spent:
    """Runs ``argv`` to its end. Raises RuntimeError with its words for an exit code not ``good``.

    Children count once their parent has waited for them (getrusage(2), RUSAGE_CHILDREN).
    """
    with tempfile.TemporaryFile() as out:
        began = time.perf_counter()
        program = subprocess.Popen(
            argv, env=dict(environment), stdin=subprocess.DEVNULL, stdout=out,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        _, status, usage = os.wait4(program.pid, 0)
        clock = time.perf_counter() - began
        program.returncode = os.waitstatus_to_exitcode(status)
        if program.returncode not in good:
            out.seek(0)
            said = out.read().decode(errors="replace")[-6000:]
            raise RuntimeError(f"{' '.join(argv[:4])} ends with {program.returncode}: {said}")
    return Spent(clock, usage.ru_utime + usage.ru_stime)


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
) -> tuple[list[float], list[float]]:
    """Seconds of ``runs`` alternating runs, after one of each to warm the caches.

    Alternating, so that a machine that slows down in the middle slows both.
    """
    ours()
    peer()
    found: tuple[list[float], list[float]] = ([], [])
    for _ in range(runs):
        for times, work in zip(found, (ours, peer), strict=True):
            started = time.perf_counter()
            work()
            times.append(time.perf_counter() - started)
    return found


def in_turn(
    runs_of: Mapping[str, Callable[[], Spent]],
    runs: int,
    before: Callable[[str], None] = lambda _name: None,
) -> dict[str, list[Spent]]:
    """``runs`` runs of each, in turn; ``before`` each run is not measured."""
    found: dict[str, list[Spent]] = {name: [] for name in runs_of}
    for _ in range(runs):
        for name, run in runs_of.items():
            before(name)
            found[name].append(run())
    return found
