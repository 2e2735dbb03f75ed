"""Debian packages on this machine: installed when agreed to, remembered, and taken away again.

``.moorage/installed.json`` lists what we brought, dependencies included. It is written before the
installation begins, so that a stopped run is not forgotten.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from moorage import commands
from moorage.actions import Action
from moorage.errors import MoorageError, Refused
from moorage.files import private_folder, write_atomically
from moorage.supply import loaded

if TYPE_CHECKING:
    from moorage.output import Progress
    from moorage.settings import Settings
    from moorage.ui import UI

_LISTS = Path("/var/lib/apt/lists")
# How long (seconds) another apt may take to end before we give up.
_LOCK_WAIT = 60
_ENVIRONMENT = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
_ENV = ("env", *(f"{key}={value}" for key, value in _ENVIRONMENT.items()))

# Nothing was installed because it was recommended, so nothing is kept for that reason.
_UNASKED = (
    "-o",
    "APT::AutoRemove::RecommendsImportant=false",
    "-o",
    "APT::AutoRemove::SuggestsImportant=false",
)
# docker.io's purge deletes this, which an engine of another origin may have left full.
_DOCKER_DATA = Path("/var/lib/docker")

# What apt says -> code, cause and cure. The words are those of LC_ALL=C.UTF-8.
_FAILURES = (
    (
        "Could not get lock|Unable to acquire the dpkg frontend lock",
        "apt-busy",
        "another apt or dpkg is at work",
        "wait until it has ended (ps -C apt-get,apt,dpkg,unattended-upgr), then run this again",
    ),
    (
        "No space left on device|You don't have enough free space",
        "disk-full",
        "the disk is full",
        "free some space: df -h / /var; apt-get clean",
    ),
    (
        "Temporary failure resolving|Could not connect|Failed to fetch|Network is unreachable",
        "no-network",
        "apt cannot reach its package sources",
        "check the network and /etc/apt/sources.list, then: apt-get update",
    ),
    (
        "Unable to locate package|has no installation candidate",
        "no-package",
        "this system's package sources do not have it",
        "add the distribution's main section (on Ubuntu: universe) to apt's sources",
    ),
    (
        "dpkg was interrupted|dependency problems|needs to be reinstalled|--fix-broken",
        "dpkg-interrupted",
        "an earlier installation was cut off",
        "sudo dpkg --configure -a, then run this again",
    ),
)


def missing(packages: Sequence[str]) -> tuple[str, ...]:
    """Those of ``packages`` that are not installed on this machine."""
    if not packages:
        return ()
    if shutil.which("dpkg-query") is None:
        return tuple(packages)
    done = commands.run(
        ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\\n", *packages], check=False
    )
    words = (line.split() for line in done.stdout.decode().splitlines())
    there = {name for name, status in words if status == "installed"}
    return tuple(package for package in packages if package not in there)


def pending(packages: Sequence[str]) -> list[Action]:
    """What :func:`install` would do.

    Raises Refused if the system has no apt, or we are not root and there is no sudo.
    """
    absent = missing(packages)
    if not absent:
        return []
    _need_apt(absent)
    through = ", through sudo" if commands.as_root() else ""
    return [Action(f"install {', '.join(absent)} with apt-get{through}", asks=True)]


def install(packages: Sequence[str], progress: Progress, settings: Settings) -> None:
    """Installs what is missing of ``packages``, without recommended packages or questions.

    From the loaded bundle if it has them, else from this system's sources. Raises MoorageError with
    apt's own words, cause and cure; Refused where apt or root is missing.
    """
    absent = missing(packages)
    if not absent:
        return
    _need_apt(absent)
    source = tuple(loaded.apt_words(settings.root, absent))
    with progress(f"installing {', '.join(absent)}{' from the bundle' if source else ''}"):
        if source or not any(_LISTS.glob("*_Packages*")):
            _apt(["update"], source)
        plan = _simulate(["install", *absent], retry=not source, source=source)
        before, purge = installed_by_us(settings), _may_purge(settings)
        _write(settings, {*before, *plan}, purge=purge)
        try:
            _apt(["install", "--yes", *absent], source)
            _mend_if_missing(sorted({*absent, *plan}), source)
        except MoorageError:
            # What did not get here is not ours to remove, should the user install it later.
            _write(settings, {*before, *plan.difference(missing(sorted(plan)))}, purge=purge)
            raise


def installed_by_us(settings: Settings) -> tuple[str, ...]:
    """Names of the packages that we brought onto this machine, sorted."""
    try:
        names = json.loads(_record(settings).read_text())["packages"]
        return tuple(sorted(str(name) for name in names))
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def remove(packages: Sequence[str], ui: UI, settings: Settings) -> tuple[str, ...]:
    """Takes away those of ``packages`` that we installed and nothing else needs by now.

    Returns the names of those that went.

    apt decides what is still needed: our packages are marked as automatically installed, and those
    go that it would remove by itself. What stays is no longer counted as ours.
    """
    known = [name for name in installed_by_us(settings) if name in packages]
    absent = missing(known)
    ours = [name for name in known if name not in absent]
    gone: tuple[str, ...] = ()
    if ours:
        with ui.progress("removing the packages that were installed"):
            commands.run(["apt-mark", "auto", *ours], root=True, env=_ENVIRONMENT)
            idle = _simulate([*_UNASKED, "autoremove"], verb="Remv")
            gone = tuple(name for name in ours if name in idle)
            if gone:
                _apt(["purge" if _may_purge(settings) else "remove", "--yes", *gone])
            kept = [name for name in ours if name not in gone]
            if kept:
                commands.run(["apt-mark", "manual", *kept], root=True, env=_ENVIRONMENT)
                ui.note(f"kept, because something else needs them now: {', '.join(kept)}")
    left = [name for name in installed_by_us(settings) if name not in known]
    if left:
        _write(settings, left, purge=_may_purge(settings))
    else:
        _record(settings).unlink(missing_ok=True)
    return gone


def explain(argv: Sequence[str], output: str) -> MoorageError:
    """apt's output -> an error with a cause and a cure."""
    errors = [line for line in output.splitlines() if line.startswith(("E:", "W:", "dpkg:"))]
    words = commands.last_words("\n".join(errors or [output]).encode(), lines=2)
    for pattern, code, cause, cure in _FAILURES:
        if re.search(pattern, output):
            return MoorageError(code, f"apt-get {argv[0]} failed: {cause}", cause=words, cure=cure)
    return MoorageError(
        "apt-failed",
        f"apt-get {argv[0]} failed",
        cause=words,
        cure=f"try it by hand: apt-get {' '.join(argv)}",
    )


