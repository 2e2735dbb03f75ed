"""The lab as a whole: up, down, and what of it runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from lab.machines import access, containers, images, limits
from lab.machines.node import LabNode, Recipe, bounding_set, capabilities, host_config
from moorage.actions import Action
from moorage.docker import building, builds_beside, debian, engine, supplied
from moorage.errors import Refused
from moorage.mix import ContainerdLine, parse_mix

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

    from moorage.output import Progress
    from moorage.settings import Settings
    from moorage.ui import UI

_T = TypeVar("_T")
_R = TypeVar("_R")
# The engine makes containers one after another anyway; more would only queue there.
_AT_ONCE = 8


def pending(settings: Settings, nodes: str | None = None) -> list[Action]:
    """What :func:`up` would do to this machine and to the lab; nothing if all is up.

    Raises Refused for a bad mix, or where something is needed that cannot be had.
    """
    lines = _lines(settings, nodes)
    supply = [line for line in lines if supplied.known(settings, images.reference(settings, line))]
    if not engine.answers(settings):
        tools = debian.pending(settings) if len(supply) < len(lines) else []
        return [*tools, *limits.pending(len(lines)), _start(len(lines))]
    client = engine.connect(settings)
    try:
        actions: list[Action] = []
        absent = images.missing(settings, client, [one for one in lines if one not in supply])
        if absent:
            if not building.exists(client, images.reference(settings, None)):
                actions += debian.pending(settings)
            names = ", ".join(line.name for line in absent)
            actions.append(Action(f"build lab nodes with containerd {names}"))
        running = [c for c in containers.existing(settings, client).values() if _runs(c)]
        if len(running) < len(lines):
            actions += limits.pending(len(lines) - len(running), len(running))
            actions.append(_start(len(lines) - len(running)))
    finally:
        client.close()
    return actions


def build(settings: Settings, client: DockerClient, progress: Progress) -> Future[None] | None:
    """Begins to build what the nodes of ``lab.nodes`` are made from; None if all is there.

    What it stands on is made before this returns. The rest goes on beside the caller, who waits for
    it with ``result()``, or ends without.
    """
    lines = _lines(settings, None)
    images.bring(settings, client, lines, progress)
    if not images.missing(settings, client, lines):
        return None
    base = images.base(settings, client, progress)

    def ensure(own: DockerClient) -> None:
        images.ensure(settings, own, lines, base)

    return builds_beside.begin(settings, ensure, "lab-images")


def up(settings: Settings, client: DockerClient, ui: UI, nodes: str | None = None) -> list[LabNode]:
    """Makes the lab what ``nodes`` (default: ``lab.nodes``) says, and waits until it serves.

    Right nodes that run are left alone, stopped ones started, others made or removed. Raises
    MoorageError for the first node that does not get ready, Refused for a bad mix.
    """
    lines = _lines(settings, nodes)
    _refuse_rootless(client)
    images.bring(settings, client, lines, ui.progress)
    if images.missing(settings, client, lines):
        base = images.base(settings, client, ui.progress)
        with ui.progress("building the lab's nodes") as update:
            images.ensure(settings, client, lines, base, update)
    allowed = access.prepare(settings)
    recipes = _recipes(settings, client, lines, allowed.public_key)
    there = containers.existing(settings, client)
    for recipe in recipes:
        if recipe.number not in there:
            containers.refuse_strangers(settings, client, recipe)
    wanted = {recipe.number: recipe for recipe in recipes}
    surplus = [
        container
        for place, container in there.items()
        if place not in wanted or not containers.is_right(container, wanted[place])
    ]
    kept = {place: c for place, c in there.items() if c not in surplus}
    running = sum(map(_runs, kept.values()))
    ui.present(limits.raise_them(settings, len(recipes) - running, running))
    if surplus:
        with ui.progress(f"removing {_nodes(len(surplus))}") as update:
            _together(containers.remove, surplus, update)

    stop = threading.Event()

    def bring_up(recipe: Recipe) -> containers.Ready:
        container = kept.get(recipe.number)
        fresh = container is None or not _runs(container)
        if container is None:
            container = containers.make(settings, client, recipe, allowed)
        if not stop.is_set():
            containers.start(container, recipe.name)
        return containers.wait(container, stop, fresh=fresh)

    title = f"{'looking at' if running == len(recipes) else 'starting'} {_nodes(len(recipes))}"
    with ui.progress(title) as update:
        ready = _together(bring_up, recipes, update, stop)
    for answer in ready:
        if answer.trouble:
            ui.warn(f"{answer.node.name} runs, but is not well: {answer.trouble}")
    access.write(
        settings,
        [answer.node for answer in ready],
        {answer.node.name: answer.host_key for answer in ready},
    )
    return [answer.node for answer in ready]


class Removed(NamedTuple):
    """Whether there was anything to remove, the names of the nodes that are gone, and the API
    server of the cluster that is, "" for none."""

    changed: bool
    nodes: tuple[str, ...]
    cluster: str = ""


def down(settings: Settings, client: DockerClient, ui: UI, *, images: bool = False) -> Removed:
    """Removes the lab's nodes, their cluster, volumes and keys.

    With ``images``, what they are made from goes as well. Limits that were raised for it are put
    back. Who knows agents on these nodes, or in that cluster, has to forget them.
    """
    from lab import kubernetes

    server = kubernetes.server(settings)
    cluster = kubernetes.down(settings, client, ui.progress, images=images)
    found = list(containers.existing(settings, client).values())
    names = tuple(containers.node_of(container).name for container in found)
    if found:
        with ui.progress(f"removing {_nodes(len(found))}") as update:
            _together(containers.remove, found, update)
    volumes = client.volumes.list(filters=engine.label_filter(settings, "lab"))
    for volume in volumes:
        volume.remove(force=True)
    access.forget(settings)
    restored = limits.restore(settings)
    ui.present(restored)
    removed = _remove_images(settings, client) if images else 0
    changed = bool(cluster or found or volumes or restored or removed)
    return Removed(changed, names, server)


def nodes(settings: Settings, client: DockerClient) -> list[LabNode]:
    """The nodes that run, in order.

    A node's address may change when it is restarted; where it has, the SSH configuration follows.
    """
    found = containers.existing(settings, client)
    running = [containers.node_of(found[place]) for place in sorted(found) if _runs(found[place])]
    if running and access.ssh_config(settings).exists():
        access.write(settings, running, access.known_keys(settings))
    return running


def _lines(settings: Settings, nodes: str | None) -> tuple[ContainerdLine, ...]:
    if nodes is None:
        return parse_mix(settings.lab.nodes, source="lab.nodes")
    return parse_mix(nodes)


def _recipes(
    settings: Settings, client: DockerClient, lines: Sequence[ContainerdLine], public_key: str
) -> list[Recipe]:
    names = {line: images.reference(settings, line) for line in set(lines)}
    ids = {line: building.image_id(client, name) for line, name in names.items()}
    config = host_config(capabilities(bounding_set()), engine.labels(settings, "lab"))
    return [
        Recipe(settings.lab.prefix, place, line, names[line], ids[line], config, public_key)
        for place, line in enumerate(lines, start=1)
    ]


def _together(
    work: Callable[[_T], _R],
    items: Sequence[_T],
    update: Callable[..., None],
    stop: threading.Event | None = None,
) -> list[_R]:
    """``work`` for all ``items``, some at a time; results in their order.

    The first failure (or Ctrl-C) is passed on at once; ``stop`` is set, so that the others end.
    """
    pool = ThreadPoolExecutor(_AT_ONCE)
    futures: list[Future[_R]] = [pool.submit(work, item) for item in items]
    waiting: set[Future[Any]] = set(futures)
    try:
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
            update(done=len(items) - len(waiting), total=len(items))
    finally:
        if stop is not None:
            stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
    return [future.result() for future in futures]


def _remove_images(settings: Settings, client: DockerClient) -> int:
    from docker.errors import APIError

    found = building.listed(client, layers=True, filters=engine.label_filter(settings, "lab"))
    removed = 0
    for image in sorted(found, key=lambda one: _depth(client, one.id), reverse=True):
        for name in image.names or (image.id,):
            try:
                client.images.remove(name)
                removed += 1
            except APIError:  # an untagged part of another image goes with that one
                continue
    return removed


def _depth(client: DockerClient, image_id: str) -> int:
    """How many layers an image has; 0 for one that has been removed meanwhile."""
    from docker.errors import ImageNotFound

    try:
        return len(client.images.get(image_id).history())
    except ImageNotFound:
        return 0


def _refuse_rootless(client: DockerClient) -> None:
    options: Iterable[str] = client.info().get("SecurityOptions") or ()
    if any("name=rootless" in option for option in options):
        raise Refused(
            "engine-rootless",
            "lab nodes cannot run in a rootless Docker engine",
            cause="systemd and containerd in them need capabilities that it does not have",
            cure="use the machine's own engine: docker context use default; unset DOCKER_HOST",
        )


def _runs(container: Container) -> bool:
    return str(container.status) == "running"


def _start(count: int) -> Action:
    return Action(f"start {_nodes(count)} of the lab")


def _nodes(count: int) -> str:
    return "one node" if count == 1 else f"{count} nodes"
