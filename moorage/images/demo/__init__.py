"""The demo image as the settings want it: by this machine's engine, or an index of platforms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from moorage import images, registry
from moorage.actions import Action
from moorage.docker import apt, building, builds_beside, debian
from moorage.errors import MoorageError, Refused
from moorage.images import BuiltImage, PushedImage, pushing, skopeo
from moorage.images.demo import index
from moorage.output import silent
from moorage.registry import client

if TYPE_CHECKING:
    from concurrent.futures import Future

    from docker import DockerClient

    from moorage.output import Progress
    from moorage.settings import Settings

Engine = Callable[[], "DockerClient"]


def pending(settings: Settings) -> list[Action]:
    """What has to be installed here to build it. Raises Refused if it cannot be."""
    return index.pending(settings) if settings.image.platforms else []


def push_pending(settings: Settings) -> list[Action]:
    """The same to push what was built last."""
    return skopeo.pending() if index.built(settings) is not None else []


def replacing(settings: Settings) -> list[Action]:
    """What is lost to other platforms if it is built and pushed for this machine's alone: those of
    an index that ``image.build --platform`` has made."""
    found = None if settings.image.platforms else index.built(settings)
    if found is None:
        return []
    words = f"replace {found.reference}, an index of {', '.join(found.platforms)}, by an image of "
    words += "this machine's platform alone (image.platforms in invoke.yaml keeps the index)"
    return [Action(words, asks=True)]


def for_platforms(settings: Settings, names: tuple[str, ...]) -> Settings:
    """The settings with other platforms."""
    return replace(settings, image=replace(settings.image, platforms=names))


def build(settings: Settings, engine: Engine, progress: Progress) -> BuiltImage:
    """Builds it; what is built last is what :func:`push` pushes. Raises MoorageError."""
    if settings.image.platforms:
        return index.build(settings, progress)
    built = images.build(settings, engine(), progress)
    index.drop(settings)
    return built


def begin(
    settings: Settings, client: DockerClient, progress: Progress
) -> Future[BuiltImage] | None:
    """Begins :func:`build` beside the caller; None if an image of that name is there, and for
    platforms, whose tools may have to be installed first.

    A base that takes mmdebstrap is made before this returns: shown, and ended by Ctrl-C.
    """
    if settings.image.platforms or building.exists(client, settings.image_reference):
        return None
    if images.wants_debians_base(settings, client):
        debian.base_image(settings, client, progress)

    return builds_beside.begin(settings, lambda own: build(settings, lambda: own, silent), "image")


def push(settings: Settings, engine: Engine, progress: Progress) -> PushedImage:
    """Pushes what was built last; does nothing if the registry has this very one.

    Raises MoorageError with the cause (trust, login, name, …) and its cure; Refused (``no-image``).
    """
    found = index.built(settings)
    if found is None and not settings.image.platforms:
        return images.push(settings, engine(), progress)
    if found is None:
        raise Refused(
            "no-image",
            f"there is no index {settings.image_reference} to push",
            cause="image.platforms asks for one, and it has not been built here",
            cure="inv image.build image.push",
        )
    login = registry.credentials(settings)
    there = client.manifest_digest(settings, login, settings.image.name, settings.image.tag)
    if there == found.digest:
        return PushedImage(found.reference, there, changed=False)
    skopeo.require_name(settings)
    if skopeo.pending():  # it was agreed to
        apt.install([skopeo.PACKAGE], progress, settings)
    (outcome,) = pushing.pushed(settings, [str(found.folder)], found.reference, progress)
    if outcome.fault is not None:
        raise MoorageError.of(outcome.fault)
    return PushedImage(outcome.landed, outcome.digest, outcome.changed)
