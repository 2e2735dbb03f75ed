"""One operation on many hosts: choose the ways, refuse what cannot work, then let them all run."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from agent.report import UNREACHABLE, HostResult
from moorage.errors import MoorageError, Refused
from moorage.fleet import again, channel, errand, faults, inventory, openssh, plans, ssh
from moorage.fleet.inventory import Target
from moorage.fleet.report import FleetReport
from moorage.fleet.residence import Residents, Visit
from moorage.fleet.rollout import Line, Outcome, Rollout
from moorage.fleet.roster import Roster
from moorage.fleet.standing import runtime_and_state
from moorage.fleet.waves import ALL_AT_ONCE, Policy, Schedule, schedule

if TYPE_CHECKING:
    from agent.plan import Plan, Verify
    from moorage.archive import AgentArchive
    from moorage.fleet.logbook import Logbook
    from moorage.settings import Settings
    from moorage.ui import UI

# Resident agents that are asked at once. What bounds it is this machine's descriptors and the
# answers in its memory; each handshake is a millisecond of its processor.
ASKED_AT_ONCE = 64
# An agent that is only asked reads a few files, or runs a few short programs.
ANSWER_SECONDS = 60.0


@dataclass(frozen=True)
class Operation:
    """What the agent is to do on every host; ``words`` are its command line."""

    title: str
    words: tuple[str, ...]
    ca: str | None = None
    pull: Verify | None = None
    restart: bool = True
    replace: bool = False
    # What makes an undo that is asked for again one and the same.
    run: str = ""
    needs_address: bool = False
    # The agent stays after it, where it does not yet.
    stay: bool = False
    # What is done in the SSH session in place of one errand: adoption, release, upgrade.
    visit: Callable[[Visit, Residents], HostResult] | None = None

    @property
    def dry_run(self) -> bool:
        return "--dry-run" in self.words

    @property
    def looks(self) -> bool:
        """Whether nothing is changed or proved: the answer is what counts, and comes at once."""
        return self.words[0] in ("status", "facts", "history", "explain", "diff")

    @property
    def shows_diffs(self) -> bool:
        """Whether what it tells of changes is to be read, not only counted."""
        return self.dry_run or self.words[0] == "diff"

    def plan(self, settings: Settings, address: str | None) -> Plan:
        return plans.make(
            settings,
            ca=self.ca,
            address=address,
            verify=self.pull,
            restart=self.restart,
            replace=self.replace,
            run=self.run,
        )


@dataclass(frozen=True)
class Reach:
    """How to get in: learn unknown host keys first; know sudo's password."""

    learn_host_keys: bool = False
    sudo_password: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Lab:
    """The lab's nodes, in the order of their numbers."""

    in_order: tuple[str, ...]
    hosts: openssh.LabHosts


def lab_hosts(settings: Settings) -> Lab | None:
    """The lab's nodes, by the OpenSSH configuration it keeps while it is up. Asks no engine."""
    from paramiko import SSHConfig

    from moorage import lab

    path = lab.ssh_config(settings)
    if not path.exists():
        return None
    found = SSHConfig.from_path(str(path)).get_hostnames()
    names = sorted((name for name in found if "*" not in name), key=_by_number)
    if not names:
        return None
    return Lab(tuple(names), openssh.LabHosts(frozenset(names), path))


def _by_number(name: str) -> tuple[str, int]:
    stem = name.rstrip("0123456789")
    return stem, int(name[len(stem) :] or 0)


def ca(settings: Settings) -> str:
    """The CA's PEM. Raises Refused where none is issued."""
    from moorage import pki

    return pki.ca_pem(settings)


def ca_if_any(settings: Settings) -> str | None:
    """The CA's PEM where one is issued: a look, and taking trust away, do without."""
    try:
        return ca(settings)
    except Refused:
        return None


def proof(settings: Settings, image: str | None) -> Verify:
    """The pull that proves it, with the registry's login. Raises Refused where there is none."""
    from agent.plan import Verify
    from moorage import registry

    login = registry.credentials(settings)
    return Verify(image or settings.image_reference, login.user, login.password)


@dataclass(frozen=True)
class _Means:
    """What the work on all hosts of a run shares.

    ``sessions`` bounds those over SSH where more hosts than that are asked at once over HTTPS.
    """

    settings: Settings
    operation: Operation
    archive: AgentArchive
    reach: Reach
    residents: Residents
    sessions: threading.BoundedSemaphore
    routes: _Routes

    @classmethod
    def of(
        cls,
        settings: Settings,
        operation: Operation,
        archive: AgentArchive,
        reach: Reach,
        routes: Sequence[openssh.Route],
    ) -> _Means:
        sessions = threading.BoundedSemaphore(settings.nodes.parallel)
        residents = Residents(settings, adopting=operation.stay)
        known = _Routes(settings, routes)
        return cls(settings, operation, archive, reach, residents, sessions, known)

    @property
    def at_once(self) -> int:
        """Hosts that are worked on at once. An agent that is only asked costs next to nothing."""
        asked = self.operation.looks and self.operation.words in channel.SERVED
        usual = self.settings.nodes.parallel
        return max(usual, ASKED_AT_ONCE) if asked and self.residents.any else usual


