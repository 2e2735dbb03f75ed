"""The long ones, by hand: ``python -m tests.registry [--full | INTERLEAVINGS]``.

Interleavings on several registries at once, each of its own seed; then the same with the collection
that Distribution brings, which has to lose something, or this would show nothing. The last line is
the sum; the exit code is 1 if anything was lost by ours, or nothing by the other.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from tests.debian import program
from tests.registry import interleavings

FULL, SHORT = 10_000, 100
_AT_ONCE = 25  # on one registry, before the next begins with an empty folder


def main(words: list[str]) -> int:
    """Runs so many interleavings -> the exit code."""
    count = FULL if words == ["--full"] else int(words[0]) if words else SHORT
    program("docker-registry")  # once, before the workers want it
    first = int(time.time())
    print(f"seeds from {first}", flush=True)
    done = lost = 0
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(os.cpu_count()) as pool:
        parts = [min(_AT_ONCE, count - start) for start in range(0, count, _AT_ONCE)]
        jobs = {
            pool.submit(interleavings.run, Path(folder), first + number, part): first + number
            for number, part in enumerate(parts)
        }
        for job in as_completed(jobs):
            tally = job.result()
            done, lost = done + tally.interleavings, lost + len(tally.lost)
            said = f"{done} of {count}, seed {jobs[job]}: {tally}"
            print(said, *tally.lost, sep="\n  ", flush=True)
        caught = _naive(Path(folder) / "naive")
    print(f"registry: {done} interleavings, {lost} lost")
    return 1 if lost or not caught else 0


def _naive(folder: Path) -> bool:
    """Whether Distribution's own collection beside pushes is caught losing an image."""
    for seed in range(20):
        lost = interleavings.run(folder, seed, 6, interleavings.naive, kills=False).lost
        if lost:
            print(f"naive: seed {seed} lost {len(lost)}", *lost, sep="\n  ", flush=True)
            return True
    print("naive: nothing was lost in 20 runs of 6", flush=True)
    return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
