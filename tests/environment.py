"""An environment of its own for what is tried against us or measured beside us: build/<name>."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

BUILD = Path(__file__).resolve().parents[1] / "build"


def environment(name: str, lock: Path) -> Path:
    """The environment's folder with what ``lock`` pins, made anew when that changes."""
    folder = BUILD / name
    made = folder / "made-from.lock"
    if not made.exists() or made.read_bytes() != lock.read_bytes():
        venv.create(folder, clear=True, with_pip=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "-qq", "install", "--require-hashes"]
        subprocess.run([*pip, "-r", str(lock)], check=True, stdout=sys.stderr)
        shutil.copy(lock, made)
    return folder
