"""Real nodes to prove the agent on: systemd, containerd and a TLS registry, in containers.

Used by tests marked ``engine``. Everything made here is labelled and named ``agentdev-*``; nothing
else is ever touched.
"""

from __future__ import annotations

import io
import ipaddress
import json
import re
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bcrypt
import docker
import pytest
from docker.models.containers import Container

from tests.agent.authority import Authority

LABELS = {"io.moorage.part": "agentdev"}
NAME = "my.registry.io"
USER, PASSWORD = "ship", "quay-4711"
OF_NODES = "moorage-nodes"
# In the kernel's order; older engines know no more than these.
CAPABILITIES = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
]


# The images that `inv up` builds: the lab's by containerd line, and the registry's.
LAB = r"moorage/lab:(\d(?:\.\d)?)-.*"
REGISTRY = r"(moorage/registry):.*"


def connected() -> docker.DockerClient:
    """The engine; the test that wants it is skipped where none answers."""
    try:
        made = docker.from_env(timeout=120)
        made.ping()
    except docker.errors.DockerException:
        pytest.skip("no Docker engine answers")
    return made


def images(client: docker.DockerClient, pattern: str) -> dict[str, str]:
    """The newest image for each value of the pattern's group."""
    found: dict[str, str] = {}
    for image in client.images.list():
        for tag in image.tags:
            match = re.fullmatch(pattern, tag)
            if match is not None:
                found.setdefault(match[1], tag)
    return found


