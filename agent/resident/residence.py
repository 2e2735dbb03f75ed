"""Makes the agent stay on a node, and takes it away whole: the service and its folder.

The node makes its key and asks for a certificate, takes what the operator signed, and installs the
service. ``reside`` sees it serve; ``staying``, the end of an apply, answers as soon as all is on
the disk, and leaves the start for afterwards (settling.py). ``release`` leaves the node's files as
they were before.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

from agent.journal.ledger import Store
from agent.node.disk import write_own
from agent.node.host import Host
from agent.resident import keys, service, settling, upgrade
from agent.resident.home import AgentSettings, Home
from agent.wire.faults import AgentError, Fault, Interrupted
from agent.wire.report import (
    CHANGED,
    UNCHANGED,
    Event,
    FileChange,
    HostResult,
    RequestEvent,
    ResultEvent,
    StaysEvent,
)
from agent.wire.version import __version__, older


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
        adoption = _take_up(host, document)
        adoption.start()
    yield ResultEvent(
        HostResult(host=node, status=CHANGED, changes=(adoption.change,), restarts=(service.NAME,))
    )


def staying(
    host: Host, apply: Iterator[Event], read: Callable[[], bytes], later: list[Callable[[], None]]
) -> Iterator[Event]:
    """An apply's events; after one that succeeded the agent asks to stay, and is adopted.

    ``read`` as for :func:`reside`. ``later`` gets the start of its service, to be done once the
    operator has been answered. A node where no agent can stay has its trust all the same:
    StaysEvent says why.
    """
    for event in apply:
        if not isinstance(event, ResultEvent) or not event.result.ok:
            yield event
            continue
        result = event.result
        try:
            _refuse_what_failed(host)
            with _request(host) as request:
                yield request
                document = read()
                if document.strip():
                    adoption = _take_up(host, document, settles=True)
                    later.append(adoption.settle)
                    yield StaysEvent(settling=True)
                    changes = (*result.changes, adoption.change)
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
    service.manager_of(host)
    with settling.alone(Store(host.root)):
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


class _Adoption(NamedTuple):
    """All of it is on the disk, and its service was not started yet.

    ``kept``: the files of the agent that was here before and served, empty for none.
    """

    host: Host
    manager: str
    settings: AgentSettings
    certificate: bytes
    archive: bytes
    kept: dict[str, bytes]

    @property
    def change(self) -> FileChange:
        path = str(service.file_of(self.manager))
        return FileChange(path, "edited" if self.kept else "created")

    def start(self) -> None:
        """Starts the service and sees it serve.

        Raises AgentError if it does not: one that was there before serves on, and one that is new
        is gone again.
        """
        try:
            self._serve(service.START_SECONDS)
        except BaseException:
            self.give_back()
            raise

    def settle(self) -> None:
        """The same when nobody listens any more: why it did not come up is kept for who asks."""
        try:
            self._serve(settling.SECONDS)
        except service.CalledOffError:
            return
        except AgentError as problem:
            with settling.alone(Store(self.host.root)):
                if self._settles():
                    self._give_up(problem.fault)

    def _give_up(self, fault: Fault) -> None:
        """The note comes before the end, if there is no way back: a release may take it away.

        The agent that serves on takes it away too, so there it comes after that one's start.
        """
        store = Store(self.host.root)
        if not self.kept:
            settling.failed(store, self.archive, fault)
        try:
            self.give_back()
        finally:
            if self.kept:
                settling.failed(store, self.archive, fault)

    def _serve(self, patience: float) -> None:
        service.start(self.host, self.manager, patience)
        service.wait_until_serving(self.manager, self.settings, patience)

    def give_back(self) -> None:
        """As if it had never been adopted."""
        if not self.kept:
            _take_away(self.host, self.manager)
        else:
            _put_back(Home(self.host.root), self.kept)
            service.start(self.host, self.manager)

    def _settles(self) -> bool:
        """Whether it is ours to judge: not adopted again meanwhile, upgraded, or released."""
        home = Home(self.host.root)
        try:
            found = (home.certificate.read_bytes(), home.archive.read_bytes())
        except OSError:
            return False
        return home.settling.exists() and found == (self.certificate, self.archive)


def _take_up(host: Host, document: bytes, *, settles: bool = False) -> _Adoption:
    """Puts all of it on the disk. ``settles``: nobody has asked for it by name, and nobody waits;
    then another fleet's agent is left where it is."""
    home = Home(host.root)
    manager = service.manager_of(host)
    settings, certificate, authority = _parse(document)
    if settles and home.authority.exists() and home.authority.read_bytes() != authority:
        raise AgentError(
            "another-fleets",
            "an agent that obeys another operator stays on this node",
            cause="it was adopted from another folder or machine, with its own fleet CA",
            cure="leave it to that one (--once), or take it over: inv nodes.adopt --hosts=NODE",
        )
    _refuse_downgrade(home)
    before = home.settings()
    if before is None or before.port != settings.port:  # else this very agent listens there
        _require_free(settings)
    kept = {} if before is None or home.settling.exists() else _kept(home)
    adoption = _Adoption(host, manager, settings, certificate, upgrade.own_archive(), kept)
    try:
        write_own(home.authority, authority, 0o600)
        keys.take(home, settings, json.dumps(
            {"certificate": certificate.decode("ascii"), "until": settings.until}
        ).encode())  # fmt: skip
        write_own(home.archive, adoption.archive, 0o600)
        write_own(home.folder / "start.py", _start_program(), 0o600)
        for note in (home.trial, home.settling):
            with contextlib.suppress(FileNotFoundError):
                note.unlink()
        if settles:
            settling.begin(home)
        service.install(host, manager)
    except BaseException:
        adoption.give_back()
        raise
    return adoption


