"""The long ones, by hand: ``python -m tests.registry [--full | INTERLEAVINGS]``.

Interleavings on several registries at once, each of its own seed. The last line is the sum; the
exit code is 1 if anything was lost.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from tests.registry import interleavings
from tests.registry.program import debian

FULL, SHORT = 10_000, 100
_AT_ONCE = 25  # on one registry, before the next begins with an empty folder


def main(words: list[str]) -> int:
    """Runs so many interleavings -> the exit code."""
    count = FULL if words == ["--full"] else int(words[0]) if words else SHORT
    debian("docker-registry")  # once, before the workers want it
    first = int(time.time())
    print(f"seeds from {first}", flush=True)
    done = lost = 0
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(os.cpu_count()) as pool:
        parts = [min(_AT_ONCE, count - start) for start in range(0, count, _AT_ONCE)]
        jobs = [
            pool.submit(interleavings.run, Path(folder), first + number, part)
            for number, part in enumerate(parts)
        ]
        for job in as_completed(jobs):
            tally = job.result()
            done, lost = done + tally.interleavings, lost + len(tally.lost)
            print(f"{done} of {count}: {tally}", *tally.lost, sep="\n  ", flush=True)
    print(f"registry: {done} interleavings, {lost} lost")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
