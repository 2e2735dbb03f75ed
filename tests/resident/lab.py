"""A real node that is reached over SSH, with settings of an operator who has nothing else.

Made from the lab's images; labelled and named apart from all others.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker

from moorage.archive import agent_archive
from moorage.settings import CertsSettings, NodesSettings, Settings
from tests.agent.real import Node

PORT = 7443


class ResidentNode(Node):
    """A lab node with our SSH key in it; ``settings`` are the operator's."""

    def prepare(self, folder: Path) -> None:
        self.container.start()
        self.wait(90)
        key = folder / "id"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        self.sh("mkdir -p /root/.ssh && chmod 700 /root/.ssh && systemctl start ssh")
        self.write("/root/.ssh/authorized_keys", (folder / "id.pub").read_bytes())
        self.sh(
            "chown root:root /root/.ssh/authorized_keys && chmod 600 /root/.ssh/authorized_keys"
        )
        self.container.reload()
        self.address = str(self.container.attrs["NetworkSettings"]["IPAddress"])
        known = b""
        for _ in range(50):
            known = subprocess.run(
                ["ssh-keyscan", self.address], capture_output=True, check=False
            ).stdout
            if known:
                break
            time.sleep(0.2)
        (folder / "known_hosts").write_bytes(known)
        (folder / "ssh_config").write_text(
            f"Host node\n  HostName {self.address}\n  User root\n  IdentityFile {key}\n"
            "  IdentitiesOnly yes\n"
        )
        self.settings = Settings(
            certs=CertsSettings(dir=str(folder / "certs")),
            nodes=NodesSettings(
                ssh_config=str(folder / "ssh_config"),
                known_hosts=str(folder / "known_hosts"),
                agent_port=PORT,
            ),
        )


@contextmanager
def resident_node(client: docker.DockerClient, folder: Path) -> Iterator[ResidentNode]:
    """A node that is up, and gone at the end. AssertionError where there is no lab image."""
    tags = [tag for image in client.images.list() for tag in image.tags]
    found = sorted(tag for tag in tags if re.match(r"moorage/lab:(1\.7|2)-", tag))
    assert found, "no lab image; inv up builds one"
    node = ResidentNode(client, found[0])
    try:
        node.prepare(folder)
        agent_archive(node.settings.state)
        yield node
    finally:
        node.remove()
