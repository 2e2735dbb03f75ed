"""The demo image for several platforms as one index, made without an engine and running none of it.

Each platform gets Debian's Python for its architecture (:mod:`.base`), the wheels that pip has for
it, and the command; all of it becomes an OCI layout (:mod:`.layout`), which skopeo pushes. The same
packages, wheels and sources give the same digests.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moorage.docker import apt, bootstrap
from moorage.errors import Refused
from moorage.files import passing_folder, remove_folder, replaced_folder
from moorage.images import BuiltImage, wheels
from moorage.images.demo import base, bytecode, layout, tree
from moorage.images.demo.base import Base
from moorage.images.demo.bytecode import native
from moorage.images.demo.layout import BuiltIndex, LayoutWriter
from moorage.images.demo.tree import Tree
from moorage.platforms import PLATFORMS
from moorage.supply.room import room

if TYPE_CHECKING:
    from moorage.actions import Action
    from moorage.output import Progress
    from moorage.platforms import ImagePlatform
    from moorage.settings import Settings

# Raised by hand when what follows would make another image from the same files.
_RECIPE = 1
_HOME = "opt/serve_hostname"
# The same as serve_hostname/Dockerfile says for one platform.
RUNS: dict[str, Any] = {
    "User": "65532:65532",
    "ExposedPorts": {"8080/tcp": {}},
    "Env": [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        f"PYTHONPATH=/{_HOME}/site-packages",
        "PYTHONUNBUFFERED=1",
        "PYTHONDONTWRITEBYTECODE=1",
        "PORT=8080",
    ],
    "Entrypoint": ["python3", f"/{_HOME}/app.py"],
    "WorkingDir": f"/{_HOME}",
    # Docker's own addition: https://github.com/moby/docker-image-spec; in nanoseconds
    "Healthcheck": {
        "Test": [
            *("CMD", "python3", "-c"),
            "import os, urllib.request; urllib.request.urlopen("
            "f'http://127.0.0.1:{os.environ[\"PORT\"]}/healthz', timeout=2)",
        ],
        "Interval": 10_000_000_000,
        "Timeout": 3_000_000_000,
        "StartPeriod": 5_000_000_000,
    },
}


def folder(settings: Settings) -> Path:
    """Where the layout is: one of OCI, which other tools copy from too."""
    return settings.state / "image" / "index"


def built(settings: Settings) -> BuiltIndex | None:
    """The index that is the demo image now; None if it is not one, or has another name."""
    found = layout.read(folder(settings))
    return found if found is not None and found.reference == settings.image_reference else None


def current(settings: Settings) -> BuiltIndex | None:
    """The same if it is what :func:`build` would make now."""
    found = built(settings)
    return found if found is not None and found.inputs == _inputs(settings) else None


def drop(settings: Settings) -> None:
    """Takes the index away: the demo image is the engine's again."""
    remove_folder(folder(settings))


def pending(settings: Settings) -> list[Action]:
    """What has to be installed to build it. Raises Refused if it cannot be."""
    require_fit(settings)
    there = all(Base(settings, one).path.exists() for one in (*_wanted(settings), native()))
    return [] if there or current(settings) else bootstrap.pending(installs=False)


def require_fit(settings: Settings) -> None:
    """Raises Refused (``wrong-use``) for a base that is somebody's image."""
    if settings.image.base != "auto":
        raise Refused(
            "wrong-use",
            f"an index of several platforms cannot be based on {settings.image.base}",
            cause="nothing of a foreign platform is run, so nobody asks that image for its Python",
            cure="image.base: auto in invoke.yaml (Debian's packages); or docker buildx build",
        )


def build(settings: Settings, progress: Progress) -> BuiltImage:
    """Builds the index of ``image.platforms``; does nothing if it is built.

    Raises MoorageError: ``no-wheels``, ``no-debian-base``, ``disk-full``; nothing is changed then.
    """
    require_fit(settings)
    wanted, before = _wanted(settings), built(settings)
    if (same := current(settings)) is not None:
        return BuiltImage(same.reference, same.digest, False, same.platforms, str(same.folder))
    work = settings.state / "image"
    with room(settings.state, "the image could not be built"):
        # First what ends soonest if a platform cannot be had.
        packages = [_packages(settings, one, progress) for one in wanted]
        apt.install(bootstrap.packages(installs=False), progress, settings)
        bases = [(one, Base(settings, one)) for one in wanted]
        layers = [one.layer(progress) for _, one in bases]
        compiler = Base(settings, native())
        compiler.layer(progress)
        with (
            progress(f"building {settings.image_reference}") as update,
            passing_folder(work, "python-") as root,
            replaced_folder(folder(settings)) as draft,
        ):
            bytecode.unpack(compiler.files(), root)
            writer = LayoutWriter(draft)
            for done, (platform, lowest) in enumerate(bases):
                update(done=done, total=len(bases), text=platform.name)
                files = packages[done] | bytecode.compiled(root, packages[done], work)
                own = writer.packed(tree.with_folders(files))
                writer.image(platform, [writer.taken(lowest.path, layers[done]), own], RUNS)
            digest = writer.close(settings.image_reference, _inputs(settings))
    changed = before is None or before.digest != digest
    return BuiltImage(
        settings.image_reference,
        digest,
        changed,
        tuple(one.name for one in wanted),
        str(folder(settings)),
    )


def _wanted(settings: Settings) -> list[ImagePlatform]:
    return [PLATFORMS[name] for name in dict.fromkeys(settings.image.platforms)]


def _packages(settings: Settings, platform: ImagePlatform, progress: Progress) -> Tree:
    """The command and its wheels for a platform. Raises MoorageError (``no-wheels``)."""
    source = settings.root / "serve_hostname"
    python = base.interpreter(platform)
    with progress(f"unpacking the wheels of {platform.name}"):
        found = wheels.unpacked(
            source / "requirements.lock", python, settings.state / "image", whose=platform.name
        )
    files = {f"site-packages/{name}": content for name, content in found.items()}
    files["app.py"] = (source / "app.py").read_bytes()
    return {f"{_HOME}/{name}": tree.file(content) for name, content in files.items()}


def _inputs(settings: Settings) -> str:
    """The digest of all that decides what is built."""
    source, wanted = settings.root / "serve_hostname", _wanted(settings)
    words = [repr(_RECIPE), json.dumps(RUNS), *(base.key(settings, one) for one in wanted)]
    words += [one.name for one in wanted]
    words += [
        hashlib.sha256((source / name).read_bytes()).hexdigest()
        for name in ("app.py", "requirements.lock")
    ]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()
