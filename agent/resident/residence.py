"""Makes the agent stay on a node, and takes it away whole: the service and its folder.

The node makes its key and asks for a certificate, takes what the operator signed, installs the
service and sees it serve: ``reside``, or ``staying``, the end of an apply. ``release`` leaves the
node's files as they were before.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from agent.journal.ledger import Store
from agent.node.disk import write_own
from agent.node.host import Host
from agent.resident import keys, upgrade
from agent.resident.home import Home, Settings
from agent.wire.faults import AgentError, Interrupted
from agent.wire.report import (
    CHANGED,
    UNCHANGED,
    Event,
    Fault,
    FileChange,
    HostResult,
    RequestEvent,
    ResultEvent,
    StaysEvent,
)
from agent.wire.version import __version__, older

NAME = "moorage-agent"
UNIT = Path("/etc/systemd/system/moorage-agent.service")
SCRIPT = Path("/etc/init.d/moorage-agent")
START_SECONDS = 20.0


def reside(host: Host, node: str, read: Callable[[], bytes]) -> Iterator[Event]:
    """Asks for a certificate, installs the service with what ``read`` gives, sees it serve.

    ``read`` gives the operator's answer, a line, empty for no. Where the agent does not serve, one
    that was there before serves on, and one that is new is gone again.
    """
    with _request(host) as request:
        yield request
        document = read()
        if not document.strip():
            raise AgentError(
                "not-adopted",
                "the operator gave this node no certificate",
                cause="it refused the request, or the line between them broke",
                cure="its own words say why: inv nodes.adopt --hosts=NODE",
            )
        change = _take_up(host, document)
    yield ResultEvent(HostResult(host=node, status=CHANGED, changes=(change,), restarts=(NAME,)))


def staying(host: Host, apply: Iterator[Event], read: Callable[[], bytes]) -> Iterator[Event]:
    """An apply's events; after one that succeeded the agent asks to stay, and does.

    ``read`` as for :func:`reside`. A node where no agent can stay has its trust all the same:
    StaysEvent says why.
    """
    for event in apply:
        if not isinstance(event, ResultEvent) or not event.result.ok:
            yield event
            continue
        result = event.result
        try:
            with _request(host) as request:
                yield request
                document = read()
                if document.strip():
                    change = _take_up(host, document, anothers=False)
                    yield StaysEvent()
                    changes = (*result.changes, change)
                    result = replace(result, status=CHANGED, changes=changes)
        except AgentError as problem:
            yield StaysEvent(problem.fault)
        except Interrupted as problem:
            yield StaysEvent(Fault("interrupted", f"stopped by {problem} before the agent stayed"))
        yield ResultEvent(result)


@contextlib.contextmanager
def _request(host: Host) -> Iterator[RequestEvent]:
    """A new key of the node's own, and the request to sign it.

    One that came to nothing is not left lying about.
    """
    home = Home(host.root)
    _service_manager(host)
    identity = _identity(home)
    try:
        yield RequestEvent(identity, keys.request(host, home.next_key), int(time.time()))
    finally:
        with contextlib.suppress(OSError):
            home.next_certificate.unlink()  # before its key: alone it would keep an agent down
        with contextlib.suppress(OSError):
            home.next_key.unlink()
        with contextlib.suppress(OSError):
            home.folder.rmdir()  # where an agent resides it is not empty


def _take_up(host: Host, document: bytes, *, anothers: bool = True) -> FileChange:
    """The service, as ``document`` says. ``anothers``: also in the place of another fleet's."""
    home = Home(host.root)
    manager = _service_manager(host)
    settings, certificate, authority = _parse(document)
    if not anothers and home.authority.exists() and home.authority.read_bytes() != authority:
        raise AgentError(
            "another-fleets",
            "an agent that obeys another operator stays on this node",
            cause="it was adopted from another folder or machine, with a fleet CA of its own",
            cure="leave it to that one (--once), or take it over: inv nodes.adopt --hosts=NODE",
        )
    _refuse_downgrade(home)
    before = home.settings()
    if before is None or before.port != settings.port:  # else this very agent listens there
        _require_free(settings)
    kept = _kept(home)
    try:
        write_own(home.authority, authority, 0o600)
        keys.take(home, settings, json.dumps(
            {"certificate": certificate.decode("ascii"), "until": settings.until}
        ).encode())  # fmt: skip
        write_own(home.archive, _own_archive(), 0o600)
        write_own(home.folder / "start.py", _start_program(), 0o600)
        with contextlib.suppress(FileNotFoundError):
            home.trial.unlink()
        _install(host, manager)
        _wait_until_serving(manager, settings)
    except BaseException:
        if before is None:
            _remove(host, manager)
        else:
            _put_back(home, kept)
            _start(host, manager)
        raise
    path = str(UNIT if manager == "systemd" else SCRIPT)
    return FileChange(path, "created" if before is None else "edited")


def release(host: Host, node: str) -> Iterator[Event]:
    """Stops the agent and takes everything of it away; the trust itself stays as it is."""
    home = Home(host.root)
    there = home.folder.exists() or UNIT.exists() or SCRIPT.exists()
    changes: tuple[FileChange, ...] = ()
    if there:
        manager = _service_manager(host)
        path = UNIT if manager == "systemd" else SCRIPT
        changes = (FileChange(str(path), "removed"),)
        _remove(host, manager)
    status = CHANGED if there else UNCHANGED
    yield ResultEvent(HostResult(host=node, status=status, changes=changes))


