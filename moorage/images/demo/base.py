"""Debian's Python as the lowest layer of an image of any architecture: packages, none of them run.

mmdebstrap fetches and unpacks them, as any user. What their scripts would leave behind and an image
needs is made here: the links of a merged /usr, users and groups, the CAs in one file, bytecode.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from tarfile import TarError
from typing import TYPE_CHECKING

from moorage.docker import bootstrap, debian
from moorage.errors import SPOILT, MoorageError
from moorage.files import passing_folder, replaced_folder, write_atomically
from moorage.images.demo import bytecode, tree
from moorage.images.demo.tree import LayerFile, PackedLayer, Tree
from moorage.images.wheels import Interpreter

if TYPE_CHECKING:
    from moorage.output import Progress
    from moorage.platforms import ImagePlatform
    from moorage.settings import Settings

# frozenlist's wheel is linked with libstdc++.
PACKAGES = (
    *("base-files", "base-passwd", "ca-certificates", "coreutils", "dash"),
    *("libstdc++6", "python3"),
)
# Of bookworm: https://packages.debian.org/bookworm/python3 and libc6
_PYTHON, _GLIBC = (3, 11), "2.36"
# Raised by hand when what follows would make another layer from the same packages.
_RECIPE = 1
_LAYER, _NOTE = "layer.tar.gz", "layer.json"
# dpkg's list of packages is what scanners of images read.
_LISTED = (
    'for one in "$1"/var/cache/apt/archives/*.deb; do dpkg-deb --field "$one"; '
    'printf "Status: install ok installed\\n\\n"; done > "$1/var/lib/dpkg/status"'
)
_STATUS = "var/lib/dpkg/status"
# What is this machine's, what apt leaves, and what nobody reads in a container.
_LEFT_OUT = (
    *("etc/apt/*", "etc/fstab", "etc/hostname", "etc/resolv.conf", "etc/machine-id"),
    *("dev/*", "proc/*", "run/*", "sys/*", "tmp/*", "var/cache/*", "var/lib/apt*", "var/log/*"),
    *("var/lib/dpkg/*", "usr/share/man/*", "usr/share/info/*", "usr/share/locale/*"),
    *("usr/share/doc/*", "usr/share/lintian/*", "usr/share/bash-completion*"),
)
_KEPT = (_STATUS, "usr/share/doc/*/copyright")
# As the packages' scripts copy them.
_COPIED = {
    "etc/group": "usr/share/base-passwd/group.master",
    "etc/nsswitch.conf": "usr/share/base-files/nsswitch.conf",
    "etc/passwd": "usr/share/base-passwd/passwd.master",
}
_CAS, _ALL_CAS = "usr/share/ca-certificates/mozilla/*.crt", "etc/ssl/certs/ca-certificates.crt"


def interpreter(platform: ImagePlatform) -> Interpreter:
    """The base's Python, for which wheels are chosen."""
    return Interpreter(_PYTHON, platform.machine, _GLIBC)


def key(settings: Settings, platform: ImagePlatform) -> str:
    """What says which base this is: the same key, the same folder."""
    words = (_RECIPE, debian.SUITE, PACKAGES, platform.debian, settings.lab.mirror)
    return hashlib.sha256(repr(words).encode()).hexdigest()[:16]


class Base:
    """A base's layer in its folder, made if it is not there yet."""

    def __init__(self, settings: Settings, platform: ImagePlatform) -> None:
        self.settings, self.platform = settings, platform
        self.folder = settings.state / "image" / f"base-{key(settings, platform)}"
        self.path = self.folder / _LAYER

    def layer(self, progress: Progress) -> PackedLayer:
        """Its digests. Raises MoorageError: ``no-debian-base``, ``disk-full``."""
        return self._noted() or self._made(progress)

    def files(self) -> Tree:
        """What is in the layer that was made. Raises OSError."""
        return tree.read(self.path, lambda _: True)

    def _noted(self) -> PackedLayer | None:
        try:
            found = PackedLayer(**json.loads((self.folder / _NOTE).read_bytes()))
            return found if self.path.stat().st_size == found.size else None
        except SPOILT:
            return None

    def _made(self, progress: Progress) -> PackedLayer:
        native = bytecode.native()
        own = native == self.platform
        compiler = None if own else Base(self.settings, native)
        if compiler is not None:
            compiler.layer(progress)
        work = self.settings.state / "image"
        with progress(f"Debian's packages for {self.platform.name}") as update:
            with passing_folder(work, "packages-") as folder:
                tar = folder / "base.tar"
                own_mirror = debian.mirror(self.settings.lab.mirror)
                aim = [debian.SUITE, str(tar), *(own_mirror.sources() if own_mirror else ())]
                bootstrap.run(_words(self.platform), aim, work / bootstrap.LOG, update)
                files = completed(_read(tar))
            update(text="compiling Python's library")
            with passing_folder(work, "python-") as root:
                bytecode.unpack(files if compiler is None else compiler.files(), root)
                sources_of = {name: one for name, one in files.items() if "python3" in name}
                files |= bytecode.compiled(root, sources_of, work)
            update(text="packing the layer")
            with replaced_folder(self.folder) as draft:
                found = tree.pack(tree.with_folders(files), draft / _LAYER)
                write_atomically(draft / _NOTE, json.dumps(found._asdict()).encode())
        return found


def completed(files: Mapping[str, LayerFile]) -> Tree:
    """Unpacked packages with what their scripts would have made of them. Pure.

    Raises MoorageError (``no-debian-base``) if Python is not the one that is expected.
    """
    python = files.get("usr/bin/python3")
    expected = f"python{_PYTHON[0]}.{_PYTHON[1]}"
    if python is None or python.target != expected:
        raise _odd(f"usr/bin/python3 is {python.target if python else 'not there'}")
    made = {name: files[source] for name, source in _COPIED.items() if source in files}
    certificates = [files[name].content for name in sorted(fnmatch.filter(files, _CAS))]
    blocks = sorted(files[_STATUS].content.strip().split(b"\n\n")) if _STATUS in files else []
    made[_STATUS] = tree.file(b"".join(block + b"\n\n" for block in blocks))
    return {**files, **made, _ALL_CAS: tree.file(b"".join(certificates))}


def _words(platform: ImagePlatform) -> list[str]:
    """mmdebstrap's options. Without a script there is nothing to enter a root for."""
    return [
        *("--mode=chrootless", "--variant=extract", "--skip=output/dev"),
        f"--architectures={platform.debian}",
        f"--include={','.join(PACKAGES)}",
        f"--extract-hook={_LISTED}",
    ]


def _is_wanted(name: str) -> bool:
    kept = any(fnmatch.fnmatchcase(name, one) for one in _KEPT)
    return kept or not any(fnmatch.fnmatchcase(name, one) for one in _LEFT_OUT)


def _read(tar: Path) -> Tree:
    try:
        return tree.read(tar, _is_wanted)
    except TarError as problem:
        raise _odd(str(problem)) from None


def _odd(why: str) -> MoorageError:
    return MoorageError(
        "no-debian-base",
        f"Debian's packages of {debian.SUITE} are not as expected",
        cause=why,
        cure="lab.mirror in invoke.yaml names another mirror",
    )
