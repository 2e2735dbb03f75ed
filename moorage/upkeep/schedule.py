"""What has the upkeep run daily, as systemd and cron read it. Pure text."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from moorage.errors import Refused
from moorage.output.typed import OPTION
from moorage.settings import home_of

# crontab(5): the rest of a line is the shell's, and the shell takes this for a comment.
_MARK = "# moorage: upkeep of {name}"

# A day, and the hour that a run may take or a clock be put forward.
_MISSED_MINUTES = 25 * 60

# systemd takes no quote, backslash or dollar in the name of a program, escaped or not, and any in
# that of a folder.
_SERVICE = """\
# Written by Moorage (inv upkeep.install), taken away by inv upkeep.remove.
[Unit]
Description=Moorage: upkeep of the registry {name}
Wants=network-online.target
After=network-online.target docker.service

[Service]
Type=oneshot
User={user}
WorkingDirectory={folder}
ExecStart=/bin/sh -c "exec ./run {command}"
Nice=10
IOSchedulingClass=idle
"""

# Persistent=: a machine that was off at that time makes up for it.
_TIMER = """\
# Written by Moorage (inv upkeep.install), taken away by inv upkeep.remove.
[Unit]
Description=Moorage: upkeep of the registry {name}, daily

[Timer]
OnCalendar=*-*-* {at}:00
RandomizedDelaySec=5min
Persistent=true

[Install]
WantedBy=timers.target
"""


@dataclass(frozen=True)
class Job:
    """Whose upkeep runs when. ``name`` tells two registries of one machine apart; ``at``: HH:MM by
    the machine's clock; ``folder`` has the checkout; ``profile``: a checked name, or empty."""

    name: str
    user: str
    folder: Path
    at: str
    profile: str = ""

    @property
    def command(self) -> str:
        """What is run in the folder, behind ``./run``."""
        return " ".join(("inv", *([f"{OPTION}={self.profile}"] if self.profile else []), "upkeep"))

    @property
    def kept(self) -> str:
        """Where the words of the last run by cron are kept, in the folder."""
        return str(home_of(Path(), self.profile) / ".moorage/upkeep.out")


def service(job: Job) -> str:
    """The unit that runs it once (systemd.service(5)). Raises Refused for an impossible folder."""
    folder = _one_line(str(job.folder)).replace("%", "%%")
    return _SERVICE.format(name=job.name, user=job.user, folder=folder, command=job.command)


def timer(job: Job) -> str:
    """The unit that starts the other one daily (systemd.timer(5))."""
    return _TIMER.format(name=job.name, at=job.at)


def crontab(before: str, job: Job) -> str:
    """A user's crontab with the job's line, and every other line as it was.

    What a run says is kept in the state folder, and comes by mail only if the run failed. cron
    forgets what was due while a machine was off or asleep, so the line looks every hour whether it
    is that hour, or the last run is too long ago: then the words of it are as old. Raises Refused
    for an impossible folder.
    """
    hour, minute = job.at.split(":")
    command = (
        f"cd {shlex.quote(_one_line(str(job.folder)))} && "
        f'{{ [ "$(date +%H)" = {hour} ] || '
        f'[ -z "$(find {job.kept} -mmin -{_MISSED_MINUTES} 2>/dev/null)" ]; }} && '
        f"{{ ./run {job.command} >{job.kept} 2>&1 || cat {job.kept}; }} {_mark(job.name)}"
    )
    # crontab(5): % begins the command's standard input unless it is escaped.
    line = f"{int(minute)} * * * * " + command.replace("%", r"\%")
    return "\n".join([*_without(before, job.name), line, ""])


def without_job(before: str, name: str) -> str:
    """A user's crontab without the line of that job."""
    lines = _without(before, name)
    return "\n".join([*lines, ""]) if lines else ""


def has_job(before: str, name: str) -> bool:
    """Whether the crontab has a line of that job."""
    return len(_without(before, name)) != len(before.splitlines())


def _without(before: str, name: str) -> list[str]:
    return [line for line in before.splitlines() if not line.endswith(_mark(name))]


def _mark(name: str) -> str:
    return _MARK.format(name=name)


def _one_line(path: str) -> str:
    if re.search(r"[\x00-\x1f\x7f]|[\\ ]$", path):
        raise Refused(
            "folder-unscheduled",
            f"no timer can be set up for {path!r}",
            cause="its name holds a control character, or ends with a blank or a backslash",
            cure="move the checkout to a folder with another name, then inv upkeep.install",
        )
    return path
