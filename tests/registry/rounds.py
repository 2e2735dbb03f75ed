"""CAs rotated under pulls and killed at random; registries backed up under pushes and restored.

Each gives what it lost: pulls that failed, a rotation without an end, images not to be pulled.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest import mock

from moorage.backup import giving_back, restic, taking
from moorage.pki import registry as pki
from moorage.registry import handed, spec
from moorage.registry.logins import users
from moorage.registry.logins.credentials import ensure
from moorage.registry.storage.layout import Layout
from moorage.rotation import course, kept, members, rotation
from moorage.rotation.rotation import Deeds
from moorage.ui import UI
from tests.debian import program
from tests.loopback import Loopback, loopback
from tests.registry import interleavings
from tests.registry.interleavings import Clients, Tally
from tests.registry.program import Registry
from tests.unit.elsewhere import registry_project
from tests.unit.rotation import test_front as front

_NODES = ("a", "b", "c")


class _Killed(BaseException):
    """Stands for SIGKILL."""


@contextmanager
def served(folder: Path) -> Iterator[Loopback]:
    """A front on loopback with an image that nodes pull."""
    folder.mkdir(parents=True)
    with (
        loopback(registry_project(folder)) as made,
        mock.patch.object(spec, "ETC", made.etc),
        mock.patch.object(members, "DOCKER_CERTS", folder / "no-docker"),
    ):
        handed.made(made.settings, [users.NODES])
        front.push_image(made)
        yield made


def rotate(made: Loopback, folder: Path, seed: int) -> list[str]:
    """One rotation of the CA under pulls, killed now and then before or after a deed."""
    folder.mkdir(parents=True)
    chance, here = random.Random(seed), made.settings  # noqa: S311
    fleet, before = front.nodes(made, folder, *_NODES), pki.ca_pem(here)

    def keep(now: course.State) -> None:
        kept.write(here, now)
        if chance.random() < 0.1:
            raise _Killed

    with front.pullers(fleet) as failed:
        state = rotation.begin(front.means(fleet), fleet.hosts(), [])
        for _ in range(50):
            try:
                state = rotation.carry_on(state, Deeds(front.means(fleet)), keep)
            except _Killed:
                state = kept.read(here) or replace(state, phase=course.DONE)
            if state.phase == course.DONE:
                break
    problems = [f"seed {seed}: {one}" for one in failed]
    if state.phase != course.DONE or pki.ca_pem(here) == before:
        problems.append(f"seed {seed}: the rotation came to its end in phase {state.phase}")
    return problems


def restore(folder: Path, seed: int) -> list[str]:
    """One registry backed up while clients push and delete, restored, and pulled from."""
    chance = random.Random(seed)  # noqa: S311
    (folder / "here").mkdir(parents=True)
    (folder / "there").mkdir()
    here = registry_project(folder / "here")
    there = replace(registry_project(folder / "there"), registry=here.registry)
    pki.issue(here)
    ensure(here)
    here.registry_data.mkdir(parents=True)
    registry = Registry(here.registry_data)
    registry.start()
    path = f"{Path(program('restic')).parent}:{os.environ['PATH']}"
    with mock.patch.dict(os.environ, PATH=path, XDG_CACHE_HOME=str(folder / "cache")):
        place = restic.place(str(folder / "backups"), f"passphrase {seed}")
        try:
            kept_image = registry.push("kept", "always", chance.randbytes(100_000))
            with Clients(registry, chance, Tally()):
                taking.back_up(here, UI(as_json=True).progress, place, _served)
        finally:
            registry.kill()
        giving_back.restore(there, UI(as_json=True).progress, place)
    return [f"seed {seed}: {one}" for one in _not_there(there.registry_data, kept_image)]


def _not_there(data: Path, kept_image: str) -> list[str]:
    """What of the tags cannot be pulled whole."""
    layout = Layout(data)
    tags = [(one, tag) for one in layout.repositories() for tag in layout.tags(one)]
    registry = Registry(data)
    registry.start()
    try:
        wanted = [*tags, ("kept", kept_image)]
        return [problem for one in wanted if (problem := registry.pull(*one))]
    finally:
        registry.kill()


@contextmanager
def _served(data: Path) -> Iterator[tuple[str, int]]:
    """A process in place of the container: the same Distribution, over the same folder."""
    registry = Registry(data)
    registry.start()
    try:
        yield "127.0.0.1", registry.port
    finally:
        registry.kill()


def naive(folder: Path, runs: int = 20) -> list[str]:
    """What Distribution's own collection beside pushes loses, in the first run that loses some."""
    for seed in range(runs):
        lost = interleavings.run(folder, seed, 6, interleavings.naive, kills=False).lost
        if lost:
            return [f"seed {seed}: {one}" for one in lost]
    return []
