"""`nox -s bench`: prints a table, writes build/bench.json, ends with 1 where a target is missed."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from moorage.ui import UI
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
    if len(arguments) == 1 and arguments[0] in BY_HAND:
        rows = importlib.import_module(BY_HAND[arguments[0]]).rows()
    else:
        rows = [figure() for figure in FIGURES]
    ui = UI()
    ui.table(
        ["figure", "ours", "peer", "ratio", "target", ""],
        [
            [
                row.name,
                f"{row.ours:.1f} {row.unit}",
                f"{row.peer:.1f} {row.unit}",
                f"{row.ratio:.2f}x",
                f"{row.target:g}x",
                "held" if row.held else "MISSED",
            ]
            for row in rows
        ],
    )
    _write(rows)
    return 0 if all(row.held for row in rows) else 1


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