def _simulate(
    argv: Sequence[str], *, verb: str = "Inst", retry: bool = False, source: Sequence[str] = ()
) -> frozenset[str]:
    """Names of the packages apt would install (``Inst``, new ones only) or remove (``Remv``)."""
    done = commands.run(
        ["apt-get", *source, "-s", "--no-install-recommends", *argv],
        env=_ENVIRONMENT,
        check=False,
    )
    if done.returncode:
        if retry:  # lists that are there, but too old to know the package
            _apt(["update"])
            return _simulate(argv, verb=verb)
        raise explain(argv, done.stderr.decode(errors="replace"))
    # "Inst curl [7.88.1] (7.88.2 …)" is an upgrade: it was here before us.
    lines = re.findall(rf"^{verb} (\S+)( \[)?", done.stdout.decode(), re.MULTILINE)
    return frozenset(name for name, old in lines if verb == "Remv" or not old)


def _apt(argv: Sequence[str], source: Sequence[str] = ()) -> None:
    """Runs apt-get as root; waits for another apt, and mends what a stopped one has left.

    ``source``: options that name another place of packages than this system's own. The lists of
    that place are the user's: root would leave files in his folder that he cannot take away.
    """
    root = not (source and argv[0] == "update")
    until = time.monotonic() + _LOCK_WAIT
    mended = False
    while True:
        # `env`, because sudo does not hand our environment on.
        done = commands.run(
            [*_ENV, "apt-get", *source, "-q", "--no-install-recommends", *argv],
            root=root,
            timeout=1800,
            check=False,
            finish=True,
        )
        output = (done.stdout + b"\n" + done.stderr).decode(errors="replace")
        # `apt-get update` ends with 0 when it could reach nothing at all.
        unreached = argv[0] == "update" and "Some index files failed to download" in output
        if done.returncode == 0 and (not unreached or any(_LISTS.glob("*_Packages*"))):
            return
        problem = explain(argv, output)
        if problem.code == "dpkg-interrupted" and not mended:
            mended = True
            _mend(source)
        elif problem.code == "apt-busy" and time.monotonic() < until:
            time.sleep(1)
        else:
            raise problem


def _mend_if_missing(packages: Sequence[str], source: Sequence[str]) -> None:
    """apt-get takes a half-installed package of the newest version for done, and is content."""
    if missing(packages):
        _mend(source)
    left = missing(packages)
    if left:
        raise MoorageError(
            "apt-failed",
            f"{', '.join(left)} could not be installed whole",
            cause="an earlier installation was cut off, and could not be completed",
            cure="see what dpkg --audit says; sudo apt-get install --reinstall " + " ".join(left),
        )


def _mend(source: Sequence[str]) -> None:
    """Completes what a killed dpkg has left behind; a failure shows when apt-get is tried again."""
    commands.run([*_ENV, "dpkg", "--configure", "-a"], root=True, check=False, finish=True)
    form = "${db:Status-Eflag} ${Package}\\n"
    said = commands.run(["dpkg-query", "-W", "-f", form], check=False).stdout.decode()
    rows = (line.partition(" ") for line in said.splitlines())
    broken = [name for flag, _, name in rows if flag == "reinstreq"]
    if broken:
        # `apt-get -f install` would configure others before these, and fail for want of them.
        again = [*_ENV, "apt-get", *source, "-q", "--yes", "--reinstall", "install", *broken]
        commands.run(again, root=True, timeout=1800, check=False, finish=True)


def _need_apt(packages: Iterable[str]) -> None:
    if shutil.which("apt-get") is None:
        raise Refused(
            "no-apt",
            f"{', '.join(packages)} cannot be installed here: there is no apt-get",
            cause="Moorage installs packages on Debian and Ubuntu only",
            cure="install them (or Docker Engine) by your system's own means, then run this again",
        )
    commands.as_root()


def _record(settings: Settings) -> Path:
    return settings.state / "installed.json"


def _may_purge(settings: Settings) -> bool:
    """Whether all that the packages leave behind is theirs: so at first, and remembered since."""
    try:
        return bool(json.loads(_record(settings).read_text())["purge"])
    except (OSError, ValueError, KeyError, TypeError):
        return not _DOCKER_DATA.exists()


def _write(settings: Settings, packages: Iterable[str], *, purge: bool) -> None:
    private_folder(settings.state)
    text = json.dumps({"packages": sorted(packages), "purge": purge}, indent=2)
    write_atomically(_record(settings), text.encode())
