"""Debian packages for a bare machine: all that a few names need, and the list that apt reads.

apt decides, of an empty system: so what is installed here does not keep anything out. It works in
folders of the bundle's own, takes no lock of the system's and needs no root.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from moorage import commands
from moorage.docker import apt, engine
from moorage.errors import MoorageError
from moorage.files import digest, private_folder, write_atomically
from moorage.images import skopeo
from moorage.supply.manifest import DEBS, BundleManifest

# Debian's python3 has no venv without it.
PACKAGES = (*engine.PACKAGES, skopeo.PACKAGE, "python3-venv")
LIST = "Packages"
_URI = re.compile(r"^'([^']+)' (\S+) (\d+) ", re.MULTILINE)
# What a list says of where a package is: a bundle's says it otherwise.
_PLACE = re.compile(r"^(?:Filename|Size|MD5sum|SHA1|SHA512): .*\n?", re.MULTILINE)


class Package(NamedTuple):
    """A package's file: its name as apt keeps it, its size, its digest, and what apt's lists say.

    ``control``: the fields of deb-control(5), and SHA256.
    """

    file: str
    size: int
    sha256: str
    control: str

    @property
    def path(self) -> str:
        """Where it is in a bundle."""
        return f"{DEBS}/{member_name(self.file)}"


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
    rows = [(file, int(size)) for _, file, size in _URI.findall(said)]
    shown = _apt(work, ["show", *(_version(file) for file, _ in rows)], program="apt-cache")
    known = {_key(block): block for block in shown.split("\n\n") if block.strip()}
    return [Package(file, size, *_described(file, known)) for file, size in rows]


def lacking(wanted: Sequence[Package], before: BundleManifest | None) -> list[Package]:
    """Those of ``wanted`` that a first bundle has not, by name and digest. Pure."""
    there = before.by_path if before else {}
    return [one for one in wanted if (found := there.get(one.path)) is None
            or found.sha256 != one.sha256]  # fmt: skip


def fetch(work: Path, wanted: Sequence[Package]) -> list[Path]:
    """The files of ``wanted``; what is there already is not fetched again. Raises MoorageError."""
    folder = work / "cache" / "archives"
    absent = [one for one in wanted if not _whole(folder / one.file, one)]
    if absent:
        _apt(work, ["download", *(_version(one.file) for one in absent)], folder=folder)
    for one in absent:
        if not _whole(folder / one.file, one):
            raise MoorageError(
                "apt-failed",
                f"{one.file} could not be fetched",
                cause="apt ended well and left no such file",
                cure="run this again: it goes on from here",
            )
    return [folder / one.file for one in wanted]


def listed(wanted: Sequence[Package]) -> bytes:
    """The file ``Packages`` of an archive that has these packages in one folder. Pure.

    https://wiki.debian.org/DebianRepository/Format
    """
    blocks = [
        "\n".join([one.control, f"Filename: ./{member_name(one.file)}", f"Size: {one.size}", ""])
        for one in wanted
    ]
    return "\n".join(blocks).encode()


def member_name(file: str) -> str:
    """How a package's file is called in a bundle: an epoch's ``%3a`` would be read as a colon."""
    return unquote(file).replace(":", "-")


def _parts(file: str) -> tuple[str, str, str]:
    """Name, version and architecture, of a file's name as apt keeps it."""
    name, version, architecture = file.removesuffix(".deb").split("_")
    return name, unquote(version), architecture


def _version(file: str) -> str:
    """How apt is asked for this very package."""
    name, version, architecture = _parts(file)
    return f"{name}={version}" if architecture == "all" else f"{name}:{architecture}={version}"


def _key(block: str) -> tuple[str, str, str]:
    found = dict(line.partition(": ")[::2] for line in block.splitlines() if line[:1] != " ")
    return found.get("Package", ""), found.get("Version", ""), found.get("Architecture", "")


def _described(file: str, known: Mapping[tuple[str, str, str], str]) -> tuple[str, str]:
    """Its digest, and what apt's lists say of it. Raises MoorageError (``apt-failed``)."""
    block = known.get(_parts(file), "").strip("\n")
    found = re.search(r"^SHA256: ([0-9a-f]{64})$", block, re.MULTILINE)
    if found is None:
        raise MoorageError(
            "apt-failed",
            f"apt's lists have no SHA256 of {file}",
            cause=" ".join(block.split())[:200] or "they do not have it at all",
            cure="apt-get update; if it stays so, name another mirror in /etc/apt/sources.list",
        )
    return found[1], _PLACE.sub("", f"{block}\n").strip("\n")


def _whole(path: Path, one: Package) -> bool:
    try:
        return path.stat().st_size == one.size and digest(path) == one.sha256
    except OSError:
        return False


def _apt(
    work: Path, argv: Sequence[str], *, program: str = "apt-get", folder: Path | None = None
) -> str:
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
    more = ["--no-install-recommends"] if argv[0] == "install" else []
    done = commands.run(
        ["env", "LC_ALL=C.UTF-8", program, *words, "-q", *more, *argv],
        cwd=folder,
        timeout=3600,
        check=False,
    )
    said = done.stdout.decode(errors="replace")
    if done.returncode:
        raise apt.explain(argv, f"{said}\n{done.stderr.decode(errors='replace')}")
    return said
