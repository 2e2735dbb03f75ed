"""`nox -s bench`: prints a table, writes build/bench.json, ends with 1 where a target is missed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from moorage.ui import UI
from tests.bench.figures import FIGURES


def main(arguments: list[str]) -> int:
    """Measures all figures, with ``--fleet`` those of many nodes, with ``--curve`` how these grow.

    Returns the exit code.
    """
    if arguments == ["--curve"]:
        from tests.bench import curve

        curve.main()
        return 0
    if arguments == ["--fleet"]:
        from tests.bench import fleet

        rows = fleet.rows()
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