class _Routes:
    """The whole ways to hosts whose agents were only remembered, read when the first is wanted."""

    def __init__(self, settings: Settings, routes: Sequence[openssh.Route]) -> None:
        self._settings = settings
        self._targets = [route.target for route in routes if route.remembered]
        self._found: dict[Target, openssh.Route] = {}
        self._guard = threading.Lock()

    def whole(self, route: openssh.Route) -> openssh.Route:
        """Raises Refused for what OpenSSH would refuse."""
        if not route.remembered:
            return route
        with self._guard:
            if not self._found:
                found = ways_to(self._settings, self._targets)
                self._found = dict(zip(self._targets, found, strict=True))
        return self._found[route.target]


@dataclass(frozen=True)
class Pace:
    """How a run goes over many hosts: in which waves, and what begins the book of what it does.

    ``begin`` is called once nothing refuses the run any more: one that is refused leaves the book
    of the run before it the newest.
    """

    policy: Policy = ALL_AT_ONCE
    begin: Callable[[], Logbook] | None = None


def run(
    settings: Settings,
    ui: UI,
    hosts: Sequence[str | Target],
    operation: Operation,
    reach: Reach | None,
    pace: Pace | None = None,
) -> FleetReport:
    """Carries ``operation`` out on ``hosts``. Raises Refused before any of them is touched."""
    from moorage.archive import quick_archive

    reach = reach or Reach()
    pace = pace or Pace()
    by_agents = operation.visit is None and operation.words in channel.SERVED
    routes = ways_to(settings, hosts, by_agents=by_agents and not reach.learn_host_keys)
    plan = schedule(pace.policy, len(routes))
    _refuse_what_cannot_work(settings, operation, routes)
    if reach.learn_host_keys:
        from moorage.fleet.learn import learn_host_keys

        learn_host_keys(ui, routes, settings.nodes.parallel)
    archive = quick_archive(settings.state)
    logbook = pace.begin() if pace.begin is not None else None
    outcomes, stopped, halted = _roll_out(
        settings, ui, operation, archive, routes, reach, plan, logbook
    )
    if not stopped and (moved := _moved(settings, hosts, routes, outcomes)):
        anew, stopped, _ = _roll_out(settings, ui, operation, archive, moved, reach, None, logbook)
        outcomes = _with(outcomes, anew)
    if not stopped and reach.sudo_password is None and ui.interactive:
        outcomes, stopped = _again_with_password(
            settings, ui, operation, archive, routes, outcomes, logbook
        )
    if logbook is not None:
        logbook.end(halted or ("it was stopped" if stopped else ""))
    return _report(outcomes, operation, stopped, halted)


def ways_to(
    settings: Settings, hosts: Sequence[str | Target], *, by_agents: bool = False
) -> tuple[openssh.Route, ...]:
    """How each host is reached. Raises Refused for bad names and what OpenSSH would refuse.

    ``by_agents``: a resident agent is looked for where it was met last, before OpenSSH is asked.
    """
    targets = inventory.targets_of(hosts)
    residents = Roster(settings).residents() if by_agents else {}
    known: dict[Target, openssh.Route] = {}
    for target in targets:
        resident = residents.get(target.host)
        if resident is not None and resident.address:
            known[target] = openssh.remembered(target, resident.address, resident.port)
    others = [target for target in targets if target not in known]
    if others:
        lab = lab_hosts(settings)
        found = openssh.routes(others, settings.nodes, lab.hosts if lab else None)
        known |= zip(others, found, strict=True)
    routes = tuple(known[target] for target in targets)
    openssh.require_each_once(routes)
    return routes


def _refuse_what_cannot_work(
    settings: Settings, operation: Operation, routes: Sequence[openssh.Route]
) -> None:
    operation.plan(settings, None)  # its own check: an image of another registry, a spoilt CA
    guessed = operation.needs_address and not plans.registry_address(settings, "")
    behind = [route.name for route in routes if not route.direct]
    if guessed and behind:
        raise Refused(
            "no-registry-address",
            f"the registry's address cannot be guessed for {', '.join(behind)}",
            cause="they are reached through a jump host or a ProxyCommand, so this machine's own "
            "address on the way to them is unknown",
            cure="set registry.address in invoke.yaml to the address they can reach it at",
        )


