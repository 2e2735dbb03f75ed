"""Containers that run, found by what holds them: shims and monitors in a service's control group.

containerd's shims work in the folder of their container's bundle, beside those of all others of
that namespace: ``<state>/io.containerd.runtime.v2.task/<namespace>/<id>`` with ``init.pid`` and
``config.json`` in it (containerd's core/runtime/v2/README.md). CRI-O's and Podman's conmon names
the container on its command line.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from agent.facts.daemons import option

_SHIM = "containerd-shim"
_MONITORS = frozenset(("conmon", "conmonrs"))
# Of the OCI bundle; containerd's CRI and CRI-O write the same meaning under two names.
_POD = ("io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name")
_NAME = ("io.kubernetes.cri.container-name", "io.kubernetes.container.name")
_KIND = ("io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType")
_LONGEST = 1 << 20
MOBY = "moby"  # Docker's namespace in containerd
KUBERNETES = "k8s.io"


class Task(NamedTuple):
    """A container at work. ``pid`` is 0 where only its monitor is known."""

    namespace: str
    id: str
    pid: int
    name: str

    @property
    def runs(self) -> bool:
        return self.pid == 0 or Path(f"/proc/{self.pid}").exists()


def held(group: str, main: int) -> tuple[Task, ...] | None:
    """The containers of the processes in a control group; None if those cannot be seen.

    ``main`` is the service's main process: if even that is not seen in the group, this is another
    process namespace. The sandbox of a pod is no container of its own here.
    """
    proc = Path("/proc")
    try:
        if not _within((proc / str(main) / "cgroup").read_text("utf-8", "replace"), group):
            return None
    except OSError:
        return None
    found: dict[tuple[str, str], Task] = {}
    for folder in proc.iterdir():
        if folder.name.isdigit():
            for task in _of_process(folder, group):
                found.setdefault((task.namespace, task.id), task)
    return tuple(found.values())


def _of_process(folder: Path, group: str) -> Iterator[Task]:
    try:
        argv = tuple(
            word.decode("utf-8", "replace")
            for word in (folder / "cmdline").read_bytes().split(b"\0")
            if word
        )
        program = argv[0].rpartition("/")[2] if argv else ""
        monitor = program in _MONITORS
        if not monitor and not program.startswith(_SHIM):
            return
        if not _within((folder / "cgroup").read_text("utf-8", "replace"), group):
            return
        if monitor:
            yield from _of_monitor(argv)
        else:
            yield from _of_shim(folder / "cwd", argv)
    except OSError:  # it has ended meanwhile
        return


def _within(groups: str, group: str) -> bool:
    """Whether /proc/PID/cgroup names ``group`` or one below it, seen from another one or not."""
    pattern = rf"^\d+:[^:]*:(?:/\.\.)*{re.escape(group)}(?:/.*)?$"
    return re.search(pattern, groups, re.MULTILINE) is not None


def _of_monitor(argv: tuple[str, ...]) -> Iterator[Task]:
    name = option(argv, "-c", "--cid") or ""
    bundle = option(argv, "-b", "--bundle")
    spec = _annotations(Path(bundle)) if bundle else {}
    if _first(spec, _KIND) != "sandbox":
        yield Task("cri-o", name, 0, _label(spec, name))


def _of_shim(bundle: Path, argv: tuple[str, ...]) -> Iterator[Task]:
    if (bundle / "init.pid").exists():
        yield from _beside(bundle)
    else:  # of another make, such as Kata's: it keeps other files there
        name = option(argv, "-id") or ""
        yield Task(option(argv, "-namespace") or "", name, 0, name[:12])


def _beside(bundle: Path) -> Iterator[Task]:
    """All containers of the namespace whose folders are beside a shim's own.

    Read through the shim's /proc entry, so that it does not matter in whose mounts they are.
    """
    namespace = os.path.dirname(os.readlink(bundle)).rpartition("/")[2]  # noqa: PTH115, PTH120
    for one in (bundle / "..").iterdir():
        try:
            pid = int((one / "init.pid").read_text("ascii"))
        except (OSError, ValueError):
            continue
        spec = _annotations(one)
        task = Task(namespace, one.name, pid, _label(spec, one.name))
        if task.runs and _first(spec, _KIND) != "sandbox":
            yield task


def _annotations(bundle: Path) -> dict[str, str]:
    try:
        with (bundle / "config.json").open("rb") as file:
            found = json.loads(file.read(_LONGEST)).get("annotations")
    except (OSError, ValueError, AttributeError):
        return {}
    return found if isinstance(found, dict) else {}


def _first(spec: dict[str, str], keys: tuple[str, ...]) -> str:
    return next((str(spec[key]) for key in keys if key in spec), "")


def _label(spec: dict[str, str], name: str) -> str:
    """The pod and the container in it, else the first letters of an identifier."""
    pod, container = _first(spec, _POD), _first(spec, _NAME)
    return f"{pod}/{container}" if pod and container else name[:12]
