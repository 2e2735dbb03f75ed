"""Python sources compiled by the Python of Debian's base, run from a folder: nothing is installed.

Bytecode is the same on every architecture, so this machine's Debian compiles for all of them. It
does not depend on file times, so a container starts fast from a read-only root too.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from pathlib import Path

from moorage import commands
from moorage.errors import Refused
from moorage.files import passing_folder, write_tree
from moorage.images.demo import tree
from moorage.images.demo.tree import Tree
from moorage.platforms import PLATFORMS, ImagePlatform

_LOADER = "usr/lib/*/ld*.so.*"
_NEEDED = re.compile(
    r"usr/bin/python3\.\d+|usr/lib/python3\.\d+/.*\.py|usr/lib/[^/]+/[^/]*\.so[^/]*"
)


def native() -> ImagePlatform:
    """This machine's platform. Raises Refused (``no-debian-base``) if Debian's base has none."""
    machine = platform.machine()
    for one in PLATFORMS.values():
        if one.machine == machine:
            return one
    raise Refused(
        "no-debian-base",
        f"images of several platforms cannot be made on {machine}",
        cause="Debian's own Python compiles what is in them, and there is none for this machine",
        cure=f"inv image.build on one of {', '.join(PLATFORMS)}",
    )


def unpack(base: Mapping[str, tree.LayerFile], folder: Path) -> Path:
    """What of a base Python needs to run, below ``folder``, which is returned. Raises OSError."""
    found = {name: tree.content_at(base, name) for name in base if _NEEDED.fullmatch(name)}
    write_tree(folder, {name: content for name, content in found.items() if content is not None})
    return folder


def compiled(root: Path, sources: Tree, work: Path) -> Tree:
    """The bytecode of the ``.py`` files in ``sources``, each beside its source.

    ``root``: what :func:`unpack` has made; ``work``: a folder for a folder of this call's own.
    Raises MoorageError with the compiler's words.
    """
    files = {name: one.content for name, one in sources.items() if name.endswith(".py")}
    libraries = sorted({str(path.parent) for path in root.glob(_LOADER)})
    (loader,) = [path for path in root.glob(_LOADER) if path.is_file()][:1]
    (python,) = (path for path in root.glob("usr/bin/python3.*"))
    with passing_folder(work, "compiled-") as folder:
        write_tree(folder, files)
        argv = [str(loader), "--library-path", ":".join(libraries), str(python), "-s", "-S"]
        argv += ["-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
        argv += ["-s", str(folder), "-p", "/", str(folder)]
        # The order in a set is in the bytecode; it has to be the same each time.
        environment = {"PYTHONHOME": str(root / "usr"), "PYTHONHASHSEED": "0", "PYTHONPATH": ""}
        commands.run(argv, env=environment)
        return {
            str(path.relative_to(folder)): tree.file(path.read_bytes())
            for path in folder.rglob("*.pyc")
        }
