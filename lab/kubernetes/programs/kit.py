"""The image that brings what Kubernetes itself does not: etcd, CNI plugins, iptables, busybox."""

from __future__ import annotations

import hashlib
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lab.kubernetes.programs import shipping
from lab.machines import images
from moorage.docker import building, engine

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

    from moorage.output import Progress
    from moorage.settings import Settings

PART = "cluster"
_FILES = Path(__file__).parent.parent / "files"
_BUILD = ("Dockerfile", "control-plane", "api-ready")


def reference(settings: Settings) -> str:
    """The image's name; it changes with whatever goes into it."""
    recipe = hashlib.sha256(images.reference(settings, None).encode())
    for name in _BUILD:
        recipe.update((_FILES / name).read_bytes())
    return f"{images.REPOSITORY}:cluster-{recipe.hexdigest()[:10]}"


def ensure(settings: Settings, client: DockerClient, progress: Progress) -> str:
    """The image, built where it is not there yet; on the image that all lab nodes share.

    Raises MoorageError with the failing step's last words.
    """
    name = reference(settings)
    if building.exists(client, name):
        return name
    with progress("building the cluster's control plane") as update:
        building.build(
            client,
            {file: (_FILES / file).read_bytes() for file in _BUILD},
            tag=name,
            replace=False,
            labels=engine.labels(settings, PART),
            title="the cluster's control plane",
            arguments={"NODE": images.reference(settings, None)},
            update=update,
        )
    return name


def forget(settings: Settings, client: DockerClient) -> bool:
    """Removes the image, in all its editions. Returns whether there was one."""
    from docker.errors import APIError

    found = building.listed(client, filters=engine.label_filter(settings, PART))
    for name in [name for image in found for name in image.names]:
        try:
            client.images.remove(name)
        except APIError:  # somebody else's container needs it
            continue
    return bool(found)


@dataclass(frozen=True)
class Kit:
    """What a node gets: ``packages`` (path -> file), and busybox for its pause image."""

    packages: dict[str, shipping.File]
    busybox: bytes


def for_nodes(control: Container) -> Kit:
    """The kit, out of a container of the image."""
    stream, _ = control.get_archive("/kit")
    found: dict[str, shipping.File] = {}
    with tarfile.open(fileobj=shipping.Reader(stream), mode="r|") as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isfile() else None
            if content is not None:
                found[member.name] = shipping.File(content.read())
    busybox = found.pop("kit/busybox").content
    return Kit(found, busybox)
