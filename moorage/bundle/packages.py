"""Debian packages for a bare machine: all that a few names need, and the list that apt reads.

apt decides, of an empty system: so what is installed here does not keep anything out. It works in
folders of the bundle's own, takes no lock of the system's and needs no root.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from moorage import commands
from moorage.docker import apt, engine
from moorage.errors import MoorageError
from moorage.files import private_folder, write_atomically
from moorage.images import skopeo

# Debian's python3 has no venv without it.
PACKAGES = (*engine.PACKAGES, skopeo.PACKAGE, "python3-venv")
LIST = "Packages"
_URI = re.compile(r"^'([^']+)' (\S+) (\d+) ", re.MULTILINE)


class Package(NamedTuple):
    """A package's file: its name as apt keeps it, and its size."""

    file: str
    size: int


def needed(work: Path, packages: Sequence[str] = PACKAGES) -> list[Package]:
    """All that ``packages`` need on a bare machine, themselves included. Raises MoorageError.

    ``work``: a folder for apt's lists. They are fetched again each time: an old list names files
    that the mirror no longer has.
    """
    for name in ("lists/partial", "cache/archives/partial"):
        private_folder(work / name)
    write_atomically(work / "status", b"")
    _apt(work, ["update"])
    said = _apt(work, ["install", "--yes", "--print-uris", *packages])
    return [Package(file, int(size)) for _, file, size in _URI.findall(said)]


def fetch(work: Path, wanted: Sequence[Package], packages: Sequence[str] = PACKAGES) -> list[Path]:
    """The files of ``wanted``; what is there already is not fetched again. Raises MoorageError."""
    _apt(work, ["install", "--yes", "--download-only", *packages])
    folder = work / "cache" / "archives"
    paths = [folder / one.file for one in wanted]
    missing = [path.name for path in paths if not path.exists()]
    if missing:
        raise MoorageError(
            "apt-failed",
            f"{missing[0]} could not be fetched",
            cause="apt ended well and left no such file",
            cure="run this again: it goes on from here",
        )
    return paths


def listed(paths: Sequence[Path], sha256: Sequence[str]) -> bytes:
    """The file ``Packages`` of an archive that has these packages in one folder.

    https://wiki.debian.org/DebianRepository/Format
    """
    blocks = []
    for path, digest in zip(paths, sha256, strict=True):
        control = commands.run(["dpkg-deb", "--field", str(path)]).stdout.decode().strip()
        lines = [f"Filename: ./{member_name(path.name)}", f"Size: {path.stat().st_size}"]
        blocks.append("\n".join([control, *lines, f"SHA256: {digest}", ""]))
    return "\n".join(blocks).encode()


def member_name(file: str) -> str:
    """How a package's file is called in a bundle: an epoch's ``%3a`` would be read as a colon."""
    return unquote(file).replace(":", "-")


def _apt(work: Path, argv: Sequence[str]) -> str:
    options = {
        "Dir::State::Lists": work / "lists",
        "Dir::State::status": work / "status",
        "Dir::State::extended_states": work / "extended",
        "Dir::Cache": work / "cache",
        "Debug::NoLocking": "true",
        "Acquire::Languages": "none",
        "APT::Get::List-Cleanup": "false",
    }
    words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    done = commands.run(
        ["env", "LC_ALL=C.UTF-8", "apt-get", *words, "-q", "--no-install-recommends", *argv],
        timeout=3600,
        check=False,
    )
    said = done.stdout.decode(errors="replace")
    if done.returncode:
        raise apt.explain(argv, f"{said}\n{done.stderr.decode(errors='replace')}")
    return said
