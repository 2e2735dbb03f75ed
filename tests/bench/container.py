"""A container's address, and its processor time as the kernel accounts it for its cgroup."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
# The file of a controller's folder: of cgroup v1's own, in nanoseconds, and of v2, in microseconds.
# Source: Documentation/admin-guide/cgroup-v1/cpuacct.rst and cgroup-v2.rst
_V1, _V2 = "cpuacct.usage", "cpu.stat"


@dataclass(frozen=True)
class Container:
    """One that runs. ``account``: the kernel's file about all its processes, services' too."""

    address: str
    account: Path

    @classmethod
    def of(cls, name: str) -> Container:
        """Raises RuntimeError if the container has no cgroup of its own."""
        argv = ["docker", "inspect", name]
        done = subprocess.run(argv, check=True, capture_output=True)
        [told] = json.loads(done.stdout)
        networks = told["NetworkSettings"]["Networks"].values()
        groups = Path("/proc", str(told["State"]["Pid"]), "cgroup").read_text("ascii")
        account = _account(groups, told["Id"])
        if account is None:
            raise RuntimeError(f"{name} has no cgroup that accounts for its processor time")
        return cls(next(one["IPAddress"] for one in networks), account)

    def processor_seconds(self) -> float:
        """Since it was started."""
        words = self.account.read_text("ascii").split()
        if self.account.name == _V1:
            return int(words[0]) / 1e9
        return int(words[words.index("usage_usec") + 1]) / 1e6


def _account(groups: str, identity: str) -> Path | None:
    """``groups``: /proc/PID/cgroup of the first process in the container called ``identity``."""
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        own, found, _ = path.partition(identity)  # systemd has moved on, to init.scope below it
        # As cgroupfs names it (docker/ID), or systemd (system.slice/docker-ID.scope).
        folder = (own + found + (".scope" if own.endswith("docker-") else "")).lstrip("/")
        if found and "cpuacct" in controllers.split(","):
            return MOUNT / "cpuacct" / folder / _V1
        if found and not controllers:
            return MOUNT / folder / _V2
    return None
