"""The TLS registry: up, down, status, login, logs.

Two containers that this machine's engine keeps running: the front (HAProxy) with TLS, logins and
roles, and the CNCF Distribution behind it. Data, configuration and secrets are files on the host;
the containers can be thrown away at any time.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from moorage.actions import Action
from moorage.errors import MoorageError, Refused
from moorage.output import Note
from moorage.output.said import Coded, joined
from moorage.registry.logins import external
from moorage.registry.logins.credentials import Credentials, credentials, if_any

if TYPE_CHECKING:
    from docker import DockerClient

    from moorage.registry.spec import Spec
    from moorage.settings import Settings
    from moorage.ui import UI

__all__ = [
    "Credentials",
    "RegistryStatus",
    "credentials",
    "down",
    "external_status",
    "if_any",
    "logs",
    "of_another_checkout",
    "pending",
    "status",
    "up",
]


@dataclass(frozen=True)
class RegistryStatus:
    """How the registry is. ``healthy``: TLS and the login work, seen from this machine.

    ``health`` is the engine's own word (``starting``, ``healthy``, ``unhealthy`` or ""); ``image``
    the reference it runs; ``since`` when it was started (ISO 8601, UTC); ``problem`` one sentence,
    "" if there is none; ``front`` the name of the front's container. ``external``: somebody else
    runs it, so ``container`` and ``front`` are "".
    """

    url: str
    container: str
    port: int
    user: str
    running: bool
    healthy: bool
    health: str = ""
    image: str = ""
    since: str = ""
    problem: str = ""
    changed: bool = False
    front: str = ""
    external: bool = False

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON types."""
        return asdict(self)


def pending(settings: Settings, client: DockerClient | None) -> list[Action]:
    """What :func:`up` would do; nothing if the registry stands. ``client`` None: no engine yet.

    Raises Refused if :func:`up` would refuse: a port that is taken, a name that is not ours.
    """
    from moorage.registry import caching, container, image

    external.require_own(settings, "inv registry.up")
    registry = settings.registry
    stands = client is not None and _stands(settings, client)
    if stands:
        return []
    found = None
    if client is not None:
        _require_local_engine()
        found = container.find(settings, client)
        container.check_ports(settings, client, (found, container.find_front(settings, client)))
    fetch = [image.planned(settings, client, one) for one in (image.REGISTRY, image.FRONT)]
    verb = "make" if found is None else "make again" if found.status == "running" else "start"
    return [
        *(Action(text) for text in fetch if text),
        Action(
            f"{verb} the container {registry.container}, and before it "
            f"{container.front_name(settings)} on {registry.listen}:{registry.port}"
        ),
        *(Action(f"make or start the container {name}") for name in caching.names(settings)),
    ]


def up(settings: Settings, client: DockerClient, ui: UI) -> RegistryStatus:
    """Makes the registry serve; needs the certificates (:func:`moorage.pki.registry.issue`).

    A container is made anew only where its image or its options changed; logins and certificate are
    exchanged while the front serves, and requests wait while the registry is started. Raises
    Refused or MoorageError with cause and cure; a running registry is taken down only once
    everything for its successor is there.
    """
    from moorage.registry import container

    try:
        return _up(settings, client, ui)
    except container.ImageGoneError:
        return _up(settings, client, ui)


def _up(settings: Settings, client: DockerClient, ui: UI) -> RegistryStatus:
    from moorage.registry import caching, container, image, service

    external.require_own(settings, "inv registry.up")
    _require_local_engine()
    found, front = container.find(settings, client), container.find_front(settings, client)
    container.check_ports(settings, client, (found, front))
    named = image.ensure(settings, client, ui.progress)
    front_image = image.ensure(settings, client, ui.progress, image.FRONT)
    login, spec, rewritten, given = _prepare(settings, client, named)
    ui.present(given)
    user, owner = container.user(client)
    cached = caching.bring_up(settings, client, ui, named, user, owner)
    put = service.put(settings, client, front_image[0], user, owner)
    changed = container.bring_up(settings, client, ui, spec, rewritten)
    _forget_earlier_build(settings)
    changed |= container.bring_up(settings, client, ui, service.wanted(settings, front_image, user))
    if put:
        ui.note(f"the front has new {', '.join(put)}")
    with ui.progress(f"waiting for https://{settings.registry_name}"):
        container.wait(settings, client, login)
    return _status(settings, client, changed=changed or cached or bool(put))


