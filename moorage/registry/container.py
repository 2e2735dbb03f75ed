"""The registry's container: found, made, started, waited for, removed. Never anybody else's."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moorage.docker import engine
from moorage.errors import MoorageError, Refused
from moorage.files import give_tree, private_folder
from moorage.output import Note
from moorage.output.said import Said, said
from moorage.registry import client as https
from moorage.registry.ports import listener
from moorage.registry.spec import DIGEST_LABEL, STOP_SECONDS, Spec

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

    from moorage.registry.logins.credentials import Credentials
    from moorage.settings import Settings
    from moorage.ui import UI

# A user of its own where root runs Moorage: the number that "nonroot" has in many images. Nobody
# can log in with it, and the folders above its files are closed to everybody but root.
_NONROOT = 65532
_READY_SECONDS = 30


def user(client: DockerClient) -> tuple[str, tuple[int, int] | None]:
    """(the container's user, the owner its files need or None for ourselves)."""
    if any("rootless" in option for option in client.info().get("SecurityOptions", ())):
        # There, root in the container is ourselves outside, and nobody more.
        return "0:0", None
    if os.geteuid() == 0:
        return f"{_NONROOT}:{_NONROOT}", (_NONROOT, _NONROOT)
    return f"{os.geteuid()}:{os.getegid()}", None


def down(found: Mapping[str, Container | None]) -> list[str]:
    """Those that do not run, by name, in words each."""
    states = {name: one.status if one else "not there" for name, one in found.items()}
    return [
        said("the container {name} is {state}", name=name, state=Said(state))
        for name, state in states.items()
        if state != "running"
    ]


def front_name(settings: Settings) -> str:
    """The name of the front's container."""
    return f"{settings.registry.container}-front"


def find_front(settings: Settings, client: DockerClient) -> Container | None:
    """The front's container. Raises Refused if one of that name is not this project's."""
    return find(settings, client, front_name(settings))


def find(settings: Settings, client: DockerClient, name: str = "") -> Container | None:
    """Our container, the registry's unless named. Raises Refused for another project's."""
    from docker.errors import NotFound

    name = name or settings.registry.container
    try:
        found = client.containers.get(name)
    except NotFound:
        return None
    engine.refuse_stranger(
        settings, found, "registry.down", "registry.container (and registry.port)"
    )
    return found


def of_another_checkout(settings: Settings, client: DockerClient) -> str:
    """The folder of the checkout whose registry runs under our name or on our port; "" for none."""
    for found in client.containers.list(
        filters={"label": f"{engine.LABEL_PART}=registry"}, ignore_removed=True
    ):
        folder = str(found.labels.get(engine.LABEL_PROJECT, ""))
        registry = settings.registry
        if folder not in ("", str(settings.home)) and (
            found.name in (registry.container, front_name(settings))
            or registry.port in _published(found)
        ):
            return folder
    return ""


def is_current(found: Container, spec: Spec) -> bool:
    return bool(found.labels.get(DIGEST_LABEL) == spec.digest)


def check_ports(settings: Settings, client: DockerClient, ours: Sequence[Container | None]) -> None:
    """Raises Refused (``port-taken``) where somebody else holds a port that ``ours`` need."""
    running = [one for one in ours if one is not None and one.status == "running"]
    held = {port for one in running for port in _published(one)}
    registry = settings.registry
    for key, address, port in (
        ("port", registry.listen, registry.port),
        ("metrics_port", "127.0.0.1", registry.metrics_port),
    ):
        holder = "" if port in held else _holder(settings, client, address, port)
        if holder:
            raise _port_taken(key, port, holder)


class ImageGoneError(MoorageError):
    """The image was there and is not: another checkout's `down --purge` came in between."""


def create(settings: Settings, client: DockerClient, spec: Spec) -> None:
    """Makes and starts the container. Raises Refused or MoorageError (ImageGoneError if an image is
    to be made again); none is left then."""
    from docker.errors import APIError, ImageNotFound

    labels = {**engine.labels(settings, "registry"), DIGEST_LABEL: spec.digest}
    try:
        _start(client, spec, labels)
    except ImageNotFound as problem:
        told = _not_started(settings, client, str(problem.explanation or problem))
        raise ImageGoneError(
            told.code, told.message, cause=told.cause, cure="run it again"
        ) from None
    except APIError as problem:
        raise _not_started(settings, client, str(problem.explanation or problem)) from None


def bring_up(
    settings: Settings, client: DockerClient, ui: UI, wanted: Spec, rewritten: Sequence[str] = ()
) -> bool:
    """A container of ours as it should be, and running; whether it was changed.

    ``rewritten``: files of it that somebody else had changed. Raises Refused or MoorageError.
    """
    name = wanted.options["name"]
    found = find(settings, client, name)
    if found is not None and is_current(found, wanted):
        if found.status not in ("running", "restarting"):
            found.start()
            ui.note(f"started the container {name} again")
            return True
        if rewritten:
            found.restart(timeout=STOP_SECONDS)
            ui.note(f"{name} is started again: {', '.join(rewritten)} had been changed")
        return bool(rewritten)
    if found is not None:
        why = ", ".join(rewritten) or "its image or its options"
        ui.note(f"{name} is made again ({why} changed); images and logins stay")
        with ui.progress(f"stopping {name}, once running downloads have ended"):
            remove(found)
    create(settings, client, wanted)
    ui.note(f"made the container {name}")
    return True


def give(data: Path, owner: tuple[int, int] | None) -> list[Note]:
    """Makes the data's folder, and everything in it the container user's; a note if it was not."""
    present = data.stat() if data.exists() else None
    private_folder(data, owner=owner)
    if present is not None and owner is not None and (present.st_uid, present.st_gid) != owner:
        give_tree(data, owner)
        return [Note(f"{data} now belongs to user {owner[0]}, as which the registry runs")]
    return []


def remove(found: Container) -> None:
    """Ends and removes it, after the downloads that are running; its data are on the host."""
    from docker.errors import NotFound

    try:
        found.stop(timeout=STOP_SECONDS)
        found.remove(force=True, v=True)
    except NotFound:  # somebody was faster
        return


def wait(settings: Settings, client: DockerClient, login: Credentials) -> None:
    """Until TLS and the login work. Raises MoorageError with the registry's own last words."""
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        try:
            https.check_login(settings, login, timeout=5)
            return
        except MoorageError as problem:
            last = problem
        for name in (settings.registry.container, front_name(settings)):
            _require_alive(find(settings, client, name))
        if time.monotonic() > deadline:
            raise last
        time.sleep(0.1)


def _require_alive(found: Container | None) -> None:
    # The engine starts it over and over; a second start says that the first one failed.
    if found is None or found.status == "exited" or found.attrs.get("RestartCount", 0) > 1:
        raise _died(found)


def last_words(found: Container) -> str:
    """What its log says of why it ended, for an error's cause."""
    lines = [line for line in found.logs(tail=60).decode(errors="replace").splitlines() if line]
    # The Distribution prints its usage after the very line that counts.
    telling = [line for line in lines if re.search(r"error|fatal|panic", line, re.IGNORECASE)]
    return "\n".join((telling or lines)[-3:]) or "it said nothing"


# What is the container's own in Docker's API; all else belongs to its host configuration.
_OF_THE_CONTAINER = ("name", "command", "user", "environment", "healthcheck", "stop_timeout")


def _start(client: DockerClient, spec: Spec, labels: dict[str, str]) -> None:
    """Makes the container and starts it. Raises docker.errors.APIError, and none is left then."""
    from docker.errors import APIError

    options = dict(spec.options)
    own = client.images.get(spec.image).attrs["Config"].get("Entrypoint") or []
    before = options.pop("entrypoint", [])
    made = _made(client, spec.image, labels, [*before, *own], options)
    try:
        made.start()
    except APIError as problem:
        made.remove(force=True, v=True)
        if not before or not re.search(
            r'"sh": executable file not found', str(problem.explanation)
        ):
            raise
    else:
        return
    made = _made(client, spec.image, labels, own, options)  # an image without a shell
    try:
        made.start()
    except APIError:
        made.remove(force=True, v=True)
        raise


def _made(
    client: DockerClient,
    image: str,
    labels: dict[str, str],
    entrypoint: list[str],
    options: dict[str, Any],
) -> Container:
    # JSON has lists where the SDK wants tuples. `containers.create` has no stop_timeout.
    ports = {inner: tuple(outer) for inner, outer in options["ports"].items()}
    rest = options.keys() - {*_OF_THE_CONTAINER, "ports", "volumes"}
    made = client.api.create_container(
        image,
        entrypoint=entrypoint or None,
        labels=labels,
        ports=[tuple(inner.split("/")) for inner in ports],
        volumes=[volume["bind"] for volume in options["volumes"].values()],
        host_config=client.api.create_host_config(
            port_bindings=ports, binds=options["volumes"], **{key: options[key] for key in rest}
        ),
        **{key: options[key] for key in _OF_THE_CONTAINER},
    )
    return client.containers.get(made["Id"])


def _published(found: Container) -> set[int]:
    return {
        int(outer["HostPort"])
        for mappings in (found.ports or {}).values()
        for outer in mappings or ()
    }


def _holder(settings: Settings, client: DockerClient, address: str, port: int) -> str:
    """Who holds the port, for a sentence; "" for nobody but ours."""
    ours = (settings.registry.container, front_name(settings))
    # The engine may hold it without a listening process (userland-proxy off).
    for other in client.containers.list(filters={"publish": str(port)}, ignore_removed=True):
        if other.name not in ours and port in _published(other):
            return f"the container {other.name} ({other.short_id})"
    found = listener(address, port)
    if found is not None and found.program == "docker-proxy":
        return f"{found.describe()}, for a container of another Docker engine"
    return "" if found is None else found.describe()


def _port_taken(key: str, port: int, holder: str) -> Refused:
    return Refused(
        "port-taken",
        f"port {port} of this machine is taken, so the registry cannot have it",
        cause=f"it is held by {holder}",
        cure=f"stop that, or choose another port: registry.{key} in invoke.yaml",
    )


def _not_started(settings: Settings, client: DockerClient, words: str) -> MoorageError:
    cure = "inv doctor"
    if "address already in use" in words or "port is already allocated" in words:
        try:
            check_ports(settings, client, (find(settings, client), find_front(settings, client)))
        except Refused as taken:
            return taken
        # Nobody listens there: an outgoing connection has it (ip(7), ip_local_port_range).
        cure = (
            "inv registry.up once more, for a connection of this machine has the port for the "
            "moment; registry.port and registry.metrics_port in invoke.yaml are safe below "
            "/proc/sys/net/ipv4/ip_local_port_range"
        )
    elif "cannot assign requested address" in words:
        cure = "registry.listen in invoke.yaml has to be an address of this machine"
    elif "privileged port" in words:
        cure = "choose a port above 1023: registry.port in invoke.yaml"
    return MoorageError(
        "registry-not-started", "the registry's container does not start", cause=words, cure=cure
    )


def _died(found: Container | None) -> MoorageError:
    words = "the container is gone" if found is None else last_words(found)
    if found is not None:
        found.stop(timeout=1)  # else the engine goes on starting it for ever
    return MoorageError(
        "registry-died",
        "the registry starts and ends at once",
        cause=words,
        cure="inv registry.logs; inv registry.up tries again",
    )
