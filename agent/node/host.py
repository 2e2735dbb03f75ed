"""The only code that runs commands on the node: no shell, always a time limit.

``Host("/")`` is the real node. Another root is a file tree laid out as a node (tests, images):
files are read there, and its services are what its unit files say, never running.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from agent.node.memory import Memory, key
from agent.wire.faults import AgentError, NotAtOnceError

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/bin:/snap/bin"
RELOAD = "reload "  # before a service's name: to read its files again is enough
# What takes up a trust store's files: run in the place of a service's restart.
TOOLS = {
    "update-ca-certificates": ("update-ca-certificates",),
    "update-ca-trust": ("update-ca-trust", "extract"),
}
# What the tools write: the bundles that programs read.
WRITTEN_BY_TOOLS = {
    "update-ca-certificates": "/etc/ssl/certs/ca-certificates.crt",
    "update-ca-trust": "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
}
# Of 34 ms that containerd takes to tell its configuration, 8 are its collector's and its threads':
# https://pkg.go.dev/runtime#hdr-Environment_Variables
BRIEF = {"GOGC": "off", "GOMAXPROCS": "1"}
DROP_INS = "/etc/systemd/system"
READ = ("NeedDaemonReload", "DropInPaths")  # of a unit: whether systemd has read its files
UNIT_FOLDERS = ("etc/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system",
                 "lib/systemd/system")  # fmt: skip
BY_HAND = UNIT_FOLDERS[:2]


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def ok(self) -> bool:
        return self.code == 0

    @property
    def complaint(self) -> str:
        """The last line it complained with, for an error's cause."""
        lines = (self.err.strip() or self.out.strip()).splitlines()
        return lines[-1].strip() if lines else f"exit code {self.code}"


class Unit(NamedTuple):
    """A service as it stands; ``start`` differs from start to start, "" if not asked.

    ``main`` is the number of its main process, 0 where it has none or was not asked.
    """

    name: str
    active: bool
    argv: tuple[str, ...]
    start: str = ""
    main: int = 0


class Process(NamedTuple):
    """A running program: how it was called, and the service it belongs to, if any."""

    pid: int
    argv: tuple[str, ...]
    unit: str = ""


