"""The fleet: a verb goes to hosts, over one way or another, and gives one report.

Only bad input and a missing prerequisite on this side are raised, as Refused or MoorageError, and
then no host was touched; whatever happens to the single host stands in the report.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from agent.wire import verbs
from agent.wire.report import UNREACHABLE
from moorage.errors import MoorageError, Refused
from moorage.fleet import inventory
from moorage.fleet.errand import faults
from moorage.fleet.report import FleetReport, agreement, deeds, logbook
from moorage.fleet.report.waves import ALL_AT_ONCE, Policy, Schedule, schedule
from moorage.fleet.residents import notes
from moorage.fleet.rollout import on_host, plans
from moorage.fleet.rollout.operation import Operation, Reach, Wish, advised, report_of
from moorage.fleet.rollout.rollout import HostOutcome, Rollout
from moorage.fleet.ssh import routing

if TYPE_CHECKING:
    from pathlib import Path

    from agent.wire.report import HostResult
    from moorage.archive import AgentArchive
    from moorage.fleet.inventory import Target
    from moorage.fleet.report.logbook import Logbook
    from moorage.fleet.ssh.routes import Route
    from moorage.settings import Settings
    from moorage.ui import UI


@dataclass(frozen=True)
class Pace:
    """How a change goes over many hosts. ``resume``: go on with the last one of its kind."""

    policy: Policy = field(default_factory=Policy)
    resume: bool = False


class Fleet:
    """Hosts, as one operator with these settings reaches them."""

    def __init__(self, settings: Settings, ui: UI, reach: Reach | None = None) -> None:
        self.settings = settings
        self.ui = ui
        self.reach = reach or Reach()

    def run(
        self,
        task: str,
        hosts: Sequence[str | Target],
        wish: Wish | None = None,
        pace: Pace | None = None,
    ) -> FleetReport:
        """Carries the verb that users call ``task`` out on ``hosts`` (agent/wire/verbs.py).

        ``pace``: of a change; None lets the number of hosts decide. Raises Refused before any
        host is touched.
        """
        verb, wish = verbs.asked(task), wish or Wish()
        targets = inventory.targets_of(hosts)
        _BEFORE.get(verb.name, _nothing)(self)
        operation = Operation.of(self.settings, verb, wish)
        if verb.changes and not wish.dry_run:
            pace = pace or Pace()
            booked = _Booked.of(self, targets, operation, resume=pace.resume)
            left = self.carry_out(booked.operation, booked.left, pace.policy, booked.begin)
            report = booked.whole(left)
        else:
            report = self.carry_out(operation, targets)
        return _AFTER.get(verb.name, _as_it_is)(self, targets, operation, report)

    def carry_out(
        self,
        operation: Operation,
        hosts: Sequence[str | Target],
        policy: Policy = ALL_AT_ONCE,
        begin: Callable[[], Logbook] | None = None,
    ) -> FleetReport:
        """One operation on ``hosts``, and again on those where that helps. Raises Refused.

        ``begin`` begins the book of what is done once nothing refuses the run any more: one that
        is refused leaves the book of the run before it the newest.
        """
        settings, verb, reach = self.settings, operation.verb, self.reach
        routes = routing.to(settings, hosts, by_agents=verb.https and not reach.learn_host_keys)
        plan = schedule(policy, len(routes))
        _refuse_what_cannot_work(settings, operation, routes)
        if reach.learn_host_keys:
            from moorage.fleet.ssh.learn import learn_host_keys

            learn_host_keys(self.ui, routes, settings.nodes.parallel)
        archive = _archive(settings, operation)
        run = _Run(self, operation, archive, routes, policy, begin() if begin is not None else None)
        run.go(routes, operation, reach, plan)
        return run.report(hosts)

    def forget(self, hosts: Sequence[str | Target], *, offline: bool = False) -> dict[str, str]:
        """Revokes the agents on ``hosts``: no command of this folder believes one any more.

        That needs no node, which may be lost. Afterwards each is gone to over SSH, once, and its
        agent taken away where it answers; ``offline`` leaves the nodes alone. Returns for each host
        what became of its agent: no-agent, left-alone, not-reached or released.
        """
        from moorage.pki.roster import Roster

        roster = Roster(self.settings)
        targets = inventory.targets_of(hosts)
        staying = routing.with_agent(self.settings, targets)
        known = {one.name: one in staying and roster.revoke(one.host) for one in targets}
        became = {name: "left-alone" if there else "no-agent" for name, there in known.items()}
        left = [target for target in targets if known[target.name]]
        return became if offline or not left else became | self._take_away(left)

    def _take_away(self, hosts: Sequence[Target]) -> dict[str, str]:
        """``released`` where the node answers over SSH, else ``not-reached``.

        Each is tried once; nothing is raised, for what counts is done.
        """
        once = replace(self.settings, nodes=replace(self.settings.nodes, retries=0))
        try:
            results = Fleet(once, self.ui, self.reach).run("release", hosts).hosts
        except MoorageError as problem:
            self.ui.warn(f"no node was contacted: {problem.message}")
            return {host.name: "not-reached" for host in hosts}
        return {one.host: "released" if one.ok else "not-reached" for one in results}


def _archive(settings: Settings, operation: Operation) -> AgentArchive:
    from moorage.archive import errand_archive, quick_archive

    stays = operation.stay or operation.verb.resident
    return (quick_archive if stays else errand_archive)(settings.state)


@dataclass(frozen=True)
class _Booked:
    """A change on all hosts, written into a logbook, so that it can be gone on with.

    ``before``: what an earlier run has settled.
    """

    folder: Path
    command: str
    targets: Sequence[Target]
    operation: Operation
    before: Mapping[str, HostResult]

    @classmethod
    def of(
        cls, fleet: Fleet, targets: Sequence[Target], operation: Operation, *, resume: bool
    ) -> _Booked:
        """``resume``: goes on with the last of its kind. Raises Refused if there is none."""
        folder = logbook.folder(fleet.settings)
        command = f"{operation.verb.task} {fleet.settings.registry_name}"
        if not resume:
            return cls(folder, command, targets, operation, {})
        earlier = logbook.newest(folder, command)
        before = {name: earlier.done[name] for name in earlier.settled}
        why = earlier.ended or "it came to its end"
        fleet.ui.note(f"{len(before)} of {len(earlier.hosts)} nodes are done; the last run: {why}")
        return cls(folder, command, targets, replace(operation, run=earlier.run), before)

    @property
    def left(self) -> list[Target]:
        return [target for target in self.targets if target.name not in self.before]

    def begin(self) -> Logbook:
        book = logbook.Logbook.begin(self.folder, self.command, self.targets, self.operation.run)
        for result in self.before.values():
            book.settled_before(result)
        return book

    def whole(self, report: FleetReport) -> FleetReport:
        """The report with what was done before, in the order of the hosts."""
        if not self.before:
            return report
        results = {**self.before, **{result.host: result for result in report.hosts}}
        return replace(report, hosts=tuple(results[target.name] for target in self.targets))


# -- before and after ----------------------------------------------------------------------------


def _nothing(_fleet: Fleet) -> None:
    """Most verbs need nothing before."""


def _open_authority(fleet: Fleet) -> None:
    """An adoption needs the fleet's CA. Raises Refused if it cannot be used."""
    from moorage.pki.authority import Authority

    Authority.open(fleet.settings)


