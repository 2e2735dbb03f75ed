"""This machine is a node like the others: the same agent, through a local connection.

Its parts are the hosts entry and Docker's trust; the registry is at its own loopback address.
What needs root goes through ``sudo`` where we are not root, and says so beforehand; looking whether
anything is to do never asks for a password.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.wire.report import CHANGED, UNCHANGED, FileChange, HostResult
from moorage.actions import Action
from moorage.errors import Refused
from moorage.fleet.errand import errand, faults
from moorage.fleet.rollout import plans
from moorage.fleet.rollout.patch import patched
from moorage.output import Note, Part, Warn

if TYPE_CHECKING:
    from agent.wire.plan import Plan, Verify
    from moorage.settings import Settings
    from moorage.ui import UI

NAME = "localhost"
HOSTS = Path("/etc/hosts")
DOCKER_CERTS = Path("/etc/docker/certs.d")
# The agent's own, on every node: agent.journal.ledger.
STATE = Path("/var/lib/moorage")

_CA_TO_COME = "(the CA certificate that is issued first)\n"
_LOOK_SECONDS = 60.0
_ANSWER_SECONDS = 3.0
# From the archive as it is: unpacking it, as on nodes, would leave something here.
_LAUNCH = """\
import sys
archive = sys.argv.pop(1)
sys.path.insert(0, archive)
from agent import bytecode
bytecode.install(archive, bytecode.read(archive) or {})
from agent.__main__ import main
sys.exit(main())
"""
Event = dict[str, Any]


def trust_this_machine(
    settings: Settings,
    ui: UI,
    *,
    dry_run: bool = False,
    replace: bool = False,
    pull: Verify | None = None,
) -> HostResult:
    """Gives this machine the hosts entry and its Docker the CA. The result's host: "localhost".

    ``pull``: proves it by this pull as well. Raises Refused if there is no CA, or root is needed
    and cannot be had.
    """
    plan = _plan(settings, _ca(settings), replace=replace, pull=pull)
    if dry_run:
        return _look(settings, plan)[0]
    looked = None if os.geteuid() == 0 else _look(settings, plan)[0]
    if looked is not None and looked.status == UNCHANGED:
        result, events = _agent(settings, ["verify"], plan, sudo=())
    else:
        if looked is not None:
            ui.note(f"through sudo: change {', '.join(_paths(looked))}")
        result, events = _agent(settings, ["apply"], plan, sudo=_sudo())
    ui.present(_notes(events))
    return result


def untrust_this_machine(settings: Settings, ui: UI, *, dry_run: bool = False) -> HostResult:
    """Takes both away again, and the agent's own folder with the last of them.

    Where no agent has ever been at work, nothing is asked for, nor done.
    """
    if not STATE.exists():
        return HostResult(host=NAME, status=UNCHANGED)
    plan = _plan(settings, None)
    if os.geteuid() != 0:
        ui.note(f"through sudo: take {settings.registry_name} out of this machine's configuration")
    words = ["untrust", "--dry-run"] if dry_run else ["untrust"]
    result, events = _agent(settings, words, plan, sudo=_sudo())
    ui.present(_notes(events))
    if result.ok and not dry_run:
        ui.present(_leave_nothing(settings, plan))
    return result


def pending_this_machine(settings: Settings) -> list[Action]:
    """What :func:`trust_this_machine` would change, file by file, with the contents. Asks nobody.

    Raises Refused if it would refuse: a hosts entry of somebody else's, a spoilt CA, no sudo.
    """
    to_come = not settings.ca_file.exists()
    ca = _passing_ca() if to_come else _ca(settings)
    looked, events = _look(settings, _plan(settings, ca))
    if looked.error is not None:
        raise Refused.of(looked.error, host=NAME)
    through = "" if os.geteuid() == 0 else ", through sudo"
    actions = []
    for event in events:
        if event["event"] != "change":
            continue
        path = str(event["path"])
        before, after = _contents(path, str(event["diff"]))
        if to_come and path.endswith(".crt"):
            after = _CA_TO_COME
        verb = {"created": "write", "removed": "remove"}.get(str(event["action"]), "edit")
        actions.append(Action(f"{verb} {path}{through}", True, path, before, after))
    if not actions and looked.status == CHANGED:  # known to differ, and not to be read without root
        actions = [Action(f"edit {path}{through}", True, path) for path in _paths(looked)]
    if actions:
        _sudo()
    return actions


# -- looking: changes nothing, asks for no password --------------------------------------------


def _look(settings: Settings, plan: Plan) -> tuple[HostResult, list[Event]]:
    """What an apply would do, as a result and its events."""
    if os.geteuid() != 0 and _stands(plan):
        return HostResult(host=NAME, status=UNCHANGED), []
    result, events = _dry_run(settings, plan)
    if result.error is not None and result.error.code == "no-runtime":
        return _before_docker(settings, plan)
    if result.error is not None and result.error.code in _NEEDS_ROOT:
        return HostResult(host=NAME, status=CHANGED), []
    return result, events


# What the agent, or sudo in front of it, says where only root could have looked.
_NEEDS_ROOT = faults.SUDO_CODES | {"not-root", "internal-error", "no-sudo", "agent-died"}


def _dry_run(settings: Settings, plan: Plan) -> tuple[HostResult, list[Event]]:
    from moorage.commands import has_sudo

    # The agent's notes are root's: look as root, where that takes no password.
    sudo = ("sudo", "-n") if os.geteuid() != 0 and STATE.exists() and has_sudo() else ()
    words = ["apply", "--dry-run"]
    return _agent(settings, words, plan, sudo=sudo, patience=_LOOK_SECONDS)


def _before_docker(settings: Settings, plan: Plan) -> tuple[HostResult, list[Event]]:
    """The same where Docker is yet to be installed: its CA file comes beside the hosts entry."""
    from dataclasses import replace

    result, events = _dry_run(settings, replace(plan, parts=("hosts",)))
    for spelled in plan.registry.spellings if result.error is None else ():
        path = DOCKER_CERTS / spelled.name / "ca.crt"
        if _read(path) == plan.registry.ca:
            continue
        lines = "".join(f"+{line}\n" for line in (plan.registry.ca or "").splitlines())
        count = lines.count("\n")
        diff = f"--- /dev/null\n+++ {path}\n@@ -0,0 +1,{count} @@\n{lines}"
        events.append({"event": "change", "path": str(path), "action": "created", "diff": diff})
        changes = (*result.changes, FileChange(str(path), "created"))
        result = HostResult(host=NAME, status=CHANGED, changes=changes)
    return result, events


def _stands(plan: Plan) -> bool:
    """Whether both files say already what they should, as far as anybody may read them."""
    registry = plan.registry
    held = {_read(DOCKER_CERTS / one.name / "ca.crt") for one in registry.spellings}
    return held == {registry.ca} and _hosts_address(registry.host) == registry.address


def _hosts_address(name: str) -> str | None:
    for line in (_read(HOSTS) or "").splitlines():
        words = line.partition("#")[0].split()
        if name in (word.lower() for word in words[1:]):
            return words[0]
    return None


# -- doing ---------------------------------------------------------------------------------------


def _agent(
    settings: Settings,
    words: Sequence[str],
    plan: Plan,
    *,
    sudo: Sequence[str],
    patience: float | None = None,
) -> tuple[HostResult, list[Event]]:
    """What came of it, and the agent's events. Raises Refused if sudo does not allow it."""
    from moorage.archive import errand_archive
    from moorage.commands import run

    archive = errand_archive(settings.state)
    done = run(
        [*sudo, sys.executable, "-I", "-B", "-c", _LAUNCH, str(archive.path), *words],
        stdin=plans.wire(plan),
        env={"LC_ALL": "C"},  # sudo's own words are told apart
        timeout=patience or plans.patience(plan),
        check=False,
    )
    events: list[Event] = []
    answer = errand.ErrandAnswer(events.append)
    answer.stdout(done.stdout)
    answer.stderr(done.stderr)
    answer.end()
    answer.status = done.returncode
    result = errand.host_result(NAME, answer, "you")
    if "-n" not in sudo and result.error is not None and result.error.code in faults.SUDO_CODES:
        raise Refused(
            "no-root",
            "this needs root, and sudo does not allow it",
            cause=" ".join(answer.words.split())[-300:],
            cure="run it on a terminal, where sudo can ask for your password, or as root",
        )
    return result, events


