"""The demo image: built here, pushed to the registry, pulled as a user of this machine would.

The registry's login goes with each call to the engine and is written nowhere.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moorage import building, debian, engine, wheels
from moorage.errors import MoorageError, Refused

if TYPE_CHECKING:
    from docker import DockerClient

    from moorage.settings import Settings
    from moorage.ui import UI, Update

_HUB_BASE = "python:3.13-slim"
_PART = "image"


@dataclass(frozen=True)
class BuiltImage:
    """``image_id`` is the engine's; ``changed`` is False where the same image stood already."""

    reference: str
    image_id: str
    changed: bool


@dataclass(frozen=True)
class PushedImage:
    """``digest`` of the manifest; ``changed`` is False where the registry held it already."""

    reference: str
    digest: str
    changed: bool


def build(settings: Settings, client: DockerClient, ui: UI) -> BuiltImage:
    """Builds ``serve_hostname`` on the base of the settings. The same files give the same image.

    Raises MoorageError where the base or the packages cannot be had, or the build fails.
    """
    reference = settings.image_reference
    before = building.image_id(client, reference)
    base = _base(settings, client, ui)
    source = settings.root / "serve_hostname"
    packages = wheels.site(
        settings.state / "wheels", source / "requirements.lock", _target(client, base)
    )
    files = {name: (source / name).read_bytes() for name in ("Dockerfile", "app.py")}
    files |= _below(packages, "site")
    with ui.progress(f"building {reference}") as update:
        image_id = building.build(
            client,
            files,
            tag=reference,
            labels=engine.labels(settings, _PART),
            title=reference,
            arguments={"BASE": base},
            update=update,
        )
    return BuiltImage(reference, image_id, changed=image_id != before)


def push(settings: Settings, client: DockerClient, ui: UI) -> PushedImage:
    """Pushes the built image, unless the registry holds just that one already.

    Raises MoorageError: ``no-image``, or what :func:`explain` makes of the engine's words.
    """
    from moorage import registry
    from moorage.registry.client import manifest_digest

    reference = settings.image_reference
    if not building.exists(client, reference):
        raise Refused(
            "no-image",
            f"there is no image {reference} to push",
            cause="it has not been built on this engine",
            cure="inv image.build image.push",
        )
    login = registry.credentials(settings)
    there = manifest_digest(settings, login, settings.image.name, settings.image.tag)
    if there and there in _digests(client, settings):
        return PushedImage(reference, there, changed=False)
    events = client.api.push(
        _repository(settings),
        tag=settings.image.tag,
        auth_config={"username": login.user, "password": login.password},
        stream=True,
        decode=True,
    )
    with ui.progress(f"pushing {reference}") as update:
        _follow(settings, "push", events, update)
    digest = manifest_digest(settings, login, settings.image.name, settings.image.tag)
    return PushedImage(reference, digest, changed=True)


def pull(settings: Settings, client: DockerClient, ui: UI) -> float:
    """Pulls the image with this machine's engine. Returns the wall time in seconds.

    Raises MoorageError with what :func:`explain` makes of the engine's words.
    """
    from docker.errors import APIError

    from moorage import registry

    login = registry.credentials(settings)
    started = time.monotonic()
    with ui.progress(f"pulling {settings.image_reference}") as update:
        try:
            events = client.api.pull(
                _repository(settings),
                tag=settings.image.tag,
                auth_config={"username": login.user, "password": login.password},
                stream=True,
                decode=True,
            )
            _follow(settings, "pull", events, update)
        except APIError as problem:
            raise explain(settings, "pull", str(problem.explanation or problem)) from None
    return round(time.monotonic() - started, 3)


@dataclass(frozen=True)
class _Reason:
    pattern: str
    code: str
    cause: str
    cure: str