def _forget_earlier_build(settings: Settings) -> None:
    """What the registry had when it had the port, TLS and the login itself."""
    from moorage.registry.logins.credentials import folder

    for name in ("tls.crt", "tls.key", "htpasswd"):
        (folder(settings) / "etc" / name).unlink(missing_ok=True)


def of_another_checkout(settings: Settings, client: DockerClient) -> str:
    """The folder of the checkout whose registry runs under our name or on our port; "" for none."""
    from moorage.registry import container

    return container.of_another_checkout(settings, client)


def down(
    settings: Settings,
    client: DockerClient,
    ui: UI,
    *,
    purge: bool = False,
    leave_others: bool = False,
) -> bool:
    """Removes the containers; with ``purge`` data, logins and the images we made or pulled.

    Returns whether there was anything to remove. Raises Refused for a container that is not ours;
    with ``leave_others`` that one is left alone instead, and a note says so.
    """
    from moorage.files import remove_folder
    from moorage.registry import caching, container, image
    from moorage.registry.caches import upstreams
    from moorage.registry.logins.credentials import folder

    external.require_own(settings, "inv registry.down")
    changed = False
    for name in (
        container.front_name(settings),
        settings.registry.container,
        *caching.names(settings),
    ):
        try:
            found = container.find(settings, client, name)
        except Refused as problem:
            if not leave_others:
                raise
            ui.note(f"the container {name} is left alone: {problem.cause}")
            continue
        if found is not None:
            with ui.progress(f"stopping {name}, once running downloads have ended"):
                container.remove(found)
            ui.note(f"removed the container {name}")
            changed = True
    if purge:
        changed |= image.forget(settings, client)
        for path in (upstreams.stores(settings), settings.registry_data, folder(settings)):
            if remove_folder(path):
                ui.note(f"removed {path}")
                changed = True
    return changed


def external_status(settings: Settings) -> RegistryStatus:
    """How a registry of somebody else's is, asked over HTTPS alone: no engine is needed."""
    from moorage.registry import client as https

    login, problem = None, ""
    try:
        login = if_any(settings)
        https.check_login(settings, login)
    except MoorageError as error:
        problem = Coded(f"{error.message}: {error.cause}; {error.cure}", error.code)
    return RegistryStatus(
        url=f"https://{settings.registry_name}",
        container="",
        port=settings.registry.port,
        user="" if login is None else login.user,
        running=not problem,
        healthy=not problem,
        problem=problem,
        external=True,
    )


def status(settings: Settings, client: DockerClient) -> RegistryStatus:
    """How the registry is right now. Raises Refused for a container that is not ours."""
    return _status(settings, client, changed=False)


def logs(
    settings: Settings,
    client: DockerClient,
    *,
    follow: bool = False,
    tail: int = 100,
    front: bool = False,
) -> Iterator[str]:
    """The registry's own log, or the front's, line by line. Raises Refused without a container."""
    from moorage.registry import container

    external.require_own(settings, "inv registry.logs")
    name = container.front_name(settings) if front else settings.registry.container
    found = container.find(settings, client, name)
    if found is None:
        raise Refused(
            "registry-down",
            "there is no registry to have a log",
            cause=f"there is no container {name}",
            cure="inv registry.up",
        )
    rest = b""
    for chunk in found.logs(stream=True, follow=follow, tail=tail):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line.decode(errors="replace") for line in lines)
    if rest:
        yield rest.decode(errors="replace")


# -- the pieces ------------------------------------------------------------------------------


def _require_local_engine() -> None:
    from moorage.docker import engine

    place = engine.endpoint()
    if not place.local:
        raise Refused(
            "engine-elsewhere",
            f"the registry cannot run on the engine at {place.url}",
            cause=f"its files are on this machine, and {place.source} names another one's engine",
            cure=f"unset {place.source}, or run Moorage on that machine",
        )


