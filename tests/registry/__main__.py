"""The long ones, by hand: ``python -m tests.registry [--full | INTERLEAVINGS] [--seed=N]``.

Interleavings on several registries at once, each of its own seed; then the same with the
collection that Distribution brings, which has to lose something, or this would show nothing; then
rotations of the CA under pulls, and backups restored. The last line is the sum of what was done,
after Ctrl-C too, and ``--resume`` goes on from there. The exit code is 1 if anything was lost by
ours, or nothing by the other, 130 if it was stopped.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from tests.debian import program
from tests.registry import interleavings, rounds
from tests.registry.ledger import Ledger

FULL, SHORT = 10_000, 100
LEDGER = Path("build/registry/interleavings.jsonl")


@dataclass
class Sum:
    """What was done so far, as the last line says it."""

    interleavings: int = 0
    rotations: int = 0
    restores: int = 0
    lost: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"registry: {self.interleavings} interleavings, {self.rotations} rotations, "
            f"{self.restores} restores, {len(self.lost)} lost"
        )


def main(words: list[str]) -> int:
    """Runs them -> the exit code."""
    asked = _asked(words)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    done, code = Sum(), 1
    # In memory where there is some: what is killed here are processes, never the machine.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    try:
        with tempfile.TemporaryDirectory(dir=memory, prefix="moorage-") as folder:
            code = _all(asked, Path(folder), done)
    except KeyboardInterrupt:
        print("stopped; --resume goes on from here", flush=True)
        code = 130
    print(done)
    return code


def _asked(words: list[str]) -> Namespace:
    parser = ArgumentParser("python -m tests.registry")
    parser.add_argument("count", nargs="?", type=int, default=SHORT)
    parser.add_argument("--full", action="store_true", help=f"{FULL} of them")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--resume", action="store_true", help="go on with the last one's seeds")
    parser.add_argument("--at-once", type=int, default=os.cpu_count())
    parser.add_argument("--rotations", type=int)
    parser.add_argument("--restores", type=int)
    asked = parser.parse_args(words)
    asked.count = FULL if asked.full else asked.count
    return asked


def _all(asked: Namespace, folder: Path, done: Sum) -> int:
    ledger = Ledger.read(LEDGER) if asked.resume else Ledger.begin(LEDGER, asked.seed, asked.count)
    print(f"seeds from {ledger.first}", flush=True)
    _interleave(ledger, folder, asked.at_once, done)
    caught = rounds.naive(folder / "naive")
    print("the naive way lost:", *caught or ["nothing"], sep="\n  ", flush=True)
    _rotate(folder / "rotated", ledger, asked.rotations, done)
    _restore(folder / "restored", ledger, asked.restores, done)
    return 1 if done.lost or not caught else 0


def _interleave(ledger: Ledger, folder: Path, at_once: int, done: Sum) -> None:
    """A signal lets the seeds end that are under way: what is said to be done is whole."""
    program("docker-registry")  # once, before the workers want it
    _count(ledger, done)
    with ProcessPoolExecutor(at_once, initializer=_heedless) as pool:
        left = ledger.left().items()
        jobs = {pool.submit(interleavings.run, folder, *one): one[0] for one in left}
        try:
            for job in as_completed(jobs):
                ledger.note(jobs[job], job.result())
                _count(ledger, done)
                print(f"seed {jobs[job]}; in all {ledger.sum()}", *job.result().lost, sep="\n  ")
                sys.stdout.flush()
        except KeyboardInterrupt:
            print("stopping once the seeds have ended that are under way", flush=True)
            pool.shutdown(cancel_futures=True)
            for job, seed in jobs.items():
                if job.done() and not job.cancelled() and seed not in ledger.done:
                    ledger.note(seed, job.result())
            _count(ledger, done)
            raise


def _heedless() -> None:
    """A terminal sends Ctrl-C to workers and their registries as well."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _count(ledger: Ledger, done: Sum) -> None:
    total = ledger.sum()
    done.interleavings, done.lost = total.interleavings, list(total.lost)


def _rotate(folder: Path, ledger: Ledger, count: int | None, done: Sum) -> None:
    with rounds.served(folder / "registry") as made:
        for number in range(ledger.count // 200 + 2 if count is None else count):
            seed = ledger.first + number
            done.lost += rounds.rotate(made, folder / str(seed), seed)
            done.rotations += 1
            print(done, flush=True)


def _restore(folder: Path, ledger: Ledger, count: int | None, done: Sum) -> None:
    for number in range(ledger.count // 500 + 1 if count is None else count):
        seed = ledger.first + number
        done.lost += rounds.restore(folder / str(seed), seed)
        done.restores += 1
        print(done, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
