"""Agents that stay: adopt a node, use its agent, renew, upgrade, release and forget it.

The node makes its key and asks, the operator signs and sends certificate and CA: at the end of the
first trust, or of an errand of its own. No key travels. From then on HTTPS is tried
first, then HTTPS through an SSH session, then the errand over SSH as for any other node.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from agent.wire.faults import Fault
from agent.wire.report import CHANGED, HostResult
from moorage.errors import MoorageError
from moorage.fleet.errand import errand
from moorage.fleet.residents import channel, places
from moorage.fleet.residents.invitation import Invitation, granted, not_here
from moorage.pki import authority as authorities
from moorage.pki import neighbours
from moorage.pki.roster import NO_JUMP, Resident, Roster

if TYPE_CHECKING:
    import ssl

    from moorage.archive import AgentArchive
    from moorage.fleet.residents.channel import Channel
    from moorage.fleet.ssh.routes import Route
    from moorage.fleet.ssh.session import Session
    from moorage.pki.authority import Authority
    from moorage.settings import Settings

PATIENCE = 120.0
# A new archive restarts the agent; the one before it is back within the time of two starts.
UPGRADE_SECONDS = 60.0


@dataclass(frozen=True)
class Visit:
    """An open SSH session, and all that an errand on it needs."""

    session: Session
    route: Route
    archive: AgentArchive
    become: errand.Become
    tell: Callable[[dict[str, Any]], None]

    def errand(self, words: tuple[str, ...], reply: errand.Reply | None = None) -> HostResult:
        answer = self.session.errand(
            self.archive, words, b"", self.become, self.tell, PATIENCE, reply
        )
        return errand.host_result(self.route.name, answer, self.route.user)


class Residents:
    """The resident agents of one run: who has one, and the operator's side of TLS."""

    def __init__(
        self, settings: Settings, *, adopting: bool = False, routes: Sequence[Route] = ()
    ) -> None:
        """``adopting``: hosts without one shall get one. ``routes``: of the run, each to another
        node. Raises Refused if the fleet's CA or the roster cannot be used."""
        self.looks = looks(settings)
        self._roster = Roster(settings)
        self._port = settings.nodes.agent_port
        self._by_host = self._roster.residents()
        self._settings = settings
        self._routes = tuple(route for route in routes if not route.remembered)
        self._nodes = Counter(route.target.host for route in self._routes)
        self._places = Counter((route.target.host, route.port) for route in self._routes)
        self._context: ssl.SSLContext | None = None
        if self._by_host or adopting:
            self._context = authorities.checked_context(settings) or self._authority.context()

    @cached_property
    def _authority(self) -> Authority:
        return authorities.Authority.open(self._settings)

    @property
    def any(self) -> bool:
        return bool(self._by_host)

    def of(self, route: Route) -> Resident | None:
        """The agent on the very node that the route leads to; of several behind one address, only
        where it is known which."""
        host = route.target.host
        resident = self._by_host.get(host)
        if resident is None or route.remembered:
            return resident
        if not resident.ssh_port and self._nodes[host] > 1:
            return None
        if self._places[host, route.port] > 1:
            return resident if resident.jump and _surely(resident, route) else None
        # A way may have come to lead through another machine: an agent says who it is.
        jump = "" if resident.jump == NO_JUMP else route.target.jump
        return resident if resident.is_at(route.port, jump) else None

    def is_here(self, visit: Visit) -> bool:
        """Whether the agent that is known is on the node of the visit: by its answer, where the
        way to it is another than it was adopted by."""
        known = self.of(visit.route)
        return known is not None and (
            _surely(known, visit.route)
            or places.answers(known, visit.route, visit.session, self._authority)
        )

    def first(self, route: Route) -> Route:
        """To the run's first node with the host of ``route``: of several behind one address, that
        one's agent may stay."""
        host = route.target.host
        return next((one for one in self._routes if one.target.host == host), route)

    def invitation(
        self, route: Route, session: Session, tell: Callable[[dict[str, Any]], None]
    ) -> Invitation:
        """For a host's apply in ``session``, that its agent may stay after it."""
        return Invitation(
            self._authority, self._roster, route, session, self._port, tell,
            partial(neighbours.holder, self._settings), self.first(route),
        )  # fmt: skip

    @contextlib.contextmanager
    def line(
        self, route: Route, session: Session | None = None, tell: channel.Tell = channel.unheard
    ) -> Iterator[Channel | None]:
        """A channel as of :meth:`open` for the length of a block, at whose end it is renewed."""
        found = self.open(route, session, tell)
        try:
            yield found
        finally:
            if found is not None:
                self.renew(route, found)
                found.close()

    def open(
        self, route: Route, session: Session | None = None, tell: channel.Tell = channel.unheard
    ) -> Channel | None:
        """A channel to the host's agent, or None if none answers that way.

        Without ``session``: straight; a host behind a jump host is reached through one only.
        """
        resident = self.of(route)
        if resident is None or self._context is None:
            return None
        name, context = route.name, self._context
        try:
            if session is not None:
                through = partial(channel.through, name, session.transport, resident, context)
                return channel.awaited(through, resident, channel.SETTLE_SECONDS, tell)
            if route.direct:
                straight = partial(channel.straight, name, route.hostname, resident, context)
                return channel.awaited(straight, resident, channel.SETTLE_STRAIGHT_SECONDS, tell)
        except channel.NoAnswer:
            return None
        except channel.NotOurAgent:
            # By another way than it was adopted by, another node may be there.
            sure = route.remembered or _surely(resident, route)
            if sure and (session is not None or not self._shares_its_place(route, resident)):
                raise
        return None

    def _shares_its_place(self, route: Route, resident: Resident) -> bool:
        """Whether another agent of ours is known at that address and port: behind one address, the
        port leads to one of them alone, and to the others goes SSH."""
        return any(
            one.id != resident.id and (one.address, one.port) == (route.hostname, resident.port)
            for one in self._by_host.values()
        )

    def renew(self, route: Route, line: Channel) -> None:
        """Note that it was met; renew a certificate near its end, or one without the name that
        Prometheus verifies. A failure leaves the old one for the next visit."""
        resident = self.of(route)
        if resident is None:
            return
        if resident.settling:
            resident = replace(resident, settling=0)
            self._put(route, resident)
        if line.scrapable and resident.until - time.time() > authorities.RENEW_DAYS * 86400:
            return
        with contextlib.suppress(MoorageError, channel.NoAnswer, ValueError):
            self._put(route, channel.renew(line, self._authority, resident))

    def reached(self, route: Route) -> None:
        """Its agent answers in a session to ``route``: that is where it is asked the next time."""
        resident = self.of(route)
        if resident is not None:
            met = replace(places.met(resident, route), address=places.address_of(route))
            if met != resident:
                self._put(route, met)

    def hearing(
        self, route: Route, tell: Callable[[dict[str, Any]], None]
    ) -> Callable[[dict[str, Any]], None]:
        """``tell`` for an errand to a host whose agent did not answer: the node may say why."""

        def hear(event: dict[str, Any]) -> None:
            if event["event"] == "stays" and event["error"] is not None:
                places.did_not_settle(self._roster, route)
                tell({"event": "note", "message": not_here(event["error"])})
            tell(event)

        return hear

    def _put(self, route: Route, resident: Resident) -> None:
        self._roster.put(route.target.host, resident, known=True)
        self._by_host[route.target.host] = resident


