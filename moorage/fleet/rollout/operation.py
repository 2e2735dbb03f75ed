"""One operation on many hosts: choose the ways, refuse what cannot work, then let them all run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from agent.wire.report import UNREACHABLE, HostResult
from moorage.errors import MoorageError, Refused
from moorage.fleet.errand import faults
from moorage.fleet.inventory import Target
from moorage.fleet.report import FleetReport, agreement
from moorage.fleet.report.waves import ALL_AT_ONCE, Policy, Schedule, schedule
from moorage.fleet.residents import channel
from moorage.fleet.residents.residence import Residents, Visit
from moorage.fleet.rollout import on_host, plans
from moorage.fleet.rollout.rollout import Outcome, Rollout
from moorage.fleet.ssh import routing
from moorage.fleet.state.host import runtime_and_state

if TYPE_CHECKING:
    from agent.wire.plan import Plan, Verify
    from moorage.archive import AgentArchive
    from moorage.fleet.report.logbook import Logbook
    from moorage.fleet.ssh.routes import Route
    from moorage.settings import Settings
    from moorage.ui import UI


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
    # What runs on a node may be stopped: see agreement.
    stop_running: bool = False
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

    def agreed(self) -> Operation:
        """The same once the user has agreed to what it stops."""
        flag = ("--stop-running",) if self.words[0] == "recover" else ()
        return replace(self, words=(*self.words, *flag), stop_running=True)

    def plan(self, settings: Settings, address: str | None) -> Plan:
        return plans.make(
            settings,
            ca=self.ca,
            address=address,
            verify=self.pull,
            restart=self.restart,
            replace=self.replace,
            run=self.run,
            stop_running=self.stop_running,
        )


@dataclass(frozen=True)
class Reach:
    """How to get in: learn unknown host keys first; know sudo's password."""

    learn_host_keys: bool = False
    sudo_password: str | None = field(default=None, repr=False)


def ca(settings: Settings) -> str:
    """The CA's PEM. Raises Refused where none is issued."""
    from moorage.pki import registry as pki

    return pki.ca_pem(settings)


def ca_if_any(settings: Settings) -> str | None:
    """The CA's PEM where one is issued: a look, and taking trust away, do without."""
    try:
        return ca(settings)
    except Refused:
        return None


def proof(settings: Settings, image: str | None) -> Verify:
    """The pull that proves it, with the registry's login. Raises Refused where there is none."""
    from agent.wire.plan import Verify
    from moorage import registry

    login = registry.credentials(settings)
    return Verify(image or settings.image_reference, login.user, login.password)


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
    from moorage.archive import errand_archive, quick_archive

    reach = reach or Reach()
    pace = pace or Pace()
    by_agents = operation.visit is None and operation.words in channel.SERVED
    routes = routing.to(settings, hosts, by_agents=by_agents and not reach.learn_host_keys)
    plan = schedule(pace.policy, len(routes))
    _refuse_what_cannot_work(settings, operation, routes)
    if reach.learn_host_keys:
        from moorage.fleet.ssh.learn import learn_host_keys

        learn_host_keys(ui, routes, settings.nodes.parallel)
    stays = operation.stay or operation.visit is not None
    archive = (quick_archive if stays else errand_archive)(settings.state)
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
    if not stopped and not operation.stop_running:
        outcomes, stopped, halted = _again_agreed(
            settings, ui, operation, archive, routes, reach, pace, outcomes, logbook, halted
        )
    if logbook is not None:
        logbook.end(halted or ("it was stopped" if stopped else ""))
    return _report(outcomes, operation, stopped, halted)


def _refuse_what_cannot_work(
    settings: Settings, operation: Operation, routes: Sequence[Route]
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
    routes: Sequence[Route],
    reach: Reach,
    plan: Schedule | None,
    logbook: Logbook | None,
) -> tuple[list[Outcome], int, str]:
    """The outcomes in order, the signal that stopped it (0: none), why failures did ("": none)."""
    agreed = agreement.given(settings, ui)
    means = on_host.Means.of(settings, operation, archive, reach, routes, agreed=agreed)
    works = [(route.name, partial(on_host.patiently, means, route)) for route in routes]
    count = f"{len(works)} node{'s' if len(works) > 1 else ''}"

    def told(outcome: Outcome) -> None:
        if logbook is not None:
            logbook.result(outcome.result)

    rollout = Rollout(works, means.at_once, plan, told)
    outcomes, stopped = rollout.run(
        ui, f"{operation.title} {count}", dry_run=operation.dry_run, quiet=operation.looks
    )
    return outcomes, stopped, rollout.halted


def _again_with_password(
    settings: Settings,
    ui: UI,
    operation: Operation,
    archive: AgentArchive,
    routes: Sequence[Route],
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


def _again_agreed(
    settings: Settings,
    ui: UI,
    operation: Operation,
    archive: AgentArchive,
    routes: Sequence[Route],
    reach: Reach,
    pace: Pace,
    outcomes: list[Outcome],
    logbook: Logbook | None,
    halted: str,
) -> tuple[list[Outcome], int, str]:
    """Asks once for all hosts where something would be stopped, and goes to those again.

    And to those that were not begun because the first ones wanted to be asked.
    """
    wanting = [outcome.result for outcome in outcomes if agreement.wanted(outcome.result)]
    if not agreement.asked(ui, wanting):
        return outcomes, 0, halted
    hosts = {result.host for result in wanting}
    hosts |= {one.result.host for one in outcomes if one.result.error == faults.halted(halted)}
    left = [route for route in routes if route.name in hosts]
    anew, stopped, halted = _roll_out(
        settings,
        ui,
        operation.agreed(),
        archive,
        left,
        reach,
        schedule(pace.policy, len(left)),
        logbook,
    )
    return _with(outcomes, anew), stopped, halted


def _with(outcomes: Sequence[Outcome], anew: Sequence[Outcome]) -> list[Outcome]:
    newer = {outcome.result.host: outcome for outcome in anew}
    return [newer.get(outcome.result.host, outcome) for outcome in outcomes]


def _moved(
    settings: Settings,
    hosts: Sequence[str | Target],
    routes: Sequence[Route],
    outcomes: Sequence[Outcome],
) -> list[Route]:
    """Lab nodes out of reach that the engine has given new addresses since, with those.

    A container that is started again may get another one. The engine is asked only then, for the
    Docker SDK takes longer to load than a node to answer.
    """
    lost = {outcome.result.host for outcome in outcomes if outcome.result.status == UNREACHABLE}
    known = routing.lab_hosts(settings) if lost else None
    if known is None or not any(
        route.name in lost and route.target.host in known.hosts.names for route in routes
    ):
        return []
    import lab
    from moorage.docker import engine

    try:
        lab.nodes(settings, engine.connect(settings))
        now = routing.to(settings, hosts)
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
