"""Real nodes of the session: the lab's images, systemd, sshd and containerd, an address that stays.

Each hurts in a way of its own when told to, and tells how it is, file by file. All that is made
here is labelled and named apart, and gone at the end.
"""

from __future__ import annotations

import ipaddress
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
from docker.models.containers import Container
from docker.types import IPAMConfig, IPAMPool

from lab.machines import access
from lab.machines.node import bounding_set, capabilities, host_config
from tests.agent.real import Node, put
from tests.fleet.runs import once

LABELS = {"io.moorage.part": "fdev"}
NETWORK = "f-fleet"
# RFC 2544's range for tests of networks; Docker itself takes none of it.
SUBNET = ipaddress.ip_network("198.19.77.0/24")
GATEWAY = str(SUBNET[1])
REGISTRY_ADDRESS = str(SUBNET[2])
_FIRST = 10
# Counts its starts where a reboot leaves them; slow where it is to be caught in the middle.
COUNTING = (
    "[Service]\nExecStartPre=/bin/sh -c 'echo >>/root/starts; [ ! -e /root/slow ] || sleep 6'\n"
)
SECONDS = 90.0
STATE = "/var/lib/moorage"
# Everything that a change may touch, by owner, mode and content, and nothing that comes with time.
_LOOK = (
    "cd /; for file in etc/hosts etc/containerd/config.toml"
    " $(find etc/containerd/certs.d etc/docker 2>/dev/null | sort); do"
    " stat -c '%n %F %a %u:%g' $file; test -f $file && sha256sum $file; done;"
    " find etc -name '*.moorage-*' -o -name 'moorage-recover*'"
)


class FleetNode(Node):
    """A lab node on the session's own network."""

    def __init__(
        self, client: docker.DockerClient, number: int, image: str, folder: Path, key: str
    ) -> None:
        self._client = client
        self.name = f"r{number}"
        self.address = str(SUBNET[_FIRST + number])
        # A machine's own /etc/hosts outlives a reboot; an engine writes a container's anew.
        hosts = folder / f"hosts-{self.name}"
        hosts.write_text("127.0.0.1\tlocalhost\n::1\tlocalhost\n")
        settings = host_config(capabilities(bounding_set()), LABELS)
        settings["Binds"].append(f"{hosts}:/etc/hosts")
        settings["NetworkMode"] = NETWORK
        endpoint: Any = {NETWORK: client.api.create_endpoint_config(ipv4_address=self.address)}
        made = client.api.create_container(
            image,
            name=f"f-fleet-{self.name}",
            hostname=self.name,
            labels=LABELS,
            host_config=settings,
            networking_config=client.api.create_networking_config(endpoint),
        )
        self.container = client.containers.get(made["Id"])
        self.container.put_archive("/", access.archive(access.Access(key, "unused")))
        put(
            self.container,
            "/",
            {"etc/systemd/system/containerd.service.d/counting.conf": COUNTING.encode()},
        )
        self.original = ""
        self.line = image.partition(":")[2].partition("-")[0]
        self.helpers: list[subprocess.Popen[bytes]] = []

    def boot(self) -> str:
        """Starts it. Returns its host key, as known_hosts has it."""
        self.container.start()
        self.wait(SECONDS)
        self.sh(": >/root/starts")
        self.original = self.look()
        said = self.sh("cat /etc/ssh/ssh_host_ed25519_key.pub")[1].split()
        return f"{self.address} {said[0]} {said[1]}\n"

    # What it tells

    def look(self) -> str:
        for _ in range(5):
            said = self.sh(_LOOK)[1]
            if said.startswith("etc/hosts"):
                return said
            time.sleep(1)
        raise AssertionError(f"{self.name} does not say how it is: {said!r}")

    def starts(self) -> int:
        """How often containerd was started since the session began."""
        return (self.read("/root/starts") or b"").count(b"\n")

    def at_work(self) -> bool:
        """Whether an agent is, by the lock that it holds."""
        return self.sh(f"test ! -e {STATE}/lock || flock -n {STATE}/lock true")[0] != 0

    def settle(self, seconds: float = SECONDS) -> None:
        """Until no agent is at work there and CRI serves. AssertionError where that is not so.

        An agent that stays looks every half a minute for what a killed one has left half-way.
        """
        deadline = time.monotonic() + seconds
        if self.unfinished() and self.resident():
            once(seconds / 2, lambda: not self.unfinished())
        while self.at_work():
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.name}: an agent is at work for {seconds:.0f} s")
            time.sleep(0.5)
        self.wait(SECONDS)

    def resident(self) -> bool:
        """Whether an agent is to stay here; between two of its lives it is not active."""
        return self.sh("test -e /etc/systemd/system/moorage-agent.service")[0] == 0

    def unfinished(self) -> bool:
        return self.read(f"{STATE}/active/intent.json") is not None

    # Means to hurt it

    def signal(self, name: str, pattern: str) -> bool:
        """A signal to all processes whose command line matches. Returns whether there was one."""
        return self.sh(f"pkill -{name} -f '{pattern}'")[0] == 0

    @property
    def pid(self) -> int:
        self.container.reload()
        return int(self.container.attrs["State"]["Pid"])

    def inside(self, *argv: str) -> list[str]:
        """This machine's program in the node's own network namespace."""
        return ["nsenter", "-t", str(self.pid), "-n", *argv]

    def network(self, *argv: str) -> str:
        done = subprocess.run(self.inside(*argv), check=True, capture_output=True, text=True)
        return done.stdout

    def remove(self) -> None:
        for helper in self.helpers:
            helper.kill()
        self.container.remove(force=True, v=True)


@contextmanager
def network(client: docker.DockerClient) -> Iterator[None]:
    """A network of our own, so that a node has the same address after a reboot."""
    pool = IPAMPool(subnet=str(SUBNET), gateway=GATEWAY)
    made = client.networks.create(
        NETWORK, driver="bridge", labels=LABELS, ipam=IPAMConfig(pool_configs=[pool])
    )
    try:
        yield
    finally:
        made.remove()


def left_over(client: docker.DockerClient) -> list[Container]:
    """What a session that was killed has left of its own."""
    found: list[Any] = client.containers.list(
        all=True, filters={"label": "io.moorage.part=fdev", "name": "f-fleet"}
    )
    return found
