"""What the restart of a service stops beside the service itself. Pure.

Two things are at stake: the processes that the service manager ends together with the main one
(``KillMode=`` in systemd.kill(5)), which may hold containers; and the services that it stops and
starts along, since they are bound to the one (``BindsTo=``, ``Requires=``, ``Requisite=`` and
``PartOf=`` in systemd.unit(5)). Docker ends its own containers when it stops, unless it has
live-restore: https://docs.docker.com/engine/daemon/live-restore/.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from agent.facts.services import Service
from agent.wire.faults import RefusedError

CODE = "restart-stops-running"
# So many names are told; of more, the number.
_NAMED = 5
# What a restart of these does to containers: nothing. The kubelet finds its pods as they were.
_HARMLESS = frozenset(("kubelet.service", "kubelet", "cri-docker.service"))


class Container(NamedTuple):
    """A running container; ``returns``: what started it starts it again, or a new one like it."""

    name: str
    returns: bool = False


class Survey(NamedTuple):
    """What was found of the services to restart, and of those bound to them.

    ``held``: by service, the containers whose processes its stop ends. ``ended``: by service of a
    Docker Engine, the containers that it ends itself; with live-restore none. None: not known.
    """

    services: Mapping[str, Service]
    held: Mapping[str, tuple[Container, ...] | None]
    ended: Mapping[str, tuple[Container, ...] | None]


NOTHING = Survey({}, {}, {})


class Stop(NamedTuple):
    """One thing that a restart stops, in words; ``cure`` keeps it from being stopped."""

    unit: str
    words: str
    cure: str = ""


class Foreseen(NamedTuple):
    """``stops``: what must be agreed to. ``along``: active services that are restarted too."""

    stops: tuple[Stop, ...] = ()
    along: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def foreseen(units: Sequence[str], survey: Survey) -> Foreseen:
    """What a restart of ``units`` stops beside themselves."""
    stops: list[Stop] = []
    notes: list[str] = []
    along = tuple(_along(units, survey.services))
    for unit in (*units, *(name for name, _, _ in along)):
        stops += _containers_of(unit, survey)
    for name, holder, setting in along:
        words = f"{name} has {setting}{holder}: it is restarted too"
        if not name.endswith(".service") and "." in name:
            continue  # a socket, a target: nothing runs in it
        if name in _HARMLESS or name in survey.ended or any(one.unit == name for one in stops):
            notes.append(words)
        else:
            stops.append(Stop(name, words))
    return Foreseen(tuple(stops), tuple(name for name, _, _ in along), tuple(notes))


def refuse(found: Foreseen, operation: str) -> None:
    """Raise RefusedError for what a restart would stop and nobody has agreed to."""
    if not found.stops:
        return
    verb = {"apply": "trust"}.get(operation, operation)
    cures = "; ".join(dict.fromkeys(one.cure for one in found.stops if one.cure))
    later = "" if operation == "recover" else "; prepare all and restart later: --no-restart"
    raise RefusedError(
        CODE,
        f"nothing was touched: {'; '.join(words(found))}",
        cause="a restart is needed, and it would stop more than the runtime itself",
        cure=f"agree to it: inv nodes.{verb} --yes{later}{f'; or first: {cures}' if cures else ''}",
    )


def words(found: Foreseen) -> tuple[str, ...]:
    """What a restart stops, a sentence each; the containers come before what is bound."""
    return (*(one.words for one in found.stops), *found.notes)


def _along(units: Sequence[str], services: Mapping[str, Service]) -> Iterator[tuple[str, str, str]]:
    """Each active service that goes along: its name, what it is bound to, and by which setting."""
    seen = set(units)
    waiting = list(units)
    while waiting:
        holder = waiting.pop(0)
        found = services.get(holder)
        for name, setting in found.bound if found is not None and found.active else ():
            other = services.get(name)
            if name in seen or other is None or not other.active:
                continue
            seen.add(name)
            waiting.append(name)
            yield name, holder, setting


def _containers_of(unit: str, survey: Survey) -> Iterator[Stop]:
    service = survey.services.get(unit)
    if unit in survey.held and service is not None:
        held = survey.held[unit]
        if held is None or held:
            yield Stop(
                unit,
                f"{unit} has {service.kill_mode}: its restart ends {_counted(held)}",
                _keeping(unit, service.kill_mode),
            )
    if unit in survey.ended:
        ended = survey.ended[unit]
        if ended is None or ended:
            yield Stop(
                unit,
                f"{unit} has no live-restore: its restart ends {_counted(ended)}{_staying(ended)}",
                'put "live-restore": true into daemon.json there and reload Docker',
            )


def _keeping(unit: str, kill_mode: str) -> str:
    """The command after which a stop ends the main process alone."""
    if not kill_mode.startswith("KillMode="):
        return f"set rc_cgroup_cleanup=NO in /etc/conf.d/{unit}"
    folder = f"/etc/systemd/system/{unit}.d"
    return (
        f"mkdir -p {folder} && printf '[Service]\\nKillMode=process\\n' > {folder}/zz-keep.conf "
        "&& systemctl daemon-reload"
    )


def _counted(containers: tuple[Container, ...] | None) -> str:
    if containers is None:
        return "its running containers (how many is not known)"
    count = f"{len(containers)} running container{'s' if len(containers) > 1 else ''}"
    return f"{count} ({named([one.name for one in containers])})"


def _staying(containers: tuple[Container, ...] | None) -> str:
    """Which of them nobody starts again."""
    down = [one.name for one in containers or () if not one.returns]
    if not down:
        return ""
    verb = "stays" if len(down) == 1 else "stay"
    return f", and {len(down)} without a restart policy {verb} down ({named(down)})"


def named(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
