"""What a lab node is: its container's parameters, and how it is told that one is as it should be.

Nothing here talks to an engine.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moorage.mix import ContainerdLine

LABEL_LINE = "io.moorage.lab.containerd"
LABEL_RECIPE = "io.moorage.lab.recipe"

# The kernel's numbers are the places in this list: include/uapi/linux/capability.h. What Linux 5.8
# split off SYS_ADMIN (PERFMON, BPF, CHECKPOINT_RESTORE) is left out: SYS_ADMIN still implies it,
# and Debian's engine does not know the names.
# fmt: off
_CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID",
    "SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW",
    "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT",
    "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD",
    "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG",
    "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ",
)
# fmt: on
_SYS_ADMIN = _CAPABILITIES.index("SYS_ADMIN")


@dataclass(frozen=True)
class LabNode:
    """A node that runs. ``name`` is ``lab1`` and so on, ``address`` an IPv4 address.

    ``containerd_line`` is a key of ``moorage.mix.LINES``; ``version`` what the node itself
    says, empty if it has not been asked.
    """

    name: str
    address: str
    containerd_line: str
    container_id: str
    version: str = ""


@dataclass(frozen=True)
class Recipe:
    """All that makes a node's container what it is; another digest means it has to be remade."""

    prefix: str
    number: int
    line: ContainerdLine
    image: str
    image_id: str
    host_config: Mapping[str, Any]
    public_key: str

    @property
    def name(self) -> str:
        return f"{self.prefix}{self.number}"

    @property
    def container_name(self) -> str:
        return container_name(self.name)

    @property
    def digest(self) -> str:
        parts = [self.name, self.line.name, self.image_id, self.host_config, self.public_key]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def container_name(name: str) -> str:
    """``lab1`` -> ``moorage-lab1``."""
    return f"moorage-{name}"


def number(container: str) -> int:
    """``moorage-lab12`` -> 12; 0 for any other name."""
    found = re.fullmatch(r"moorage-[a-z-]+([1-9][0-9]*)", container)
    return int(found[1]) if found else 0


def capabilities(status: str) -> tuple[str, ...]:
    """The capabilities to give to a node, from /proc/PID/status of the engine's host.

    All of them but those the host itself lacks: an engine cannot hand on what it does not have,
    and some CI machines are without SYS_RESOURCE. Where we ourselves are in a container that lacks
    even SYS_ADMIN, the engine is elsewhere, and all are asked for.
    """
    found = re.search(r"^CapBnd:\s*([0-9a-f]+)$", status, re.MULTILINE)
    bits = int(found[1], 16) if found else 0
    if not bits >> _SYS_ADMIN & 1:
        return _CAPABILITIES
    return tuple(name for place, name in enumerate(_CAPABILITIES) if bits >> place & 1)


def host_config(caps: Iterable[str], labels: Mapping[str, str]) -> dict[str, Any]:
    """The HostConfig of a node, as the engine's API calls it. No ``--privileged``.

    ``labels`` are put on its volume.
    """
    return {
        "CapAdd": sorted(caps),
        # systempaths=unconfined is the command line's name for the two empty lists.
        "SecurityOpt": ["seccomp=unconfined", "apparmor=unconfined"],
        "MaskedPaths": [],
        "ReadonlyPaths": [],
        # systemd manages its own part of the host's tree, below the container's group.
        "CgroupnsMode": "host",
        "Binds": ["/sys/fs/cgroup:/sys/fs/cgroup:rw"],
        "Tmpfs": {"/run": "rw,nosuid,nodev,mode=755", "/tmp": "rw,exec,nosuid,nodev,mode=1777"},  # noqa: S108
        # overlayfs does not stand on overlayfs.
        "Mounts": [
            {
                "Type": "volume",
                "Target": "/var/lib/containerd",
                "VolumeOptions": {"Labels": dict(labels), "NoCopy": True},
            }
        ],
        "NetworkMode": "bridge",
        "RestartPolicy": {"Name": "no"},
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}},
    }


def bounding_set() -> str:
    """/proc/1/status: PID 1 has what the machine has, whatever we were started with."""
    try:
        return Path("/proc/1/status").read_text()
    except OSError:
        return ""
