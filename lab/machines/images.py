"""The images of lab nodes: one part that all share, and the containerd of each line on it."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from moorage.docker import building, debian, engine, supplied
from moorage.errors import MoorageError
from moorage.mix import LINES, ContainerdLine
from moorage.output import unheard

if TYPE_CHECKING:
    from docker import DockerClient

    from moorage.output import Progress, Update
    from moorage.settings import Settings

REPOSITORY = "moorage/lab"
_FILES = Path(__file__).parent / "image"


def reference(settings: Settings, line: ContainerdLine | None) -> str:
    """The name of the image of a line; None stands for the part that all share.

    It changes with whatever goes into the image, so that an image of that name is the right one.
    """
    recipe = hashlib.sha256(debian.tag(settings).encode())
    for path in sorted(_FILES.iterdir()):
        recipe.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return f"{REPOSITORY}:{line.name if line else 'node'}-{recipe.hexdigest()[:10]}"


def missing(
    settings: Settings, client: DockerClient, lines: Iterable[ContainerdLine]
) -> tuple[ContainerdLine, ...]:
    """Those of ``lines``, each once, whose image is not there."""
    return tuple(
        line
        for line in dict.fromkeys(lines)
        if not building.exists(client, reference(settings, line))
    )


def bring(
    settings: Settings,
    client: DockerClient,
    lines: Iterable[ContainerdLine],
    progress: Progress,
) -> None:
    """Loads what is missing and in a loaded bundle."""
    for line in missing(settings, client, lines):
        supplied.bring(settings, client, progress, reference(settings, line))


def base(settings: Settings, client: DockerClient, progress: Progress) -> str:
    """The image that the nodes' shared part is built from; made if it is needed and not there."""
    shared = building.exists(client, reference(settings, None))
    return "" if shared else debian.base_image(settings, client, progress)


def ensure(
    settings: Settings,
    client: DockerClient,
    lines: Iterable[ContainerdLine],
    base: str,
    update: Update = unheard,
) -> None:
    """Builds what is missing, from what :func:`base` gave; ``update`` is told of it.

    Raises MoorageError with the failing step's last words.
    """
    absent = missing(settings, client, lines)
    if not absent:
        return
    shared = reference(settings, None)
    if not building.exists(client, shared):
        files = {
            path.name: path.read_bytes()
            for path in _FILES.iterdir()
            if path.suffix != ".Dockerfile"
        }
        update(text="building the lab nodes' system")
        building.build(
            client,
            files,
            tag=shared,
            replace=False,
            labels=engine.labels(settings, "lab"),
            title="the lab nodes' system",
            arguments={"BASE": base},
            update=update,
        )
    update(text=f"building nodes with containerd {', '.join(line.name for line in absent)}")
    with ThreadPoolExecutor() as pool:
        for done, _ in enumerate(
            pool.map(lambda line: _build_line(settings, client, line), absent), start=1
        ):
            update(done=done, total=len(absent))
    _forget_superseded(settings, client)


def _forget_superseded(settings: Settings, client: DockerClient) -> None:
    """Removes the images that earlier recipes made, unless a node still runs from one."""
    from docker.errors import APIError

    current = {reference(settings, line) for line in (None, *LINES.values())}
    ours = {f"{REPOSITORY}:{name}" for name in ("node", *LINES)}
    mine = engine.label_filter(settings, "lab")
    for image in building.listed(client, REPOSITORY, filters=mine):
        for name in set(image.names) - current:
            if name.rpartition("-")[0] in ours:
                with contextlib.suppress(APIError):
                    client.images.remove(name)


def _build_line(settings: Settings, client: DockerClient, line: ContainerdLine) -> None:
    name = reference(settings, line)
    building.build(
        client,
        {"Dockerfile": (_FILES / "containerd.Dockerfile").read_bytes()},
        tag=name,
        replace=False,
        labels=engine.labels(settings, "lab"),
        title=f"a node with containerd {line.name}",
        arguments={"NODE": reference(settings, None), "SUITE": line.suite},
        update=unheard,
    )
    said = client.containers.run(
        name, ["containerd", "--version"], remove=True, network_mode="none"
    )
    version = said.decode().split()[2].removeprefix("v")
    if not version.startswith(line.version):
        client.images.remove(name)
        raise MoorageError(
            "wrong-containerd",
            f"Debian {line.suite} no longer carries containerd {line.name}",
            cause=f"its containerd is {version}",
            cure="leave that line out of lab.nodes, or name a mirror that has it in lab.mirror",
        )