def _surely(resident: Resident, route: Route) -> bool:
    """Whether the way is the one that it was adopted by."""
    return resident.is_at(route.port, route.target.jump or NO_JUMP)


def looks(settings: Settings) -> tuple[int, ...]:
    """Changes with the roster and the operator's certificate: by another command, meanwhile."""
    times = []
    for name in ("nodes.json", "operator.crt"):
        try:
            times.append((settings.certs_dir / "fleet" / name).stat().st_mtime_ns)
        except OSError:
            times.append(0)
    return tuple(times)


def adopt(
    settings: Settings,
    visit: Visit,
    *,
    port: int | None,
    loopback: bool,
    first: Route | None = None,
) -> HostResult:
    """Makes the agent stay on the node; again, it gets a new key and this folder's archive.

    ``first``: as of :meth:`Residents.first`. Raises MoorageError if its request is refused; nothing
    is left of it there.
    """
    authority, roster = authorities.Authority.open(settings), Roster(settings)
    name, host = visit.route.name, visit.route.target.host
    port = settings.nodes.agent_port if port is None else port
    former, resident = "", None
    refused: MoorageError | None = None

    def is_here(known: Resident) -> bool:
        return known.id == former and places.answers(known, visit.route, visit.session, authority)

    def reply(event: dict[str, Any]) -> bytes | None:
        nonlocal former, resident, refused
        if event["event"] != "request":
            return None
        former = str(event.get("id"))
        if theirs := neighbours.holder(settings, former):
            refused = neighbours.not_ours(theirs, host)
            return b"\n"
        try:
            places.refuse_another_nodes(roster, visit.route, first, is_here)
            identity = roster.identity(host, former)
            document, resident = granted(authority, identity, event, port, loopback=loopback)
        except MoorageError as problem:
            refused = problem
            return b"\n"
        return document + b"\n"

    result = visit.errand(("reside",), reply)
    if refused is not None:
        raise refused
    if not result.ok or resident is None:
        return result
    address = "" if loopback else places.address_of(visit.route)
    # Under another name it may have been known by the id it had before.
    resident = places.noted(roster, resident, visit.route, address)
    roster.put(host, resident, instead_of=former)
    try:
        # Through the session: it also works where a firewall closes the port.
        line = channel.through(name, visit.session.transport, resident, authority.context())
        with contextlib.closing(line):
            line.ask("GET", "/healthz")
    except channel.NoAnswer as problem:
        visit.tell({"event": "note", "message": f"its answer could not be tried: {problem}"})
    return result


