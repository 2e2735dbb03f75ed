"""This machine's dockerd: started by systemd or by hand, and only what we started is stopped.

What was started is remembered in ``.moorage/engine/started.json``; a dockerd started by hand keeps
its pid and its log beside it, and is known by that pid file in its own command line, since a
process id alone may be somebody else's by now.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from moorage import commands
from moorage.errors import MoorageError, Refused
from moorage.files import private_folder, write_atomically

_UNITS = ("docker.socket", "docker.service")
# Containers get ten seconds to end, and dockerd waits for them.
_STOP_SECONDS = 60.0
_START_SECONDS = 60.0


def systemd_is_running() -> bool:
    """Whether PID 1 is systemd: sd_booted(3)."""
    return Path("/run/systemd/system").is_dir()


def started_by_us(state: Path) -> str:
    """How we started the engine (``systemd``, ``service``, ``dockerd``); empty if we did not."""
    try:
        return str(json.loads(_record(state).read_text())["how"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def remember(state: Path, how: str) -> None:
    """Notes that the engine is ours to stop. Before it is started: a crash must not lose it."""
    private_folder(_record(state).parent)
    write_atomically(_record(state), json.dumps({"how": how}).encode())


def start_unit(state: Path) -> None:
    """Starts docker.service. Raises MoorageError with the journal's last words."""
    remember(state, "systemd")
    done = commands.run(["systemctl", "start", "docker.service"], root=True, check=False)
    if done.returncode == 0:
        return
    journal = commands.run(
        ["journalctl", "-u", "docker.service", "-n", "20", "--no-pager", "-o", "cat"],
        root=True,
        check=False,
    )
    forget(state)
    raise _died(commands.last_words(journal.stdout or done.stderr), "journalctl -u docker.service")


def start(
    state: Path,
    *,
    ready: Callable[[], bool],
    options: Sequence[str] = (),
    seconds: float = _START_SECONDS,
) -> int:
    """Starts dockerd by hand, in a session of its own, and waits until ``ready``.

    ``options`` are added to its command line. Returns its process id. Raises Refused with the last
    words of its log where it ends instead, MoorageError where it does not get ready in time.
    """
    folder = private_folder(_record(state).parent)
    pid_file, log = folder / "dockerd.pid", folder / "dockerd.log"
    pid = running_pid(state)
    if pid == 0:
        # dockerd refuses to start over a pid file whose pid lives again as something else.
        pid_file.unlink(missing_ok=True)
        log.unlink(missing_ok=True)
        remember(state, "dockerd")
        # A session of its own: Ctrl-C at our terminal must not reach it. Its output goes to the
        # log and nowhere else, or whoever reads our own output would wait for it.
        daemon = ["dockerd", "--pidfile", str(pid_file), *options]
        shell = 'log=$1; shift; exec "$@" </dev/null >"$log" 2>&1'
        commands.run(["setsid", "--fork", "sh", "-c", shell, "sh", str(log), *daemon], root=True)
    until = time.monotonic() + seconds
    unseen = 0
    while time.monotonic() < until:
        pid = running_pid(state)
        if pid and ready():
            return pid
        # Neither it nor what is about to become it (sh, sudo); a process has no command line
        # for a moment while it becomes another, so one look is not enough.
        unseen = 0 if pid or _running(pid_file) else unseen + 1
        if unseen > 2:
            forget(state)
            raise _died(log_words(log), str(log))
        time.sleep(0.1)
    raise MoorageError(
        "engine-slow",
        f"dockerd (process {pid}) does not answer after {seconds:.0f} s",
        cause=log_words(log),
        cure=f"read {log}; inv down stops it",
        path=str(log),
    )


def running_pid(state: Path) -> int:
    """The process id of the dockerd we started by hand; 0 where it does not run."""
    return _running(_record(state).parent / "dockerd.pid", "dockerd")


def stop(state: Path, *, seconds: float = _STOP_SECONDS) -> None:
    """Stops what :func:`started_by_us` names and waits for it to end.

    Raises MoorageError if it does not end within ``seconds``.
    """
    how = started_by_us(state)
    if how == "systemd":
        commands.run(["systemctl", "stop", *_UNITS], root=True)
    elif how == "service":
        commands.run(["service", "docker", "stop"], root=True)
    elif how == "dockerd":
        _stop_process(state, seconds)
    forget(state)


def forget(state: Path) -> None:
    """The engine is no longer ours to stop."""
    folder = _record(state).parent
    for name in ("started.json", "dockerd.pid"):
        (folder / name).unlink(missing_ok=True)


def log_words(log: Path) -> str:
    """The last words of a dockerd's log that tell why it ended."""
    try:
        lines = log.read_bytes().splitlines()
    except OSError:
        return "it left no log"
    # The reason it ends for is printed bare, in every version; the rest is its log.
    telling = [line for line in lines if b" level=" not in line]
    return commands.last_words(b"\n".join(telling or lines), lines=2)


def _stop_process(state: Path, seconds: float) -> None:
    pid = running_pid(state)
    if not pid:
        return
    # The shell's own kill: the program is in procps, which a lean system lacks.
    commands.run(["sh", "-c", 'kill -TERM "$1"', "sh", str(pid)], root=True, check=False)
    until = time.monotonic() + seconds
    while running_pid(state) == pid:
        if time.monotonic() > until:
            raise MoorageError(
                "engine-busy",
                f"dockerd (process {pid}) has not ended after {seconds:.0f} s",
                cause="it waits for its containers",
                cure="run inv down again",
            )
        time.sleep(0.05)


def _running(pid_file: Path, program: str = "") -> int:
    """The process id of ``program`` (any) with ``pid_file`` in its command line; 0 for none.

    The file itself is not read: it may be missing still, and the id in it may be another's by now.
    A process that has ended and waits for its parent has no command line any more.
    """
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if str(pid_file).encode() in words and Path(words[0].decode()).name.startswith(program):
                return int(entry.name)
    return 0


def _record(state: Path) -> Path:
    return state / "engine" / "started.json"


def _died(words: str, log: str) -> Refused:
    cures = {
        "iptables": "apt-get install iptables; on a kernel without nf_tables: iptables-legacy",
        "devices cgroup": "mount the control groups: apt-get install cgroupfs-mount",
        "no space left": "free some space in /var/lib/docker, or set engine.data to another folder",
        "permission denied": "dockerd needs root; in a container it needs --privileged",
        "operation not permitted": "dockerd needs root; in a container it needs --privileged",
        "pid file found": "another dockerd runs already: stop it, or use it by DOCKER_HOST",
        "unable to configure the docker daemon": "correct /etc/docker/daemon.json",
    }
    with contextlib.suppress(StopIteration):
        cure = next(cure for sign, cure in cures.items() if sign in words.lower())
        return Refused("engine-died", "the Docker engine ended at start", cause=words, cure=cure)
    return Refused(
        "engine-died",
        "the Docker engine ended at start",
        cause=words,
        cure=f"read {log}, mend what it names, and run this again",
    )
