"""Hears what real runtimes say of each situation, and keeps it beside this file.

    python -m tests.agent.words.collect                          all of them
    python -m tests.agent.words.collect podman-trixie            or those that are named
    python -m tests.agent.words.collect podman-trixie:busy,good  or some of its situations

containerd runs in the lab's nodes (`inv up` builds their images), Docker and Podman in nodes with
Debian's packages, which are made once. The registry is a stand-in on this machine's bridge.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import docker

from moorage.archive import agent_archive
from tests.agent import runtimes
from tests.agent.real import LAB, Node, connected, images
from tests.agent.words.certificates import Certificates
from tests.agent.words.hostile import MIRROR, NAMES, REGISTRY, Server, page
from tests.agent.words.situations import CONTAINERD, DOCKER, PODMAN, SITUATIONS, Situation
from tests.engine import bridge

HERE = Path(__file__).resolve().parent
ENGINE = "docker.io"
PODMANS = "podman buildah skopeo ca-certificates curl"
STORE_OF_CONTAINERD = b'{"features": {"containerd-snapshotter": true}}'
CONFIG = """version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "%s"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "/etc/containerd/certs.d"
"""
PULL = """
import sys
sys.path.insert(0, '/root/agent.pyz')
from agent.clients import docker, programs
from agent.clients.cri import with_cri
from agent.clients.failures import CriError, EngineError
from agent.runtimes import podman
from agent.wire.plan import Registry, Verify
kind, image, user, password = sys.argv[1:]
host, _, port = image.partition('/')[0].partition(':')
verify, registry = Verify(image, user or None, password or None), Registry(host, int(port))
def sandbox(cri):
    # RunPodSandboxRequest of one field: config.metadata has a name, a uid and a namespace, and
    # config.linux puts it into the node's network, so that no CNI is asked.
    from agent.clients.protobuf import message, text
    metadata = text(1, 'p') + text(2, 'u') + text(3, 'n')
    options = message(1, b'\\x08\\x02')
    linux = message(2, options)
    config = message(1, metadata) + text(3, '/tmp') + message(8, linux)
    cri._call('Runtime', 'RunPodSandbox', message(1, config), 300, lambda answer: answer.text(1))
try:
    if kind == 'docker':
        docker.docker_pull('/run/docker.sock', verify, 300)
    elif kind == 'podman':
        programs.pull(podman.command('/usr/bin/podman'), registry, verify, 300)
    elif kind == 'sandbox':
        with_cri('/run/containerd/containerd.sock', sandbox)
    else:
        with_cri('/run/containerd/containerd.sock', lambda cri: cri.pull(verify, 300))
    print('pulled')
except (CriError, EngineError) as problem:
    print(problem.message)
"""


class Runtime(NamedTuple):
    """``line``: of the lab's containerd, or the Debian suite; ``files``: of the node."""

    kind: str
    line: str
    packages: str = ""
    files: tuple[tuple[str, bytes], ...] = ()
    note: str = ""


RUNTIMES = {
    "containerd-1.6": Runtime(CONTAINERD, "1.6"),
    "containerd-1.7": Runtime(CONTAINERD, "1.7"),
    "containerd-2.1": Runtime(CONTAINERD, "2"),
    "docker-bookworm": Runtime(DOCKER, "bookworm", ENGINE),
    "docker-trixie": Runtime(DOCKER, "trixie", ENGINE),
    "docker-sid": Runtime(DOCKER, "sid", ENGINE),
    "docker-sid-containerd": Runtime(
        DOCKER, "sid", ENGINE, (("/etc/docker/daemon.json", STORE_OF_CONTAINERD),), "-containerd"
    ),
    "podman-bookworm": Runtime(PODMAN, "bookworm", PODMANS),
    "podman-trixie": Runtime(PODMAN, "trixie", PODMANS),
}
FOLDERS = {
    CONTAINERD: "/etc/containerd/certs.d",
    DOCKER: "/etc/docker/certs.d",
    PODMAN: "/etc/containers/certs.d",
}
VERSIONS = {
    CONTAINERD: "containerd --version",
    DOCKER: "dockerd --version",
    PODMAN: "podman --version",
}


def node_of(client: docker.DockerClient, runtime: Runtime) -> Node:
    if runtime.kind == CONTAINERD:
        return Node(client, images(client, LAB)[runtime.line])
    image = runtimes.image(client, runtime.kind, runtime.line, runtime.packages)
    kind = runtimes.PodmanNode if runtime.kind == PODMAN else runtimes.RuntimeNode
    return kind(client, image)