class Host:
    """The node's commands and services."""

    # Of the node's files: a longer one is not read, but raises NotAtOnceError.
    longest: int | None = None

    def __init__(self, root: str = "/", memory: Memory | None = None) -> None:
        """``memory`` saves asking a program again what it would answer the same."""
        self.root = root
        self.real = Path(root).resolve() == Path("/")
        self._memory = memory

    def run(self, argv: list[str], timeout: float = 20, *, brief: bool = False) -> Done:
        """Run a command to its end. A missing one, or one out of time, is an ``AgentError``.

        ``brief``: one that answers and ends, for which a Go program needs no collector.
        """
        environment = {**os.environ, "PATH": PATH, "LC_ALL": "C", "LANGUAGE": "C"}
        environment |= BRIEF if brief else {}
        try:
            with subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                start_new_session=True,
            ) as process:
                try:
                    out, err = _said(process, timeout)
                except BaseException:  # out of time, or interrupted: leave nothing running
                    os.killpg(process.pid, signal.SIGKILL)
                    raise
        except subprocess.TimeoutExpired:
            raise AgentError(
                "command-timeout",
                f"`{' '.join(argv)}` did not end within {timeout:g} seconds",
                cause="the command hangs on this node",
                cure=f"run it by hand on the node to see why: {' '.join(argv)}",
            ) from None
        except OSError as problem:
            raise AgentError(
                "command-failed",
                f"`{argv[0]}` cannot be run: {problem.strerror}",
                cause="it is missing, broken or not executable on this node",
                cure=f"install or repair {argv[0]}",
            ) from None
        return Done(
            process.returncode, out.decode("utf-8", "replace"), err.decode("utf-8", "replace")
        )

    @property
    def remembers(self) -> bool:
        """Whether :meth:`answer` may know without asking."""
        return self._memory is not None

    def answer(self, argv: list[str], *inputs: bytes) -> Done:
        """Like :meth:`run`, for an answer that follows from the program and ``inputs`` alone."""
        memory = self._memory
        known = key(argv[0], argv[1:], inputs) if memory is not None else None
        if memory is None or known is None:
            return self.run(argv, brief=True)
        told = memory.recall(known)
        if told is not None:
            return Done(0, told, "")
        done = self.run(argv, brief=True)
        if done.ok:
            memory.learn(known, done.out)
        return done

    def which(self, program: str) -> str | None:
        """The program's path as the node sees it, or None."""
        for folder in PATH.split(":"):
            path = f"{folder}/{program}"
            if shutil.which(self.outside(path)):
                return path
        return None

    def outside(self, path: str) -> str:
        """Where a path of the node really is."""
        return path if self.real else str(Path(self.root, path.lstrip("/")))

    @property
    def systemd(self) -> bool:
        return self.real and Path("/run/systemd/system").is_dir()

    @property
    def openrc(self) -> bool:
        return self.real and not self.systemd and Path("/run/openrc/started").is_dir()

    @property
    def restarts(self) -> bool:
        """Whether services can be restarted here; on a laid-out tree there are none to restart."""
        return self.systemd or self.openrc or not self.real

    def unit(self, name: str) -> Unit | None:
        """The service of that name, or None if there is none."""
        if self.openrc:
            return _openrc_unit(name)
        if not self.systemd:
            return self._unit_from_file(name)
        asked = "LoadState,ActiveState,ExecStart,InvocationID,MainPID"
        facts = properties(self.run(["systemctl", "show", name, "-p", asked]).out)
        if facts.get("LoadState") != "loaded":
            return None
        argv = re.search(r"argv\[\]=(.*?) ;", facts.get("ExecStart", ""))
        return Unit(
            name=name,
            active=facts.get("ActiveState") in ("active", "reloading", "activating"),
            argv=tuple(argv[1].split()) if argv else (),
            start=facts.get("InvocationID", ""),
            main=int(facts.get("MainPID") or 0),
        )

    def unit_of(self, process: Process) -> Unit | None:
        """The service a running process belongs to.

        Its control group names it, and the process shows that it is active: where its file is in
        its place too, systemd has nothing to add, and is not asked (6 ms). OpenRC's has the name of
        the program.
        """
        if self.openrc:
            return self.unit(Path(process.argv[0]).name)
        if not process.unit:
            return None
        for folder in UNIT_FOLDERS:
            file = Path(self.root, folder, process.unit)
            if file.is_file() and file.stat().st_size:  # a masked one is a link to /dev/null
                return Unit(process.unit, active=True, argv=process.argv)
        return self.unit(process.unit)

    def is_own(self, pid: int) -> bool:
        """Whether a process is the node's own; none is on a laid-out tree.

        Those of containers are seen from the host too: they are in other mount namespaces.
        """
        return self.real and _same_namespace(Path("/proc", str(pid)))

    def services(self, *programs: str) -> tuple[Unit, ...]:
        """The services whose files start one of the programs, by its file name.

        On a running node these are the ones that were put there by hand or by an installer:
        distributions' own units have known names, and are hundreds.
        """
        if self.openrc:
            return _openrc_services(programs)
        names = set()
        for folder in BY_HAND if self.real else UNIT_FOLDERS:
            place = Path(self.root, folder)
            for file in place.glob("*.service") if place.is_dir() else ():
                argv = _exec_start(file) if "@." not in file.name else ()
                names |= {file.name} if argv and Path(argv[0]).name in programs else set()
        units = (self.unit(name) for name in sorted(names))
        return tuple(one for one in units if one is not None)

    def _unit_from_file(self, name: str) -> Unit | None:
        for folder in UNIT_FOLDERS:
            argv = _exec_start(Path(self.root, folder, name))
            if argv is not None:
                return Unit(name=name, active=False, argv=argv)
        return None

    def start_of(self, name: str) -> str:
        """Which start of a service runs now, "" if it is none; ``name`` as for ``restart``."""
        if name in TOOLS:
            return ""
        found = self.unit(name[len(RELOAD) :] if name.startswith(RELOAD) else name)
        return found.start if found is not None else ""

    @property
    def boot_command(self) -> tuple[str, ...] | None:
        """What starts this very agent at boot to recover; None if systemd would not, or where
        it runs from its source or in another system's tree.
        """
        home = Path(__file__).parents[2]
        stays = home.is_file() or (home / "__main__.py").is_file()  # the archive, or it unpacked
        if Path(self.root) != Path("/") or not self.systemd or not stays or not sys.executable:
            return None
        return (sys.executable, "-I", str(home), "recover", "--boot")

    def restart_later(self, name: str) -> None:
        """Have a service restarted without waiting for it: at boot it may wait for us."""
        self.run(["systemctl", "--no-block", "restart", name])

    def start(self, name: str, timeout: float = 60) -> None:
        """Start a service that does not run, and wait until it does or gave up; says neither."""
        if self.real:
            words = ["rc-service", name, "start"] if self.openrc else ["systemctl", "start", name]
            with contextlib.suppress(AgentError):
                self.run(words, timeout=timeout)

    def restart(self, name: str, timeout: float = 60) -> None:
        """Restart a service and wait until it says it is up, else ``AgentError``.

        ``reload NAME`` has it read its files again; the tool of a trust store is run.
        """
        if not self.real:
            return
        if name in TOOLS:
            self._checked([*TOOLS[name]], f"{name} fails", timeout)
            # Debian's leaves the links to a file that is gone, measured, unless it makes all anew.
            links = Path("/etc/ssl/certs").glob("moorage-*.pem")
            if name == "update-ca-certificates" and any(not link.exists() for link in links):
                self._checked([*TOOLS[name], "--fresh"], f"{name} fails", timeout)
            return
        if self.openrc:
            word, service = ("reload", name[len(RELOAD) :]) if name.startswith(RELOAD) else (
                "restart", name)  # fmt: skip
            self._checked(["rc-service", service, word], f"{service} does not {word}", timeout)
            return
        if name.startswith(RELOAD):
            service = name[len(RELOAD) :]
            self._checked(["systemctl", "reload", service], f"{service} does not reload", timeout)
            return
        shown = self.run(["systemctl", "show", name, "-p", ",".join(READ)])
        if not is_read(properties(shown.out), name):
            self.run(["systemctl", "daemon-reload"], timeout=timeout)
        self.restart_current(name, timeout)

    def restart_current(self, name: str, timeout: float = 60) -> None:
        """Restart a service whose files systemd has read as they are. Raises as :meth:`restart`.

        The start counter is reset first: systemd lets a service down that was started more than
        five times in ten seconds, and a colleague may have just restarted it as well
        (StartLimitBurst= in systemd.unit(5)). Once it has refused, its ``StartLimitAction=`` and
        ``OnFailure=`` are done, and a socket that starts the service listens no more.
        """
        self.run(["systemctl", "reset-failed", name])
        done = self._restarted(name, timeout)
        if not done.ok:
            raise AgentError(
                "restart-failed",
                f"{name} does not start: {done.complaint}",
                cause="its new configuration, or something else here, keeps it from starting",
                cure=f"read why: journalctl -u {name} -n 50",
            )

    def _restarted(self, name: str, timeout: float) -> Done:
        """One that does not stop when it is told to is killed, once; its containers live on.

        ``KillMode=process`` in runtimes' units spares them, and only the main process is meant.
        """
        asked = ["systemctl", "restart", name]
        try:
            return self.run(asked, timeout=timeout)
        except AgentError as problem:
            if problem.code != "command-timeout":
                raise
        self.run(["systemctl", "kill", "--kill-who=main", "--signal=KILL", name])
        return self.run(asked, timeout=timeout)

    def _checked(self, argv: list[str], problem: str, timeout: float) -> None:
        done = self.run(argv, timeout=timeout)
        if not done.ok:
            raise AgentError(
                "restart-failed",
                f"{problem}: {done.complaint}",
                cause="what it reads, or something else here, keeps it from working",
                cure=f"run it by hand on the node to see why: {' '.join(argv)}",
            )


