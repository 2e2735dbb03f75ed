"""The upkeep's timer, read by systemd itself, by BusyBox's crontab, and by the shell of cron."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from moorage import commands
from moorage.errors import MoorageError, Refused
from moorage.settings import Settings, UpkeepSettings
from moorage.upkeep import installing, outcomes, schedule
from moorage.walk import doctor
from tests.debian import unpacked
from tests.unit.elsewhere import project

# Folders as people name them; the last one is every special character of systemd, cron and sh.
FOLDERS = (
    "moorage",
    "my registry",
    "50%",
    "$HOME",
    "it's",
    'a"b',
    "back\\slash",
    "x %h $$ 'y' \\n#",
)


def job(folder: Path, name: str = "moorage-registry", at: str = "03:17") -> schedule.Job:
    return schedule.Job(name, "root", folder, at)


def checkout(tmp_path: Path, name: str, code: int = 0) -> Path:
    """A folder with a ``run`` that notes where it was run and with which words."""
    folder = tmp_path / name
    (folder / ".moorage").mkdir(parents=True)
    (folder / "run").write_text(
        f'#!/bin/sh\necho said\n{{ pwd; echo "$*"; }} > "{tmp_path}/ran"\nexit {code}\n'
    )
    (folder / "run").chmod(0o755)
    return folder


# -- systemd ----------------------------------------------------------------------------------


def systemd(program: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A program of systemd's: this machine's, else of Debian's package."""
    found, environment = shutil.which(program), dict(os.environ)
    if found is None:
        root = unpacked("systemd", "systemd", "libsystemd-shared")
        found = f"{root}/usr/bin/{program}"
        found = found if Path(found).exists() else f"{root}/bin/{program}"
        folders = sorted({str(path.parent) for path in root.rglob("*.so*")})
        environment["LD_LIBRARY_PATH"] = ":".join(folders)
    return subprocess.run(
        [found, *words], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("name", FOLDERS)
def test_systemd_reads_the_units_and_finds_the_program(tmp_path: Path, name: str) -> None:
    folder = checkout(tmp_path, name)
    for suffix, text in ((".service", schedule.service), (".timer", schedule.timer)):
        (tmp_path / f"moorage-registry-upkeep{suffix}").write_text(text(job(folder)))
    words = ("verify", "--man=no", str(tmp_path / "moorage-registry-upkeep.timer"))
    done = systemd("systemd-analyze", *words)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    unit = (tmp_path / "moorage-registry-upkeep.service").read_text()
    assert f"\nWorkingDirectory={str(folder).replace('%', '%%')}\n" in unit


def test_systemd_starts_it_daily_at_that_time() -> None:
    line = next(one for one in schedule.timer(job(Path("/x"), at="23:05")).splitlines()
                if one.startswith("OnCalendar="))  # fmt: skip
    done = systemd("systemd-analyze", "calendar", "--iterations=2", line.partition("=")[2])
    assert done.returncode == 0, done.stderr
    assert "Normalized form: *-*-* 23:05:00" in done.stdout


def test_a_machine_that_was_off_makes_up_for_it() -> None:
    """systemd.timer(5): Persistent= counts for OnCalendar= alone; without it that day is lost."""
    assert "Persistent=true" in schedule.timer(job(Path("/x"))).splitlines()


@pytest.mark.parametrize("name", ["/a\nExecStartPre=/bin/rm", "/a\\", "/a "])
def test_a_folder_that_no_line_can_hold_is_refused(name: str) -> None:
    for text in (schedule.service, lambda one: schedule.crontab("", one)):
        with pytest.raises(Refused) as refused:
            text(job(Path(name)))
        assert refused.value.code == "folder-unscheduled"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "project").mkdir()
    return project(tmp_path / "project", upkeep=UpkeepSettings(at="04:30"))


def program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