def _prepare(
    settings: Settings, client: DockerClient, image: tuple[str, str]
) -> tuple[Credentials, Spec, tuple[str, ...], list[Note]]:
    """Puts the container's files in place, as they should be; the names are of those rewritten.

    The notes are on whose the data are now.
    """
    from moorage.files import content_of, private_folder, write_atomically
    from moorage.registry import container
    from moorage.registry.logins import users
    from moorage.registry.logins.credentials import ensure, ensure_http_secret, folder

    user, owner = container.user(client)
    etc, data = folder(settings) / "etc", settings.registry_data
    try:
        private_folder(etc.parent)
        login = ensure(settings)
        users.for_purpose(settings, users.NODES)
        ensure_http_secret(settings)
        private_folder(etc, owner=owner)
        given = container.give(data, owner)
        spec = _spec(settings, image, user)
        present = {name: content_of(etc / name) for name in spec.files}
        for name, content in spec.files.items():
            if present[name] != content:
                write_atomically(etc / name, content, owner=owner)
    except PermissionError as problem:
        raise Refused(
            "not-ours",
            f"{problem.filename} cannot be read or written",
            cause="it belongs to another user: Moorage was run as root here, or as somebody else",
            cure=f'sudo chown -R "$USER": {shlex.join(map(str, (settings.state, data)))}; '
            "or run this as that user",
            path=str(problem.filename),
        ) from None
    rewritten = (name for name, content in spec.files.items() if present[name] != content)
    return login, spec, tuple(rewritten), given


def _spec(settings: Settings, image: tuple[str, str], user: str) -> Spec:
    """What the container should be, from what is on disk; writes nothing."""
    from moorage.registry import service, spec
    from moorage.registry.logins.credentials import ensure_http_secret, folder

    etc = folder(settings) / "etc"
    registry = settings.registry
    return spec.Spec(
        image=image[0],
        image_id=image[1],
        options=spec.options(
            name=registry.container,
            user=user,
            etc=etc,
            data=settings.registry_data,
            run=service.run(settings),
            metrics_port=registry.metrics_port,
        ),
        files={spec.CONFIG: spec.config_yaml(ensure_http_secret(settings))},
    )


def _stands(settings: Settings, client: DockerClient) -> bool:
    """Whether :func:`up` would leave both containers and all files alone. Changes nothing."""
    from moorage.docker import building
    from moorage.registry import caching, container, image, service
    from moorage.registry.logins import users
    from moorage.registry.logins.credentials import folder

    names = [image.present(settings, client, one) for one in (image.REGISTRY, image.FRONT)]
    secrets = [folder(settings) / name for name in ("http-secret", "front-key")]
    found = (container.find(settings, client), container.find_front(settings, client))
    if not all(names) or not all(path.exists() for path in secrets):
        return False
    user, _ = container.user(client)
    named = [(name, building.image_id(client, name)) for name in names]
    try:
        wanted = (_spec(settings, named[0], user), service.wanted(settings, named[1], user))
        as_they_should = (
            not service.changed(settings)
            and users.kept(settings, users.NODES)
            and caching.stand(settings, client, named[0], user)
        )
    except MoorageError:
        return False
    return bool(as_they_should) and all(
        one is not None and one.status == "running" and container.is_current(one, should)
        for one, should in zip(found, wanted, strict=True)
    )


def _status(settings: Settings, client: DockerClient, *, changed: bool) -> RegistryStatus:
    from moorage.registry import client as https
    from moorage.registry import container

    found = container.find(settings, client)
    registry, front = settings.registry, container.front_name(settings)
    down = container.down(
        {registry.container: found, front: container.find_front(settings, client)}
    )
    running = not down
    problem: str = joined("; ", down)
    try:
        if running:
            https.check_login(settings, credentials(settings))
    except MoorageError as error:
        problem = Coded(": ".join(filter(None, (error.message, error.cause))), error.code)
    state = {} if found is None else found.attrs["State"]
    return RegistryStatus(
        url=f"https://{settings.registry_name}",
        container=registry.container,
        port=registry.port,
        user=registry.user,
        running=running,
        healthy=running and not problem,
        health=str(state.get("Health", {}).get("Status", "")),
        image="" if found is None else _image_name(found),
        since=str(state.get("StartedAt", "")) if running else "",
        problem=problem,
        changed=changed,
        front=front,
    )


def _image_name(found: Any) -> str:
    from docker.errors import ImageNotFound

    try:
        tags = found.image.tags
    except ImageNotFound:
        tags = []
    return str(tags[0] if tags else found.attrs["Image"])