def _as_it_is(
    _fleet: Fleet, _hosts: Sequence[Target], _operation: Operation, report: FleetReport
) -> FleetReport:
    return report


def _of_agents(
    fleet: Fleet, hosts: Sequence[Target], operation: Operation, report: FleetReport
) -> FleetReport:
    """What becomes of the agents on nodes whose trust was changed."""
    settings, dry_run = fleet.settings, operation.wish.dry_run
    leaves = operation.verb.name == "apply" and settings.nodes.resident
    if leaves and dry_run:
        note = notes.foretold(settings, hosts, report.hosts)
    else:
        note = "" if leaves or dry_run else notes.reminder(settings, hosts, report.hosts)
    if note:
        fleet.ui.note(note)
    return report


def _judged(
    fleet: Fleet, _hosts: Sequence[Target], _operation: Operation, report: FleetReport
) -> FleetReport:
    from moorage.fleet.state import table

    return table.judged(report, table.ours(fleet.settings))


_After = Callable[[Fleet, Sequence["Target"], Operation, FleetReport], FleetReport]
_BEFORE: dict[str, Callable[[Fleet], None]] = {"reside": _open_authority}
_AFTER: dict[str, _After] = {"apply": _of_agents, "untrust": _of_agents, "status": _judged}


# -- one run -------------------------------------------------------------------------------------


