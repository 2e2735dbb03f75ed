"""What a phase is, and how a list of them is walked."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from agent.wire.report import HostResult
from moorage.actions import Action
from moorage.errors import MoorageError
from moorage.settings import Settings
from moorage.ui import UI

if TYPE_CHECKING:
    from concurrent.futures import Future

    import docker

    from lab.kubernetes import Cluster
    from moorage.cluster.workload.deploy import Deployed, Workload
    from moorage.images import BuiltImage


@dataclass
class Walk:
    """What the phases of one run hand on to each other."""

    settings: Settings
    ui: UI
    nodes: tuple[str, ...] = ()
    hosts: list[HostResult] = field(default_factory=list)
    runtimes: dict[str, str] = field(default_factory=dict)
    this_machine: HostResult | None = None
    lab_images: Future[None] | None = None
    image: Future[BuiltImage] | None = None
    done: list[PhaseDone] = field(default_factory=list)
    cluster: Cluster | None = None
    workload: Workload | None = None
    deployed: Deployed | None = None

    @cached_property
    def client(self) -> docker.DockerClient:
        """The engine, asked for only by phases that come after it answers."""
        from moorage.docker import engine

        return engine.connect(self.settings)

    @property
    def engine_answers(self) -> bool:
        from moorage.docker import engine

        return engine.answers(self.settings)

    @property
    def changed(self) -> bool:
        return any(phase.changed for phase in self.done)


@dataclass(frozen=True)
class Phase:
    """``pending`` says what the phase would do and does nothing; ``work`` does it.

    ``work`` returns whether it changed anything.
    """

    title: str
    pending: Callable[[Walk], list[Action]]
    work: Callable[[Walk], bool]


@dataclass(frozen=True)
class PhaseDone:
    """What became of a phase; ``seconds`` of wall time."""

    title: str
    changed: bool
    seconds: float


def pending(walk: Walk, phases: Sequence[Phase]) -> list[Action]:
    """What all ``phases`` would do, in their order."""
    return [action for phase in phases for action in phase.pending(walk)]


def raise_fault(result: HostResult) -> None:
    """Ends the walk where a host that everything else stands on has failed."""
    error = result.error
    if error is not None:
        raise MoorageError.of(error, host=result.host)


def go(walk: Walk, phases: Sequence[Phase]) -> None:
    """Walks ``phases`` in order. The first MoorageError ends the walk and is passed on."""
    walk.ui.phases(len(phases))
    for phase in phases:
        started = time.monotonic()
        with walk.ui.phase(phase.title):
            changed = phase.work(walk)
        walk.done.append(PhaseDone(phase.title, changed, round(time.monotonic() - started, 2)))
