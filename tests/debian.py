"""Programs of Debian's packages, unpacked below ``build/``: nothing is installed."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.environment import BUILD


def unpacked(name: str, *packages: str) -> Path:
    """The folder with the files of ``packages`` (``name`` itself, if none is named).

    It is whole or not there at all, whoever else makes it at the same time. The test is skipped if
    there is no apt-get here.
    """
    folder = BUILD / "debian" / name
    if folder.exists():
        return folder
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        pytest.skip(f"{name} comes from Debian's archive, and there is no apt-get here")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as made:
        download = ["apt-get", "-q", "download", *(packages or [name])]
        subprocess.run(download, cwd=made, check=True, stdout=subprocess.DEVNULL)
        for package in Path(made).glob("*.deb"):
            subprocess.run(["dpkg", "-x", package, Path(made, "root")], check=True)
        with contextlib.suppress(OSError):  # another's stands there already
            Path(made, "root").rename(folder)
    return folder


def program(package: str, name: str = "") -> str:
    """The path of ``name`` (the package's own, if none is named) in ``package``."""
    return str(unpacked(package) / "usr" / "bin" / (name or package))