# -- what is needed ------------------------------------------------------------------------------


def _service_manager(host: Host) -> str:
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


def _identity(home: Home) -> str:
    """The node's own number: kept while an agent resides, so that a second adoption is no other."""
    try:
        present = home.settings()
    except AgentError:
        present = None
    return os.urandom(16).hex() if present is None else present.id


def _parse(document: bytes) -> tuple[Settings, bytes, bytes]:
    try:
        data = json.loads(document)
        words = {name: data.pop(name) for name in ("certificate", "authority")}
        settings = Settings.parse(json.dumps(data).encode())
        return settings, words["certificate"].encode("ascii"), words["authority"].encode("ascii")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise AgentError(
            "bad-settings",
            "what was sent is not an adoption",
            cause="another version of Moorage sent it, or it was cut short",
            cure="inv nodes.adopt --hosts=NODE",
        ) from None


def _require_free(settings: Settings) -> None:
    family = socket.AF_INET6 if ":" in settings.listen else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.listen, settings.port))
        except OSError as problem:
            raise AgentError(
                "port-in-use",
                f"port {settings.port} at {settings.listen} cannot be had: {problem.strerror}",
                cause="another program listens there, or the address is none of this node's "
                f"(ss -ltnp 'sport = :{settings.port}' says which)",
                cure="inv nodes.adopt with another --port; nothing was changed",
            ) from None


def _refuse_downgrade(home: Home) -> None:
    """Refuse to replace an agent newer than this one, which an older folder has sent."""
    if not home.archive.exists() or home.archive.read_bytes() == _own_archive():
        return
    there = __version__
    with contextlib.suppress(AgentError):  # one that does not run here is no loss
        there = upgrade.version_of(home.archive)
    if older(__version__, there):
        fault = upgrade.newer(there, __version__)
        cure = "update this folder (git pull); or first inv nodes.release, then adopt it again"
        raise AgentError(fault.code, fault.message, cause=fault.cause, cure=cure)


def _own_archive() -> bytes:
    """The archive this very program was started from."""
    path = Path(sys.argv[0]).resolve()
    if not zipfile.is_zipfile(path):
        raise AgentError(
            "no-archive",
            "an agent can only stay from its archive",
            cause=f"this one was started from {path}",
            cure="inv nodes.adopt --hosts=NODE",
        )
    return path.read_bytes()


def _start_program() -> bytes:
    from pkgutil import get_data

    return get_data("agent.resident", "start.py") or b""


_KEPT = ("settings.json", "key.pem", "certificate.pem", "authority.pem", "agent.pyz", "start.py")


def _kept(home: Home) -> dict[str, bytes]:
    found = {}
    for name in _KEPT:
        with contextlib.suppress(OSError):
            found[name] = (home.folder / name).read_bytes()
    return found


def _put_back(home: Home, kept: dict[str, bytes]) -> None:
    for name, content in kept.items():
        write_own(home.folder / name, content, 0o600)


# -- the service ---------------------------------------------------------------------------------


def _install(host: Host, manager: str) -> None:
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
        shown = host.run(["systemctl", "show", NAME, "-p", "NeedDaemonReload"])
        if "=yes" in shown.out:
            _run(host, ["systemctl", "daemon-reload"])
    else:
        write_own(SCRIPT, units.openrc(command).encode(), 0o755)
        _run(host, ["rc-update", "add", NAME, "default"])
    _start(host, manager)


def _elsewhere(host: Host) -> Iterator[str]:
    """The folders of files that are ours and not below /etc: a runtime may read any."""
    for ledger in Store(host.root).ledgers().values():
        for owned in ledger.values():
            place = os.path.realpath(owned.folders[0] if owned.folders else owned.path)
            if not place.startswith("/etc/"):
                yield str(Path(place).parent)


def _start(host: Host, manager: str) -> None:
    """Also a restart. systemd's own returns when the agent has said that it serves, or ended."""
    if manager == "systemd":
        try:  # its unit knows no limit of starts, so none is to be reset
            _run(host, ["systemctl", "restart", NAME], timeout=START_SECONDS)
        except AgentError as problem:
            said = host.run(["journalctl", "-u", NAME, "-n", "3", "-o", "cat", "--no-pager"])
            words = " | ".join(said.out.strip().split("\n"))
            raise _does_not_start(words or problem.fault.message) from None
    else:
        _run(host, ["rc-service", NAME, "restart"], timeout=60)


def _wait_until_serving(manager: str, settings: Settings) -> None:
    if manager == "systemd":
        return
    deadline = time.monotonic() + START_SECONDS
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
        cause="its service does not start here; everything of it was taken away again",
        cure="look at the words above; nodes.trust works over SSH as well",
    )


def _remove(host: Host, manager: str) -> None:
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
    shutil.rmtree(Home(host.root).folder, ignore_errors=True)
    shutil.rmtree(Store(host.root).folder / "plans", ignore_errors=True)


def _run(host: Host, argv: list[str], timeout: float = 20) -> None:
    done = host.run(argv, timeout=timeout)
    if not done.ok:
        raise AgentError(
            "service-refused",
            f"`{' '.join(argv)}` failed: {done.complaint}",
            cause="the node's service manager does not take the agent",
            cure="run it by hand on the node and look why",
        )