def _sudo() -> list[str]:
    from moorage.commands import as_root

    return as_root()


def _leave_nothing(settings: Settings, plan: Plan) -> list[Part]:
    """Removes the agent's folder, unless it still keeps something for another registry.

    Returns a word on each registry that is still trusted.
    """
    from moorage.commands import run

    _, events = _agent(settings, ["status"], plan, sudo=_sudo())
    status = next((event for event in events if event["event"] == "status"), None)
    if status is None:
        return []
    others = (str(other["registry"]).partition(":") for other in status["trusted"])
    left = [_of_another(host, int(port or 443)) for host, _, port in others]
    if not any(status.get(key) for key in ("trusted", "waiting", "interrupted", "holder", "kept")):
        run(["rm", "-rf", "--one-file-system", "--", str(STATE)], root=True)
    return left


def _of_another(host: str, port: int) -> Part:
    """What trust is left. Ours under former settings or another checkout's: the user knows.

    One whose registry answers is somebody's, so no command is named that would end it.
    """
    name = host if port == 443 else f"{host}:{port}"
    try:
        socket.create_connection((host, port), _ANSWER_SECONDS).close()
    except OSError:
        return Warn(
            f"this machine still trusts {name}, where nothing answers; if nobody needs that: "
            f"INVOKE_REGISTRY_HOST={host} INVOKE_REGISTRY_PORT={port} inv down"
        )
    return Note(f"this machine goes on trusting {name}: a registry of somebody else answers there")


