"""python -m tests.rotations [--hosts=64] [--kills=100] [--seed=N]

The CA rotated over many lab nodes of all containerd lines, by the product's own command, which is
killed (SIGKILL, its whole process group) at random instants and goes on by --resume, under pulls
all along: over HTTPS, each by a handshake of its own, and by the nodes' runtimes. Ends with
`rotations: N hosts, N rotations, N kills, N pulls, 0 failed, 0 restarts`; exit code 1 otherwise.

It stands up this checkout's registry and lab, needs root and the port of the registry, and leaves
both standing: `inv down` takes them away.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.e2e import upkeep
from tests.e2e.machine import RUN, containerd_pid, good, inv
from tests.engine import running

LINES = ("1.6", "1.7", "2")
ROTATE = "certs.rotate-ca"
PATH = "/v2/serve_hostname/manifests/0.0.1"


@dataclass
class Tally:
    """What was done, as the last line says it; ``wrong``: what must not be."""

    hosts: int = 0
    rotations: int = 0
    kills: int = 0
    pulls: int = 0
    restarts: int = 0
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"rotations: {self.hosts} hosts, {self.rotations} rotations, {self.kills} kills, "
            f"{self.pulls} pulls, {len(self.wrong)} failed, {self.restarts} restarts"
        )


def main(words: Sequence[str]) -> int:
    """Runs them -> the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.rotations")
    parser.add_argument("--hosts", type=int, default=64)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    asked = parser.parse_args(words)
    print(f"seed {asked.seed}", flush=True)
    chance = random.Random(asked.seed)  # noqa: S311
    done = Tally()
    names = _stand_up(asked.hosts)
    done.hosts = len(names)
    before = _processes(names)
    with _pulls(names, done, chance):
        longest = _rotated(done, chance, 0.0)
        while done.kills < asked.kills:
            _rotated(done, chance, longest)
            print(done, *done.wrong, sep="\n  ", flush=True)
    after = _processes(names)
    done.restarts = sum(before[name] != after[name] for name in names)
    print(done, *done.wrong, sep="\n  ", flush=True)
    return 1 if done.wrong or done.restarts else 0


def _stand_up(hosts: int) -> tuple[str, ...]:
    """A registry with the demo image, and nodes of all lines in turn that trust it."""
    share = [(hosts + 2 - number) // 3 for number in range(3)]
    mix = ",".join(f"{line}*{count}" for line, count in zip(LINES, share, strict=True) if count)
    good("registry.up", "--yes")
    good("image.build")
    good("image.push")
    names = tuple(
        one["name"] for one in good("lab.up", "--yes", f"--nodes={mix}").document["nodes"]
    )
    good("nodes.trust", f"--hosts={','.join(names)}", "--yes")
    return names


def _rotated(done: Tally, chance: random.Random, longest: float) -> float:
    """One rotation to its end -> seconds it took. ``longest`` 0: it is not killed."""
    began, resume = time.monotonic(), False
    for _ in range(60):
        words = [ROTATE, "--yes", *(["--resume"] if resume else [])]
        code = _killed(words, chance.uniform(0.2, longest)) if longest else _ended(words)
        if code is None:
            done.kills += 1
            resume = inv(ROTATE, "--status").document.get("phase", "done") != "done"
            if not resume:  # before its first deed, or after its last
                break
            continue
        if code:
            done.wrong.append(f"{' '.join(words)} ended with {code}")
        if code == 0:
            break
    else:
        done.wrong.append("sixty runs did not bring a rotation to its end")
    done.rotations += 1
    return time.monotonic() - began


def _ended(words: Sequence[str]) -> int:
    answer = inv(*words)
    if answer.code:
        print(answer.words, answer.document, file=sys.stderr, flush=True)
    return answer.code


def _killed(words: Sequence[str], after: float) -> int | None:
    """Its exit code; None if it was killed ``after`` so many seconds."""
    process = subprocess.Popen(
        [RUN, "inv", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        _, said = process.communicate(timeout=after)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return None
    if process.returncode:
        print(said.decode(errors="replace"), file=sys.stderr, flush=True)
    return process.returncode


@contextmanager
def _pulls(names: Sequence[str], done: Tally, chance: random.Random) -> Iterator[None]:
    """Pulls all along; what fails is wrong."""
    over, login = threading.Event(), upkeep.operator()
    picked = random.Random(chance.random())  # noqa: S311

    def by_http() -> None:
        upkeep.ask("GET", PATH, login)
        done.pulls += 1
        over.wait(0.05)

    def by_runtimes() -> None:
        some = picked.sample(names, min(3, len(names)))
        answer = inv("nodes.verify", f"--hosts={','.join(some)}")
        assert answer.hosts.keys() == set(some), answer.document
        for name, host in answer.hosts.items():
            done.pulls += 1
            if not host["verified"]:
                done.wrong.append(f"{name}: {host['error']}")

    def until_over(pull: Callable[[], None]) -> None:
        while not over.is_set():
            try:
                pull()
            except Exception as problem:  # a thread that ends unheard proves nothing
                done.wrong.append(f"{pull.__name__}: {problem!r}")
                over.wait(1)

    threads = [
        threading.Thread(target=until_over, args=(one,), daemon=True)
        for one in (by_http, by_runtimes)
    ]
    for one in threads:
        one.start()
    try:
        yield
    finally:
        over.set()
        for one in threads:
            one.join()


def _processes(names: Sequence[str]) -> dict[str, str]:
    """Each node's containerd, by its process id."""
    with ThreadPoolExecutor(8) as pool:
        return dict(zip(names, pool.map(containerd_pid, names), strict=True))


if __name__ == "__main__":
    with running():
        code = main(sys.argv[1:])
    sys.exit(code)
