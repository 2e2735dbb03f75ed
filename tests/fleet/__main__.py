"""python -m tests.fleet [--real N] [--simulated N]

A rollout over real nodes and simulated ones, by the product's own command, hurt while it runs:
first over SSH, then over resident agents. Ends with `fleet: N hosts, N faults, 0 lost`, and exit
code 1 where anything was lost, untrue or done twice.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import docker

from tests.engine import running
from tests.fleet.session import FEWEST_REAL, FEWEST_SIMULATED, MOST_REAL, Session, room_for
from tests.fleet.story import Story


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fleet")
    parser.add_argument(
        "--real",
        type=int,
        default=0,
        help=f"real nodes: what cores and memory carry, or up to {MOST_REAL}",
    )
    parser.add_argument("--simulated", type=int, default=200, help="honest agents without a node")
    options = parser.parse_args(arguments)
    client = docker.from_env(timeout=120)
    real = options.real or room_for()
    if not FEWEST_REAL <= real <= MOST_REAL:
        parser.error(f"--real: from {FEWEST_REAL} to {MOST_REAL}")
    if options.simulated < FEWEST_SIMULATED:
        parser.error(f"--simulated: from {FEWEST_SIMULATED}")
    with tempfile.TemporaryDirectory() as folder:
        with Session(client, Path(folder), real, options.simulated).up() as session:
            story = Story(session)
            story.tell()
        print(story.last_line(), flush=True)
    return 1 if story.judge.problems else 0


if __name__ == "__main__":
    with running():
        code = main(sys.argv[1:])
    sys.exit(code)
