"""What this node is: runtimes, versions, files. Reads only; decides nothing.

Paths are those the node itself uses. ``Tree`` reads them below a root, links included, so a test
can lay out a node as a folder.
"""

from __future__ import annotations

import os
import platform
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from agent.faults import AgentError
from agent.host import Host, Unit

CONTAINERD_CONFIG = "/etc/containerd/config.toml"
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
MAX_FILE = 8 << 20


@dataclass(frozen=True)
class File:
    """A file as it was found. ``content`` is None where there is none.

    ``target`` is where the bytes are after all links; ``problem`` says why it cannot be read.
    """

    path: str
    target: str
    content: bytes | None = None
    problem: str = ""


class Tree:
    """The node's files, read once each, so that every decision is about the same moment."""

    def __init__(self, root: str = "/") -> None:
        self.root = root
        self._seen: dict[str, File] = {}

    def read(self, path: str) -> File:
        if path not in self._seen:
            self._seen[path] = self._read(path)
        return self._seen[path]

    def names(self, folder: str) -> tuple[str, ...]:
        """What a folder holds, sorted; empty where it is missing."""
        try:
            return tuple(sorted(entry.name for entry in self.outside(folder).iterdir()))
        except OSError:
            return ()

    def exists(self, path: str) -> bool:
        try:
            return self.outside(path).exists()
        except OSError:
            return False

    def outside(self, path: str) -> Path:
        """Where a path of the node really is, links followed inside the root."""
        return Path(self.root, self._resolve(path).lstrip("/"))

    def _read(self, path: str) -> File:
        try:
            target = self._resolve(path)
        except OSError as problem:
            return File(path, path, problem=str(problem))
        try:
            with self.outside(target).open("rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    return File(path, target, problem="it is not a regular file")
                content = file.read(MAX_FILE + 1)
        except FileNotFoundError:
            return File(path, target, problem=self._dangling(path, target))
        except OSError as problem:
            return File(path, target, problem=f"it cannot be read: {problem.strerror}")
        if len(content) > MAX_FILE:
            return File(path, target, problem=f"it has more than {MAX_FILE} bytes")
        return File(path, target, content)

    def _dangling(self, path: str, target: str) -> str:
        """Why a missing file is no blank to fill in: its last name is a link to nowhere."""
        folder, _, name = path.rpartition("/")
        if (self.outside(folder) / name).is_symlink():
            return f"it is a link to {target}, which does not exist"
        return ""

    def _resolve(self, path: str) -> str:
        """``path`` with every link followed inside the root, as ``realpath`` would in a chroot."""
        pending = [part for part in reversed(path.split("/")) if part]
        done: list[str] = []
        links = 0
        while pending:
            part = pending.pop()
            if part in (".", ""):
                continue
            if part == "..":
                done = done[:-1]
                continue
            try:
                link = str(Path(self.root, *done, part).readlink())
            except OSError:
                done.append(part)
                continue
            links += 1
            if links > 40:
                raise OSError("its links lead in a circle")
            if link.startswith("/"):
                done = []
            pending.extend(part for part in reversed(link.split("/")) if part)
        return "/" + "/".join(done)


@dataclass(frozen=True)
class Docker:
    """A Docker Engine; ``version`` is empty where only its folder shows that it is there."""

    version: str = ""


@dataclass(frozen=True)
class Containerd:
    """One containerd: how it is started, where its configuration is, what it makes of it."""

    binary: str
    version: tuple[int, int, int]
    unit: Unit | None
    config: File
    merged: bytes | None
    running: bool = True
    socket: str = CONTAINERD_SOCKET

    @property
    def version_text(self) -> str:
        return ".".join(str(number) for number in self.version)


@dataclass(frozen=True)
class Facts:
    """The node, as far as a plan can be about it."""

    nodename: str
    tree: Tree
    docker: Docker | None
    containerd: Containerd | None

    @property
    def runtime(self) -> str:
        """The runtimes in words, such as ``containerd 1.7.24``."""
        found = []
        if self.containerd is not None:
            found.append(f"containerd {self.containerd.version_text}")
        if self.docker is not None:
            found.append(f"docker {self.docker.version}".strip())
        return ", ".join(found) or "none"


def gather(host: Host) -> Facts:
    """Look at the node. Costs a few short commands; changes nothing."""
    tree = Tree(host.root)
    return Facts(
        nodename=platform.node(),
        tree=tree,
        docker=_docker(host, tree),
        containerd=_containerd(host, tree),
    )


def _docker(host: Host, tree: Tree) -> Docker | None:
    for program in ("dockerd", "docker"):
        binary = host.which(program)
        if binary is not None:
            shown = host.run([host.outside(binary), "--version"])
            version = re.search(r"\d+\.\d+\.\d+", shown.out)
            return Docker(version[0] if version else "")
    # Snap and static installs keep their programs elsewhere; the folder tells.
    return Docker() if tree.exists("/run/docker.sock") or tree.exists("/etc/docker") else None


def _containerd(host: Host, tree: Tree) -> Containerd | None:
    unit = host.unit("containerd.service")
    argv = unit.argv if unit is not None else ()
    binary = argv[0] if argv else host.which("containerd")
    if binary is None or not tree.exists(binary):
        binary = host.which("containerd")
    if binary is None:
        return None
    shown = host.run([host.outside(binary), "--version"])
    version = re.search(r"\sv?(\d+)\.(\d+)\.(\d+)", shown.out)
    if not shown.ok or version is None:
        raise AgentError(
            "containerd-broken",
            f"{binary} does not tell its version: {shown.complaint}",
            cause="the program is damaged or made for another machine",
            cure=f"repair it; `{binary} --version` must answer",
        )
    config = tree.read(_option(argv, "--config", "-c") or CONTAINERD_CONFIG)
    socket = _option(argv, "--address", "-a") or CONTAINERD_SOCKET
    if host.systemd and unit is not None:
        running = unit.active
    else:  # a laid-out tree counts as a node in service
        running = not host.real or tree.exists(socket)
    return Containerd(
        binary=binary,
        version=(int(version[1]), int(version[2]), int(version[3])),
        unit=unit,
        config=config,
        merged=merged(host, binary, config) if config.content is not None else None,
        running=running,
        socket=socket,
    )


def merged(host: Host, binary: str, config: File) -> bytes | None:
    """What containerd makes of a configuration file with its imports, or None if it refuses it."""
    path = config.path if host.real else host.outside(config.target)
    done = host.run([host.outside(binary), "--config", path, "config", "dump"])
    return done.out.encode("utf-8") if done.ok else None


def _option(argv: tuple[str, ...], *names: str) -> str | None:
    for place, word in enumerate(argv):
        key, equals, value = word.partition("=")
        if key in names:
            if equals:
                return value
            return argv[place + 1] if place + 1 < len(argv) else None
    return None