def release(settings: Settings, visit: Visit) -> HostResult:
    """Takes the agent away whole; the trust stays.

    Raises Refused (``another-profiles``) where another profile of this checkout commands it.
    """
    here = _is_known_here(settings, visit)
    if not here:
        _refuse_a_neighbours(settings, visit)
    result = visit.errand(("release",))
    if result.ok and here:
        Roster(settings).drop(visit.route.target.host)
    return result


def _is_known_here(settings: Settings, visit: Visit) -> bool:
    """Whether the roster's agent of that host is on the node of the visit: as ``is_here``."""
    known = Roster(settings).residents().get(visit.route.target.host)
    if known is None or _surely(known, visit.route):
        return known is not None
    with contextlib.suppress(MoorageError):
        authority = authorities.Authority.open(settings)
        return places.answers(known, visit.route, visit.session, authority)
    return False


def _refuse_a_neighbours(settings: Settings, visit: Visit) -> None:
    if not neighbours.any_resident(settings):
        return
    host, asked = visit.route.target.host, ""

    def reply(event: dict[str, Any]) -> bytes | None:
        nonlocal asked
        if event["event"] != "request":
            return None
        asked = str(event.get("id"))
        return b"\n"  # no: the node goes on as it was

    visit.errand(("reside",), reply)
    if theirs := neighbours.holder(settings, asked):
        raise neighbours.not_ours(theirs, host)


def upgrade(residents: Residents, visit: Visit, *, downgrade: bool = False) -> HostResult:
    """Puts this folder's archive in the place of the agent's, and waits until it answers.

    Else the old one is back. ``downgrade``: in the place of a newer one, too.
    """
    if not residents.is_here(visit):
        return errand.failed(visit.route.name, _NO_AGENT)
    result = visit.errand(("upgrade", *(("--downgrade",) if downgrade else ())))
    if result.status != CHANGED:
        return result
    # It is on trial until an operator was answered; this is the first one who asks.
    deadline, running = time.monotonic() + UPGRADE_SECONDS, ""
    while running != visit.archive.digest:
        if time.monotonic() > deadline:
            return errand.failed(visit.route.name, _not_taken(running))
        running = _running(residents, visit) or running
    return result


def _running(residents: Residents, visit: Visit) -> str:
    """The digest of the archive that answers; "" after half a second if none does."""
    with (
        contextlib.suppress(MoorageError, channel.NoAnswer),
        residents.line(visit.route, visit.session) as line,
    ):
        if line is not None:
            return str(line.ask("GET", "/healthz")["digest"])
    time.sleep(0.5)
    return ""


_NO_AGENT = Fault(
    "no-agent",
    "no resident agent answers on this node",
    cause="it was never adopted from here, or its service does not run",
    cure="inv nodes.adopt",
)


def _not_taken(running: str) -> Fault:
    return Fault(
        "upgrade-not-taken",
        "the new agent did not answer; the one before it is back"
        if running
        else "the new agent does not answer",
        cause="it does not serve on this node: journalctl -u moorage-agent says why",
        cure="inv nodes.adopt installs the service again",
    )