def put(container: Container, folder: str, files: dict[str, bytes], mode: int = 0o644) -> None:
    """Write files below a folder of a container, running or not."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as bundle:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), mode
            bundle.addfile(info, io.BytesIO(content))
    container.put_archive(folder, target.getvalue())


REGISTRY_CONFIG = """version: 0.1
storage: {filesystem: {rootdirectory: /var/lib/registry}, delete: {enabled: true}}
http: {addr: ":443", tls: {certificate: /etc/moorage/tls.crt, key: /etc/moorage/tls.key}}
auth: {htpasswd: {realm: moorage, path: /etc/moorage/htpasswd}}
"""


class Registry:
    """A TLS registry with a login, at an address of its own; on request without one or other."""

    def __init__(
        self,
        client: docker.DockerClient,
        image: str,
        authority: Authority,
        tls: bool = True,
        login: bool = True,
        name: str = NAME,
        labels: dict[str, str] = LABELS,
        container: str = "agentdev-registry",
    ) -> None:
        self.authority = authority
        self.name = name
        self._lines = [
            line for line in REGISTRY_CONFIG.splitlines() if login or not line.startswith("auth:")
        ]
        if not tls:
            self._lines[2] = 'http: {addr: ":443"}'
        self.container = client.containers.create(
            image, name=f"{container}-{time.time_ns()}", labels=labels,
            ports={"443/tcp": ("127.0.0.1", 0)}, user="0:0",
            entrypoint=["docker-registry"], command=["serve", "/etc/moorage/config.yml"],
        )  # fmt: skip
        self.present(authority.issue(name))
        self.container.start()
        self._look()

    def _look(self) -> None:
        self.container.reload()
        networks = self.container.attrs["NetworkSettings"]
        self.address: str = networks["IPAddress"]
        self.port: str = networks["Ports"]["443/tcp"][0]["HostPort"]
        ipaddress.ip_address(self.address)

    def ask_for_certificates(self, clients: Authority) -> None:
        """From now on it lets in only who presents a certificate that ``clients`` has signed."""
        put(self.container, "/", {"etc/moorage/clients.crt": clients.pem.encode()})
        self._lines[2] = self._lines[2].replace(
            "key: /etc/moorage/tls.key",
            "key: /etc/moorage/tls.key, clientcas: [/etc/moorage/clients.crt]",
        )
        self.present(self.authority.issue(self.name))
        self.container.restart(timeout=1)
        self._look()

    def present(self, pair: tuple[bytes, bytes]) -> None:
        """Put a certificate in place; a running registry takes it up at its next start."""
        login = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(5))
        put(self.container, "/", {
            "etc/moorage/config.yml": "\n".join(self._lines).encode(),
            "etc/moorage/tls.crt": pair[0],
            "etc/moorage/tls.key": pair[1],
            "etc/moorage/htpasswd": b"".join(
                one.encode() + b":" + login + b"\n" for one in (USER, OF_NODES)
            ),
        })  # fmt: skip

    def push(self, client: docker.DockerClient, program: Path, name: str = "probe:1") -> str:
        """A one-file image in the registry, by way of loopback, where no engine asks for trust."""
        target = io.BytesIO()
        with tarfile.open(fileobj=target, mode="w") as bundle:
            bundle.add(program, "bin/sh")
        repository, _, tag = name.partition(":")
        local = f"127.0.0.1:{self.port}/{repository}"
        client.api.import_image_from_data(target.getvalue(), repository=local, tag=tag)
        login = {"username": USER, "password": PASSWORD}
        for _ in range(50):
            said = client.images.push(local, tag, auth_config=login)
            if "error" not in said:
                break
            time.sleep(0.2)
        client.images.remove(f"{local}:{tag}")
        if "error" in said:
            raise AssertionError(said)
        return f"{self.name}/{name}"


@dataclass
class Run:
    """How a run of the agent ended."""

    code: int
    events: list[dict[str, Any]]
    noise: str

    @property
    def result(self) -> dict[str, Any]:
        return self.events[-1]

    @property
    def fault(self) -> str:
        return str((self.result["error"] or {}).get("code", ""))


# On a node's own disk: the engine reads nothing out of a tmpfs in it.
_OUT, _ERR = "/root/.said", "/root/.complained"


class Node:
    """A lab node with systemd and containerd."""

    images = "/var/lib/containerd"  # where its runtime keeps them: no overlay, so a volume

    def __init__(self, client: docker.DockerClient, image: str, binds: Sequence[str] = ()) -> None:
        self._client = client
        bounding = int(re.findall(r"CapBnd:\s*(\w+)", Path("/proc/self/status").read_text())[0], 16)
        limits = client.api.create_host_config(
            cap_add=[name for bit, name in enumerate(CAPABILITIES) if bounding >> bit & 1],
            security_opt=["seccomp=unconfined", "apparmor=unconfined"],
            tmpfs={"/run": "exec", "/tmp": "exec"},
            binds=["/sys/fs/cgroup:/sys/fs/cgroup:rw",
                   f"agentdev-{time.time_ns()}:{self.images}", *binds],
        )  # fmt: skip
        limits.update(MaskedPaths=[], ReadonlyPaths=[], CgroupnsMode="host")
        made = client.api.create_container(
            image, name=f"agentdev-node-{time.time_ns()}", labels=LABELS, host_config=limits
        )
        self.container = client.containers.get(made["Id"])

    def start(self, archive: Path) -> None:
        put(self.container, "/", {"root/agent.pyz": archive.read_bytes()})
        self.container.start()
        self.wait()

    def wait(self, seconds: float = 120) -> None:
        """Until CRI serves."""
        code, said = self.sh(f"lab-ready {seconds:g}")
        if code:
            raise AssertionError(said)

    def run(self, command: str, *arguments: str) -> tuple[int, bytes, bytes]:
        """Run a command by the shell: exit code, output, complaints; ``arguments`` are $1 and on.

        By way of files. What a busy engine passes on of a command's own output lacks its beginning
        at times (2 of 450 with 20.10 and both cores at work), and of two streams it puts one's
        words amid the other's (1 of 3).
        """
        # A shell stays around it: the engine takes an output that is closed for the command's end.
        words = f"(\n{command}\n) > {_OUT} 2> {_ERR}\nexit $?"
        code = self.container.exec_run(["sh", "-c", words, "sh", *arguments]).exit_code
        if code is None:
            raise AssertionError(f"{command!r} was not run to its end")
        return int(code), self._fetched(_OUT), self._fetched(_ERR)

    def sh(self, command: str) -> tuple[int, str]:
        """Run a command: exit code, and all it says, in the order in which it says it."""
        code, out, _ = self.run(f"exec 2>&1\n{command}")
        return code, out.decode("utf-8", "replace")

    def read(self, path: str) -> bytes | None:
        """A file's bytes, None where it cannot be read."""
        code, content, _ = self.run('cat "$1"', path)
        return content if code == 0 else None

    def _fetched(self, path: str) -> bytes:
        chunks, _ = self.container.get_archive(path)
        with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as bundle:
            file = bundle.extractfile(bundle.getmembers()[0])
            assert file is not None
            return file.read()

    def write(self, path: str, content: bytes) -> None:
        if path.startswith("/run/"):  # a tmpfs, below which the engine's archives do not come
            self.write("/root/written", content)
            self.sh(f"install -D -m 644 /root/written {path}; rm /root/written")
            return
        put(self.container, "/", {path.lstrip("/"): content})

    def write_hosts(self, content: bytes) -> None:
        """The bind-mounted /etc/hosts, in place."""
        self.write("/root/hosts", content)
        self.sh("cat /root/hosts > /etc/hosts")

    def agent(self, command: str, plan: dict[str, Any] | None = None, before: str = "") -> Run:
        return self.told(f"{before} python3 /root/agent.pyz {command}", plan)

    def told(self, command: str, plan: dict[str, Any] | None = None) -> Run:
        """What a command tells of its work on a plan, as events."""
        self.write("/root/plan.json", json.dumps(plan or {}).encode())
        code, out, err = self.run(f"{command} < /root/plan.json")
        events = [json.loads(line) for line in out.decode().splitlines()]
        return Run(code, events, err.decode("utf-8", "replace"))

    def remove(self) -> None:
        self.container.reload()
        volumes = [mount["Name"] for mount in self.container.attrs["Mounts"] if mount.get("Name")]
        self.container.remove(force=True, v=True)
        for name in volumes:
            self._client.volumes.get(name).remove()


def plan(registry: Registry, image: str | None = None, **more: Any) -> dict[str, Any]:
    """A plan for a registry, as the operator's side would send it."""
    document: dict[str, Any] = {
        "version": 1,
        "registry": {
            "host": NAME,
            "address": registry.address,
            "ca": more.pop("ca", registry.authority.pem),
        },
        **more,
    }
    if image is not None:
        document["verify"] = {"image": image, "username": USER, "password": PASSWORD}
    return document
