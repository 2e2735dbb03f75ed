"""Another archive in the place of the one that serves: tried, and given up if it does not answer.

It comes as every errand does, over SSH and as root: the archive that runs this is the new one, and
no key of the operator's but SSH's brings a program here. ``start.py`` counts the starts of a new
archive and goes back to the one before it, unless an operator has been answered meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from agent.node.disk import write_own
from agent.node.host import Host
from agent.resident import service
from agent.resident.home import AgentSettings, Home
from agent.wire.faults import AgentError, Fault
from agent.wire.report import CHANGED, UNCHANGED, Event, FileChange, HostResult, ResultEvent
from agent.wire.version import __version__, older

# A new archive that has answered no operator for so long gives itself up.
TRIAL_SECONDS = 90.0
# An operation under way is put back first: the service's own TimeoutStopSec, and a start.
RESTART_SECONDS = 110.0


def upgrade(host: Host, node: str, *, downgrade: bool = False) -> Iterator[Event]:
    """Puts this archive in the place of the one that serves here, and starts it.

    If it does not serve, the one before it serves on. ``downgrade``: also in the place of a newer
    one. Raises AgentError.
    """
    home = Home(host.root)
    settings = home.settings()
    if settings is None or not home.archive.exists():
        raise AgentError(
            "no-agent",
            "no agent stays on this node",
            cause="it was never adopted, or its agent was released",
            cure="inv nodes.adopt --hosts=NODE",
        )
    content, before = own_archive(), home.archive.read_bytes()
    if content == before:
        yield ResultEvent(HostResult(host=node, status=UNCHANGED))
        return
    if not downgrade:
        _refuse_downgrade(home)
    _exchange(host, home, settings, content, before)
    change = FileChange(str(home.archive), "edited")
    restarts = (service.NAME,)
    yield ResultEvent(HostResult(host=node, status=CHANGED, changes=(change,), restarts=restarts))


def _exchange(
    host: Host, home: Home, settings: AgentSettings, content: bytes, before: bytes
) -> None:
    """The trial begins before the archive is there: cut off anywhere, one that answers is left."""
    manager = service.manager_of(host)
    write_own(home.previous, before, 0o600)
    write_own(home.trial, b"0", 0o600)
    try:
        write_own(home.archive, content, 0o600)
        service.start(host, manager, RESTART_SECONDS)
        service.wait_until_serving(manager, settings)
    except BaseException as problem:
        write_own(home.archive, before, 0o600)
        confirm(home)
        back = True
        try:
            service.start(host, manager, RESTART_SECONDS)
        except AgentError:
            back = False
        if isinstance(problem, AgentError):
            raise _not_taken(problem, back=back) from None
        raise


def _not_taken(problem: AgentError, *, back: bool) -> AgentError:
    what = "the one before it is back" if back else "nor does the one before it, which is in place"
    return AgentError(
        "upgrade-not-taken",
        f"the new agent does not serve; {what}",
        cause=problem.fault.message,
        cure="journalctl -u moorage-agent says why; inv nodes.adopt installs the service again",
    )


def _refuse_downgrade(home: Home) -> None:
    there = __version__
    with contextlib.suppress(AgentError):  # one that does not run here is no loss
        there = version_of(home.archive)
    if older(__version__, there):
        fault = newer(there, __version__)
        raise AgentError.of(fault)


def own_archive() -> bytes:
    """The archive this very program was started from. Raises AgentError ``no-archive``."""
    import zipfile

    path = Path(sys.argv[0]).resolve()
    if not zipfile.is_zipfile(path):
        raise AgentError(
            "no-archive",
            "an agent can only stay from its archive",
            cause=f"this one was started from {path}",
            cure="inv nodes.adopt --hosts=NODE",
        )
    return path.read_bytes()


def confirm(home: Home) -> None:
    """An operator has been answered: the archive stays."""
    with contextlib.suppress(FileNotFoundError):
        home.trial.unlink()


def on_trial(home: Home) -> bool:
    return home.trial.exists()


def newer(own: str, theirs: str) -> Fault:
    """Why an operator of version ``theirs`` changes nothing by an agent of version ``own``."""
    return Fault(
        "agent-newer",
        f"the agent on this node is {own}, newer than the operator's {theirs}; nothing was changed",
        cause="the operator's folder is older than this agent, and does not know what is new",
        cure="update that folder (git pull), or bring the agent back: "
        "inv nodes.upgrade --hosts=NODE --downgrade",
    )


def version_of(path: Path) -> str:
    """What an archive says it is, within seconds. Raises AgentError if it does not run here."""
    try:
        done = subprocess.run(
            [sys.executable, "-I", str(path), "--version", "--json"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=20,
            check=False,
            env={"PATH": os.defpath, "LC_ALL": "C"},
        )
        about = json.loads(done.stdout)
        if about["name"] != "moorage-agent":
            raise ValueError("it is another program")
        return str(about["version"])
    except (OSError, ValueError, KeyError, TypeError, subprocess.TimeoutExpired) as problem:
        raise _refused(f"the archive does not run here: {problem}") from None


def _refused(message: str) -> AgentError:
    return AgentError(
        "bad-archive",
        f"{message}; the agent stays as it is",
        cause="it was cut short, spoilt, or is not an agent",
        cure="inv nodes.upgrade sends the archive of the operator's folder",
    )
