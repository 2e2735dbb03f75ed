"""The wheels of the locks: for `inv` here, for agents on nodes, for the demo image."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from moorage import archive, commands
from moorage.errors import MoorageError
from moorage.files import private_folder
from moorage.images import wheels
from moorage.supply.manifest import LOCKS

if TYPE_CHECKING:
    from docker import DockerClient

    from moorage.settings import Settings

_OURS = ("-qq", "--disable-pip-version-check", "--no-input", "--require-hashes")


def fetch(settings: Settings, client: DockerClient, base: str, parts: Path) -> None:
    """Fetches them below ``parts``; ``base``: the demo image's, whose Python chooses its wheels.

    What is there already stays. Raises MoorageError if pip cannot get them.
    """
    own, agents, demo = (settings.root / lock for lock in LOCKS)
    python = wheels.interpreter(client, base)
    words = (
        [*_OURS, "--only-binary", ":all:", "-r", str(own)],
        [*archive.CHOICE, "-r", str(agents)],
        wheels.choice(demo, python),
    )
    for (lock, folder), chosen in zip(LOCKS.items(), words, strict=True):
        _download(settings.root / lock, chosen, private_folder(parts / folder))


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