def _roll_out(
    settings: Settings,
    ui: UI,
    operation: Operation,
    archive: AgentArchive,
    routes: Sequence[openssh.Route],
    reach: Reach,
    plan: Schedule | None,
    logbook: Logbook | None,
) -> tuple[list[Outcome], int, str]:
    """The outcomes in order, the signal that stopped it (0: none), why failures did ("": none)."""
    means = _Means.of(settings, operation, archive, reach, routes)
    works = [(route.name, partial(_patiently, means, route)) for route in routes]
    count = f"{len(works)} node{'s' if len(works) > 1 else ''}"

    def told(outcome: Outcome) -> None:
        if logbook is not None:
            logbook.result(outcome.result)

    rollout = Rollout(works, means.at_once, plan, told)
    outcomes, stopped = rollout.run(
        ui, f"{operation.title} {count}", dry_run=operation.dry_run, quiet=operation.looks
    )
    return outcomes, stopped, rollout.halted


def _patiently(means: _Means, route: openssh.Route, line: Line) -> HostResult:
    return again.with_retries(
        lambda: _on_host(means, route, line),
        means.settings.nodes.retries,
        line.rest,
        lambda words: line.tell({"event": "note", "message": words}),
    )


def _on_host(means: _Means, route: openssh.Route, line: Line) -> HostResult:
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


def _by_ssh(means: _Means, route: openssh.Route, line: Line, *, served: bool) -> HostResult:
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
def _connected(route: openssh.Route, line: Line) -> Iterator[ssh.Session]:
    """A session, unless the run was stopped while this host waited for its turn."""
    line.go_on()
    with ssh.connect(route) as session:
        yield session


def _over(
    means: _Means,
    route: openssh.Route,
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


def _again_with_password(
    settings: Settings,
    ui: UI,
    operation: Operation,
    archive: AgentArchive,
    routes: Sequence[openssh.Route],
    outcomes: list[Outcome],
    logbook: Logbook | None,
) -> tuple[list[Outcome], int]:
    """Asks for sudo's password where hosts turned out to want one, and goes to those again."""
    wanting = {
        outcome.result.host
        for outcome in outcomes
        if outcome.result.error and outcome.result.error.code == "sudo-needs-password"
    }
    if not wanting:
        return outcomes, 0
    password = ui.ask_secret(f"sudo password for {', '.join(sorted(wanting))}")
    anew, stopped, _ = _roll_out(
        settings,
        ui,
        operation,
        archive,
        [route for route in routes if route.name in wanting],
        Reach(sudo_password=password),
        None,
        logbook,
    )
    return _with(outcomes, anew), stopped


def _with(outcomes: Sequence[Outcome], anew: Sequence[Outcome]) -> list[Outcome]:
    newer = {outcome.result.host: outcome for outcome in anew}
    return [newer.get(outcome.result.host, outcome) for outcome in outcomes]


def _moved(
    settings: Settings,
    hosts: Sequence[str | Target],
    routes: Sequence[openssh.Route],
    outcomes: Sequence[Outcome],
) -> list[openssh.Route]:
    """Lab nodes out of reach that the engine has given new addresses since, with those.

    A container that is started again may get another one. The engine is asked only then, for the
    Docker SDK takes longer to load than a node to answer.
    """
    lost = {outcome.result.host for outcome in outcomes if outcome.result.status == UNREACHABLE}
    known = lab_hosts(settings) if lost else None
    if known is None or not any(
        route.name in lost and route.target.host in known.hosts.names for route in routes
    ):
        return []
    from moorage import engine, lab

    try:
        lab.nodes(settings, engine.connect(settings))
        now = ways_to(settings, hosts)
    except MoorageError:
        return []
    before = {route.name: route.hostname for route in routes}
    return [r for r in now if r.name in lost and r.hostname != before[r.name]]


def _report(
    outcomes: Sequence[Outcome], operation: Operation, stopped: int, halted: str
) -> FleetReport:
    runtimes: dict[str, str] = {}
    diffs: dict[str, dict[str, str]] = {}
    states: dict[str, dict[str, Any]] = {}
    histories: dict[str, list[dict[str, Any]]] = {}
    findings: dict[str, list[dict[str, Any]]] = {}
    for outcome in outcomes:
        host = outcome.result.host
        runtime, state = runtime_and_state(outcome.events)
        if runtime:
            runtimes[host] = runtime
        if state:
            states[host] = state
        for event in outcome.events:
            if event["event"] == "change" and operation.shows_diffs:
                diffs.setdefault(host, {})[str(event["path"])] = _with_host(host, event)
            elif event["event"] == "history":
                histories[host] = list(event["records"])
            elif event["event"] == "explain":
                findings[host] = list(event["findings"])
    report = FleetReport(
        hosts=tuple(outcome.result for outcome in outcomes),
        runtimes=runtimes,
        states=states,
        histories=histories,
        findings=findings,
        dry_run=operation.dry_run,
        interrupted=stopped,
        halted=halted,
    )
    if not operation.shows_diffs:
        return report
    return replace(report, diffs={host.host: diffs.get(host.host, {}) for host in report.hosts})


def _with_host(host: str, event: dict[str, Any]) -> str:
    """The diff with the host before its paths: many hosts' diffs are read one below the other."""
    path = str(event["path"])
    head, hunks, body = str(event["diff"]).partition("@@")
    return head.replace(path, f"{host}:{path}") + hunks + body
