"""The packages of the demo image, unpacked for the Python of its base and checked by hash.

pip on this machine fetches them, so neither a network nor a pip is needed in the container.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from moorage.commands import run
from moorage.errors import MoorageError
from moorage.files import private_folder

# PEP 600: from the newest to the oldest glibc that a wheel may ask for. Debian 12 has 2.36.
_GLIBC = ("2_36", "2_35", "2_34", "2_31", "2_28", "2_27", "2_26", "2_24", "2_17")


@dataclass(frozen=True)
class Target:
    """The Python a base image has: ``version`` such as ``3.11``; ``machine`` such as x86_64."""

    version: str
    machine: str


def site(cache: Path, lock: Path, target: Target) -> Path:
    """The folder of unpacked packages that ``lock`` names for ``target``; made once in ``cache``.

    Raises MoorageError where pip cannot fetch them, or one does not match its hash.
    """
    key = hashlib.sha256(f"{target}".encode() + lock.read_bytes()).hexdigest()[:16]
    folder = cache / key
    if folder.exists():
        return folder
    private_folder(cache)
    half = cache / f"{key}.half"  # what a stopped run left; only a whole folder gets the name
    shutil.rmtree(half, ignore_errors=True)
    platforms = [f"manylinux_{glibc}_{target.machine}" for glibc in _GLIBC]
    platforms.append(f"manylinux2014_{target.machine}")
    argv = [
        *(sys.executable, "-m", "pip", "-qq", "--disable-pip-version-check", "install"),
        *("--require-hashes", "--no-deps", "--only-binary", ":all:", "--no-compile"),
        *("--implementation", "cp", "--python-version", target.version),
        *(word for platform in platforms for word in ("--platform", platform)),
        *("--target", str(half), "-r", str(lock)),
    ]
    try:
        run(argv, timeout=600)
    except MoorageError as problem:
        raise MoorageError(
            "no-wheels",
            f"the packages of the demo image cannot be fetched for Python {target.version}",
            cause=problem.cause,
            cure="is a package index reachable? pip's own words are above; then inv image.build",
            path=str(lock),
        ) from None
    half.rename(folder)
    return folder
