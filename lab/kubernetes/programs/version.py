"""What changed between Kubernetes versions that a lab cluster notices, as tables."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from moorage.mix import LINES


class Version(NamedTuple):
    """A Kubernetes version; its parts are numbers."""

    major: int
    minor: int
    patch: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


def parse(text: str) -> Version:
    """``1.20.2``, ``v1.20.2``, ``Kubernetes v1.20.2``. Raises ValueError for anything else."""
    found = re.fullmatch(r"(?:Kubernetes )?v?(\d+)\.(\d+)\.(\d+)(?:[-+].*)?", text.strip())
    if found is None:
        raise ValueError(f"{text.strip()!r} is not a version of Kubernetes")
    return Version(*(int(number) for number in found.groups()))


class _Row(NamedTuple):
    """``value`` holds from the version ``since`` on and before ``until`` (major, minor)."""

    since: tuple[int, int]
    until: tuple[int, int]
    value: Any


_EVER = (99, 0)

# The kubelet asks for CRI v1 since 1.23 (v1alpha2 before); containerd 2 no longer has v1alpha2.
# https://github.com/containerd/containerd/blob/main/docs/containerd-2.0.md
_LINES = (
    _Row((1, 0), (1, 23), ("1.6", "1.7")),
    _Row((1, 23), _EVER, tuple(LINES)),
)

# --port=0 closes a plain HTTP port that stood open by default; the flag went away with the port.
_CONTROLLER_FLAGS = (_Row((1, 0), (1, 23), "--port=0"),)
_SCHEDULER_FLAGS = (_Row((1, 0), (1, 23), "--port=0"),)

_SOCKET = "unix:///run/containerd/containerd.sock"
_KUBELET_FLAGS = (
    _Row((1, 0), (1, 24), "--container-runtime=remote"),  # dockershim was the default
    _Row((1, 0), (1, 27), f"--container-runtime-endpoint={_SOCKET}"),
)
_KUBELET_KEYS = (
    _Row((1, 27), _EVER, ("containerRuntimeEndpoint", _SOCKET)),
    # From 1.31 on a kubelet warns on a machine with cgroup v1, and later does not start there.
    _Row((1, 31), _EVER, ("failCgroupV1", False)),
)


def lines(version: Version) -> tuple[str, ...]:
    """The containerd lines of the lab that a kubelet of this version can speak to."""
    found: tuple[str, ...] = next(iter(_of(_LINES, version)))
    return found


def controller_flags(version: Version) -> tuple[str, ...]:
    return tuple(_of(_CONTROLLER_FLAGS, version))


def scheduler_flags(version: Version) -> tuple[str, ...]:
    return tuple(_of(_SCHEDULER_FLAGS, version))


def kubelet_flags(version: Version) -> tuple[str, ...]:
    return tuple(_of(_KUBELET_FLAGS, version))


def kubelet_keys(version: Version) -> dict[str, Any]:
    """What a KubeletConfiguration of this version says beside what all versions say."""
    return dict(_of(_KUBELET_KEYS, version))


def _of(rows: Iterable[_Row], version: Version) -> list[Any]:
    return [row.value for row in rows if row.since <= version[:2] < row.until]
