"""python -m tests.faults [--full] [--load] [--seed N] [--only CASE] [--after CASE] [--lines 1.7]

Real nodes with systemd and containerd 1.6, 1.7 and 2.x; the images are those `inv up` builds. CASE
is LINE/KIND/OPERATION/NUMBER, as printed. ``--after``: on every line, what follows that
case: a long run goes on where it was stopped. ``--load``: beside processes that keep every core
busy.
Ends with `faults: N injected, N recovered, 0 broken`, and exit code 1 where that is not so.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import docker

from moorage.archive import agent_archive
from tests.agent.authority import Authority
from tests.agent.real import LAB, REGISTRY, Node, Registry, images
from tests.engine import running
from tests.faults import cases
from tests.faults.cases import Case
from tests.faults.victim import Broken, Victim

LINES = ("1.6", "1.7", "2")
PROGRAM = Path("/usr/bin/true")


class Tally:
    """What came of the faults; lines of the output never mix."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.injected = Counter[str]()
        self.broken: list[Case] = []
        self._guard = threading.Lock()

    def say(self, case: Case, words: str, *, held: bool, seconds: float) -> None:
        with self._guard:
            self.injected[case.kind] += 1
            if not held:
                self.broken.append(case)
            print(f"{'PASS' if held else 'FAIL'} {case}  {seconds:.1f} s  {words}", flush=True)
            if not held:
                print(f"     again: python -m tests.faults --seed {self.seed} --only {case}")

    def last_line(self) -> str:
        total, broken = sum(self.injected.values()), len(self.broken)
        return f"faults: {total} injected, {total - broken} recovered, {broken} broken"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--full", action="store_true", help="every step, by hand: takes long")
    parser.add_argument("--load", action="store_true", help="keep every core busy beside it")
    parser.add_argument("--seed", type=int, default=4711, help="of the places drawn at random")
    parser.add_argument("--only", default="", help="one case, as it was printed")
    parser.add_argument("--after", default="", help="go on behind this case, on every line")
    parser.add_argument("--lines", default=",".join(LINES), help="containerd lines")
    options = parser.parse_args(arguments)
    client = docker.from_env()
    found = images(client, LAB)
    registries = images(client, REGISTRY)
    only = Case.parse(options.only) if options.only else None
    lines = [only.line] if only else options.lines.split(",")
    if missing := [line for line in lines if line not in found or not registries]:
        print(f"no lab image with containerd {', '.join(missing)}; build them: ./run inv up")
        return 2
    tally = Tally(options.seed)
    authority = Authority("faults")
    stopped = threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        archive = agent_archive(Path(folder)).path
        registry = Registry(client, next(iter(registries.values())), authority)
        try:
            image = registry.push(client, PROGRAM)

            def on_line(line: str) -> None:
                # A machine's own /etc/hosts outlives a reboot; an engine writes a container's anew.
                hosts = Path(folder, f"hosts-{line}")
                left: list[Case] | None = [only] if only else None
                while not stopped.is_set() and (left is None or left):
                    hosts.write_text("127.0.0.1\tlocalhost\n::1\tlocalhost\n")
                    node = Node(client, found[line], [f"{hosts}:/etc/hosts"])
                    try:
                        node.start(archive)
                        victim = Victim(node, registry, image)
                        left = _suffer(victim, line, left, options, tally, stopped)
                    finally:
                        node.remove()

            with ThreadPoolExecutor(len(lines)) as pool:
                try:
                    list(pool.map(on_line, lines))
                finally:
                    stopped.set()
        finally:
            registry.container.remove(force=True, v=True)
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(tally.injected.items()))
    print(f"kinds: {kinds}")
    print(tally.last_line())
    return 1 if tally.broken or not tally.injected else 0


def _suffer(
    victim: Victim,
    line: str,
    left: list[Case] | None,
    options: argparse.Namespace,
    tally: Tally,
    stopped: threading.Event,
) -> list[Case]:
    """Injects what is left (None: all there is to), up to the first that breaks the node.

    Returns what is left for a fresh one: on a broken node the others would tell nothing.
    """
    steps = victim.steps()
    if left is None:
        left = list((cases.full if options.full else cases.short)(line, steps, options.seed))
        if options.after:
            done = replace(Case.parse(options.after), line=line)
            left = left[left.index(done) + 1 :]
    while left and not stopped.is_set():
        case = left.pop(0)
        began = time.monotonic()
        try:
            words, held = victim.suffer(case), True
        except (Broken, AssertionError) as problem:
            words, held = str(problem), False
        tally.say(case, words, held=held, seconds=time.monotonic() - began)
        if not held:
            break
    return left


@contextlib.contextmanager
def busy(wanted: bool) -> Iterator[None]:
    """Within the block, two processes a core that compute; none outlives this one."""
    count = 2 * (os.cpu_count() or 1) if wanted else 0
    words = f"import os\nwhile os.getppid() == {os.getpid()}: sum(range(100000))"
    loops = [subprocess.Popen([sys.executable, "-c", words]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


if __name__ == "__main__":
    # Politely stopped, it takes its nodes away.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with running(), busy("--load" in sys.argv):
        code = main(sys.argv[1:])
    sys.exit(code)