def _refuse_what_failed(host: Host) -> None:
    """An archive that did not come up here is not tried again at each trust."""
    fault = settling.refused(Store(host.root), upgrade.own_archive)
    if fault is not None:
        problem = AgentError.of(fault)
        problem.with_cure("inv nodes.adopt --hosts=NODE tries it again; trust works without it")
        raise problem


def release(host: Host, node: str) -> Iterator[Event]:
    """Stops the agent and takes everything of it away; the trust itself stays as it is."""
    home = Home(host.root)
    there = any(one.exists() for one in (home.folder, service.UNIT, service.SCRIPT))
    changes: tuple[FileChange, ...] = ()
    if there:
        manager = service.manager_of(host)
        changes = (FileChange(str(service.file_of(manager)), "removed"),)
        with contextlib.suppress(FileNotFoundError):
            home.settling.unlink()  # from here on no one judges it who has waited for its start
        _take_away(host, manager)
    with contextlib.suppress(FileNotFoundError):
        settling.unsettled(Store(host.root)).unlink()
    status = CHANGED if there else UNCHANGED
    yield ResultEvent(HostResult(host=node, status=status, changes=changes))


# -- what is needed ------------------------------------------------------------------------------


def _identity(home: Home) -> str:
    """The node's own number: kept while an agent resides, so that a second adoption is no other."""
    try:
        present = home.settings()
    except AgentError:
        present = None
    return os.urandom(16).hex() if present is None else present.id


def _parse(document: bytes) -> tuple[AgentSettings, bytes, bytes]:
    try:
        data = json.loads(document)
        words = {name: data.pop(name) for name in ("certificate", "authority")}
        settings = AgentSettings.parse(json.dumps(data).encode())
        return settings, words["certificate"].encode("ascii"), words["authority"].encode("ascii")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise AgentError(
            "bad-settings",
            "what was sent is not an adoption",
            cause="another version of Moorage sent it, or it was cut short",
            cure="inv nodes.adopt --hosts=NODE",
        ) from None


def _require_free(settings: AgentSettings) -> None:
    family = socket.AF_INET6 if ":" in settings.listen else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.listen, settings.port))
        except OSError as problem:
            raise AgentError(
                "port-in-use",
                f"port {settings.port} at {settings.listen} cannot be had: {problem.strerror}",
                cause="another program listens there, or the address does not belong to this node "
                f"(ss -ltnp 'sport = :{settings.port}' says which)",
                cure="inv nodes.adopt with another --port; nothing was changed",
            ) from None


def _refuse_downgrade(home: Home) -> None:
    """Refuse to replace an agent newer than this one, which an older folder has sent."""
    if not home.archive.exists() or home.archive.read_bytes() == upgrade.own_archive():
        return
    there = __version__
    with contextlib.suppress(AgentError):  # one that does not run here is no loss
        there = upgrade.version_of(home.archive)
    if older(__version__, there):
        problem = AgentError.of(upgrade.newer(there, __version__))
        problem.with_cure(
            "update this folder (git pull); or first inv nodes.release, then adopt it again"
        )
        raise problem


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


def _take_away(host: Host, manager: str) -> None:
    service.remove(host, manager)
    shutil.rmtree(Home(host.root).folder, ignore_errors=True)
    shutil.rmtree(Store(host.root).folder / "plans", ignore_errors=True)
