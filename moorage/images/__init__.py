"""The demo image: built, pushed, and pulled again to prove that this machine can.

The engine does each over its API, with the login passed in the call: nothing is written into
``~/.docker``, and nothing is asked of a ``docker`` program.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moorage.docker import building, debian, engine, pulled, supplied
from moorage.errors import MoorageError, Refused
from moorage.supply import loaded

if TYPE_CHECKING:
    from docker import DockerClient

    from moorage.output import Progress, Update
    from moorage.settings import Settings

HUB_BASE = "python:3.13-slim"
# The engine reads /etc/hosts through Go's resolver, which keeps what it read for five seconds
# (cacheMaxAge in https://go.dev/src/net/hosts.go). An entry made a moment ago is not seen before.
_HOSTS_CACHE_SECONDS = 5.0
INPUTS_LABEL, BASE_LABEL = "io.moorage.inputs", "io.moorage.base"
_FILES = ("Dockerfile", "app.py", "requirements.lock")


@dataclass(frozen=True)
class BuiltImage:
    """``changed``: whether the image behind the reference is another one than before.

    ``image_id``: the engine's id, or the digest of an index of ``platforms`` in ``layout``.
    """

    reference: str
    image_id: str
    changed: bool
    platforms: tuple[str, ...] = ()
    layout: str = ""


@dataclass(frozen=True)
class PushedImage:
    """``digest`` is the manifest's, ``sha256:…``; ``changed``: the registry had another or none."""

    reference: str
    digest: str
    changed: bool


def build(settings: Settings, client: DockerClient, progress: Progress) -> BuiltImage:
    """Builds ``serve_hostname/`` under the settings' reference; does nothing if it is built.

    Raises Refused for a base without a fit Python, MoorageError where base or wheels cannot be had.
    """
    from moorage.images import wheels

    reference = settings.image_reference
    source = settings.root / "serve_hostname"
    present = _labels(client, reference)
    base = base_image(settings, client, progress, present.get(BASE_LABEL, ""))
    files = {name: (source / name).read_bytes() for name in _FILES}
    inputs = _digest([building.image_id(client, base).encode(), *files.values()])
    if present.get(INPUTS_LABEL) == inputs:
        return BuiltImage(reference, building.image_id(client, reference), changed=False)
    python = wheels.interpreter(client, base)
    supply = loaded.pip_words(settings.root, lock := source / "requirements.lock")
    whence = " from the bundle" if supply else ""
    with progress(f"unpacking the wheels of aiohttp and uvloop{whence}"):
        packages = wheels.unpacked(lock, python, settings.state / "image", supply)
    files |= {f"site-packages/{name}": content for name, content in packages.items()}
    title = reference
    before = building.image_id(client, reference)
    with progress(f"building {title}") as update:
        image_id = building.build(
            client,
            files,
            tag=reference,
            replace=True,
            labels={
                **engine.labels(settings, "image"),
                INPUTS_LABEL: inputs,
                BASE_LABEL: base,
            },
            arguments={"BASE": base},
            title=title,
            update=update,
            network="none",
        )
    return BuiltImage(reference, image_id, changed=image_id != before)


def push(settings: Settings, client: DockerClient, progress: Progress) -> PushedImage:
    """Pushes the built image; does nothing if the registry has this very one.

    Raises MoorageError with the cause (trust, login, name, …) and its cure.
    """
    from moorage import registry
    from moorage.registry import client as https

    reference = settings.image_reference
    if not building.exists(client, reference):
        raise Refused(
            "no-image",
            f"there is no image {reference} to push",
            cause="it has not been built on this engine",
            cure="inv image.build image.push",
        )
    login = registry.credentials(settings)
    there = https.manifest_digest(settings, login, settings.image.name, settings.image.tag)
    if there and there in _digests(settings, client):
        return PushedImage(reference, there, changed=False)
    what = f"pushing {reference}"

    def attempt(update: Update) -> str:
        with _explained(settings, what):
            events = client.api.push(
                *pulled.split(reference),
                stream=True,
                decode=True,
                auth_config={"username": login.user, "password": login.password},
            )
            return _follow(settings, events, what, update)

    with progress(what) as update:
        digest = _once_the_name_is_known(settings, lambda: attempt(update))
    return PushedImage(reference, digest, changed=digest != there)


