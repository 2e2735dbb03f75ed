"""The demo image for several platforms; many images mirrored by a command that is killed; a race.

Run by ``./run nox -s images``; `-- --images=N --kills=N --away=MS --rounds=N`, `-- --platforms` for
that part alone. Ends with
``images: N mirrored, N killed, 0 differ``.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import yaml

from moorage import references
from moorage.images import mirroring, skopeo
from moorage.images.mirroring import MirrorWish
from moorage.registry import client
from moorage.registry.logins.credentials import credentials
from moorage.settings import Settings
from moorage.ui import UI
from tests.images import platforms
from tests.images.line import line
from tests.images.saying import say
from tests.images.upstream import Upstream, environment, upstream
from tests.loopback import Loopback, loopback
from tests.unit.elsewhere import registry_project

ROOT = Path(__file__).resolve().parents[2]
SIZE = 200_000  # bytes of each platform's own layer
# What a child is: the same project, the list, and one run of the product's own code.
CHILD = """
import sys
from dataclasses import replace
from pathlib import Path
from moorage.catalogue import lists
from moorage.images import mirroring, outcome
from moorage.ui import UI
from tests.unit.elsewhere import registry_project
settings = registry_project(Path(sys.argv[1]), port=int(sys.argv[2]))
found = mirroring.mirror(settings, lists.of_file(sys.argv[3]), "", mirroring.MirrorWish(), UI())
for row in outcome.causes(found):
    print(row.fault, len(row.images))
sys.exit(not outcome.document(found)["ok"])
"""


def main() -> int:
    """Returns the exit code: 0 only if every digest is right and no bar is missed."""
    words = _words()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.environ.update(environment(folder / "home"))
        with _ours(folder / "platforms") as ours:
            for row in platforms.proved(folder / "built", ours):
                say(row)
        if words.platforms:
            return 0
        names = {f"team{i % 7}/app{i}": 1 for i in range(words.images)}
        there = stack.enter_context(upstream(folder / "up", folder / "home", names, size=SIZE))
        differ, killed = _killed(stack, folder, there, words.kills)
        figures = _race(folder, there, words)
    missed = [name for name, (value, bar) in figures.items() if value > bar]
    for name, (value, bar) in figures.items():
        say(f"{name}: {value:.2f}x (bar {bar}x){' MISSED' if name in missed else ''}")
    say(f"images: {words.images} mirrored, {killed} killed, {differ} differ")
    return 1 if differ or missed else 0


def _words() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--raced", type=int, default=20)
    parser.add_argument("--away", type=float, default=20, help="milliseconds to the other registry")
    parser.add_argument("--platforms", action="store_true", help="the demo image's alone")
    return parser.parse_args()


# -- killed ----------------------------------------------------------------------------------


def _killed(stack: ExitStack, folder: Path, there: Upstream, kills: int) -> tuple[int, int]:
    """How many digests differ at the end, and how often it was killed at work."""
    ours = stack.enter_context(_ours(folder / "killed"))
    listed = folder / "images.txt"
    listed.write_text("".join(f"{there.name}/{name}\n" for name in there.digests))
    killed, chance = 0, random.Random(1)  # noqa: S311 - the same instants each time
    while killed < kills:
        child = _child(ours.settings, listed)
        try:
            child.wait(chance.uniform(1.5, 6))
            say(f"ended before a kill, with {child.returncode}")
            break
        except subprocess.TimeoutExpired:
            # Alone, as an impatient operator does it; or all of it, as a power failure.
            (os.killpg if killed % 2 else os.kill)(child.pid, signal.SIGKILL)
            child.wait()
            killed += 1
    last = _child(ours.settings, listed)
    assert last.wait(1800) == 0, "the last run failed"
    before = len(there.requests())
    assert _child(ours.settings, listed).wait(600) == 0
    moved = [one for one in there.requests()[before:] if "/blobs/" in one]
    assert not moved, moved[:5]
    login = credentials(ours.settings)
    wrong = 0
    for name, digest in there.digests.items():
        image = references.landing(ours.settings, references.parse(f"{there.name}/{name}"))
        got = client.manifest_digest(ours.settings, login, image.repository, image.tag)
        wrong += got != digest
    say(f"second run: {len(there.requests()) - before} requests there, {len(moved)} blobs")
    return wrong, killed


def _child(settings: Settings, listed: Path) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-c", CHILD, str(settings.root), str(settings.registry.port)]
    return subprocess.Popen([*argv, str(listed)], cwd=ROOT, start_new_session=True)


# -- the race --------------------------------------------------------------------------------


def _race(
    folder: Path, there: Upstream, words: argparse.Namespace
) -> dict[str, tuple[float, float]]:
    """First and second runs beside skopeo sync, one after the other, in turns."""
    names = list(there.digests)[: words.raced]
    ratios: dict[str, list[float]] = {"first run": [], "second run": []}
    with line(there.served.port, words.away / 1000) as port:
        certs = folder / "home/.config/containers/certs.d"
        shutil.copytree(certs / there.name, certs / f"localhost:{port}")
        for one in range(words.rounds):
            with _ours(folder / f"ours{one}") as mine, _ours(folder / f"sync{one}") as theirs:
                for run, found in ratios.items():
                    ours = _mirrored(mine.settings, port, names)
                    sync = _synced(theirs.settings, folder, port, names)
                    say(f"round {one + 1}, {run}: {ours:.2f} s, skopeo sync {sync:.2f} s")
                    found.append(ours / sync)
    bars = {"first run": 0.5, "second run": 0.2}
    return {name: (statistics.median(found), bars[name]) for name, found in ratios.items()}


def _mirrored(settings: Settings, port: int, names: list[str]) -> float:
    images = [references.parse(f"localhost:{port}/{name}") for name in names]
    began = time.monotonic()
    found = mirroring.mirror(settings, images, "", MirrorWish(at_once=6), UI())
    assert not any(one.fault for one in found), found
    return time.monotonic() - began


def _synced(settings: Settings, folder: Path, port: int, names: list[str]) -> float:
    file = folder / "sync.yml"
    listed = {name.partition(":")[0]: [name.partition(":")[2]] for name in names}
    certs = folder / "home/.config/containers/certs.d" / f"localhost:{port}"
    document = {f"localhost:{port}": {"images": listed, "cert-dir": str(certs)}}
    file.write_text(yaml.safe_dump(document))
    with skopeo.access(settings, credentials(settings)) as allowed:
        argv = ["skopeo", "sync", "--all", "--preserve-digests", "--src", "yaml"]
        argv += ["--dest", "docker", *allowed.target_words, str(file)]
        began = time.monotonic()
        done = subprocess.run(
            [*argv, f"{settings.registry_name}/synced"], capture_output=True, check=False
        )
    assert done.returncode == 0, done.stderr[-2000:]
    return time.monotonic() - began


@contextmanager
def _ours(folder: Path) -> Iterator[Loopback]:
    folder.mkdir()
    with loopback(registry_project(folder)) as running:
        yield running


if __name__ == "__main__":
    sys.exit(main())
