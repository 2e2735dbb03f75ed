"""Which image the registry runs: the settings', else Docker Hub's, else one built from Debian.

A choice once made is kept as long as its image is there: a Hub that answers today and not tomorrow
must not make another registry every day.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from moorage.docker import building, debian, engine, pulled
from moorage.errors import MoorageError, Refused

if TYPE_CHECKING:
    from docker import DockerClient

    from moorage.settings import Settings
    from moorage.ui import UI

HUB_IMAGE = "registry:2"
# One name for every checkout on this machine: the content is the same.
_DOCKERFILE = """\
ARG BASE
FROM ${BASE}
RUN set -eu; \\
    apt-get -q update; \\
    DEBIAN_FRONTEND=noninteractive apt-get -qy --no-install-recommends install docker-registry; \\
    rm -rf /var/lib/apt/lists/*
EXPOSE 5000 5001
ENTRYPOINT ["docker-registry"]
CMD ["serve", "/etc/moorage/config.yml"]
"""


def planned(settings: Settings, client: DockerClient | None) -> str:
    """What :func:`ensure` would have to do first, as a sentence fragment; "" for nothing."""
    wanted = settings.registry.image
    if client is not None and (present(settings, client) or _known(client, wanted)):
        return ""
    if wanted != "auto":
        return f"pull the registry's image {wanted}"
    if client is not None and debian.hub_answers(client, HUB_IMAGE):
        return f"pull the registry's image {HUB_IMAGE} from Docker Hub"
    return "get the registry's image, from Docker Hub or built from Debian's docker-registry"


def ensure(settings: Settings, client: DockerClient, ui: UI) -> tuple[str, str]:
    """(reference, id) of the registry's image, made or pulled where it is not there.

    Raises MoorageError where it can be had from nowhere.
    """
    reference = _ensure(settings, client, ui)
    return reference, building.image_id(client, reference)


def forget(settings: Settings, client: DockerClient) -> bool:
    """Removes the image we built or pulled, unless a container of somebody else's needs it."""
    from docker.errors import APIError, ImageNotFound

    done = False
    try:
        client.images.remove(_tag(settings))
        done = True
    except (ImageNotFound, APIError):  # not there, or in use
        pass
    return pulled.forget(settings, client) or done


def _ensure(settings: Settings, client: DockerClient, ui: UI) -> str:
    wanted = settings.registry.image
    here = present(settings, client)
    if here:
        return here
    if wanted != "auto":
        _pull(settings, client, ui, wanted)
        return wanted
    if debian.hub_answers(client, HUB_IMAGE):
        _pull(settings, client, ui, HUB_IMAGE)
        return HUB_IMAGE
    base = debian.base_image(settings, client, ui)
    tag = _tag(settings)
    title = "the registry from Debian's docker-registry"
    with ui.progress(f"building {title}") as update:
        building.build(
            client,
            {"Dockerfile": _DOCKERFILE.encode()},
            tag=tag,
            labels=engine.labels(settings, "registry"),
            arguments={"BASE": base},
            title=title,
            update=update,
        )
    return tag


def present(settings: Settings, client: DockerClient) -> str:
    """The image that will do and is here already; "" where there is none."""
    wanted = settings.registry.image
    candidates = (wanted,) if wanted != "auto" else (_tag(settings), HUB_IMAGE)
    return next((name for name in candidates if _known(client, name)), "")


def _known(client: DockerClient, reference: str) -> bool:
    return reference != "auto" and building.exists(client, reference)


def _tag(settings: Settings) -> str:
    recipe = hashlib.sha256(f"{_DOCKERFILE}{debian.tag(settings)}".encode()).hexdigest()
    return f"moorage/registry:{recipe[:12]}"


def _pull(settings: Settings, client: DockerClient, ui: UI, reference: str) -> None:
    from docker.errors import APIError

    try:
        pulled.pull(settings, client, ui, reference)
    except APIError as problem:
        refused = problem.response is not None and problem.response.status_code in (400, 404)
        kind = Refused if refused else MoorageError
        raise kind(
            "no-registry-image",
            f"the registry's image {reference} cannot be pulled",
            cause=str(problem.explanation or problem),
            cure='correct registry.image in invoke.yaml; "auto" builds one from Debian\'s package',
        ) from None
