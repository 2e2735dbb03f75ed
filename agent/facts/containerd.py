"""Facts about containerd: how it is started, where its configuration is, what it makes of it."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from typing import NamedTuple

from agent.edit.toml import at, shared
from agent.facts.daemons import Daemon, option
from agent.node.host import Host, Process, Unit
from agent.node.tree import File, Tree
from agent.wire.faults import AgentError
from agent.wire.runtimes.declared import RUNTIMES

PROGRAM = "containerd"
CONTAINERD_CONFIG = "/etc/containerd/config.toml"
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"

Version = tuple[int, int, int]


class Containerd(NamedTuple):
    """One containerd: how it is started, where its configuration is, what it makes of it.

    ``pid`` is 0 where it was not found as a process; ``complaint`` is what it says where it does
    not take its configuration.
    """

    binary: str
    version: Version
    unit: Unit | None
    config: File
    merged: bytes | None
    running: bool = True
    socket: str = CONTAINERD_SOCKET
    pid: int = 0
    complaint: str = ""

    @property
    def version_text(self) -> str:
        return ".".join(str(number) for number in self.version)


# Those that another program starts and configures: their own parts look after them, or none does.
_KEPT_BY_OTHERS = tuple(word for declared in RUNTIMES for word in declared.containerds)


def find(
    host: Host, tree: Tree, daemons: Sequence[Daemon] = (), *, proving: bool = False
) -> tuple[Containerd, ...]:
    """Every containerd of this node that is configured in files of its own, the usual one first.

    One that runs is known by its process, whatever its unit is called; where none runs, the units
    tell, and where there are none, the program. ``daemons`` are the programs at work on the node.
    ``proving``: CRI is asked later in any case, so that it may as well tell the version.
    """
    starts: list[tuple[tuple[str, ...], Unit | None, Process | None]] = []
    for one in daemons:
        if one.program == PROGRAM and not _is_kept_by_others(one.argv) and host.is_own(one.pid):
            process = Process(one.pid, one.argv, one.unit)
            starts.append((one.argv, host.unit_of(process), process))
    starts.sort(key=lambda start: start[1] is None or start[1].name != "containerd.service")
    if not starts:
        usual = host.unit("containerd.service")
        units = [usual] if usual is not None else []
        units += [unit for unit in host.services("containerd") if unit.name != "containerd.service"]
        starts = [(unit.argv, unit, None) for unit in units] or [((), None, None)]
    found: dict[tuple[str, str], Containerd] = {}
    for argv, unit, process_or_none in starts:
        made = (
            None
            if _is_kept_by_others(argv)
            else _containerd(host, tree, argv, unit, process_or_none, proving)
        )
        if made is not None:
            found.setdefault((made.config.path, made.socket), made)
    return tuple(found.values())


def _is_kept_by_others(argv: tuple[str, ...]) -> bool:
    return any(place in word for word in argv for place in _KEPT_BY_OTHERS)


def _containerd(
    host: Host,
    tree: Tree,
    argv: tuple[str, ...],
    unit: Unit | None,
    process: Process | None,
    proving: bool,
) -> Containerd | None:
    binary = argv[0] if argv else host.which("containerd")
    if binary is None or not tree.exists(binary):
        binary = host.which("containerd")
    if binary is None:
        return None
    config = tree.read(option(argv, "--config", "-c") or CONTAINERD_CONFIG)
    told, complaint = _merged(host, tree, binary, config)
    socket = option(argv, "--address", "-a") or _told_socket(told) or CONTAINERD_SOCKET
    version = None
    if proving and process is not None and not host.remembers:
        version = _running_version(process, binary, socket)
    version = version or _version_of(host, binary)
    if process is not None:
        active = True
    elif host.systemd and unit is not None:
        active = unit.active
    else:  # a laid-out tree counts as a node in service
        active = not host.real or tree.exists(socket)
    return Containerd(
        binary=binary,
        version=version,
        unit=unit,
        config=config,
        merged=told,
        running=active,
        socket=socket,
        pid=process.pid if process is not None else 0,
        complaint=complaint,
    )


def _told_socket(dump: bytes | None) -> str:
    """Where a containerd listens by its own `config dump`; an empty string if it does not say.

    Up to version 3 that is ``grpc.address``, from 4 on a plugin's (containerd 2.3).
    """
    tables = shared(dump or b"")
    for keys in (("plugins", "io.containerd.server.v1.grpc"), ("grpc",)):
        said = at(tables, *keys, "address")
        if isinstance(said, str) and said.startswith("/"):
            return said
    return ""


def _version_of(host: Host, binary: str) -> Version:
    shown = host.answer([host.outside(binary), "--version"])
    version = _version_in(shown.out)
    if not shown.ok or version is None:
        raise AgentError(
            "containerd-broken",
            f"{binary} does not report its version: {shown.complaint}",
            cause="the program is damaged or made for another machine",
            cure=f"repair it; `{binary} --version` must answer",
        )
    return version


def _running_version(process: Process, binary: str, socket: str) -> Version | None:
    """What a daemon says it is by CRI; None if it does not, or was started from another file.

    It costs a tenth of a start of the program. A package that was upgraded since left a new file
    in the place of the one that runs (proc_pid_exe(5)); to that one the next start belongs.
    """
    from agent.clients.cri import with_cri
    from agent.clients.failures import CriError

    with contextlib.suppress(OSError, CriError):
        if os.path.samefile(f"/proc/{process.pid}/exe", binary):  # noqa: PTH121
            return _version_in(with_cri(socket, lambda cri: cri.version()))
    return None


def _version_in(words: str) -> Version | None:
    found = re.search(r"\sv?(\d+)\.(\d+)\.(\d+)", words)
    return (int(found[1]), int(found[2]), int(found[3])) if found is not None else None


def _merged(host: Host, tree: Tree, binary: str, config: File) -> tuple[bytes | None, str]:
    """What containerd makes of its configuration, imports and all, or None and why it refuses it.

    Without a file these are its defaults, which differ from build to build.
    """
    program, content = host.outside(binary), config.content
    if content is None:
        words = [program, "config", "default"]
    else:
        path = config.path if host.real else host.outside(config.target)
        words = [program, "--config", path, "config", "dump"]
    alone = _alone(tree, content or b"")
    done = host.answer(words, content or b"") if alone else host.run(words, brief=True)
    return (done.out.encode("utf-8"), "") if done.ok else (None, done.complaint)


# What 2.2 writes into a default configuration, and reads where there is none (containerd#12323).
_DROP_INS = "/etc/containerd/conf.d"
_IMPORTS = re.compile(
    rb"^\s*imports\s*=\s*\[\s*(?:['\"]/etc/containerd/conf\.d/\*\.toml['\"])?\s*\]\s*$", re.M
)


def _alone(tree: Tree, config: bytes) -> bool:
    """Whether nothing but this file decides: it imports no other, not even by default."""
    return b"imports" not in _IMPORTS.sub(b"", config, count=1) and not tree.names(_DROP_INS)