def pull(settings: Settings, client: DockerClient, progress: Progress) -> float:
    """Pulls the image by this machine's engine, with the login; returns the seconds it took.

    Raises MoorageError with the cause (trust, login, name, …) and its cure.
    """
    from moorage import registry

    login = registry.credentials(settings)
    reference = settings.image_reference
    what = f"pulling {reference}"
    started = time.monotonic()

    def attempt(update: Update) -> str:
        with _explained(settings, what):
            events = client.api.pull(
                *pulled.split(reference),
                stream=True,
                decode=True,
                auth_config={"username": login.user, "password": login.password},
            )
            return _follow(settings, events, what, update)

    with progress(what) as update:
        _once_the_name_is_known(settings, lambda: attempt(update))
    return round(time.monotonic() - started, 2)


# -- the pieces ------------------------------------------------------------------------------


def _once_the_name_is_known(settings: Settings, attempt: Callable[[], str]) -> str:
    """``attempt()``, once more after the engine's cache where this machine knows the name already.

    Raises MoorageError from the attempt.
    """
    try:
        return attempt()
    except MoorageError as problem:
        if problem.code != "name-unresolved" or not _known_here(settings.registry.host):
            raise
    time.sleep(_HOSTS_CACHE_SECONDS + 0.5)
    return attempt()


def _known_here(name: str) -> bool:
    import socket

    try:
        socket.getaddrinfo(name, None)
    except OSError:
        return False
    return True


def base_image(
    settings: Settings, client: DockerClient, progress: Progress, former: str = ""
) -> str:
    """The base's reference; the image is here then. The one once chosen is kept while it is.

    Raises Refused or MoorageError where it cannot be had.
    """
    from docker.errors import APIError

    wanted = settings.image.base
    candidates = (former, HUB_BASE) if wanted == "auto" else (wanted,)
    for name in candidates:
        if name and building.exists(client, name):
            return name
    own = (debian.tag(settings),) if wanted == "auto" else ()
    if name := supplied.bring(settings, client, progress, *filter(None, candidates), *own):
        return name
    reference = HUB_BASE if wanted == "auto" else wanted
    if wanted == "auto" and not debian.hub_answers(client, HUB_BASE):
        return debian.base_image(settings, client, progress)
    try:
        with progress(f"pulling {reference}"):
            pulled.pull(settings, client, reference)
    except APIError as problem:
        kind = Refused if wanted != "auto" else MoorageError
        raise kind(
            "no-base",
            f"the base image {reference} cannot be pulled",
            cause=str(problem.explanation or problem),
            cure="correct image.base in invoke.yaml; auto makes one from Debian's packages",
        ) from None
    return reference


def wants_debians_base(settings: Settings, client: DockerClient) -> bool:
    """Whether :func:`base_image` would make Debian's, which the registry's image stands on too."""
    if settings.image.base != "auto":
        return False
    own = debian.tag(settings)
    there = any(building.exists(client, name) for name in (HUB_BASE, own))
    supply = "" if there else supplied.known(settings, HUB_BASE, own)
    return not (there or supply or debian.hub_answers(client, HUB_BASE))


def _labels(client: DockerClient, reference: str) -> dict[str, str]:
    from docker.errors import ImageNotFound

    try:
        return dict(client.images.get(reference).labels)
    except ImageNotFound:
        return {}


def _digests(settings: Settings, client: DockerClient) -> set[str]:
    """Under which digests the registry is known to hold the image that is here."""
    prefix = f"{settings.registry_name}/{settings.image.name}@"
    known = client.images.get(settings.image_reference).attrs.get("RepoDigests") or ()
    return {name.removeprefix(prefix) for name in known if name.startswith(prefix)}


def _digest(parts: Iterable[bytes]) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(hashlib.sha256(part).digest())
    return whole.hexdigest()


def _follow(settings: Settings, events: Iterable[dict[str, Any]], what: str, update: Update) -> str:
    """Turns the engine's events into progress; returns the digest it names last."""
    from moorage.docker.engine_faults import explain

    layers: dict[str, tuple[int, int]] = {}
    digest = ""
    for event in events:
        if "error" in event:
            raise explain(str(event["error"]), settings.registry_name, what)
        detail = event.get("progressDetail") or {}
        if event.get("id") and detail.get("total"):
            # While a layer is compressed on the way, more is sent than was announced.
            done, total = int(detail.get("current", 0)), int(detail["total"])
            layers[str(event["id"])] = (min(done, total), total)
            update(
                done=sum(done for done, _ in layers.values()),
                total=sum(total for _, total in layers.values()),
            )
        digest = (event.get("aux") or {}).get("Digest", digest)
    return digest


@contextmanager
def _explained(settings: Settings, what: str) -> Iterator[None]:
    """Turns the engine's refusals into our errors."""
    from docker.errors import APIError

    from moorage.docker.engine_faults import explain

    try:
        yield
    except APIError as problem:
        words = str(problem.explanation or problem)
        raise explain(words, settings.registry_name, what) from None
