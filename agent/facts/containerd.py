"""Facts about containerd: how it is started, where its configuration is, what it makes of it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from agent.facts.tree import File, Tree
from agent.faults import AgentError
from agent.host import Host, Unit

CONTAINERD_CONFIG = "/etc/containerd/config.toml"
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"


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


def find(host: Host, tree: Tree) -> Containerd | None:
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
