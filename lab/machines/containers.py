"""A node's container: made, started, waited for and removed, through the engine."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lab.machines import access
from lab.machines.node import LABEL_LINE, LABEL_RECIPE, LabNode, Recipe, number
from moorage.docker import engine
from moorage.errors import MoorageError

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

    from moorage.settings import Settings

_READY_SECONDS = 60.0
# Each question to a node waits so long (seconds) inside of it; short, to heed Ctrl-C between them.
_ASK_SECONDS = 1


@dataclass(frozen=True)
class Ready:
    """What a node that serves said of itself."""

    node: LabNode
    host_key: str
    # Why CRI or sshd does not serve; empty where they do.
    trouble: str = ""


def existing(settings: Settings, client: DockerClient) -> dict[int, Container]:
    """All nodes of our lab, by their number, in any state.

    A container that somebody runs from a node's image inherits the image's labels; the recipe is
    on what we made ourselves alone.
    """
    found = client.containers.list(
        all=True, filters=engine.label_filter(settings, "lab"), ignore_removed=True
    )
    numbered = ((number(str(c.name)), c) for c in found if LABEL_RECIPE in c.labels)
    return {place: container for place, container in numbered if place}


def refuse_strangers(settings: Settings, client: DockerClient, recipe: Recipe) -> None:
    """Raises Refused if the node's name is taken by a container that is not ours."""
    from docker.errors import NotFound

    try:
        found = client.containers.get(recipe.container_name)
    except NotFound:
        return
    engine.refuse_stranger(settings, found, "lab.down", "lab.prefix")


def is_right(container: Container, recipe: Recipe) -> bool:
    """Whether it was made by this recipe, and made to its end.

    One that was never started may have been left before its keys were put in.
    """
    return (
        container.labels.get(LABEL_RECIPE) == recipe.digest
        and container.status in ("running", "exited", "paused")
        and str(container.attrs["State"].get("StartedAt", "")) > "0001-01-02"
    )


def make(
    settings: Settings, client: DockerClient, recipe: Recipe, allowed: access.Access
) -> Container:
    """Makes the container of a node, with its keys in it. Not started yet."""
    from docker.errors import APIError

    labels = {
        **engine.labels(settings, "lab"),
        LABEL_LINE: recipe.line.name,
        LABEL_RECIPE: recipe.digest,
    }
    try:
        made = client.api.create_container(
            recipe.image,
            name=recipe.container_name,
            hostname=recipe.name,
            labels=labels,
            tty=True,  # systemd's own words at boot, for when it does not get far
            host_config=dict(recipe.host_config),
        )
        container = client.containers.get(made["Id"])
        container.put_archive("/", access.archive(allowed))
    except APIError as problem:
        raise _refused_by_engine(recipe.name, "made", problem) from None
    return container


def start(container: Container, name: str) -> None:
    """Starts it, or lets it go on where it is paused."""
    from docker.errors import APIError

    try:
        if container.status == "paused":
            container.unpause()
        elif container.status != "running":
            container.start()
    except APIError as problem:
        raise _refused_by_engine(name, "started", problem) from None


# dockerd 20.10.24 (Debian 12) may lock itself up for good if containers leave one network at the
# same moment; mended in 20.10.27 (https://github.com/moby/libnetwork/pull/2679).
_LEAVING = threading.Lock()


def remove(container: Container) -> None:
    """Removes it and its volume, running or not; that it is gone already is well.

    One after another, whoever asks at once.
    """
    from docker.errors import APIError, NotFound

    try:
        with _LEAVING:
            container.remove(force=True, v=True)
    except NotFound:
        return
    except APIError as problem:
        if problem.status_code != 409:  # somebody else is removing it right now
            raise
        _wait_until_gone(container)


def node_of(container: Container, version: str = "") -> LabNode:
    """The node that a container of ours is; its address is empty if it does not run."""
    networks: Mapping[str, Any] = container.attrs["NetworkSettings"]["Networks"]
    address = next((str(net["IPAddress"]) for net in networks.values()), "")
    return LabNode(
        name=str(container.name).removeprefix("moorage-"),
        address=address,
        containerd_line=str(container.labels.get(LABEL_LINE, "")),
        container_id=str(container.id),
        version=version,
    )


