"""Looks at what a restart would stop, before it, and at what is down, after it.

:mod:`agent.engine.restarts` decides what comes of it. Containers are counted only where a stop may
reach them: a service stopped by ``KillMode=process`` that is no Docker costs one call for all.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from agent.engine.restarts import Container, Foreseen, Survey, foreseen
from agent.facts import Docker, Facts
from agent.facts import containers as running
from agent.facts.services import Service, shown
from agent.node.host import RELOAD, TOOLS, Host

# Until Docker, which is up, has started again what its policies name.
RETURN_SECONDS = 10.0


class Before(NamedTuple):
    """How a node was before its services were restarted.

    ``starts``: by name as the engine has it, which start runs. ``tasks``, ``docker``: containers
    that the restart will end, of containerd or CRI-O and by the socket of each Docker Engine.
    ``current``: the services whose files systemd had read as they were.
    """

    foreseen: Foreseen = Foreseen()
    starts: Mapping[str, str] = MappingProxyType({})
    tasks: tuple[running.Task, ...] = ()
    docker: tuple[tuple[str, tuple[Container, ...]], ...] = ()
    current: tuple[str, ...] = ()


def look(host: Host, facts: Facts | None, units: Sequence[str]) -> Before:
    """What a restart of ``units`` would stop beside them.

    ``reload NAME`` and the tools of trust stores stop nothing.
    """
    names = {unit: _service(unit) for unit in units if unit not in TOOLS}
    services = _with_bound(host, list(dict.fromkeys(names.values())))
    restarted = [unit for unit, name in names.items() if unit == name]
    survey, tasks, docker = _survey(facts, restarted, services)
    starts = {
        unit: services[names[unit]].start if names.get(unit, "") in services else ""
        for unit in units
    }
    current = tuple(name for name in restarted if name in services and services[name].current)
    return Before(foreseen(restarted, survey), starts, tasks, docker, current)


def start_again(host: Host, names: Sequence[str]) -> tuple[str, ...]:
    """Wait until services that were restarted along are up, start those that are not.

    Returns those that stay down.
    """
    for name in names:
        host.start(name)
    found = shown(host, names)
    return tuple(name for name in names if name not in found or not found[name].active)


def down(before: Before) -> tuple[str, ...]:
    """The containers that ran before and do not now; of pods, which get new ones, none."""
    gone = [
        f"{one.namespace}/{one.name}"
        for one in before.tasks
        if one.namespace not in (running.KUBERNETES, running.MOBY, "cri-o") and not one.runs
    ]
    for socket, containers in before.docker:
        gone += [f"docker/{name}" for name in _missing(socket, containers)]
    return tuple(gone)


def _service(unit: str) -> str:
    return unit[len(RELOAD) :] if unit.startswith(RELOAD) else unit


def _with_bound(host: Host, names: list[str]) -> dict[str, Service]:
    """The services and those bound to them, link by link; one more call where there is a link."""
    known: dict[str, Service] = {}
    asked: set[str] = set()
    while left := [name for name in names if name not in asked]:
        asked |= set(left)
        found = shown(host, left)
        known |= found
        names = [other for one in found.values() if one.active for other, _ in one.bound]
    return known


def _survey(
    facts: Facts | None, units: Sequence[str], services: dict[str, Service]
) -> tuple[Survey, tuple[running.Task, ...], tuple[tuple[str, tuple[Container, ...]], ...]]:
    """The survey, and the containers in it as :func:`down` looks for them."""
    reached = _reached(units, services)
    engines = {one.unit: one for one in (facts.dockers if facts is not None else ()) if one.running}
    held: dict[str, tuple[Container, ...] | None] = {}
    ended: dict[str, tuple[Container, ...] | None] = {}
    tasks: tuple[running.Task, ...] = ()
    docker: dict[str, tuple[Container, ...]] = {}
    for service in reached:
        if service.kill_mode:
            found = running.held(service.group, service.pid)
            tasks += found or ()
            held[service.name] = None if found is None else _named(found, engines, docker)
        if service.name in engines:
            engine = engines[service.name]
            ended[service.name] = () if _restores(engine) else _of_docker(engine, docker)
    return Survey(services, held, ended), tasks, tuple(docker.items())


def _reached(units: Sequence[str], services: dict[str, Service]) -> list[Service]:
    """The active services that a restart stops, the bound ones too."""
    along = foreseen(units, Survey(services, {}, {})).along
    return [
        services[name] for name in (*units, *along) if name in services and services[name].active
    ]


def _named(
    tasks: tuple[running.Task, ...],
    engines: dict[str, Docker],
    docker: dict[str, tuple[Container, ...]],
) -> tuple[Container, ...]:
    """The tasks as their users know them: Docker's by its names, since it calls them by numbers."""
    named = [
        Container(one.name, returns=one.namespace == running.KUBERNETES)
        for one in tasks
        if one.namespace != running.MOBY
    ]
    if len(named) < len(tasks):
        of_docker = [_of_docker(engine, docker) for engine in engines.values() if not engine.home]
        known = [one for containers in of_docker for one in containers or ()]
        named += known or [Container(one.name) for one in tasks if one.namespace == running.MOBY]
    return tuple(named)


def _of_docker(
    engine: Docker, docker: dict[str, tuple[Container, ...]]
) -> tuple[Container, ...] | None:
    from agent.clients.docker import docker_containers

    if engine.socket not in docker:
        found = docker_containers(engine.socket)
        if found is None:
            return None
        docker[engine.socket] = tuple(Container(name, back) for name, back in found.items())
    return docker[engine.socket]


def _restores(engine: Docker) -> bool:
    """Whether the engine leaves its containers alone when it stops: by its own word."""
    from agent.clients.docker import docker_info

    return docker_info(engine.socket).get("LiveRestoreEnabled") is True


def _missing(socket: str, containers: tuple[Container, ...]) -> list[str]:
    """Those that do not run; Docker gets a moment for the ones that it starts again."""
    from agent.clients.docker import docker_containers

    deadline = time.monotonic() + RETURN_SECONDS
    while True:
        now = docker_containers(socket)
        missing = [one for one in containers if now is None or one.name not in now]
        if not any(one.returns for one in missing) and now is not None:
            break
        if time.monotonic() > deadline:
            break
        time.sleep(0.2)
    return [one.name for one in missing]