def trusts_anothers(settings: Settings) -> bool:
    """Whether Docker here has a CA for our registry's name, and it is not our CA."""
    there = _read(DOCKER_CERTS / settings.registry_name / "ca.crt")
    try:
        ours = _ca(settings)
    except Refused:
        ours = ""
    return there is not None and there != ours


# -- pieces --------------------------------------------------------------------------------------


def _plan(
    settings: Settings, ca: str | None, *, replace: bool = False, pull: Verify | None = None
) -> Plan:
    return plans.make(
        settings,
        ca=ca,
        address=plans.this_machines_address(settings),
        parts=plans.THIS_MACHINE_PARTS,
        verify=pull,
        replace=replace,
    )


def _ca(settings: Settings) -> str:
    from moorage.pki import registry as pki

    return pki.ca_pem(settings)


def _passing_ca() -> str:
    """A CA in the place of the one that will be issued, for looking alone."""
    import datetime

    from moorage.pki import certificates

    ca = certificates.make_ca(
        certificates.new_key("ec-p256"),
        common_name="to come",
        days=1,
        now=datetime.datetime.now(datetime.UTC),
    )
    return certificates.certificate_pem(ca).decode()


def _paths(looked: HostResult) -> list[str]:
    return [change.path for change in looked.changes] or [str(HOSTS), str(DOCKER_CERTS)]


def _contents(path: str, diff: str) -> tuple[str | None, str | None]:
    before = _read(Path(path))
    try:
        return before, patched(before, diff) or None
    except ValueError:  # it was changed in between
        return before, None


def _notes(events: Sequence[Event]) -> list[Note]:
    return [Note(str(event.get("message", ""))) for event in events if event["event"] == "note"]


def _read(path: Path) -> str | None:
    try:
        return path.read_bytes().decode(errors="replace")
    except OSError:
        return None
