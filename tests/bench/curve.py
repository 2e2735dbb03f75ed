"""How the cost grows with hosts: 1, 4, 16 and 64 of them, as build/curve.json and a picture.

Of each run: seconds of the clock (which the picture shows), the operator's processor, and a node's.

By hand, `nox -s bench -- --curve`. What docs/performance.md shows was measured by it.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.bench import noise
from tests.bench.fleet import ROOT, Fleet, stand_up
from tests.bench.measure import Spent, in_turn

HOSTS = (1, 4, 16, 64)
PICTURE = ROOT / "docs" / "performance.svg"
# Drawn with the peers' own Python, which has pygal.
_DRAW = """
import json, sys
import pygal
from pygal.style import CleanStyle
points = json.loads(sys.argv[1])
chart = pygal.XY(style=CleanStyle, width=760, height=420, x_title="hosts", y_title="seconds",
                 include_x_axis=True, legend_at_bottom=True, disable_xml_declaration=True,
                 js=[], pretty_print=True, no_prefix=True)
for name, line in points.items():
    chart.add(name, [(int(hosts), seconds) for hosts, seconds in line.items()])
chart.x_labels = [1, 4, 16, 64]
sys.stdout.write(chart.render(is_unicode=True))
"""


Points = dict[str, dict[int, dict[str, float]]]


def draw(points: Points, fleet: Fleet) -> None:
    """Writes the picture. ``points``: what was run -> hosts -> what it took."""
    clocks = {
        name: {count: took["seconds"] for count, took in line.items()}
        for name, line in points.items()
    }
    argv = [str(fleet.build / "bin" / "python"), "-c", _DRAW, json.dumps(clocks)]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    PICTURE.write_text(done.stdout + "\n", encoding="utf-8")


def main(runs: int = 3) -> None:
    """Measures and draws. The nodes share this machine with the operator: see the page's words."""
    before = noise.look()
    everyone = stand_up(max(HOSTS))
    points: Points = {}
    for count in HOSTS:
        fleet = everyone.first(count)
        cold = {"first trust, once": fleet.run(fleet.ours("--once")),
                "first trust, agent stays": fleet.run(fleet.ours(), settles=True)}  # fmt: skip
        found = in_turn(cold, runs, before=lambda _tool, fleet=fleet: fleet.clean())  # type: ignore[misc]
        warm = {"nothing to do, agent there": fleet.run(fleet.ours()),
                "ssh host true, in parallel": fleet.run(fleet.ssh())}  # fmt: skip
        found |= in_turn(warm, runs)
        for name, each in found.items():
            points.setdefault(name, {})[count] = took = _took(each, count)
            words = ", ".join(f"{what} {value:g}" for what, value in took.items())
            sys.stderr.write(f"{count} hosts, {name}: {words}\n")
    place = max(before, noise.look(), key=lambda one: one.others)
    sys.stderr.write(place.words + "\n" * place.noisy)
    Path("build").mkdir(exist_ok=True)
    Path("build", "curve.json").write_text(json.dumps(points, indent=2) + "\n")
    draw(points, everyone)


def _took(runs: Sequence[Spent], count: int) -> dict[str, float]:
    """Medians: of the clock, of the operator's processor, and of one node's in milliseconds."""
    return {
        "seconds": round(statistics.median(one.clock for one in runs), 2),
        "operator": round(statistics.median(one.operator for one in runs), 2),
        "node_ms": round(statistics.median(one.nodes for one in runs) / count * 1000),
    }


if __name__ == "__main__":
    main()
