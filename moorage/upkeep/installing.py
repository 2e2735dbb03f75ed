"""The upkeep's timer, put in place and taken away: systemd's, else a line of the user's crontab."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from moorage import commands
from moorage.errors import MoorageError, Refused
from moorage.files import private_folder, write_atomically
from moorage.upkeep import outcomes, schedule

if TYPE_CHECKING:
    from moorage.settings import Settings

SYSTEMD, CRON = "systemd", "cron"
UNITS = Path("/etc/systemd/system")
# A day that was missed and the run that makes up for it, as the alert has it (monitoring/rules.py).
_MISSED_SECONDS = 2 * 86400
# sd_booted(3)
_BOOTED = Path("/run/systemd/system")


@dataclass(frozen=True)
class Scheduled:
    """What runs the upkeep: ``by`` systemd or cron; ``where``: the unit, or whose crontab."""

    by: str
    where: str
    changed: bool


def chosen() -> str:
    """What this machine can run it by. Raises Refused (``no-timer``)."""
    if _BOOTED.is_dir():
        return SYSTEMD
    if shutil.which("crontab"):
        return CRON
    raise Refused(
        "no-timer",
        "nothing on this machine can run the upkeep daily",
        cause="it was not booted by systemd, and there is no crontab",
        cure="sudo apt-get install cron; or have a scheduler of yours run inv upkeep",
    )


def job_of(settings: Settings) -> schedule.Job:
    """The job of this checkout: each has a registry's container of another name."""
    user = pwd.getpwuid(os.geteuid()).pw_name
    return schedule.Job(
        settings.registry.container, user, settings.root, settings.upkeep.at, settings.profile
    )


def announced(settings: Settings) -> list[str]:
    """What :func:`install` would change outside of the project's folder. Raises Refused."""
    _refuse_anybodys(settings.root)
    job = job_of(settings)
    if chosen() == SYSTEMD:
        changed = [path for path, text in _units(job).items() if _read(path) != text]
        return [f"write {path}" for path in changed] + (
            [f"enable {_timer(job.name).name}: inv upkeep daily at {job.at}"]
            if changed or not _enabled(job.name)
            else []
        )
    before = _crontab()
    wanted = schedule.crontab(before, job)
    return [f"add a line to {job.user}'s crontab: inv upkeep daily at {job.at}"] * (
        wanted != before
    )


def _refuse_anybodys(root: Path) -> None:
    """Raises Refused if root would run, daily, a program that others may change."""
    status = root.stat()
    if os.geteuid() != 0 or (status.st_uid == 0 and not status.st_mode & 0o022):
        return
    raise Refused(
        "folder-unscheduled",
        f"root does not run the upkeep from {root}",
        cause="others than root may change the program there",
        cure="as the folder's owner, without sudo: inv upkeep.install",
        path=str(root),
    )


def install(settings: Settings) -> Scheduled:
    """Has the upkeep run daily. What another kind of timer did before is taken away.

    Raises Refused (``no-timer``, ``no-root``) or MoorageError.
    """
    job, by = job_of(settings), chosen()
    changed = bool(announced(settings))
    if by == SYSTEMD:
        for path, text in _units(job).items():
            if _read(path) != text:
                _put(path, text)
        if changed:
            _systemctl("daemon-reload")
            _systemctl("enable", "--now", _timer(job.name).name)
        if _has_line(job):
            _replace_crontab(schedule.without_job(_crontab(), job.name))
        return Scheduled(by, str(_timer(job.name)), changed)
    if changed:
        private_folder(settings.state)
        write_atomically(job.folder / job.kept, b"")  # else a run would count as missed at once
        _replace_crontab(schedule.crontab(_crontab(), job))
    return Scheduled(by, f"{job.user}'s crontab", changed)


def present(settings: Settings) -> bool:
    """Whether a timer of this checkout is there, whichever it is. Raises MoorageError."""
    job = job_of(settings)
    return any(path.exists() for path in _units(job)) or _has_line(job)


def missed_since(settings: Settings) -> float:
    """When the upkeep last came to its end, or its timer was put there since, in seconds since
    1970; 0 if that is less than two days ago, or no timer of this checkout is there. Raises
    MoorageError."""
    if not present(settings):
        return 0
    job, since = job_of(settings), float(outcomes.read(settings).ran)
    kept = job.folder / job.kept
    for path in (*_units(job), kept):
        with contextlib.suppress(OSError):
            # Words are those of a run that began; without any, the line has been put there since.
            if path != kept or not since or not kept.stat().st_size:
                since = max(since, path.stat().st_mtime)
    return since if time.time() - since > _MISSED_SECONDS else 0


def remove(settings: Settings) -> bool:
    """Takes the timer away, whichever it is -> whether there was one. Raises as :func:`install`."""
    job = job_of(settings)
    found = present(settings)
    units = [path for path in _units(job) if path.exists()]
    if units:
        booted = _BOOTED.is_dir()
        if booted:
            _systemctl("disable", "--now", _timer(job.name).name)
        commands.run(["rm", "-f", *map(str, units)], root=True)
        if booted:
            _systemctl("daemon-reload")
    if _has_line(job):
        _replace_crontab(schedule.without_job(_crontab(), job.name))
    return found


def _has_line(job: schedule.Job) -> bool:
    return bool(shutil.which("crontab")) and schedule.has_job(_crontab(), job.name)


def _units(job: schedule.Job) -> Mapping[Path, str]:
    """The service first: the timer must not be there without it."""
    timer = _timer(job.name)
    return {timer.with_suffix(".service"): schedule.service(job), timer: schedule.timer(job)}


def _timer(name: str) -> Path:
    return UNITS / f"{name}-upkeep.timer"


def _put(path: Path, text: str) -> None:
    """As root, and as a whole: systemd reads no name that begins with a dot."""
    draft = path.with_name(f".{path.name}.new")
    words = ["install", "-m", "0644", "-T", "/dev/stdin", str(draft)]
    commands.run(words, root=True, stdin=text.encode())
    commands.run(["mv", "-fT", str(draft), str(path)], root=True)


def _enabled(name: str) -> bool:
    words = ["systemctl", "is-enabled", "--quiet", _timer(name).name]
    return commands.run(words, check=False).returncode == 0


def _systemctl(*words: str) -> None:
    commands.run(["systemctl", *words], root=True)


def _crontab() -> str:
    """The user's crontab; an empty one if there is none. Raises MoorageError."""
    done = commands.run(["crontab", "-l"], check=False)
    said = done.stderr.decode(errors="replace")
    # Vixie's cron, cronie and BusyBox: "no crontab for USER", "can't open 'USER'".
    if done.returncode == 0:
        return done.stdout.decode(errors="surrogateescape")
    if "no crontab for" in said or "can't open" in said:
        return ""
    raise MoorageError(
        "crontab-refused",
        "the crontab of this user cannot be read; it is left as it is",
        cause=commands.last_words(done.stderr),
        cure="crontab -l by hand says the same; /etc/cron.allow says who may have one",
    )


def _replace_crontab(text: str) -> None:
    content = text.encode(errors="surrogateescape")
    words = ["crontab", "-"] if content else ["crontab", "-r"]
    commands.run(words, stdin=content)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
