"""`nox -s bench`: prints a table, writes build/bench.json, ends with 1 if a target is missed.

In a place that is too noisy to tell, a miss is told as noisy, and ends with 0 (noise.py).
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from moorage.ui import UI
from tests.bench import noise
from tests.bench.figures import FIGURES
from tests.bench.measure import Row

# What takes minutes, or this machine for itself: a module with rows() each.
BY_HAND = {
    "--fleet": "tests.bench.fleet",
    "--front": "tests.bench.front",
    "--resident": "tests.bench.resident",
    "--thousand": "tests.bench.thousand",
}


def main(arguments: list[str]) -> int:
    """Measures all figures, or those of one of ``BY_HAND``; with ``--curve`` how many nodes' grow.

    Returns the exit code.
    """
    # Users have bytecode beside the source, as the peers have it from pip.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if arguments == ["--curve"]:
        from tests.bench import curve

        curve.main()
        return 0
    ui, before = UI(), noise.look()
    if len(arguments) == 1 and arguments[0] in BY_HAND:
        rows = importlib.import_module(BY_HAND[arguments[0]]).rows()
    else:
        rows = [figure() for figure in FIGURES]
    place = max(before, noise.look(), key=lambda one: one.others)
    if place.noisy:
        ui.warn(place.words)
    verdicts = [place.verdict(row) for row in rows]
    ui.table(
        ["figure", "ours", "peer", "ratio", "spread", "target", ""],
        [
            [
                row.name,
                f"{row.ours:.1f} {row.unit}",
                f"{row.peer:.1f} {row.unit}",
                f"{row.ratio:.2f}x",
                f"{row.spread:.0%}",
                f"{row.target:g}x",
                verdict,
            ]
            for row, verdict in zip(rows, verdicts, strict=True)
        ],
    )
    _write(rows)
    return 1 if "MISSED" in verdicts else 0


def _write(rows: Sequence[Row]) -> None:
    """Into build/bench.json; figures that another session measured stay in it."""
    path = Path("build", "bench.json")
    path.parent.mkdir(exist_ok=True)
    found: dict[str, object] = {}
    if path.exists():
        found = {row["name"]: row for row in json.loads(path.read_bytes())}
    found |= {row.name: row.to_json() for row in rows}
    path.write_text(json.dumps(list(found.values()), indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