_REASONS = (
    _Reason(
        r"certificate signed by unknown authority",
        "x509-unknown-authority",
        "this machine's Docker does not trust the registry's CA",
        "inv registry.up",
    ),
    _Reason(r"x509: ", "x509", "the registry's certificate does not fit", "inv certs.issue"),
    _Reason(
        r"no basic auth credentials|unauthorized|authentication required",
        "login-refused",
        "the registry does not take the login",
        "inv registry.up",
    ),
    _Reason(
        r"no such host|server misbehaving|Temporary failure in name resolution",
        "name-not-found",
        "this machine does not know the registry's name",
        "inv registry.up",
    ),
    _Reason(r"connection refused", "registry-down", "nothing listens there", "inv registry.up"),
    _Reason(
        r"manifest unknown|not found",
        "image-missing",
        "the registry has no such image",
        "inv image.build image.push",
    ),
    _Reason(r"no space left", "disk-full", "a disk is full", "inv doctor"),
)


def explain(settings: Settings, verb: str, words: str) -> MoorageError:
    """Why the engine could not ``verb`` (push, pull) the image, from its own ``words``."""
    reason = next((r for r in _REASONS if re.search(r.pattern, words)), None)
    return MoorageError(
        reason.code if reason else f"{verb}-failed",
        f"the engine could not {verb} {settings.image_reference}",
        cause=f"{reason.cause}: {words}" if reason else words,
        cure=reason.cure if reason else "inv doctor",
    )


def _follow(
    settings: Settings, verb: str, events: Iterable[Mapping[str, Any]], update: Update
) -> None:
    """Sums the layers' bytes into one bar until the engine is done."""
    layers: dict[str, tuple[float, float]] = {}
    for event in events:
        if "error" in event:
            raise explain(settings, verb, str(event["error"]))
        detail = event.get("progressDetail") or {}
        if detail.get("total"):
            layers[str(event.get("id"))] = (float(detail.get("current", 0)), float(detail["total"]))
            done, total = (sum(column) for column in zip(*layers.values(), strict=True))
            update(done=min(done, total), total=total)


def _repository(settings: Settings) -> str:
    return f"{settings.registry_name}/{settings.image.name}"


def _digests(client: DockerClient, settings: Settings) -> set[str]:
    """The digests under which the engine knows the local image at our registry."""
    image = client.images.get(settings.image_reference)
    names = image.attrs.get("RepoDigests") or []
    pairs = (name.partition("@") for name in names)
    return {digest for name, _, digest in pairs if name == _repository(settings)}


def _base(settings: Settings, client: DockerClient, ui: UI) -> str:
    wanted = settings.image.base
    if wanted != "auto":
        if not building.exists(client, wanted):
            _pull_base(client, ui, wanted)
        return wanted
    if debian.hub_answers(client, _HUB_BASE):
        if not building.exists(client, _HUB_BASE):
            _pull_base(client, ui, _HUB_BASE)
        return _HUB_BASE
    return debian.base_image(settings, client, ui)


def _pull_base(client: DockerClient, ui: UI, reference: str) -> None:
    from docker.errors import APIError

    name, _, tag = (
        reference.rpartition(":")
        if ":" in reference.rpartition("/")[2]
        else (
            reference,
            "",
            "latest",
        )
    )
    try:
        with ui.progress(f"pulling {reference}"):
            client.images.pull(name, tag=tag)
    except APIError as problem:
        raise MoorageError(
            "no-base-image",
            f"the base image {reference} cannot be pulled",
            cause=str(problem.explanation or problem),
            cure='correct image.base in invoke.yaml; "auto" makes one from Debian\'s packages',
        ) from None


def _target(client: DockerClient, base: str) -> wheels.Target:
    """Asks the base itself which Python it has."""
    from docker.errors import APIError, ContainerError

    question = "import sys, platform; print('%d.%d' % sys.version_info[:2], platform.machine())"
    try:
        said = client.containers.run(
            base, ["-c", question], entrypoint="python3", remove=True, network_mode="none"
        )
    except (APIError, ContainerError) as problem:
        raise MoorageError(
            "base-without-python",
            f"the base image {base} has no python3 that runs",
            cause=str(problem),
            cure="name a base with Python 3.11 or newer in image.base",
        ) from None
    version, machine = said.decode().split()
    return wheels.Target(version, machine)


def _below(folder: Path, prefix: str) -> dict[str, bytes]:
    return {
        f"{prefix}/{path.relative_to(folder)}": path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