@contextmanager
def standing(client: docker.DockerClient, runtime: Runtime, archive: Path) -> Iterator[Node]:
    node = node_of(client, runtime)
    try:
        for path, content in runtime.files:
            node.write(path, content)
        node.start(archive)
        node.write("/root/pull.py", PULL.encode())
        hosts = node.read("/etc/hosts") or b""
        node.write_hosts(hosts + f"{bridge(client)} {' '.join(NAMES)}\n".encode())
        if runtime.kind == CONTAINERD:
            configure(node, "registry.k8s.io/pause:3.8")
        time.sleep(6)  # Go keeps what it read of the file for five seconds
        yield node
    finally:
        node.remove()


def configure(node: Node, sandbox: str) -> None:
    node.write("/etc/containerd/config.toml", (CONFIG % sandbox).encode())
    node.sh("systemctl restart containerd")
    node.wait()


class Ears(NamedTuple):
    """What it takes to hear a runtime: its node, and what the registry is made of."""

    node: Node
    runtime: Runtime
    address: str
    made: Certificates
    folder: Path


def heard(ears: Ears, situation: Situation) -> str:
    """What the runtime says."""
    node, runtime, address, made, folder = ears
    pairs = made.presented(situation.certificate)
    with ExitStack() as open_servers:
        server = open_servers.enter_context(Server(address, pairs, situation.handler, folder))
        ports = {"@PORT": str(server.port)}
        if situation.mirror:
            evil = made.presented("evil")
            other = open_servers.enter_context(Server(address, evil, lambda asked: page(), folder))
            ports["@MIRROR"] = str(other.port)
        place = f"{FOLDERS[runtime.kind]}/{REGISTRY}:{server.port}"
        for name, content in situation.files:
            told = made.filled(content, situation.certificate)
            for mark, word in (*ports.items(), ("@PLACE", place)):
                told = told.replace(mark, word)
            node.write(f"{place}/{name}", told.encode())
        if situation.mirror and runtime.kind == PODMAN:
            node.write("/etc/containers/registries.conf.d/50-words.conf", mirrored(ports).encode())
        image = f"{REGISTRY}:{server.port}/app:1"
        if situation.sandbox:
            configure(node, image)
        kind = "sandbox" if situation.sandbox else runtime.kind
        user, password = situation.login or ("", "")
        said = node.sh(f"python3 /root/pull.py {kind} {image} '{user}' '{password}'")[1]
        node.sh(f"rm -rf '{place}' /etc/containers/registries.conf.d/50-words.conf")
    return plain(said, [*ports.values()])


def mirrored(ports: dict[str, str]) -> str:
    place = f"{REGISTRY}:{ports['@PORT']}"
    return (
        f'[[registry]]\nlocation = "{place}"\n'
        f'[[registry.mirror]]\nlocation = "{MIRROR}:{ports["@MIRROR"]}"\n'
    )


def plain(words: str, ports: list[str]) -> str:
    """The same from run to run: times, ports and ids are made plain."""
    for number, port in enumerate(ports):
        words = words.replace(port, str(5000 + number))
    time_of_day = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)"
    words = re.sub(time_of_day, "2026-01-01T00:00:00Z", words)
    words = re.sub(r"(?<=:)\d{5}(?=->)", "40000", words)
    words = re.sub(r"\d+\.\d+\.\d+\.\d+:53\b", "192.0.2.53:53", words)
    words = re.sub(r"(?<!sha256:)\b[0-9a-f]{64}\b", "0" * 64, words)
    return re.sub(r"\b172\.\d+\.\d+\.\d+\b", "192.0.2.1", words).strip()


def collect(name: str, client: docker.DockerClient, archive: Path) -> None:
    name, _, chosen = name.partition(":")
    runtime = RUNTIMES[name]
    wanted = chosen.split(",") if chosen else [one.name for one in SITUATIONS]
    with (
        tempfile.TemporaryDirectory() as folder,
        standing(client, runtime, archive) as node,
    ):
        version = re.findall(r"\d+\.\d+\.\d+", node.sh(VERSIONS[runtime.kind])[1])[0]
        target = HERE / f"{runtime.kind}-{version}{runtime.note}.json"
        ears = Ears(node, runtime, bridge(client), Certificates(NAMES), Path(folder))
        said = json.loads(target.read_text()) if chosen else {}
        for situation in SITUATIONS:
            if runtime.kind in situation.runtimes and situation.name in wanted:
                said[situation.name] = heard(ears, situation)
                sys.stderr.write(f"{name} {situation.name}: {said[situation.name]}\n")
                target.write_text(json.dumps(said, indent=1) + "\n")


def main(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as state:
        archive = agent_archive(Path(state)).path
        for name in names or RUNTIMES:
            collect(name, connected(), archive)


if __name__ == "__main__":
    main(sys.argv[1:])
