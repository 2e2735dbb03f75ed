"""One operation on one host: by its resident agent where one answers, else in an SSH session."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from moorage.errors import MoorageError, Refused
from moorage.fleet.errand import errand, faults
from moorage.fleet.report import agreement
from moorage.fleet.residents import channel, residence
from moorage.fleet.residents.residence import Residents, Visit
from moorage.fleet.rollout import plans
from moorage.fleet.rollout.transports import Errand, Https
from moorage.fleet.ssh import retry, routing
from moorage.fleet.ssh import session as ssh
from moorage.output import ages

if TYPE_CHECKING:
    from agent.wire.report import HostResult
    from moorage.archive import AgentArchive
    from moorage.fleet.inventory import Target
    from moorage.fleet.rollout.operation import Operation, Reach
    from moorage.fleet.rollout.plans import SentPlan
    from moorage.fleet.rollout.rollout import HostLine
    from moorage.fleet.ssh.routes import Route
    from moorage.pki.roster import Resident
    from moorage.settings import Settings

# Resident agents that are asked at once. What bounds it is this machine's descriptors and the
# answers in its memory; each handshake is a millisecond of its processor.
ASKED_AT_ONCE = 64


@dataclass(frozen=True)
class HostMeans:
    """What the work on all hosts of a run shares.

    ``sessions`` bounds those over SSH where more hosts than that are asked at once over HTTPS.
    ``agreed``: what runs on the hosts may be stopped.
    """

    settings: Settings
    operation: Operation
    archive: AgentArchive
    reach: Reach
    residents: Residents
    sessions: threading.BoundedSemaphore
    routes: _Routes
    agreed: bool
    plans: dict[tuple[str | None, bool], SentPlan] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        settings: Settings,
        operation: Operation,
        archive: AgentArchive,
        reach: Reach,
        routes: Sequence[Route],
        *,
        agreed: bool = False,
    ) -> HostMeans:
        sessions = threading.BoundedSemaphore(settings.nodes.parallel)
        residents = Residents(settings, adopting=operation.stay, routes=routes)
        known = _Routes(settings, routes)
        return cls(settings, operation, archive, reach, residents, sessions, known, agreed)

    @property
    def at_once(self) -> int:
        """Hosts that are worked on at once. An agent that is only asked costs next to nothing."""
        asked = self.operation.verb.looks and self.operation.verb.https
        usual = self.settings.nodes.parallel
        return max(usual, ASKED_AT_ONCE) if asked and self.residents.any else usual

    def asks_agent(self, route: Route) -> bool:
        """Whether an agent is known there that answers this verb."""
        return self.operation.verb.https and self.residents.of(route) is not None

    def plan(self, local_address: str) -> SentPlan:
        """The plan for a host to which this machine is ``local_address``.

        Raises MoorageError if the registry's address cannot be guessed for it.
        """
        address: str | None = None
        if self.operation.verb.address and not plans.found_by_dns(self.settings):
            address = plans.registry_address(self.settings, local_address)
            if not address:
                raise MoorageError.of(faults.NO_REGISTRY_ADDRESS)
        key = (address, self.operation.stop_running)  # most hosts of a run get the same plan
        if key not in self.plans:
            self.plans[key] = plans.sent(self.operation.plan(self.settings, address))
        return self.plans[key]

    def renewed(self) -> HostMeans:
        """The same with the login that nodes have now: a rotation may have ended the one before."""
        try:
            operation = self.operation.renewed(self.settings)
        except Refused:  # there is none any more; what the node says of the old one is what counts
            return self
        same = operation == self.operation
        return self if same else replace(self, operation=operation, plans={})


class _Routes:
    """The whole ways to hosts whose agents were only remembered, read when the first is wanted."""

    def __init__(self, settings: Settings, routes: Sequence[Route]) -> None:
        self._settings = settings
        self._targets = [route.target for route in routes if route.remembered]
        self._found: dict[Target, Route] = {}
        self._guard = threading.Lock()

    def whole(self, route: Route) -> Route:
        """Raises Refused for what OpenSSH would refuse."""
        if not route.remembered:
            return route
        with self._guard:
            if not self._found:
                found = routing.to(self._settings, self._targets)
                self._found = dict(zip(self._targets, found, strict=True))
        return self._found[route.target]


def patiently(means: HostMeans, route: Route, line: HostLine) -> HostResult:
    """Tried again if the connection breaks, if it wants an agreement that was given, and
    where the login that it was sent has been replaced before it pulled."""
    means = means.renewed()
    result = retry.with_retries(
        lambda: (_by_agent if means.asks_agent(route) else _by_ssh)(means, route, line),
        means.settings.nodes.retries,
        line.rest,
        partial(_note, line),
    )
    if means.agreed and agreement.wanted(result) and not means.operation.stop_running:
        return patiently(replace(means, operation=means.operation.agreed()), route, line)
    refused = result.error is not None and result.error.code == "login-refused"
    if refused and means.renewed() is not means:
        return patiently(means, route, line)
    return result


def _by_agent(means: HostMeans, route: Route, line: HostLine) -> HostResult:
    """By the agent that stays there, if it answers; else as if none did."""
    residents = means.residents
    asked = False
    try:
        with residents.line(route, tell=partial(_note, line)) as straight:
            if straight is not None:
                with line.open(straight):
                    https = Https(straight)
                    answer = https.operate(means.operation.call, means.plan, line.tell)
                    return errand.host_result(route.name, answer, route.user)
    except channel.NoAnswer as problem:
        asked = problem.asked
        _tell_refusal(line, problem)
    except channel.NotOurAgent:
        whole = means.routes.whole(route)
        if whole.direct and whole.hostname == route.hostname:
            raise
        # Its address is another node's now.
        return (_by_agent if means.asks_agent(whole) else _by_ssh)(means, whole, line)
    route = means.routes.whole(route)
    try:
        return _by_ssh(means, route, line, served=True)
    except ssh.Unreachable as problem:
        if not asked or means.operation.verb.looks:
            raise
        # An agent that froze with our request in its hands may go on with it.
        lost = faults.connection_lost(begun=False)
        return errand.failed(route.name, faults.since(lost, problem.message))


def _by_ssh(means: HostMeans, route: Route, line: HostLine, *, served: bool = False) -> HostResult:
    """In an SSH session: through it where an agent is ``served``, else by an errand."""
    operation, residents = means.operation, means.residents
    with means.sessions, _connected(route, line) as session, line.open(session):
        become = errand.Become(route.user != "root", means.reach.sudo_password)
        if operation.verb.resident:
            visit = Visit(session, route, means.archive, become, line.tell)
            return _VISITS[operation.verb.name](means, visit)
        if served:
            tell = partial(_note, line)
            with _another_way(line), residents.line(route, session, tell) as tunnel:
                if tunnel is not None:
                    residents.reached(route)
                    https = Https(tunnel, session.local_address)
                    answer = https.operate(operation.call, means.plan, line.tell)
                    return errand.host_result(route.name, answer, route.user)
            _tell_that_it_settles(line, residents.of(route))
        invitation = residents.invitation(route, session, line.tell) if operation.stay else None
        flags = _flags(means.settings, operation)
        by_errand = Errand(session, means.archive, become, flags, invitation)
        hear = residents.hearing(route, line.tell)
        answer = by_errand.operate(operation.call, means.plan, hear)
        return errand.host_result(route.name, answer, route.user)


# What is done about the agent that stays: a conversation in the session, in place of one errand.
_VISITS: dict[str, Callable[[HostMeans, Visit], HostResult]] = {
    "reside": lambda means, visit: residence.adopt(
        means.settings, visit, port=means.operation.wish.port,
        loopback=means.operation.wish.loopback, first=means.residents.first(visit.route),
    ),
    "release": lambda means, visit: residence.release(means.settings, visit),
    "upgrade": lambda means, visit: residence.upgrade(
        means.residents, visit, downgrade=means.operation.wish.downgrade
    ),
}  # fmt: skip


@contextlib.contextmanager
def _another_way(line: HostLine) -> Iterator[None]:
    """Try the next way if no agent of ours answers; report one that refuses us."""
    try:
        yield
    except channel.NoAnswer as problem:
        _tell_refusal(line, problem)


def _tell_refusal(line: HostLine, problem: channel.NoAnswer) -> None:
    if isinstance(problem, channel.RefusesUs):
        _note(line, f"{problem}; it is asked over SSH")


def _note(line: HostLine, words: str) -> None:
    line.tell({"event": "note", "message": words})


def _tell_that_it_settles(line: HostLine, resident: Resident | None) -> None:
    """Its agent was waited for in vain; why, the errand says if the node knows."""
    if resident is not None and resident.settling:
        since = ages.age(time.time() - resident.settling)
        _note(line, f"its agent, adopted {since} ago, does not serve yet; it is asked over SSH")


def _flags(settings: Settings, operation: Operation) -> tuple[str, ...]:
    """What of the agent is left on a node to which it was brought."""
    stay = ("--stay",) if operation.stay else ()
    once = () if settings.nodes.resident else ("--once",)
    return (*stay, *once)


@contextlib.contextmanager
def _connected(route: Route, line: HostLine) -> Iterator[ssh.Session]:
    """A session, unless the run was stopped while this host waited for its turn."""
    line.go_on()
    with ssh.connect(route) as session:
        yield session
