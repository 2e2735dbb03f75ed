"""Pinned wheels for another Python than ours: fetched here, unpacked for an image's build context.

So the build needs neither pip nor a network in the container, and one way serves every base.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from moorage import commands
from moorage.errors import MoorageError, Refused
from moorage.files import private_folder

if TYPE_CHECKING:
    from docker import DockerClient

OLDEST = (3, 11)
# pip goes on without an index that it cannot ask, and then finds nothing there.
_UNREACHED = re.compile(r"Retrying|not a trusted or secure host|Could not fetch URL")
# Asked of the base's own Python; musl shows in the name of its extension modules.
_QUESTION = """\
import json, platform, sys, sysconfig
print(json.dumps({
    "version": list(sys.version_info[:2]),
    "machine": platform.machine(),
    "glibc": platform.libc_ver()[1],
    "soabi": sysconfig.get_config_var("SOABI") or "",
}))
"""


@dataclass(frozen=True)
class Interpreter:
    """A Python for which wheels are chosen. ``glibc``: as ``2.36``; "" with musl."""

    version: tuple[int, int]
    machine: str
    glibc: str

    @property
    def platforms(self) -> tuple[str, ...]:
        """Wheel tags that it takes, best first: PEP 600 and PEP 656."""
        if not self.glibc:
            return tuple(f"musllinux_1_{minor}_{self.machine}" for minor in (2, 1))
        newest = int(self.glibc.split(".")[1])
        tags = [f"manylinux_2_{minor}_{self.machine}" for minor in range(newest, 16, -1)]
        return (*tags, f"manylinux2014_{self.machine}")


def interpreter(client: DockerClient, image: str) -> Interpreter:
    """The Python in ``image``. Raises Refused if there is none, or one too old."""
    from docker.errors import APIError, ContainerError

    try:
        said = client.containers.run(
            image,
            entrypoint=["python3", "-c", _QUESTION],
            command=[],
            network_disabled=True,
            remove=True,
            stderr=False,
        )
        answer = json.loads(said)
    except (APIError, ContainerError, ValueError) as problem:
        raise _unfit(image, f"its python3 does not run: {problem}") from None
    version = (int(answer["version"][0]), int(answer["version"][1]))
    if version < OLDEST:
        raise _unfit(image, f"its python3 is {version[0]}.{version[1]}")
    glibc = "" if "musl" in answer["soabi"] else answer["glibc"]
    return Interpreter(version, answer["machine"], glibc)


def unpacked(
    lock: Path, target: Interpreter, cache: Path, supply: Sequence[str] = (), *, whose: str = ""
) -> dict[str, bytes]:
    """Every file of the wheels in ``lock``, by its path below ``site-packages``.

    Fetched once and kept below ``cache``; ``supply``: pip's options that name another place than
    its index; ``whose``: the platform, for what is said. Raises MoorageError: ``no-wheels``,
    ``disk-full``; Refused (``no-wheels``) if the index has one of them for other platforms alone.
    """
    key = hashlib.sha256(lock.read_bytes() + repr(target).encode()).hexdigest()[:16]
    folder = cache / f"site-packages-{key}"
    if not folder.exists():
        private_folder(cache)
        _fetch(lock, target, folder, supply, whose)
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def choice(lock: Path, target: Interpreter) -> list[str]:
    """pip's options for the wheels of ``lock`` that ``target`` takes: as pinned, nothing built."""
    version = "".join(map(str, target.version))
    words = ["--quiet", "--disable-pip-version-check", "--no-input", "--no-deps"]
    words += ["--only-binary", ":all:", "--require-hashes", "--requirement", str(lock)]
    words += ["--implementation", "cp", "--abi", f"cp{version}", "--python-version", version]
    return [*words, *(word for one in target.platforms for word in ("--platform", one))]


def _fetch(
    lock: Path, target: Interpreter, folder: Path, supply: Sequence[str], whose: str
) -> None:
    for left in folder.parent.glob(".unfinished-*"):  # by a run that was killed
        shutil.rmtree(left, ignore_errors=True)
    # Under another name until it is whole.
    unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".unfinished-"))
    argv = [sys.executable, "-m", "pip", "install", *supply, *choice(lock, target)]
    argv += ["--no-compile", "--target", str(unfinished)]
    try:
        done = commands.run(argv, check=False)
        if done.returncode:
            raise unfetched(lock, target, done.stderr, whose, asked=not supply)
        shutil.rmtree(unfinished / "bin", ignore_errors=True)  # scripts for our Python, not theirs
        os.replace(unfinished, folder)  # noqa: PTH105 - a folder
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def unfetched(
    lock: Path, target: Interpreter, said: bytes, whose: str = "", *, asked: bool = True
) -> MoorageError:
    """Why pip could not get the wheels of ``lock``, by what it said. Pure.

    ``asked``: it was told to ask its index, which has wheels for all platforms.
    """
    words = said.decode(errors="replace")
    what = f"Python {target.version[0]}.{target.version[1]} on {whose or target.machine}"
    if "No space left on device" in words:
        return MoorageError(
            "disk-full",
            f"the wheels of {lock.name} could not be unpacked: the disk is full",
            cause=commands.last_words(said, lines=1),
            cure=f"make room: df -h /tmp {lock.parent}; then run this again",
            path=str(lock),
        )
    absent = re.search(r"No matching distribution found for (\S+)", words)
    if absent and asked and not _UNREACHED.search(words):
        others = ",".join(name for name in ("linux/amd64", "linux/arm64") if name != whose)
        return Refused(
            "no-wheels",
            f"there is no wheel of {absent[1]} for {what}",
            cause=f"{lock.name} wants this version, the package index has it for other platforms "
            "alone, and nothing is compiled here",
            cure=f"leave {whose} out: inv image.build --platform={others}"
            if whose
            else "image.base: auto in invoke.yaml",
            path=str(lock),
        )
    return MoorageError(
        "no-wheels",
        f"the wheels of {lock.name} cannot be had for {what}",
        cause=commands.last_words(said),
        cure="is a package index reachable (pip config list)? Then run this again"
        if asked
        else "inv bundle.drop, then inv bundle.load FILE: what was unpacked is no longer whole",
        path=str(lock),
    )


def _unfit(image: str, cause: str) -> Refused:
    return Refused(
        "unfit-base",
        f"{image} cannot be the base of the image",
        cause=cause,
        cure="image.base in invoke.yaml: one with Python 3.11 or newer, or auto",
    )
