"""`nox -s bench`: prints a table, writes build/bench.json, ends with 1 where a target is missed."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

from moorage.ui import UI
from tests.bench.figures import FIGURES

# What takes minutes, or this machine for itself: a module with rows() each.
BY_HAND = {
    "--fleet": "tests.bench.fleet",
    "--resident": "tests.bench.resident",
    "--thousand": "tests.bench.thousand",
}


def main(arguments: list[str]) -> int:
    """Measures all figures, or those of one of ``BY_HAND``; with ``--curve`` how many nodes' grow.

    Returns the exit code.
    """
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
    build = Path("build")
    build.mkdir(exist_ok=True)
    (build / "bench.json").write_text(json.dumps([row.to_json() for row in rows], indent=2) + "\n")
    return 0 if all(row.held for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