@pytest.fixture
def booted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine's root with systemd's folder -> the log of what a systemd at work was told."""
    real = shutil.which("systemctl")
    if real is None:
        pytest.skip("there is no systemctl here")
    root, log = tmp_path / "root", tmp_path / "told"
    units = root / "etc/systemd/system"
    units.mkdir(parents=True)
    monkeypatch.setattr(installing, "UNITS", units)
    monkeypatch.setattr(installing, "_BOOTED", root)
    monkeypatch.setattr(commands, "as_root", list)
    # A stand-in for a systemd that runs: what only files answer, the real systemctl does.
    program(
        tmp_path / "bin",
        "systemctl",
        f'#!/bin/sh\necho "$*" >> {log}\n[ "$1" != daemon-reload ] || exit 0\n'
        f'verb=$1; shift; [ "$1" != --now ] || shift\nexec {real} --root={root} "$verb" "$@"\n',
    )
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return log


def test_the_timer_is_put_there_once_and_taken_away(settings: Settings, booted: Path) -> None:
    units = installing.UNITS
    assert len(installing.announced(settings)) == 3
    assert not list(units.iterdir())
    done = installing.install(settings)
    assert (done.by, done.changed) == ("systemd", True)
    names = {path.name for path in units.iterdir()}
    assert names == {
        "moorage-registry-upkeep.service", "moorage-registry-upkeep.timer", "timers.target.wants",
    }  # fmt: skip
    wanted = units / "timers.target.wants" / "moorage-registry-upkeep.timer"
    assert wanted.is_symlink()
    assert "OnCalendar=*-*-* 04:30:00" in (units / "moorage-registry-upkeep.timer").read_text()
    assert (units / "moorage-registry-upkeep.timer").stat().st_mode & 0o777 == 0o644
    assert booted.read_text().splitlines() == [
        "daemon-reload", "enable --now moorage-registry-upkeep.timer",
    ]  # fmt: skip
    assert installing.announced(settings) == []
    assert not installing.install(settings).changed
    later = dataclasses.replace(settings.upkeep, at="05:00")
    moved = project(settings.root, upkeep=later)
    assert [one.rpartition("/")[2] for one in installing.announced(moved)][:1] == [
        "moorage-registry-upkeep.timer"
    ]
    assert installing.install(moved).changed
    assert installing.remove(settings)
    assert not [path for path in units.rglob("*") if path.is_file() or path.is_symlink()]
    assert not installing.remove(settings)


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can run what is another's")
@pytest.mark.parametrize(("owner", "mode"), [(65534, 0o755), (0, 0o777), (0, 0o775)])
def test_root_runs_nothing_daily_that_others_may_change(
    settings: Settings, booted: Path, owner: int, mode: int
) -> None:
    os.chown(settings.root, owner, -1)
    settings.root.chmod(mode)
    with pytest.raises(Refused) as refused:
        installing.install(settings)
    assert (refused.value.code, refused.value.path) == ("folder-unscheduled", str(settings.root))
    assert not list(installing.UNITS.iterdir())
    assert not installing.remove(settings)


def test_a_machine_with_neither_is_told(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installing, "_BOOTED", tmp_path / "no")
    monkeypatch.setenv("PATH", str(tmp_path))
    for attempt in (installing.announced, installing.install):
        with pytest.raises(Refused) as refused:
            attempt(settings)
        assert refused.value.code == "no-timer"


# -- cron -------------------------------------------------------------------------------------


@pytest.fixture
def cron(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without systemd: BusyBox's crontab -> the folder that it keeps crontabs in."""
    busybox = shutil.which("busybox") or str(unpacked("busybox-static") / "bin" / "busybox")
    spool = tmp_path / "crontabs"
    spool.mkdir()
    text = f'#!/bin/sh\nexec {busybox} crontab -c {spool} "$@"\n'
    program(tmp_path / "bin", "crontab", text)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(installing, "_BOOTED", tmp_path / "no")
    return spool


def crontab(*words: str, given: str = "") -> str:
    done = subprocess.run(
        ["crontab", *words], input=given, capture_output=True, text=True, check=False
    )
    return done.stdout


def test_a_line_is_added_to_the_crontab_once_and_taken_away(settings: Settings, cron: Path) -> None:
    mine = "MAILTO=me@x\n# a comment\n*/5 * * * * backup --all 100\\%\n"
    crontab("-", given=mine)
    assert installing.announced(settings) == [
        "add a line to root's crontab: inv upkeep daily at 04:30"
    ]
    assert crontab("-l") == mine
    done = installing.install(settings)
    assert (done.by, done.changed) == ("cron", True)
    added = crontab("-l").removeprefix(mine)
    assert added.startswith("30 * * * * cd ")
    assert " = 04 ] || " in added
    assert (settings.state / "upkeep.out").stat().st_mode & 0o777 == 0o600
    assert added.count("\n") == 1
    assert not installing.install(settings).changed
    moved = project(settings.root, upkeep=UpkeepSettings(at="05:00"))
    assert installing.install(moved).changed
    assert crontab("-l").removeprefix(mine).startswith("0 * * * * cd ")
    assert " = 05 ] || " in crontab("-l")
    assert installing.remove(settings)
    assert crontab("-l") == mine
    assert not installing.remove(settings)


def test_doctor_tells_a_run_that_was_missed_and_not_made_up_for(
    settings: Settings, cron: Path
) -> None:
    day, now = 86400, time.time()

    def told(ran: float, installed: float, words: str = "pruned\n") -> str:
        (settings.state / "upkeep.out").write_text(words)
        os.utime(settings.state / "upkeep.out", (now - installed, now - installed))
        notes = outcomes.Notes(int(now - ran) if ran else 0)
        (settings.state / "upkeep.json").write_text(json.dumps(notes.to_json()))
        return "".join(f"{one.state}: {one.found}" for one in doctor._upkeep(settings))

    assert doctor._upkeep in doctor.CHECKS
    assert doctor._upkeep(settings) == []  # there is no timer
    installing.install(settings)
    assert doctor._upkeep(settings) == []
    assert told(1.1 * day, 1.1 * day) == ""
    assert told(0, 1.1 * day) == ""  # since a day ago, and not run yet
    then = datetime.datetime.fromtimestamp(now - 3 * day, datetime.UTC)
    # The second one begins daily, as its words say, and never comes to its end.
    for missed in (told(3 * day, 4 * day), told(3 * day, 0.1 * day), told(0, 3 * day)):
        assert missed.startswith(f"wrong: has not come to its end since {then:%Y-%m-%d}")
    assert told(90 * day, 0.1 * day, words="") == ""  # by hand then; the line is of today
    installing.remove(settings)
    assert told(3 * day, 3 * day) == ""


