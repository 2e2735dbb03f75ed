"""One operation on one host: by its resident agent where one answers, else in an SSH session."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from moorage.fleet.errand import errand, faults
from moorage.fleet.report import agreement
from moorage.fleet.residents import channel
from moorage.fleet.residents.residence import Residents, Visit
from moorage.fleet.rollout import plans
from moorage.fleet.ssh import retry, routing
from moorage.fleet.ssh import session as ssh

if TYPE_CHECKING:
    from agent.wire.plan import Plan
    from agent.wire.report import HostResult
    from moorage.archive import AgentArchive
    from moorage.fleet.inventory import Target
    from moorage.fleet.rollout.operation import Operation, Reach
    from moorage.fleet.rollout.rollout import Line
    from moorage.fleet.ssh.routes import Route
    from moorage.settings import Settings

# Resident agents that are asked at once. What bounds it is this machine's descriptors and the
# answers in its memory; each handshake is a millisecond of its processor.
ASKED_AT_ONCE = 64
# An agent that is only asked reads a few files, or runs a few short programs.
ANSWER_SECONDS = 60.0


@dataclass(frozen=True)
class Means:
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
    ) -> Means:
        sessions = threading.BoundedSemaphore(settings.nodes.parallel)
        residents = Residents(settings, adopting=operation.stay)
        known = _Routes(settings, routes)
        return cls(settings, operation, archive, reach, residents, sessions, known, agreed)

    @property
    def at_once(self) -> int:
        """Hosts that are worked on at once. An agent that is only asked costs next to nothing."""
        asked = self.operation.looks and self.operation.words in channel.SERVED
        usual = self.settings.nodes.parallel
        return max(usual, ASKED_AT_ONCE) if asked and self.residents.any else usual


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


def patiently(means: Means, route: Route, line: Line) -> HostResult:
    """Tried again where the connection breaks, and where it wants an agreement that was given."""
    result = _tried(means, route, line)
    if means.agreed and agreement.wanted(result):
        return _tried(replace(means, operation=means.operation.agreed()), route, line)
    return result


def _tried(means: Means, route: Route, line: Line) -> HostResult:
    return retry.with_retries(
        lambda: _on_host(means, route, line),
        means.settings.nodes.retries,
        line.rest,
        lambda words: line.tell({"event": "note", "message": words}),
    )


def _on_host(means: Means, route: Route, line: Line) -> HostResult:
    residents = means.residents
    if means.operation.words not in channel.SERVED or residents.of(route) is None:
        return _by_ssh(means, route, line, served=False)
    asked = False
    try:
        with residents.line(route) as straight:
            if straight is not None:
                with line.open(straight):
                    return _over(means, route, straight, line)
    except channel.NoAnswer as problem:
        asked = problem.asked
        _tell_refusal(line, problem)
    except channel.NotOurAgent:
        whole = means.routes.whole(route)
        if whole.hostname == route.hostname:
            raise
        return _on_host(means, whole, line)  # its address is another node's now
    route = means.routes.whole(route)
    try:
        return _by_ssh(means, route, line, served=True)
    except ssh.Unreachable as problem:
        if not asked or means.operation.looks:
            raise
        # An agent that froze with our request in its hands may go on with it.
        lost = faults.connection_lost(begun=False)
        return errand.failed(route.name, faults.since(lost, problem.message))


def _by_ssh(means: Means, route: Route, line: Line, *, served: bool) -> HostResult:
    """In an SSH session: through it where an agent is ``served``, else by an errand."""
    operation, residents = means.operation, means.residents
    with means.sessions, _connected(route, line) as session, line.open(session):
        become = errand.Become(route.user != "root", means.reach.sudo_password)
        if operation.visit is not None:
            visit = Visit(session, route, means.archive, become, line.tell)
            return operation.visit(visit, residents)
        if served:
            with _another_way(line), residents.line(route, session) as tunnel:
                if tunnel is not None:
                    residents.reached(route)
                    return _over(means, route, tunnel, line, session.local_address)
        plan = _plan(means.settings, operation, session.local_address)
        if plan is None:
            return errand.failed(route.name, faults.NO_REGISTRY_ADDRESS)
        invitation = residents.invitation(route, session, line.tell) if operation.stay else None
        answer, status = session.errand(
            means.archive,
            _words(means.settings, operation),
            plans.wire(plan) + b"\n",
            become,
            line.tell if invitation is None else invitation.hear,
            plans.patience(plan),
            None if invitation is None else invitation.reply,
        )
    return errand.host_result(route.name, answer, status, route.user)


@contextlib.contextmanager
def _another_way(line: Line) -> Iterator[None]:
    """Where no agent of ours answers the next way is tried; one that refuses us is told."""
    try:
        yield
    except channel.NoAnswer as problem:
        _tell_refusal(line, problem)


def _tell_refusal(line: Line, problem: channel.NoAnswer) -> None:
    if isinstance(problem, channel.RefusesUs):
        line.tell({"event": "note", "message": f"{problem}; it is asked over SSH"})


def _words(settings: Settings, operation: Operation) -> tuple[str, ...]:
    """The agent's command line over SSH."""
    stay = ("--stay",) if operation.stay else ()
    once = () if settings.nodes.resident else ("--once",)
    return (*operation.words, *stay, *once)


@contextlib.contextmanager
def _connected(route: Route, line: Line) -> Iterator[ssh.Session]:
    """A session, unless the run was stopped while this host waited for its turn."""
    line.go_on()
    with ssh.connect(route) as session:
        yield session


def _over(
    means: Means,
    route: Route,
    line: channel.Channel,
    told: Line,
    local_address: str | None = None,
) -> HostResult:
    """The operation by the host's resident agent."""
    operation, body, patience = means.operation, b"", ANSWER_SECONDS
    if channel.takes_plan(operation.words):
        plan = _plan(means.settings, operation, local_address or line.local_address)
        if plan is None:
            return errand.failed(route.name, faults.NO_REGISTRY_ADDRESS)
        body, patience = plans.wire(plan), plans.patience(plan)
    answer, status = line.operate(operation.words, body, told.tell, patience)
    return errand.host_result(route.name, answer, status, route.user)


def _plan(settings: Settings, operation: Operation, local_address: str) -> Plan | None:
    """The plan for one host; None where the registry's address cannot be guessed for it."""
    address: str | None = None
    if operation.needs_address:
        address = plans.registry_address(settings, local_address)
        if not address:
            return None
    return operation.plan(settings, address)
