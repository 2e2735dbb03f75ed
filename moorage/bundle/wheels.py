"""The wheels of the locks: for `inv` here, for agents on nodes, for the demo image."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from moorage import archive, commands
from moorage.bundle import system
from moorage.errors import MoorageError
from moorage.files import digest, private_folder, write_atomically
from moorage.images import wheels
from moorage.supply.manifest import LOCKS, BundleFile, BundleManifest, EngineImage

if TYPE_CHECKING:
    from docker import DockerClient

    from moorage.settings import Settings

_OURS = ("-qq", "--disable-pip-version-check", "--no-input", "--require-hashes", "--no-deps")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def fetch(
    settings: Settings,
    client: DockerClient,
    base: EngineImage,
    parts: Path,
    before: BundleManifest | None = None,
) -> list[BundleFile]:
    """Fetches them below ``parts``; ``base``: the demo image's, whose Python chooses its wheels.

    ``before``: a first bundle; what it has is not fetched, and returned. What is there already
    stays. Raises MoorageError if pip cannot get them.
    """
    own, agents, demo = LOCKS
    carried: list[BundleFile] = []
    for name, folder in LOCKS.items():
        target = private_folder(parts / folder)
        lock = settings.root / name
        there = held(name, before if name != demo or _has(before, base) else None)
        carried += there
        left = missing(lock.read_text("utf-8"), {one.sha256 for one in there})
        if there and ((before and before.locks) or {}).get(name) == digest(lock):
            left = ""  # what else is in it is for other systems
        if not left:
            continue
        chosen = parts / "left.lock"
        write_atomically(chosen, left.encode())
        if name == own:
            words = [*_OURS, "--only-binary", ":all:", "-r", str(chosen)]
        elif name == agents:
            words = [*archive.CHOICE, "-r", str(chosen)]
        else:
            words = wheels.choice(chosen, wheels.interpreter(client, base.name))
        _download(lock, words, target)
    return carried


def held(lock: str, before: BundleManifest | None) -> list[BundleFile]:
    """The wheels of ``lock`` that a first bundle has; none if it is another system's."""
    if before is None or before.system != system.here():
        return []
    return [one for one in before.files if one.path.startswith(f"{LOCKS[lock]}/")]


def missing(lock: str, there: Collection[str]) -> str:
    """What a lock's text asks for, without what has one of its digests ``there``. Pure.

    "" if nothing is left.
    """
    entries = re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE)
    asked = [one for one in entries if _HASH.search(one)]
    return "".join(one for one in asked if not set(_HASH.findall(one)).intersection(there))


def _has(before: BundleManifest | None, base: EngineImage) -> bool:
    """Whether the first bundle's base is this one: another may have another Python."""
    return before is not None and base in before.engine


def _download(lock: Path, words: Sequence[str], folder: Path) -> None:
    argv = [sys.executable, "-m", "pip", "download", *words, "--dest", str(folder)]
    done = commands.run(argv, check=False, timeout=3600)
    if done.returncode == 0:
        return
    said = done.stderr.decode(errors="replace")
    errors = [line for line in said.splitlines() if line.startswith("ERROR")]
    full = "No space left on device" in said
    raise MoorageError(
        "disk-full" if full else "no-wheels",
        f"the wheels of {lock.name} cannot be had",
        cause=(errors or [commands.last_words(done.stderr)])[-1],
        cure=f"make room: df -h {folder}; then run this again: it goes on from here"
        if full
        else "is a package index reachable (pip config list)? Then run this again",
        path=str(lock),
    )
