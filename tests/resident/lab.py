"""A real node that is reached over SSH, with settings of an operator who has nothing else.

Made from the lab's images; labelled and named apart from all others.
"""

from __future__ import annotations

import http.client
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker

from agent.wire.verbs import named
from moorage.archive import agent_archive
from moorage.fleet.report import FleetReport
from moorage.fleet.rollout.fleet import Fleet
from moorage.fleet.rollout.operation import Operation
from moorage.pki import authority
from moorage.settings import CertsSettings, NodesSettings, Settings
from moorage.ui import UI
from tests.agent.real import LAB, LABELS, Node, Registry, images

PORT = 7443


class ResidentNode(Node):
    """A lab node with our SSH key in it; ``settings`` are the operator's."""

    begin_ssh = "systemctl start ssh"
    log = "journalctl -u moorage-agent -o cat"

    def prepare(self, folder: Path) -> None:
        self.container.start()
        self.wait(90)
        key = folder / "id"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        self.sh(f"mkdir -p /root/.ssh && chmod 700 /root/.ssh && {self.begin_ssh}")
        self.write("/root/.ssh/authorized_keys", (folder / "id.pub").read_bytes())
        self.sh(
            "chown root:root /root/.ssh/authorized_keys && chmod 600 /root/.ssh/authorized_keys"
        )
        self.settings = Settings(
            certs=CertsSettings(dir=str(folder / "certs")),
            nodes=NodesSettings(
                ssh_config=str(folder / "ssh_config"),
                known_hosts=str(folder / "known_hosts"),
                agent_port=PORT,
            ),
        )
        self.locate()

    def locate(self) -> None:
        """Tells OpenSSH where the node is; the engine may give it another address at each start."""
        self.container.reload()
        self.address = str(self.container.attrs["NetworkSettings"]["IPAddress"])
        config = Path(self.settings.nodes.ssh_config)
        known = b""
        for _ in range(50):
            known = subprocess.run(
                ["ssh-keyscan", self.address], capture_output=True, check=False
            ).stdout
            if known:
                break
            time.sleep(0.2)
        Path(self.settings.nodes.known_hosts).write_bytes(known)
        config.write_text(
            f"Host node\n  HostName {self.address}\n  User root\n"
            f"  IdentityFile {config.with_name('id')}\n  IdentitiesOnly yes\n"
        )


class OpenRcNode(ResidentNode):
    """The same with OpenRC as its first process, in systemd's place."""

    begin_ssh = "rc-service ssh start"
    log = "grep moorage-agent /var/log/messages"

    def wait(self, seconds: float = 40) -> None:
        deadline = time.monotonic() + seconds
        while "ok" not in self.sh("ctr plugins ls | grep 'grpc.v1.*cri '")[1]:
            assert time.monotonic() < deadline, self.sh("rc-status -a; ctr plugins ls")[1]
            time.sleep(0.2)


def openrc_image(client: docker.DockerClient) -> str:
    """From the lab's newest image of containerd 1.7; the engine keeps what is the same."""
    base = images(client, LAB)["1.7"]
    tag = f"moorage/test:openrc-{base.rpartition('-')[2]}"
    client.images.build(
        path=str(Path(__file__).with_name("openrc")),
        buildargs={"NODE": base}, tag=tag, labels=LABELS, rm=True,
    )  # fmt: skip
    return tag


@contextmanager
def resident_node(
    client: docker.DockerClient,
    folder: Path,
    kind: type[ResidentNode] = ResidentNode,
    image: str | None = None,
) -> Iterator[ResidentNode]:
    """A node that is up, and gone at the end. AssertionError where there is no lab image."""
    if image is None:
        found = images(client, LAB)
        assert found, "no lab image; inv up builds one"
        image = found.get("1.7") or found["2"]
    node = kind(client, image)
    try:
        node.prepare(folder)
        agent_archive(node.settings.state)
        yield node
    finally:
        node.remove()


def run(node: ResidentNode, ui: UI, registry: Registry, word: str) -> FleetReport:
    """Trust, or its end, proved by TLS to the registry; no image is pulled."""
    ca = registry.authority.pem if word == "apply" else None
    wanted = Operation(named(word), ca=ca)
    settings = replace(
        node.settings, registry=replace(node.settings.registry, address=registry.address)
    )
    return Fleet(settings, ui).carry_out(wanted, ["node"])


def until(holds: Callable[[], bool], node: ResidentNode, seconds: float = 30) -> None:
    """Waits; by itself none of it takes more than a second or two, on a busy machine all does."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, node.sh(f"{node.log} | tail -n 20")[1]
        time.sleep(0.1)


def drift(node: ResidentNode, ui: UI) -> dict[str, Any]:
    state = Fleet(node.settings, ui).run("status", ["node"]).states["node"]["resident"]["drift"]
    assert isinstance(state, dict)
    return state


def asked(node: ResidentNode, path: str) -> str:
    """What the agent answers the operator to a GET, in words."""
    context = authority.Authority.open(node.settings).context()
    line = http.client.HTTPConnection("node")
    plain = socket.create_connection((node.address, PORT), 10)
    with context.wrap_socket(plain, server_hostname="node") as line.sock:
        line.request("GET", path)
        return line.getresponse().read().decode()