def properties(shown: str) -> dict[str, str]:
    """The properties of a unit that systemd has shown."""
    return dict(line.partition("=")[::2] for line in shown.splitlines())


def is_read(unit: Mapping[str, str], name: str) -> bool:
    """Whether systemd, by what it tells in ``READ`` of a unit, has read its files as they are.

    Before 257 it does not see the first drop-in of a unit, whose folder is new to it:
    https://github.com/systemd/systemd/issues/31752.
    """
    there = {str(path) for path in Path(DROP_INS, f"{name}.d").glob("*.conf")}
    known = unit.get("DropInPaths", "").split()
    return unit.get("NeedDaemonReload") == "no" and there.issubset(known)


class Onlooker(Host):
    """A node that is looked at in a moment: nothing is run on it, and no long file is read.

    What takes either raises NotAtOnceError. Answers that ``memory`` has need no run.
    """

    # Configurations have a tenth of it. An hour's worth of TOML, or of a hosts file, would be read
    # into the memory of whoever looks.
    longest = 64 << 10

    def run(self, argv: list[str], timeout: float = 20, *, brief: bool = False) -> Done:
        raise NotAtOnceError(argv[0])


def _exec_start(file: Path) -> tuple[str, ...] | None:
    """What a unit's file starts; None for no such file. The last line counts, and goes on where it
    ends with a backslash (systemd.service(5), systemd.syntax(7)).
    """
    try:
        text = file.read_text("utf-8", "replace").replace("\\\n", " ")
    except OSError:
        return None
    lines = re.findall(r"^[ \t]*ExecStart[ \t]*=[ \t]*[@:+!|-]*(.*)$", text, re.MULTILINE)
    try:
        return tuple(shlex.split(lines[-1])) if lines else ()
    except ValueError:  # a quote that is never closed
        return tuple(lines[-1].split())


