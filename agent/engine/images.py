"""Which images this node has, asked of every runtime, and which runtime could not be asked.

Reads only. What is there counts as used: a node starts what it has without asking a registry.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from agent.clients.cri import with_cri
from agent.clients.docker import docker_images
from agent.clients.failures import CriError
from agent.facts import Containerd, Docker, Facts
from agent.formats import containers_storage
from agent.node.host import Host
from agent.proof.decision import NO_NODE
from agent.runtimes import table
from agent.wire.faults import AgentError
from agent.wire.runtimes.declared import RUNTIMES

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_SECONDS = 30.0
# Programs with images in the store that is read as files.
_STORE = "podman"
NOT_RUNNING = "it does not run, and may start what it has"


class Unasked(NamedTuple):
    """A runtime whose images are not known, and because of what."""

    part: str
    because: str


class FoundImages(NamedTuple):
    """References, digests and ids as the runtimes have them, each once."""

    names: tuple[str, ...] = ()
    unasked: tuple[Unasked, ...] = ()


def look(host: Host, facts: Facts) -> FoundImages:
    """Ask all runtimes of the node. Changes nothing, raises nothing."""
    names: dict[str, None] = {}
    unasked: list[Unasked] = []
    for one in _each(host, facts):
        if isinstance(one, Unasked):
            unasked.append(one)
        else:
            names[one] = None
    return FoundImages(tuple(names), tuple(unasked))


def _each(host: Host, facts: Facts) -> Iterator[str | Unasked]:
    for engine in facts.dockers:
        yield from _of_docker(host, engine)
    for containerd in facts.containerds:
        yield from _of_containerd(host, containerd)
    for declared in RUNTIMES:
        here = [kind.name for kind in declared.kinds if kind.name in facts.others]
        if here and declared.kubelet:
            yield from _of_cri(host, facts, declared.name)
        elif declared.name == _STORE and here:
            yield from _of_store(facts)


def _of_docker(host: Host, engine: Docker) -> Iterator[str | Unasked]:
    name = f"docker of {engine.home}" if engine.home else "docker"
    found = docker_images(engine.socket) if host.real else None
    if found is None:
        yield Unasked(name, f"{engine.socket} does not answer" if host.real else NO_NODE)
    else:
        yield from found


def _of_containerd(host: Host, one: Containerd) -> Iterator[str | Unasked]:
    """Every namespace: CRI's, and those of nerdctl, ctr and others."""
    if not host.real or not one.running:
        yield Unasked("containerd", NOT_RUNNING if host.real else NO_NODE)
        return
    beside = f"{one.binary.rpartition('/')[0]}/ctr"
    program = beside if os.access(beside, os.X_OK) else host.which("ctr")
    if program is None:
        yield Unasked("containerd", "there is no ctr next to it to list its namespaces with")
        return
    try:
        for space in _ctr(host, program, one, "namespaces", "list", "--quiet"):
            for what in ("images", "containers"):
                for line in _ctr(host, program, one, "--namespace", space, what, "list")[1:]:
                    words = line.split()
                    yield from (words[:1] if what == "images" else words[1:2])
                    yield from _DIGEST.findall(line)
    except AgentError as problem:
        yield Unasked("containerd", problem.fault.message)


def _ctr(host: Host, program: str, one: Containerd, *words: str) -> list[str]:
    """The lines of an answer. Raises AgentError."""
    done = host.run([program, "--address", one.socket, *words], timeout=_SECONDS, brief=True)
    if not done.ok:
        raise AgentError("command-failed", f"ctr at {one.socket}: {done.complaint}")
    return [line for line in done.out.splitlines() if line.strip()]


def _of_cri(host: Host, facts: Facts, name: str) -> Iterator[str | Unasked]:
    sockets = [proof.socket for proof in table.TABLE[name].proofs(facts) if proof.kind == "cri"]
    if not sockets or not host.real:
        yield Unasked(name, NOT_RUNNING if host.real else NO_NODE)
        return
    for path in sockets:
        try:
            yield from with_cri(path, lambda cri: cri.images(_SECONDS))
        except CriError as problem:
            yield Unasked(name, problem.message)


def _of_store(facts: Facts) -> Iterator[str | Unasked]:
    try:
        yield from containers_storage.images(facts.tree)
    except containers_storage.UnreadStoreError as problem:
        yield Unasked(_STORE, str(problem))
