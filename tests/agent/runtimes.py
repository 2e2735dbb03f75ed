"""Nodes with Docker Engine or Podman out of Debian, for tests marked ``engine``.

The images are made on the lab's system once and then kept, named after their recipe.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import docker
import pytest

from tests.agent.real import LABELS, Node

RECIPE = Path(__file__).parent / "image" / "runtime.Dockerfile"
REPOSITORY = "moorage-agentdev"


def image(client: docker.DockerClient, name: str, suite: str, packages: str) -> str:
    """The image of a lab system with packages out of a suite; skips where none can be made."""
    tags = [tag for one in client.images.list() for tag in one.tags]
    base = next((tag for tag in tags if re.fullmatch(r"moorage/lab:node-\w+", tag)), None)
    if base is None:
        pytest.skip("no lab image; inv up builds one")
    recipe = f"{base} {suite} {packages} ".encode() + RECIPE.read_bytes()
    tag = f"{REPOSITORY}:{name}-{suite}-{hashlib.sha256(recipe).hexdigest()[:10]}"
    if tag in tags:
        return tag
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as bundle:
        bundle.add(RECIPE, "Dockerfile")
    context.seek(0)
    try:
        client.images.build(
            fileobj=context, custom_context=True, tag=tag, labels=LABELS, rm=True, forcerm=True,
            buildargs={"NODE": base, "SUITE": suite, "PACKAGES": packages},
        )  # fmt: skip
    except docker.errors.BuildError as problem:
        pytest.skip(f"Debian's packages cannot be had here: {problem}")
    return tag


class RuntimeNode(Node):
    """A lab node without containerd's CRI of its own: it is ready once systemd is."""

    images = "/var/lib/docker"

    def wait(self, seconds: float = 120) -> None:
        code, said = self.sh(
            f"(for try in $(seq {seconds:g}); do "
            "state=$(systemctl is-system-running 2>/dev/null); "
            'case "$state" in running|degraded) exit 0;; esac; sleep 1; done; echo $state; exit 1)'
        )
        if code:
            raise AssertionError(said)

    def pull(self, repository: str, tag: str) -> str:
        """What Docker's API says of a pull; newer Debian brings no client along."""
        return self.sh(
            "python3 - <<'END_OF_PROGRAM'\n"
            "import http.client, socket\n"
            "c = http.client.HTTPConnection('localhost', timeout=60)\n"
            "c.sock = socket.socket(socket.AF_UNIX)\n"
            "c.sock.connect('/run/docker.sock')\n"
            f"c.request('POST', '/images/create?fromImage={repository}&tag={tag}')\n"
            "print(c.getresponse().read().decode())\n"
            "END_OF_PROGRAM"
        )[1]


Kind = TypeVar("Kind", bound=RuntimeNode)


@contextmanager
def started(
    node: Kind, archive: Path, files: Mapping[str, bytes] = MappingProxyType({})
) -> Iterator[Kind]:
    """With ``files`` and the archive on it; removed whatever becomes of the block."""
    try:
        for path, content in files.items():
            node.write(path, content)
        node.start(archive)
        yield node
    finally:
        node.remove()


class RootlessNode(RuntimeNode):
    """One whose only Docker Engine is a user's, by RootlessKit and slirp4netns, as upstream's own
    script starts it."""

    packages = "docker.io rootlesskit uidmap slirp4netns iptables"
    _service = """[Service]
User=ship
Environment=HOME=/home/ship XDG_RUNTIME_DIR=/run/user/1200 PATH=/usr/sbin:/usr/bin:/sbin:/bin
Environment=DOCKERD_ROOTLESS_ROOTLESSKIT_SLIRP4NETNS_SANDBOX=false
Environment=DOCKERD_ROOTLESS_ROOTLESSKIT_SLIRP4NETNS_SECCOMP=false
ExecStart=/usr/share/docker.io/contrib/dockerd-rootless.sh --storage-driver=vfs --iptables=false \
    --bridge=none
"""

    def start(self, archive: Path) -> None:
        super().start(archive)
        self.write("/etc/systemd/system/rootless.service", self._service.encode())
        self.sh(
            "systemctl disable --now docker.socket docker.service containerd.service; "
            "rm -rf /etc/docker; mkdir -p /dev/net; mknod -m 666 /dev/net/tun c 10 200; "
            "useradd --create-home --uid 1200 ship; install -d -o ship -m 700 /run/user/1200; "
            "systemctl daemon-reload"
        )
        self.restart()

    def restart(self) -> None:
        """As its user would do it. The key is the last file that dockerd writes at home."""
        code, said = self.sh(
            "(systemctl stop rootless; rm -f /run/user/1200/docker.sock; systemctl start rootless;"
            " for try in $(seq 80); do test -S /run/user/1200/docker.sock -a"
            " -e /home/ship/.config/docker/key.json && exit 0; sleep 0.5;"
            " done; journalctl -u rootless -n 20 -o cat; exit 1)"
        )
        assert code == 0, said


class PodmanNode(RuntimeNode):
    """One with Podman, Buildah and Skopeo."""

    images = "/var/lib/containers"

    def pull_by(self, program: str, image: str) -> str:
        """A pull, a copy for Skopeo, in a line ``pulled`` where it went well."""
        login = "--creds ship:quay-4711" if image.startswith("my.registry.io") else ""
        words = {
            "podman": f"podman pull {login} {image}",
            "buildah": f"buildah pull {login} {image}",
            "skopeo": f"skopeo copy {login.replace('--creds', '--src-creds')} "
            f"docker://{image} dir:/tmp/copied",
        }[program]
        self.sh("podman rmi -af; rm -rf /tmp/copied")
        return self.sh(f"{words} 2>&1 && printf '\\npulled\\n'")[1]