def _openrc_services(programs: tuple[str, ...]) -> tuple[Unit, ...]:
    """The services of OpenRC whose script names a program as its command (openrc-run(8))."""
    found = []
    folder = Path("/etc/init.d")
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        with contextlib.suppress(OSError):
            command = re.search(
                r"^command=[\"']?([^\"'\s]+)", file.read_text("utf-8", "replace"), re.MULTILINE
            )
            if command is not None and Path(command[1]).name in programs:
                found.append(_openrc_unit(file.name))
    return tuple(one for one in found if one is not None)


def _openrc_unit(name: str) -> Unit | None:
    """A service of OpenRC, which calls them without a suffix. A start makes its link anew."""
    service = name[: -len(".service")] if name.endswith(".service") else name
    if not Path("/etc/init.d", service).is_file():
        return None
    try:
        start = str(Path("/run/openrc/started", service).lstat().st_mtime_ns)
    except OSError:
        start = ""
    return Unit(service, active=bool(start), argv=(), start=start)


def _said(process: subprocess.Popen[bytes], timeout: float) -> tuple[bytes, bytes]:
    """All that a command says until its end. Raises subprocess.TimeoutExpired.

    Where this agent itself was stopped in between, by a signal or with the whole machine, the time
    is up and the command may have ended long ago: it gets a moment more to tell.
    """
    try:
        return process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        return process.communicate(timeout=1)  # nothing of the output is lost: library/subprocess


def _same_namespace(process: Path) -> bool:
    """Whether a process sees the node's files, as its first process does.

    Not as this one does: the agent that stays is a service with mounts of its own.
    """
    try:
        return (process / "ns/mnt").readlink() == Path("/proc/1/ns/mnt").readlink()
    except OSError:
        return True