def _refuse_what_cannot_work(
    settings: Settings, operation: Operation, routes: Sequence[Route]
) -> None:
    operation.plan(settings, None)  # its own check: an image of another registry, a spoilt CA
    needed = operation.verb.address and not plans.found_by_dns(settings)
    guessed = needed and not plans.registry_address(settings, "")
    behind = [route.name for route in routes if not route.direct]
    if guessed and behind:
        raise Refused(
            "no-registry-address",
            f"the registry's address cannot be guessed for {', '.join(behind)}",
            cause="they are reached through a jump host or a ProxyCommand, so this machine's own "
            "address on the way to them is unknown",
            cure="set registry.address in invoke.yaml to the address they can reach it at",
        )


class _Run:
    """One operation on many hosts, from the first attempt to the last."""

    def __init__(
        self,
        fleet: Fleet,
        operation: Operation,
        archive: AgentArchive,
        routes: Sequence[Route],
        policy: Policy,
        book: Logbook | None,
    ) -> None:
        self._fleet = fleet
        self._operation = operation
        self._archive = archive
        self._routes = routes
        self._policy = policy
        self._book = book
        self._outcomes: list[HostOutcome] = []
        self._stopped = 0
        self._halted = ""

    def report(self, hosts: Sequence[str | Target]) -> FleetReport:
        """What came of it, after further attempts on those hosts where one helps."""
        for again in (partial(self._moved, hosts), self._with_password, self._agreed):
            if not self._stopped:
                again()
        if self._book is not None:
            self._book.end(self._halted or (deeds.STOPPED if self._stopped else ""))
        report = report_of(self._outcomes, self._operation, self._stopped, self._halted)
        results = tuple(advised(self._fleet.settings, one) for one in report.hosts)
        return replace(report, hosts=results)

    def go(
        self,
        routes: Sequence[Route],
        operation: Operation,
        reach: Reach,
        plan: Schedule | None = None,
    ) -> None:
        """Goes to these hosts, and takes their outcomes; by a ``plan``, until it says to stop."""
        settings, ui = self._fleet.settings, self._fleet.ui
        means = on_host.HostMeans.of(
            settings, operation, self._archive, reach, routes,
            agreed=agreement.given(settings, yes=ui.yes),
        )  # fmt: skip
        works = [(route.name, partial(on_host.patiently, means, route)) for route in routes]
        rollout = Rollout(works, means.at_once, plan, self._note)
        outcomes, self._stopped = rollout.run(
            ui,
            f"{operation.title} {len(works)} node{'s' if len(works) > 1 else ''}",
            dry_run=operation.wish.dry_run,
            quiet=operation.verb.looks,
        )
        newer = {outcome.result.host: outcome for outcome in outcomes}
        known = [newer.pop(one.result.host, one) for one in self._outcomes]
        self._outcomes = [*known, *newer.values()]
        if plan is not None:
            self._halted = rollout.halted

    def _note(self, outcome: HostOutcome) -> None:
        if self._book is not None:
            self._book.result(outcome.result)

    def _moved(self, hosts: Sequence[str | Target]) -> None:
        """Goes again to nodes of the lab that have another address now."""
        if moved := _with_new_addresses(self._fleet.settings, hosts, self._routes, self._outcomes):
            self.go(moved, self._operation, self._fleet.reach)

    def _with_password(self) -> None:
        """Asks for sudo's password if hosts turned out to want one, and goes to those again."""
        ui = self._fleet.ui
        wanting = {
            outcome.result.host
            for outcome in self._outcomes
            if outcome.result.error and outcome.result.error.code == "sudo-needs-password"
        }
        if self._fleet.reach.sudo_password is not None or not ui.interactive or not wanting:
            return
        password = ui.ask_secret(f"sudo password for {', '.join(sorted(wanting))}")
        again = [route for route in self._routes if route.name in wanting]
        self.go(again, self._operation, Reach(sudo_password=password))

    def _agreed(self) -> None:
        """Asks once for all hosts where something would be stopped, and goes to those again.

        And to those that were not begun because the first ones wanted to be asked.
        """
        ui = self._fleet.ui
        wanting = [one.result for one in self._outcomes if agreement.wanted(one.result)]
        if self._operation.stop_running or not wanting or not ui.interactive:
            return
        try:
            ui.confirm(agreement.stops(wanting), question="Go on with these nodes?")
        except Refused:
            return
        halted = faults.halted(self._halted)
        names = {result.host for result in wanting}
        names |= {one.result.host for one in self._outcomes if one.result.error == halted}
        left = [route for route in self._routes if route.name in names]
        plan = schedule(self._policy, len(left))
        self.go(left, self._operation.agreed(), self._fleet.reach, plan)


def _with_new_addresses(
    settings: Settings,
    hosts: Sequence[str | Target],
    routes: Sequence[Route],
    outcomes: Sequence[HostOutcome],
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
