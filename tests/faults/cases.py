"""Which faults are injected where: a list for every containerd, short or full. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """One fault: ``kind`` at ``number`` of ``operation``, on the node with this containerd line.

    ``number`` is a step of the journal (``kill``, ``read-only``, ``read-only-state``, ``reboot``),
    a call (``fsync``), free bytes (``full-etc``, ``full-state``), milliseconds (``random``), or 0.
    """

    line: str
    kind: str
    operation: str
    number: int = 0

    def __str__(self) -> str:
        return f"{self.line}/{self.kind}/{self.operation}/{self.number}"

    @classmethod
    def parse(cls, text: str) -> Case:
        """``1.7/kill/apply/3`` -> Case. Raises ValueError."""
        line, kind, operation, number = text.split("/")
        return cls(line, kind, operation, int(number))


# Steps of the journal that each operation has on a node as its packages leave it.
Steps = dict[str, int]
DAEMON_FAULTS = ("refuses", "cri-absent", "hangs")


def full(line: str, steps: Steps, seed: int) -> Iterator[Case]:
    """Every step of the journal, and random instants; every fault of disk and daemon."""
    for operation, count in steps.items():
        for number in range(1, count + 1):
            yield Case(line, "kill", operation, number)
    dice = random.Random(f"{seed} {line}")  # noqa: S311 - a test's dice
    for operation in ("apply", "untrust"):
        for _ in range(20):
            yield Case(line, "random", operation, dice.randrange(60, 900))
    for number in range(1, steps["apply"] + 1):
        yield Case(line, "reboot", "apply", number)
        yield Case(line, "read-only", "apply", number)
        yield Case(line, "read-only-state", "apply", number)
    for number in range(1, steps["untrust"] + 1):
        yield Case(line, "read-only", "untrust", number)
    for number in range(1, 41, 2):
        yield Case(line, "fsync", "apply", number)
    for free in range(0, 40 << 10, 4 << 10):
        yield Case(line, "full-state", "apply", free)
        yield Case(line, "full-etc", "apply", free)
    for kind in DAEMON_FAULTS:
        yield Case(line, kind, "apply")


def short(line: str, steps: Steps, seed: int) -> Iterator[Case]:
    """Eleven for every containerd: each kind once or more, the places drawn by ``seed``."""
    dice = random.Random(f"{seed} {line}")  # noqa: S311 - a test's dice
    everything = list(full(line, steps, seed))
    wanted = {"kill": 3, "random": 1, "reboot": 1, "read-only": 1, "read-only-state": 1}
    for kind, count in {**wanted, "fsync": 1, "full-state": 1, "full-etc": 1}.items():
        yield from dice.sample([case for case in everything if case.kind == kind], count)
    # One each: systemd's patience, and the agent's own with a CRI that does not come, take long.
    yield Case(line, {"1.6": "refuses", "1.7": "hangs"}.get(line, "cri-absent"), "apply")
