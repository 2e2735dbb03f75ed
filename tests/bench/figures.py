"""Every figure that is measured: a function each, listed in ``FIGURES``."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.bench import cluster
from tests.bench.measure import Row, command, limited, paired, side_by_side

ROOT = Path(__file__).resolve().parents[2]
_MS = 1000


def inv_list() -> Row:
    """`inv --list` must feel instant: Invoke itself, imported, is the floor."""
    inv = str(Path(sys.executable).parent / "inv")
    ours, peer = side_by_side(
        command([inv, "--list"]), command([sys.executable, "-c", "import invoke"]), runs=15
    )
    name = "inv --list / python -c 'import invoke'"
    return paired(name, _milliseconds(ours), _milliseconds(peer), "ms", 2)


def run_warm() -> Row:
    """What ./run adds to a command when the environment stands; its limit is 60 ms."""
    ours, peer = side_by_side(command([str(ROOT / "run"), "true"]), command(["true"]), runs=15)
    return limited("./run, warm, its own time", _more(ours, peer), 60, "ms")


def agent_face() -> Row:
    """What the agent's SSH face adds to Python itself before it reads a plan; its limit is 80 ms.

    From an unpacked folder with its bytecode, as every run on a node but the first.
    """
    return _imported("the agent's SSH face, imported", "import agent.__main__", 80)


def agent_whole() -> Row:
    """The same with all that an apply imports after it: mostly the making of dataclasses."""
    words = "import agent.__main__, agent.engine.engine, agent.wire.plan"
    return _imported("the agent's SSH face and core, imported", words, 250)


def _imported(name: str, words: str, limit: float) -> Row:
    ours, peer = side_by_side(
        command([sys.executable, "-c", words]), command([sys.executable, "-c", "pass"]), runs=15
    )
    return limited(name, _more(ours, peer), limit, "ms")


def _milliseconds(seconds: Sequence[float]) -> list[float]:
    return [one * _MS for one in seconds]


def _more(ours: Sequence[float], peer: Sequence[float]) -> list[float]:
    """What ours took more than its peer in each turn, in milliseconds."""
    return [(one - other) * _MS for one, other in zip(ours, peer, strict=True)]


def second_up() -> Row:
    """A second `inv up` has nothing to do, proves it by a pull on every node, within ten seconds.

    Stands the lab up first and takes it down afterwards, unless it stood already.
    """
    up = [str(ROOT / "run"), "inv", "up", "--yes"]
    stood = subprocess.run(
        [str(ROOT / "run"), "inv", "registry.status"], capture_output=True, check=False
    )
    command(up)()
    try:
        spent = []
        for _ in range(3):
            started = time.perf_counter()
            command(up)()
            spent.append(time.perf_counter() - started)
    finally:
        if stood.returncode != 0:
            command([str(ROOT / "run"), "inv", "down"])()
    return limited("second inv up, three nodes", spent, 10, "s")


FIGURES: tuple[Callable[[], Row], ...] = (
    inv_list,
    run_warm,
    agent_face,
    agent_whole,
    cluster.secret_500_namespaces,
    cluster.diagnose_5000_pods,
    second_up,
)