def wait(container: Container, stop: threading.Event, *, fresh: bool) -> Ready:
    """Waits until sshd and CRI serve, and sshd from here too.

    ``fresh``: not serving is a failure; a node that ran before may have been broken on purpose,
    and one answer is enough, unless it is so young that it may still be starting: an `up` that was
    killed leaves such. ``stop`` ends the waiting. Raises MoorageError with what the node says where
    it does not serve in time.
    """
    name = str(container.name).removeprefix("moorage-")
    until = time.monotonic() + _READY_SECONDS
    grown_up = until if fresh else until - _age(container)
    code, said, words, done = 1, "", dict[str, str](), False
    while not stop.is_set():
        code, said = _ask(container)
        words = _words(said)
        # Under load, the engine sometimes loses what a command said, or how it ended.
        now = time.monotonic()
        done = "hostkey" in words and (code == 0 or (not fresh and now >= grown_up))
        if done or now > until:
            break
        container.reload()
        if container.status != "running":
            raise _not_ready(name, _boot_words(container))
        stop.wait(0.1)
    trouble = "" if code == 0 else words.get("why", said.strip())
    if not done:
        raise _not_ready(name, trouble or _boot_words(container))
    container.reload()
    node = node_of(container, _version(words.get("version", "")))
    if not trouble:
        _greeted(node, until, stop)
    return Ready(node, " ".join(words["hostkey"].split()[:2]), trouble)


def _age(container: Container) -> float:
    """Seconds since the container was started, by the engine's word and this machine's clock."""
    from datetime import UTC, datetime

    # 2026-11-24T23:55:31.413192146Z: nanoseconds, of which datetime takes six digits.
    started = str(container.attrs["State"]["StartedAt"])[:19]
    try:
        began = datetime.fromisoformat(started).replace(tzinfo=UTC)
    except ValueError:
        return _READY_SECONDS
    return max(0.0, (datetime.now(UTC) - began).total_seconds())


def _ask(container: Container) -> tuple[int, str]:
    from docker.errors import APIError

    try:
        answer: Any = container.exec_run(["lab-ready", str(_ASK_SECONDS)])
    except APIError as problem:
        return 1, f"why {problem.explanation or problem}"
    return int(answer.exit_code or 0), answer.output.decode(errors="replace")


def _words(said: str) -> dict[str, str]:
    """lab-ready's output: a word and its text a line; lines of the same word belong together."""
    words: dict[str, str] = {}
    for line in said.splitlines():
        word, _, text = line.partition(" ")
        words[word] = f"{words[word]}; {text}" if word in words else text
    return words


def _version(said: str) -> str:
    """``containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+b1`` -> ``1.6.20``."""
    words = said.split()
    return words[2].removeprefix("v").partition("~")[0].partition("+")[0] if len(words) > 2 else ""


def _greeted(node: LabNode, until: float, stop: threading.Event) -> None:
    """Waits for sshd's greeting over the network: RFC 4253, section 4.2."""
    problem = "it said nothing"
    while not stop.is_set():
        try:
            with socket.create_connection((node.address, 22), timeout=2) as connection:
                if connection.recv(4) == b"SSH-":
                    return
        except OSError as reason:
            problem = str(reason)
        if time.monotonic() > until:
            break
        stop.wait(0.1)
    raise MoorageError(
        "node-unreachable",
        f"{node.name} is up, but {node.address}:22 cannot be reached from here",
        cause=problem,
        cure="a firewall, or an engine on another machine (DOCKER_HOST)? "
        "The lab's nodes are on that engine's default bridge",
        host=node.name,
    )


def _boot_words(container: Container) -> str:
    from docker.errors import APIError

    from moorage.commands import last_words

    try:
        return last_words(container.logs(tail=4))
    except APIError as problem:
        return str(problem.explanation)


def _wait_until_gone(container: Container) -> None:
    from docker.errors import NotFound

    for _ in range(100):
        try:
            container.reload()
        except NotFound:
            return
        time.sleep(0.1)


def _not_ready(name: str, words: str) -> MoorageError:
    return MoorageError(
        "node-not-ready",
        f"{name} did not get ready",
        cause=words,
        cure=f"docker exec moorage-{name} journalctl -b shows why; to make it again: "
        f"docker rm -fv moorage-{name} && inv lab.up",
        host=name,
    )


def _refused_by_engine(name: str, what: str, problem: Any) -> MoorageError:
    return MoorageError(
        "engine-refused",
        f"{name} could not be {what}",
        cause=str(problem.explanation or problem),
        cure="inv doctor; inv lab.down && inv lab.up makes it again",
        host=name,
    )
