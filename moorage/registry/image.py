"""Which images the registry and its front run: the settings', else Docker Hub's, else Debian's.

What a loaded bundle has of them comes before the network. A choice once made is kept as long as its
image is there: a Hub that answers today and not tomorrow must not make another registry every day.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from moorage.docker import building, debian, engine, pulled, supplied
from moorage.errors import MoorageError, Refused

if TYPE_CHECKING:
    from docker import DockerClient

    from moorage.output import Progress
    from moorage.settings import Settings

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
_FRONT_DOCKERFILE = """\
ARG BASE
FROM ${BASE}
RUN set -eu; \\
    apt-get -q update; \\
    DEBIAN_FRONTEND=noninteractive apt-get -qy --no-install-recommends install haproxy; \\
    rm -rf /var/lib/apt/lists/*
EXPOSE 5000
ENTRYPOINT ["haproxy"]
"""


@dataclass(frozen=True)
class Recipe:
    """An image: what Docker Hub calls it, and how it is made of Debian's package."""

    title: str
    package: str
    repository: str
    hub: str
    dockerfile: str

    def tag(self, settings: Settings) -> str:
        words = hashlib.sha256(f"{self.dockerfile}{debian.tag(settings)}".encode()).hexdigest()
        return f"{self.repository}:{words[:12]}"


REGISTRY = Recipe("the registry", "docker-registry", "moorage/registry", HUB_IMAGE, _DOCKERFILE)
# The line of Debian bookworm: what is written for it is what was measured (docs/registry.md).
FRONT = Recipe("the front", "haproxy", "moorage/front", "haproxy:2.6", _FRONT_DOCKERFILE)


def planned(settings: Settings, client: DockerClient | None, recipe: Recipe = REGISTRY) -> str:
    """What :func:`ensure` would have to do first, as a sentence fragment; "" for nothing."""
    wanted = _wanted(settings, recipe)
    if client is not None and (present(settings, client, recipe) or _known(client, wanted)):
        return ""
    whose = f"{recipe.title}'s image"
    if name := supplied.known(settings, *_candidates(settings, recipe)):
        return f"load {whose} {name} from the bundle"
    if wanted != "auto":
        return f"pull {whose} {wanted}"
    if client is not None and debian.hub_answers(client, recipe.hub):
        return f"pull {whose} {recipe.hub} from Docker Hub"
    return f"get {whose}, from Docker Hub or built from Debian's {recipe.package}"


def ensure(
    settings: Settings, client: DockerClient, progress: Progress, recipe: Recipe = REGISTRY
) -> tuple[str, str]:
    """(reference, id) of the image, made or pulled where it is not there.

    Raises MoorageError if it can be had from nowhere.
    """
    reference = _ensure(settings, client, progress, recipe)
    return reference, building.image_id(client, reference)


def forget(settings: Settings, client: DockerClient) -> bool:
    """Removes the images we built or pulled, unless a container of somebody else's needs them."""
    from docker.errors import APIError, ImageNotFound

    done = False
    for recipe in (FRONT, REGISTRY):
        try:
            client.images.remove(recipe.tag(settings))
            done = True
        except (ImageNotFound, APIError):  # not there, or in use
            pass
    return pulled.forget(settings, client) or done


def _ensure(settings: Settings, client: DockerClient, progress: Progress, recipe: Recipe) -> str:
    wanted = _wanted(settings, recipe)
    here = present(settings, client, recipe)
    if here := here or supplied.bring(settings, client, progress, *_candidates(settings, recipe)):
        return here
    pullable = wanted if wanted != "auto" else recipe.hub
    if wanted != "auto" or debian.hub_answers(client, recipe.hub):
        with progress(f"pulling {pullable}"):
            _pull(settings, client, pullable)
        return pullable
    base = debian.base_image(settings, client, progress)
    tag = recipe.tag(settings)
    title = f"{recipe.title} from Debian's {recipe.package}"
    with progress(f"building {title}") as update:
        building.build(
            client,
            {"Dockerfile": recipe.dockerfile.encode()},
            tag=tag,
            replace=False,
            labels=engine.labels(settings, "registry"),
            arguments={"BASE": base},
            title=title,
            update=update,
        )
    return tag


def present(settings: Settings, client: DockerClient, recipe: Recipe = REGISTRY) -> str:
    """The image that will do and is here already; "" if there is none."""
    return next((name for name in _candidates(settings, recipe) if _known(client, name)), "")


def _candidates(settings: Settings, recipe: Recipe) -> tuple[str, ...]:
    """The names of images that will do, best first."""
    wanted = _wanted(settings, recipe)
    return (wanted,) if wanted != "auto" else (recipe.tag(settings), recipe.hub)


def _wanted(settings: Settings, recipe: Recipe) -> str:
    return settings.registry.image if recipe is REGISTRY else "auto"


def _known(client: DockerClient, reference: str) -> bool:
    return reference != "auto" and building.exists(client, reference)


def _pull(settings: Settings, client: DockerClient, reference: str) -> None:
    from docker.errors import APIError

    try:
        pulled.pull(settings, client, reference)
    except APIError as problem:
        refused = problem.response is not None and problem.response.status_code in (400, 404)
        kind = Refused if refused else MoorageError
        raise kind(
            "no-registry-image",
            f"the registry's image {reference} cannot be pulled",
            cause=str(problem.explanation or problem),
            cure='correct registry.image in invoke.yaml; "auto" builds one from Debian\'s package',
        ) from None
