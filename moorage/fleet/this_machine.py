"""This machine is a node like the others: the same agent, through a local connection.

Its parts are the hosts entry and Docker's trust; the registry is at its own loopback address.
What needs root goes through ``sudo`` where we are not root, and says so beforehand.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.report import UNCHANGED, Fault, HostResult
from moorage.actions import Action
from moorage.errors import MoorageError, Refused
from moorage.fleet import errand, faults, plans
from moorage.fleet.patch import patched

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agent.plan import Plan
    from moorage.settings import Settings
    from moorage.ui import UI

NAME = "localhost"
STATE = Path("/var/lib/moorage")
_CA_TO_COME = "(the CA certificate that is issued first)\n"
_LOOK_SECONDS = 60.0


def trust_this_machine(
    settings: Settings, ui: UI, *, dry_run: bool = False, replace: bool = False
) -> HostResult:
    """Gives this machine the hosts entry and its Docker the CA. The result's host: "localhost".

    Raises Refused where there is no CA, or root is needed and cannot be had.
    """
    plan = _plan(settings, _ca(settings), replace=replace)
    if not dry_run and os.geteuid() != 0:
        # Nothing to do is nothing to ask a password for.
        looked, _ = _look(settings, plan)
        if looked.status == UNCHANGED:
            return looked
        _announce(ui, looked)
    words = ["apply", "--dry-run"] if dry_run else ["apply"]
    return _agent(settings, words, plan, root=not dry_run, on_event=_noting(ui))


def untrust_this_machine(settings: Settings, ui: UI, *, dry_run: bool = False) -> HostResult:
    """Takes both away again, and the agent's own folder with the last of them.

    Where no agent has ever been at work, nothing is asked for, nor done.
    """
    if not STATE.exists():
        return HostResult(host=NAME, status=UNCHANGED)
    plan = _plan(settings, None)
    if dry_run:
        return _agent(settings, ["untrust", "--dry-run"], plan, root=True, on_event=_noting(ui))
    if os.geteuid() != 0:
        ui.note(f"through sudo: take {settings.registry_name} out of this machine's configuration")
    result = _agent(settings, ["untrust"], plan, root=True, on_event=_noting(ui))
    if result.ok:
        _leave_nothing(settings, plan)
    return result


def pending_this_machine(settings: Settings) -> list[Action]:
    """What :func:`trust_this_machine` would change, file by file, with the contents. Asks nobody.

    Raises Refused where it would refuse: a hosts entry of somebody else's, a spoilt CA.
    """
    to_come = not (settings.certs_dir / "ca.crt").exists()
    ca = _passing_ca(settings) if to_come else _ca(settings)
    looked, events = _look(settings, _plan(settings, ca))
    through = "" if os.geteuid() == 0 else ", through sudo"
    if looked.error is not None:
        raise _as_error(looked.error)
    actions = []
    for event in events:
        if event.get("event") != "change":
            continue
        path, action = str(event["path"]), str(event["action"])
        before = _read(path)
        after = patched(before, str(event["diff"])) if action != "removed" else None
        if to_come and path.endswith(".crt"):
            after = _CA_TO_COME
        verb = {"created": "write", "edited": "edit", "removed": "remove"}[action]
        actions.append(Action(f"{verb} {path}{through}", True, path, before, after))
    return actions


def _plan(settings: Settings, ca: str | None, *, replace: bool = False) -> Plan:
    return plans.make(
        settings,
        ca=ca,
        address=plans.this_machines_address(settings),
        parts=plans.THIS_MACHINE_PARTS,
        replace=replace,
    )


def _ca(settings: Settings) -> str:
    from moorage import pki

    return pki.ca_pem(settings)


def _passing_ca(settings: Settings) -> str:
    """A CA in the place of the one that will be issued, for the dry run alone."""
    import datetime

    from moorage import certificates

    ca = certificates.make_ca(
        certificates.new_key("ec-p256"),
        common_name="to come",
        days=1,
        now=datetime.datetime.now(datetime.UTC),
    )
    return certificates.certificate_pem(ca).decode()


def _look(settings: Settings, plan: Plan) -> tuple[HostResult, list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []
    result = _agent(settings, ["apply", "--dry-run"], plan, root=False, on_event=events.append)
    return result, events


def _agent(
    settings: Settings,
    words: Sequence[str],
    plan: Plan,
    *,
    root: bool,
    on_event: Callable[[dict[str, Any]], None],
) -> HostResult:
    from moorage.archive import agent_archive
    from moorage.commands import run

    archive = agent_archive(settings.state)
    done = run(
        [sys.executable, "-I", str(archive.path), *words],
        root=root,
        stdin=plans.wire(plan),
        timeout=plans.patience(plan) if root else _LOOK_SECONDS,
        check=False,
    )
    answer = errand.Answer(on_event)
    answer.stdout(done.stdout)
    answer.stderr(done.stderr)
    answer.end()
    result = errand.host_result(NAME, answer, done.returncode, "you")
    if result.error is not None and result.error.code in faults.SUDO_CODES:
        raise Refused(
            "no-root",
            "this needs root, and sudo does not let us",
            cause=" ".join(answer.words.split())[-300:],
            cure="run this on a terminal, where sudo can ask for your password, or as root",
        )
    return result


def _announce(ui: UI, looked: HostResult) -> None:
    for change in looked.changes:
        ui.note(f"through sudo: {change.path} is {change.action}")


def _noting(ui: UI) -> Callable[[dict[str, Any]], None]:
    def on_event(event: dict[str, Any]) -> None:
        if event.get("event") == "note":
            ui.note(str(event.get("message", "")))

    return on_event


def _leave_nothing(settings: Settings, plan: Plan) -> None:
    """Removes the agent's folder, unless it still keeps something for another registry."""
    from moorage.commands import run

    events: list[dict[str, Any]] = []
    _agent(settings, ["status"], plan, root=True, on_event=events.append)
    status = next((event for event in events if event.get("event") == "status"), None)
    if status is None or any(
        status[key] for key in ("trusted", "waiting", "interrupted", "holder")
    ):
        return
    run(["rm", "-rf", "--one-file-system", "--", str(STATE)], root=True)


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _as_error(fault: Fault) -> MoorageError:
    return Refused(fault.code, fault.message, cause=fault.cause, cure=fault.cure, host=NAME)