def test_doctor_misses_no_run_of_a_timer_that_has_just_been_put_there(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installing, "UNITS", tmp_path)
    ran = outcomes.Notes(int(time.time()) - 90 * 86400)  # by hand
    settings.state.mkdir(parents=True, exist_ok=True)
    (settings.state / "upkeep.json").write_text(json.dumps(ran.to_json()))
    for name in ("service", "timer"):
        (tmp_path / f"{settings.registry.container}-upkeep.{name}").touch()
    assert doctor._upkeep(settings) == []


def test_an_empty_crontab_is_none_afterwards(settings: Settings, cron: Path) -> None:
    assert installing.install(settings).changed
    assert (cron / "root").exists()
    assert installing.remove(settings)
    assert not (cron / "root").exists()


def test_a_crontab_that_cannot_be_read_is_left_alone(
    settings: Settings, cron: Path, tmp_path: Path
) -> None:
    program(tmp_path / "bin", "crontab", "#!/bin/sh\necho 'you are not allowed' >&2\nexit 1\n")
    with pytest.raises(MoorageError) as refused:
        installing.install(settings)
    assert refused.value.code == "crontab-refused"


def as_cron(command: str) -> subprocess.CompletedProcess[str]:
    unescaped = command.replace(r"\%", "\0")
    assert "%" not in unescaped  # crontab(5): the rest would be the command's stdin
    words = ["/bin/sh", "-c", unescaped.replace("\0", "%")]
    return subprocess.run(words, capture_output=True, text=True, check=False)


# The hour by the clock, the age of the last run in hours (None: there was none): is it run?
HOURS = [
    ("03", 24, True),
    ("03", 1, True),
    ("04", 1, False),
    ("02", 23, False),
    ("02", 24.9, False),
    ("09", 25.1, True),  # asleep at three this night
    ("09", 24 * 30, True),
    ("09", None, True),
]


@pytest.mark.parametrize(("hour", "age", "runs"), HOURS)
@pytest.mark.parametrize("busybox", [False, True])
def test_a_run_that_cron_missed_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    hour: str, age: float | None, runs: bool, busybox: bool,
) -> None:  # fmt: skip
    folder = checkout(tmp_path, "50% of $HOME")
    program(tmp_path / "bin", "date", f'#!/bin/sh\n[ "$*" = +%H ] && echo {hour}\n')
    if busybox:
        found = shutil.which("busybox") or str(unpacked("busybox-static") / "bin" / "busybox")
        program(tmp_path / "bin", "find", f'#!/bin/sh\nexec {found} find "$@"\n')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    if age is not None:
        kept, then = folder / ".moorage" / "upkeep.out", time.time() - age * 3600
        kept.touch()
        os.utime(kept, (then, then))
    done = as_cron(schedule.crontab("", job(folder)).rstrip("\n").split(" ", 5)[5])
    assert (done.stdout, done.stderr) == ("", "")
    assert (tmp_path / "ran").exists() == runs
    if runs:  # and not again an hour later
        (tmp_path / "ran").unlink()
        program(tmp_path / "bin", "date", "#!/bin/sh\necho 10\n")
        as_cron(schedule.crontab("", job(folder)).rstrip("\n").split(" ", 5)[5])
        assert not (tmp_path / "ran").exists()


def test_nothing_counts_as_missed_when_the_line_has_just_been_added(
    settings: Settings, cron: Path, tmp_path: Path
) -> None:
    installing.install(settings)
    program(settings.root, "run", f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    program(tmp_path / "bin", "date", "#!/bin/sh\necho 05\n")
    as_cron(crontab("-l").rstrip("\n").split(" ", 5)[5])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("code", [0, 1])
@pytest.mark.parametrize("name", FOLDERS)
def test_crons_shell_runs_it_in_its_folder(tmp_path: Path, name: str, code: int) -> None:
    folder = checkout(tmp_path, name, code)
    line = schedule.crontab("", job(folder, at="00:00")).rstrip("\n")
    minute, hour, *_, command = line.split(" ", 5)
    assert (minute, hour) == ("0", "*")
    done = as_cron(command)
    ran = (tmp_path / "ran").read_text().splitlines()
    assert ran == [str(folder), "inv upkeep"]
    assert (done.stdout, done.stderr) == ("said\n" if code else "", "")
    assert (folder / ".moorage" / "upkeep.out").read_text() == "said\n"


def test_two_checkouts_have_a_line_each(tmp_path: Path) -> None:
    one, two = job(tmp_path / "a", "first"), job(tmp_path / "b", "second")
    both = schedule.crontab(schedule.crontab("", one), two)
    assert len(both.splitlines()) == 2
    assert schedule.without_job(both, "first") == schedule.crontab("", two)
