"""Facts about the runtimes that bring their own way of being configured, told as rows of a table.

A program or a folder shows that one is there; only then its service is asked for.
"""

from __future__ import annotations

from typing import NamedTuple

from agent.facts.tree import Tree
from agent.host import Host


class Runtime(NamedTuple):
    """One of them: the program found, the service that runs it ("" for none), how it is called."""

    name: str
    binary: str = ""
    unit: str = ""
    running: bool = False
    argv: tuple[str, ...] = ()


class _Row(NamedTuple):
    name: str
    programs: tuple[str, ...]
    units: tuple[str, ...] = ()
    folder: str = ""


_ROWS = (
    _Row("crio", ("crio",), ("crio.service", "cri-o.service")),
    _Row("podman", ("podman", "buildah", "skopeo")),
    _Row("k3s", ("k3s",), ("k3s.service", "k3s-agent.service")),
    _Row("rke2", ("rke2",), ("rke2-server.service", "rke2-agent.service")),
    _Row(
        "microk8s",
        (),
        ("snap.microk8s.daemon-containerd.service",),
        "/var/snap/microk8s/current/args",
    ),
    _Row("k0s", ("k0s",), ("k0sworker.service", "k0scontroller.service")),
    _Row("buildkit", ("buildkitd",), ("buildkit.service", "buildkitd.service")),
    _Row("nerdctl", ("nerdctl",)),
)


def find(host: Host, tree: Tree) -> dict[str, Runtime]:
    """Those that are on the node, by name."""
    found = {}
    for row in _ROWS:
        programs = [host.which(program) for program in row.programs]
        binary = next((program for program in programs if program), "")
        if binary or (row.folder and tree.exists(row.folder)):
            found[row.name] = _described(host, row, binary)
    return found


def _described(host: Host, row: _Row, binary: str) -> Runtime:
    units = [unit for unit in (host.unit(name) for name in row.units) if unit is not None]
    unit = next((one for one in units if one.active), units[0] if units else None)
    if unit is None:
        return Runtime(row.name, binary, running=not host.real)
    running = unit.active or not host.real  # a laid-out tree counts as a node in service
    return Runtime(row.name, binary, unit.name, running, unit.argv)
