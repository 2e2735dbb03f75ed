"""Prometheus and promtool: this machine's, else Debian's package unpacked into build/prometheus."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "build" / "prometheus"


@cache
def program(name: str) -> str:
    """The path of ``prometheus`` or ``promtool``; skips the test if neither way leads to it."""
    found = shutil.which(name)
    if found is not None:
        return found
    unpacked = FOLDER / "unpacked" / "usr" / "bin" / name
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not unpacked.exists():
            _unpack()
    return str(unpacked)


def _unpack() -> None:
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        pytest.skip("no promtool here, and no apt-get to get Debian's with")
    got = subprocess.run(
        ["apt-get", "-q", "download", "prometheus"], cwd=FOLDER, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if got.returncode:
        pytest.skip(f"Debian's prometheus cannot be had here: {got.stderr.strip()[-200:]}")
    package = max(FOLDER.glob("prometheus_*.deb"))
    draft = FOLDER / "draft"
    shutil.rmtree(draft, ignore_errors=True)
    subprocess.run(["dpkg", "-x", str(package), str(draft)], check=True)
    draft.rename(FOLDER / "unpacked")
