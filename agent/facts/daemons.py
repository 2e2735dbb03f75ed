"""Programs at work on the node: how each was called, by whom, in which environment.

Those inside containers are left out: they are nested in a process namespace of their own
(``NSpid`` in proc_pid_status(5) has a number for each level). A rootless engine is not: it has its
own mounts only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from agent.node.host import Host


@dataclass(frozen=True)
class Daemon:
    """A running program; ``unit`` is the service it belongs to, if any."""

    argv: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict, repr=False)
    uid: int = 0
    unit: str = ""
    pid: int = 0

    @property
    def program(self) -> str:
        return self.argv[0].rpartition("/")[2]


def running(host: Host, programs: Collection[str]) -> tuple[Daemon, ...]:
    """The processes whose program has one of those names, oldest number first."""
    folder = host.outside("/proc")
    try:
        numbers = sorted(int(name) for name in os.listdir(folder) if name.isdigit())  # noqa: PTH208
    except OSError:
        return ()
    found = (_daemon(f"{folder}/{number}", programs) for number in numbers)
    return tuple(one for one in found if one is not None)


def option(argv: tuple[str, ...], *names: str) -> str | None:
    """What an option on a command line was given, as ``--name value`` or ``--name=value``."""
    for place, word in enumerate(argv):
        key, equals, value = word.partition("=")
        if key in names:
            if equals:
                return value
            return argv[place + 1] if place + 1 < len(argv) else None
    return None


def options(argv: tuple[str, ...], *names: str) -> tuple[str, ...]:
    """All that an option was given which may be repeated; also ``-Hvalue``, as pflag reads it."""
    found: list[str] = []
    words = iter(argv)
    for word in words:
        key, equals, value = word.partition("=")
        if key in names:
            found.append(value if equals else next(words, ""))
            continue
        short = next((one for one in names if len(one) == 2 and word.startswith(one)), "")
        found += [word[2:]] if short else []
    return tuple(found)


def _daemon(folder: str, programs: Collection[str]) -> Daemon | None:
    try:
        with open(f"{folder}/cmdline", "rb") as file:  # noqa: PTH123 (of each process: it counts)
            argv = _told(_words(file.read()))
        if not argv or argv[0].rpartition("/")[2] not in programs:
            return None
        process = Path(folder)
        status = (process / "status").read_text("ascii", "replace")
        nested = re.search(r"^NSpid:((?:\s+\d+)+)$", status, re.MULTILINE)
        if nested is not None and len(nested[1].split()) > 1:
            return None
        user = re.search(r"^Uid:\s+\d+\s+(\d+)", status, re.MULTILINE)
        environment = _environment(process)
        group = (process / "cgroup").read_text("utf-8", "replace")
    except OSError:  # it has ended meanwhile
        return None
    units = re.findall(r"/([^/\n]+\.service)", group)
    uid, number = int(user[1]) if user else 0, int(process.name)
    return Daemon(argv, environment, uid, units[-1] if units else "", number)


def _environment(process: Path) -> dict[str, str]:
    """Its variables; none for whoever may not see them (proc_pid_environ(5))."""
    try:
        words = _words((process / "environ").read_bytes())
    except PermissionError:
        return {}
    return dict(word.split("=", 1) for word in words if "=" in word)


def _told(words: list[str]) -> tuple[str, ...]:
    """The words of a command line, also of one that is a title.

    k3s and RKE2 put ``/usr/local/bin/k3s server`` in the place of theirs, as one word: the rest
    might hold a login (``SetProcTitle`` in k3s's pkg/cli/server/server.go).
    """
    return tuple(words[0].split(" ")) if len(words) == 1 else tuple(words)


def _words(content: bytes) -> list[str]:
    return [word.decode("utf-8", "replace") for word in content.split(b"\0") if word]
