"""Pushes, deletes and pulls on a real registry, while it is collected and both are killed.

An interleaving is one collection in the middle of them, at a random instant. Afterwards every image
whose push was acknowledged, and that nobody deleted, has to be pulled whole.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from moorage.registry.storage import collecting
from moorage.registry.storage.layout import Layout
from tests.registry.program import MANIFEST, Registry, digest_of, image

# A collection by hand waits 10 s, for every request to end that may have looked before: that is
# what each wait is here, however busy the machine. By hand its grace is an hour; one that is
# shorter than a push has more pushes refused, and loses none.
POLICY = collecting.CollectionPolicy(grace=0.3, settle=2, keep=1, look_every=1, at_once=10)
REPOSITORIES = ("team/a", "team/b")
LAYERS = [bytes([65 + number]) * (1000 + number) for number in range(6)]
# Garbage of other images: a collection with nothing to do is over before anything meets it.
GARBAGE = 3 * POLICY.at_once
Collection = Callable[[Registry], None]


@dataclass
class Tally:
    """What happened; ``lost``: acknowledged, not deleted, and not whole."""

    interleavings: int = 0
    pushed: int = 0
    refused: int = 0
    deleted: int = 0
    killed: int = 0
    lost: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def __str__(self) -> str:
        return (
            f"{self.interleavings} interleavings, {self.pushed} pushes acknowledged, "
            f"{self.refused} refused, {self.deleted} deleted, {self.killed} kills, "
            f"{len(self.lost)} lost"
        )


@dataclass
class Image:
    """One image over layers that others share; one client at a time has to do with it."""

    repository: str
    config: bytes
    layers: list[bytes]
    there: bool = False
    unsure: bool = False  # the registry was killed before it answered, or answered 5xx
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def content(self) -> bytes:
        return image(self.config, *self.layers)


class Clients:
    """Threads that push, delete and pull at random until they are told to stop."""

    def __init__(self, registry: Registry, chance: random.Random, tally: Tally) -> None:
        self.registry = registry
        self.tally = tally
        self.images = [
            Image(
                chance.choice(REPOSITORIES), b'{"n":%d}' % number,
                chance.sample(LAYERS, chance.randint(1, 3)),
            )
            for number in range(10)
        ]  # fmt: skip
        self._stop = threading.Event()
        seeds = [chance.getrandbits(32) for _ in range(3)]
        self._threads = [threading.Thread(target=self._work, args=(seed,)) for seed in seeds]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _work(self, seed: int) -> None:
        chance = random.Random(seed)  # noqa: S311
        while not self._stop.is_set():
            one = chance.choice(self.images)
            with one.lock:
                (self._delete if one.there and chance.random() < 0.6 else self._push)(one, chance)

    def _push(self, one: Image, chance: random.Random) -> None:
        for part in (one.config, *one.layers):
            self.registry.push_blob(one.repository, part)
            if chance.random() < 0.2:
                time.sleep(chance.random() * 0.02)
        tag = digest_of(one.content)[7:19]
        status = self.registry.push_manifest(one.repository, tag, one.content)
        if status == 201:
            one.there, one.unsure = True, False
            self.tally.pushed += 1
        else:
            one.unsure |= _unknown(status)
            self.tally.refused += 1

    def _delete(self, one: Image, _: random.Random) -> None:
        status = self.registry.delete(one.repository, digest_of(one.content))
        if status in (202, 404):
            one.there = False
            self.tally.deleted += 1
        one.unsure |= _unknown(status)

    def missing(self) -> list[str]:
        """What should be there and is not whole. The clients have to stand still."""
        return [
            problem
            for one in self.images
            if one.there and not one.unsure
            if (problem := self.registry.pull(one.repository, digest_of(one.content)))
        ]


def _unknown(status: int) -> bool:
    """Whether the answer leaves open what was done.

    A DELETE that meets a tag amid its push answers 500, and the manifest is gone all the same
    (findings/docker-registry-delete-fails-and-deletes.sh).
    """
    return status == 0 or status >= 500


def litter(layout: Layout, chance: random.Random) -> None:
    """Old blobs that nothing needs, as deleted images leave them."""
    for _ in range(GARBAGE):
        content = chance.randbytes(16)
        path = layout.blob(digest_of(content))
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        os.utime(path, (1e9, 1e9))


def ours(registry: Registry) -> None:
    """Our collection, to its end."""
    clock = collecting.Clock(sleep=registry.in_flight.wait)
    collecting.collect(Layout(registry.data), POLICY, clock)


def naive(registry: Registry) -> None:
    """What Distribution offers: its own collection, while it serves."""
    registry.collect_as_distribution_does()


def run(
    folder: Path, seed: int, count: int, collection: Collection = ours, *, kills: bool = True
) -> Tally:
    """So many interleavings on one registry."""
    chance, tally = random.Random(seed), Tally()  # noqa: S311
    data = folder / f"data-{seed}"
    data.mkdir(parents=True)
    registry = Registry(data)
    registry.start()
    last = 0.3
    try:
        with Clients(registry, chance, tally) as clients:
            for _ in range(count):
                litter(Layout(data), chance)
                time.sleep(chance.random() * 0.1)
                last = _one(registry, clients, collection, chance, tally, last, kills=kills)
                tally.interleavings += 1
    finally:
        registry.kill()
    return tally


def _one(
    registry: Registry,
    clients: Clients,
    collection: Collection,
    chance: random.Random,
    tally: Tally,
    last: float,
    *,
    kills: bool,
) -> float:
    """``last``: how many seconds the last whole collection took; returns those of this one."""
    began = time.monotonic()
    worker = multiprocessing.get_context("fork").Process(target=collection, args=(registry,))
    worker.start()
    if kills and chance.random() < 0.3:
        worker.join(chance.random() * last)
        worker.kill()
        tally.killed += 1
    if kills and chance.random() < 0.1:
        registry.kill()
        registry.start()
        tally.killed += 1
    worker.join()
    took = last if worker.exitcode else time.monotonic() - began
    for one in clients.images:
        one.lock.acquire()
    try:
        if worker.exitcode:  # killed: what a push relied on comes back with the next one
            collection(registry)
        tally.lost += clients.missing()
        for one in clients.images:
            if one.unsure:
                path = f"/v2/{one.repository}/manifests/{digest_of(one.content)}"
                status = registry.ask("HEAD", path, Accept=MANIFEST)[0]
                one.there, one.unsure = status == 200, False
    finally:
        for one in clients.images:
            one.lock.release()
    return took
