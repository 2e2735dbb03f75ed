"""What of the long run is done, on disk as it ends: a line per seed, to be gone on from."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.registry.interleavings import Tally

AT_ONCE = 25  # interleavings per seed: on one registry, before the next begins with an empty folder


@dataclass
class Ledger:
    """A run of ``count`` interleavings from seed ``first`` on; ``done``: by seed."""

    path: Path
    first: int
    count: int
    done: dict[int, Tally] = field(default_factory=dict)

    @classmethod
    def begin(cls, path: Path, first: int, count: int) -> Ledger:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"first": first, "count": count}) + "\n")
        return cls(path, first, count)

    @classmethod
    def read(cls, path: Path) -> Ledger:
        """One that was stopped. A line that a death has cut off counts as not done."""
        head, *lines = path.read_text().splitlines()
        made = cls(path, **json.loads(head))
        for line in lines:
            try:
                document = json.loads(line)
            except ValueError:
                continue
            seed = document.pop("seed")
            made.done[seed] = Tally(**document)
        return made

    def note(self, seed: int, tally: Tally) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps({"seed": seed, **asdict(tally)}) + "\n")
        self.done[seed] = tally

    def left(self) -> dict[int, int]:
        """The seeds that are not done, and how many interleavings each has."""
        parts = {
            self.first + number: min(AT_ONCE, self.count - start)
            for number, start in enumerate(range(0, self.count, AT_ONCE))
        }
        return {seed: part for seed, part in parts.items() if seed not in self.done}

    def sum(self) -> Tally:
        total = Tally()
        for one in self.done.values():
            total.add(one)
        return total
