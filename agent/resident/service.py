"""The service that starts the agent that stays, as the node's service manager has it."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from agent.journal.ledger import Store
from agent.node.disk import write_own
from agent.node.host import Host
from agent.resident.home import AgentSettings, Home
from agent.wire.faults import AgentError

NAME = "moorage-agent"
UNIT = Path("/etc/systemd/system/moorage-agent.service")
SCRIPT = Path("/etc/init.d/moorage-agent")
START_SECONDS = 20.0
# systemd's words for a start that something else has put an end to: a stop (bus-wait-for-jobs.c),
# or the whole node's, against which nothing starts any more (transaction.c).
_CALLED_OFF = re.compile(r"Job for \S+ canceled\.|Transaction for \S+ is destructive")


class CalledOffError(AgentError):
    """A start that a stop of the service, or of the node, has ended: it shows nothing."""


def file_of(manager: str) -> Path:
    """Where the service manager reads of it."""
    return UNIT if manager == "systemd" else SCRIPT


def manager_of(host: Host) -> str:
    """Find who starts services here: ``systemd`` or ``openrc``. Raises AgentError."""
    if host.systemd:
        return "systemd"
    if host.openrc:
        return "openrc"
    raise AgentError(
        "no-service-manager",
        "neither systemd nor OpenRC is at work on this node",
        cause="an agent that stays has to be started again after a reboot",
        cure="leave the node without one: nodes.trust works over SSH as well",
    )


def install(host: Host, manager: str) -> None:
    """Write its file, from which it is started at every boot. Raises AgentError."""
    from agent.facts.docker import rootless_configs
    from agent.resident import units

    command = f"{sys.executable} -I {Home().folder}/start.py"
    if manager == "systemd":
        write_own(
            UNIT,
            units.systemd(command, [*rootless_configs(host), *_elsewhere(host)]).encode(),
            0o644,
        )
        # A reload reads all units anew, a tenth of a second; a new one is found without.
        _run(host, ["systemctl", "enable", "--no-reload", NAME])
    else:
        write_own(SCRIPT, units.openrc(command).encode(), 0o755)
        _run(host, ["rc-update", "add", NAME, "default"])


def _elsewhere(host: Host) -> Iterator[str]:
    """The folders of files that are ours and not below /etc: a runtime may read any."""
    for ledger in Store(host.root).ledgers().values():
        for owned in ledger.values():
            place = os.path.realpath(owned.folders[0] if owned.folders else owned.path)
            if not place.startswith("/etc/"):
                yield str(Path(place).parent)


def start(host: Host, manager: str, patience: float = START_SECONDS) -> None:
    """Start it, or again, within ``patience`` seconds.

    systemd's own restart returns when the agent has said that it serves, or has ended. Raises
    AgentError ``agent-does-not-start``, which is a CalledOffError if it was not let to start.
    """
    if manager == "systemd":
        shown = host.run(["systemctl", "show", NAME, "-p", "NeedDaemonReload"])
        if "=yes" in shown.out:
            _run(host, ["systemctl", "daemon-reload"])
        try:  # its unit knows no limit of starts, so none is to be reset
            _run(host, ["systemctl", "restart", NAME], timeout=patience)
        except AgentError as problem:
            if _CALLED_OFF.search(problem.message):
                raise CalledOffError.of(_does_not_start(problem.message).fault) from None
            said = host.run(["journalctl", "-u", NAME, "-n", "9", "-o", "cat", "--no-pager"])
            words = " | ".join(of_the_last_start(said.out))
            raise _does_not_start(words or problem.fault.message) from None
    else:
        _run(host, ["rc-service", NAME, "restart"], timeout=max(patience, 60))


def of_the_last_start(said: str) -> list[str]:
    """What a journal says since systemd's last ``Starting ...``: the program's own words, and
    what systemd says of its end, which is up to three lines by then. Pure."""
    lines = [line for line in said.split("\n") if line.strip()]
    starts = [place for place, line in enumerate(lines) if line.startswith("Starting ")]
    return lines[starts[-1] + 1 :] if starts else lines


def wait_until_serving(
    manager: str, settings: AgentSettings, patience: float = START_SECONDS
) -> None:
    """Wait, ``patience`` seconds at most, if the service manager does not.

    Raises AgentError ``agent-does-not-start``.
    """
    if manager == "systemd":
        return
    deadline = time.monotonic() + patience
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.listen, settings.listen)  # noqa: S104
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            socket.create_connection((address, settings.port), 2).close()
            return
        time.sleep(0.1)
    raise _does_not_start(f"it does not answer on port {settings.port}")


def _does_not_start(words: str) -> AgentError:
    return AgentError(
        "agent-does-not-start",
        f"the resident agent does not serve: {words}",
        cause="its service does not start here; all of it was removed again",
        cure="look at the words above; nodes.trust works over SSH as well",
    )


def remove(host: Host, manager: str) -> None:
    """Stop it, and take its file away."""
    if manager == "systemd":
        host.run(["systemctl", "disable", "--now", NAME], timeout=120)
        with contextlib.suppress(FileNotFoundError):
            UNIT.unlink()
        host.run(["systemctl", "daemon-reload"])
        host.run(["systemctl", "reset-failed", NAME])
    else:
        host.run(["rc-service", NAME, "stop"], timeout=120)
        host.run(["rc-update", "del", NAME, "default"])
        with contextlib.suppress(FileNotFoundError):
            SCRIPT.unlink()


def _run(host: Host, argv: list[str], timeout: float = 20) -> None:
    done = host.run(argv, timeout=timeout)
    if not done.ok:
        raise AgentError(
            "service-refused",
            f"`{' '.join(argv)}` failed: {done.complaint}",
            cause="the node's service manager does not accept the agent",
            cure="run it by hand on the node to see why",
        )
