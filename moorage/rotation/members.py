"""Everybody who trusts the registry: nodes, this machine's Docker, the agents of a cluster.

Each gets the CA by what usually brings it there: ``nodes.trust``, this machine's trust, the
agents' plan. No runtime is restarted: each reads the files of a registry's CA at every pull
(docs/registry.md), and a restart that something else would need waits.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from agent.wire.report import UNREACHABLE, HostResult
from moorage.errors import MoorageError, Refused
from moorage.fleet.inventory import Target
from moorage.fleet.inventory.targets import target_of
from moorage.fleet.report import logbook
from moorage.fleet.report import trusting as trusting_
from moorage.fleet.report.trusting import TRUST, HostStanding
from moorage.fleet.rollout import operation, plans, this_machine
from moorage.fleet.rollout.operation import Wish
from moorage.fleet.rollout.this_machine import DOCKER_CERTS
from moorage.fleet.ssh import routing
from moorage.fleet.ssh.routes import place
from moorage.pki.roster import Roster
from moorage.rotation.course import CLUSTER, MACHINE, NODE, PULL, Member, MemberOutcome

if TYPE_CHECKING:
    from agent.wire.plan import Plan, Verify
    from moorage.cluster.agents.states import AgentState
    from moorage.cluster.api.client import Api
    from moorage.fleet.rollout.fleet import Fleet
    from moorage.fleet.ssh.routes import Route
    from moorage.pki.roster import Resident
    from moorage.settings import Settings
    from moorage.ui import UI

HERE = "this-machine"
_AGENTS_SECONDS = 300.0


@dataclass(frozen=True)
class Means:
    """How members are reached. ``kubeconfig``, ``context``: "" for the cluster that is found;
    ``context`` may name several, with a comma between."""

    settings: Settings
    ui: UI
    fleet: Fleet
    kubeconfig: str = ""
    context: str = ""

    @property
    def contexts(self) -> tuple[str, ...]:
        return tuple(one.strip() for one in self.context.split(",") if one.strip())


def found(means: Means, hosts: Sequence[Target]) -> tuple[Member, ...]:
    """Who is to follow: ``hosts``, whatever node is known to trust the registry, this machine, and
    a cluster's agents."""
    residents = Roster(means.settings).residents()
    for name, other in let_go_as(standings(means.settings).values(), residents):
        means.ui.warn(
            f"{name} follows, and its node was untrusted as {other}: if it is not to, "
            f"inv nodes.untrust --hosts={name}"
        )
    return (*without_clusters(means, hosts), *_clusters(means))


def let_go_as(
    stand: Iterable[HostStanding], residents: Mapping[str, Resident]
) -> list[tuple[str, str]]:
    """Names that count as trusting though their node was untrusted later, and as what: the agent of
    both is one. Pure."""
    alike: dict[str, list[HostStanding]] = {}
    for one in stand:
        resident = residents.get(one.target.host)
        if resident is None:
            continue
        if resident.is_at(one.target.place[1] or resident.ssh_port, one.target.jump):
            alike.setdefault(resident.id, []).append(one)
    newest = {name: max(each, key=lambda one: one.at) for name, each in alike.items()}
    return [
        (one.target.name, newest[name].target.name)
        for name, each in alike.items()
        for one in each
        if one.changes and not newest[name].changes and newest[name].last != TRUST
    ]


def without_clusters(means: Means, hosts: Sequence[Target]) -> tuple[Member, ...]:
    """Those of them that this machine's own files tell of."""
    known = {target.told_apart_by for target in hosts}
    names = {target.name for target in hosts}
    others = [
        one
        for one in trusting(means.settings)
        if one.told_apart_by not in known and one.name not in names
    ]
    members = [Member(one.name, NODE, way=json.dumps(asdict(one))) for one in (*hosts, *others)]
    if (DOCKER_CERTS / means.settings.registry_name / "ca.crt").exists():
        members.append(Member(HERE, MACHINE))
    return tuple(members)


def trusting(settings: Settings) -> list[Target]:
    """The nodes that trust the registry, as far as this folder knows: by what was done, and by the
    agents that stay. Raises Refused (``trusting-unreadable``)."""
    stand = standings(settings).values()
    # Two ports of one address are two nodes, and so is one address behind two jump hosts.
    found = {one.target.told_apart_by: one.target for one in stand if one.changes}
    ports: dict[str, set[tuple[int, str]]] = {}
    for one in stand:
        if one.changes or one.last != TRUST:
            host, port = one.target.place
            ports.setdefault(host, set()).add((port, one.target.jump))
    staying = [
        routing.of_agent(host, one)
        for host, one in Roster(settings).residents().items()
        if not _is_among(host, one, ports)
    ]
    return sorted([*found.values(), *staying], key=lambda one: one.name)


def _is_among(host: str, resident: Resident, known: Mapping[str, Set[tuple[int, str]]]) -> bool:
    """Whether the node of an agent is one of those: host -> SSH ports, 0 where none was said, and
    the jump hosts that an inventory named."""
    places = known.get(Target(host, host).place[0], set())
    found = {port for port, jump in places if resident.is_at(resident.ssh_port, jump)}
    if not resident.ssh_port:
        return bool(found)
    return resident.ssh_port in found or (resident.usual_port and 0 in found)


def standings(settings: Settings) -> Mapping[str, HostStanding]:
    """How each host stands that something was ever done on, by its name in results."""
    return trusting_.standings(logbook.folder(settings), settings.registry_name)


def visit(
    means: Means, deed: str, members: Sequence[Member], password: str
) -> Mapping[str, MemberOutcome]:
    """Brings them the CAs that are in force, and has each pull.

    ``password``: of the login that proves the CA to come, "" for the usual one.
    """
    told = _at_nodes(means, deed, [target(one) for one in members if one.kind == NODE], password)
    for one in members:
        if one.kind == MACHINE:
            told[one.name] = _here(means, deed, password)
        elif one.kind == CLUSTER:
            told[one.name] = _cluster(means, one, password)
    return told


def _at_nodes(
    means: Means, deed: str, nodes: Sequence[Target], password: str
) -> dict[str, MemberOutcome]:
    """Visits each machine once, by the next of its names if the one before did not reach it."""
    machines, told = _machines(means.settings, nodes)
    tried = 0
    while left := [names for names in machines if len(names) > tried]:
        gone_to = [names[tried] for names in left]
        report = means.fleet.run("trust", gone_to, Wish(restart=False, proving=password))
        outcomes = {one.host: _outcome(one, deed) for one in report.hosts}
        report.stop_if_interrupted()
        tried += 1
        machines = []
        for names in left:
            outcome = outcomes.get(names[tried - 1].name)
            if outcome is not None:
                told |= {one.name: outcome for one in names}
                machines += [names] if outcome.absent else []
    return told


def _machines(
    settings: Settings, nodes: Sequence[Target]
) -> tuple[list[list[Target]], dict[str, MemberOutcome]]:
    """The names of each machine, as node1 and node1:22; and why those are not reached of which
    nobody can say where they are."""
    found: dict[object, list[Target]] = {}
    lost: dict[str, MemberOutcome] = {}
    for one, route in _ways(settings, nodes, lost):
        found.setdefault(place(route), []).append(one)
    return list(found.values()), lost


def _ways(
    settings: Settings, nodes: Sequence[Target], lost: dict[str, MemberOutcome]
) -> list[tuple[Target, Route]]:
    """Adds to ``lost`` what OpenSSH refuses, as an inventory that is gone; the others go on."""
    try:
        return list(zip(nodes, routing.ways(settings, nodes), strict=True))
    except Refused as problem:
        if len(nodes) == 1:
            why = f"{problem.message}: {problem.cause}"
            lost[nodes[0].name] = MemberOutcome(False, absent=True, why=why)
            return []
    return [way for one in nodes for way in _ways(settings, [one], lost)]


def target(member: Member) -> Target:
    """How a node is reached. Raises one of ``SPOILT`` if its way is none."""
    return target_of(json.loads(member.way))


def _outcome(result: HostResult, deed: str) -> MemberOutcome:
    """Trusted is enough for what is handed out; a CA is proved by a pull, and by nothing else."""
    if result.error is not None:
        why = f"{result.error.message}: {result.error.cause}"
        return MemberOutcome(False, result.status == UNREACHABLE, why)
    if deed == PULL and not result.verified:
        parts = "; ".join(f"{one.part}: {one.because}" for one in result.unproven)
        return MemberOutcome(
            False, why=f"it has not pulled: {parts or 'nothing there pulls images'}"
        )
    return MemberOutcome(result.ok, why="" if result.ok else result.status)


def _here(means: Means, deed: str, password: str) -> MemberOutcome:
    """This machine's Docker; its login for a proof is the usual one's place."""
    settings = means.settings
    pull = None
    if password:
        address = plans.this_machines_address(settings) or ""
        usual = operation.proof(settings, None)
        pull = operation.proving(usual, address, password)
    try:
        result = this_machine.trust_this_machine(settings, means.ui, pull=pull)
    except MoorageError as problem:
        return MemberOutcome(False, why=f"{problem.message}: {problem.cause}")
    return _outcome(result, deed)


# -- a cluster -----------------------------------------------------------------------------------


def _clusters(means: Means) -> list[Member]:
    """The clusters whose agents hold a plan for this registry, of those that are named, else of the
    one that is found; and each that was given the nodes' login before: it waits until it is
    reached, or let go.

    Raises MoorageError if one that was named does not answer; another is only warned of.
    """
    named = bool(means.kubeconfig or means.contexts)
    elsewhere = given_the_login(means.settings)
    try:
        asked = [_api(means, context) for context in means.contexts or ("",)]
        found = [
            Member(f"cluster/{api.where.context}", CLUSTER, way=api.where.server)
            for api in asked
            if _agents_plan(api, means.settings) is not None
        ]
    except MoorageError as problem:
        if named:
            raise
        if problem.code != "no-kubeconfig" and not elsewhere:
            means.ui.warn(
                f"no cluster was asked whether it has agents of ours: {problem.message}; "
                "--kubeconfig or --context names one that has"
            )
        return elsewhere
    ways = {api.where.server for api in asked}
    return [*found, *(one for one in elsewhere if one.way not in ways)]


def given_the_login(settings: Settings) -> list[Member]:
    """The clusters whose agents pull with the nodes' login, by their API servers."""
    from moorage.registry import handed
    from moorage.registry.logins import users

    held = handed.holders(settings).get(users.name_for(users.NODES), {})
    return [Member(f"cluster/{server}", CLUSTER, way=server) for server in sorted(held)]


def _api(means: Means, context: str) -> Api:
    from moorage.cluster.login import access

    return access.connect(means.settings, kubeconfig=means.kubeconfig, context=context)


def _reached(means: Means, member: Member) -> Api | str:
    """The cluster of a member, by the contexts that are named, else by any that leads to it; why
    not, if none does."""
    from moorage.cluster.login import access

    wanted, why = member.way or member.name, ""
    others = access.leading_to(means.settings, member.way, means.kubeconfig)
    for context in dict.fromkeys((*(means.contexts or ("",)), *others)):
        try:
            api = _api(means, context)
        except MoorageError as problem:
            why = f"{problem.message}: {problem.cause}"
            continue
        if wanted in (api.where.server, f"cluster/{api.where.context}"):
            return api
        why = f"{api.where} is another cluster: --context or --kubeconfig names the right one"
    return why


def _agents_plan(api: Api, settings: Settings) -> Plan | None:
    """What the cluster's agents hold their nodes to; None if that is another registry's trust."""
    from agent.wire.plan import Plan
    from moorage.cluster.api import told

    found = told.order(api, settings)
    # Agents that are to take the trust away, or to do nothing, are not told to trust again.
    if found is None or found.action != told.APPLY:
        return None
    return Plan.parse(found.plan)


def _cluster(means: Means, member: Member, password: str) -> MemberOutcome:
    """The same plan with the CAs in force; with the proving login while they are proved."""
    settings = means.settings
    try:
        api = _reached(means, member)
        if isinstance(api, str):
            return MemberOutcome(False, True, api)
        plan = _agents_plan(api, settings)
        if plan is None:
            return MemberOutcome(True)  # taken away meanwhile
        usual = replace(
            plan,
            registry=replace(plan.registry, ca=operation.ca(settings)),
            verify=operation.proof(settings, plan.verify.image if plan.verify else None),
        )
        if not password:
            return _told_agents(means, api, usual)
        try:
            return _told_agents(means, api, replace(usual, verify=_proving(usual, password)))
        finally:
            _tell_agents(api, settings, usual)
    except MoorageError as problem:
        return MemberOutcome(
            False, problem.code == "unreachable", f"{problem.message}: {problem.cause}"
        )


def _proving(plan: Plan, password: str) -> Verify | None:
    if plan.verify is None:
        return None
    return operation.proving(plan.verify, plan.registry.address or "", password)


def _tell_agents(api: Api, settings: Settings, plan: Plan) -> bytes:
    from moorage.cluster.agents.documents import plan_secret
    from moorage.cluster.api import paths

    document = plan_secret(settings, plans.wire(plan))
    api.apply(paths.of(document), document, "tell the agents", force=True)
    return plans.wire(plan)


def _told_agents(means: Means, api: Api, plan: Plan) -> MemberOutcome:
    """Until every agent has said that its node trusts, by a pull, or why not."""
    from moorage.cluster.agents.states import FAILED, wait
    from moorage.cluster.api.told import APPLY, Order

    def failed(left: Sequence[AgentState]) -> list[AgentState]:
        return [one for one in left if one.status == FAILED]

    told = Order(_tell_agents(api, means.settings, plan), APPLY)
    with means.ui.progress("wait for the cluster's agents") as update:
        _, left = wait(api, told, _AGENTS_SECONDS, update, is_vain=lambda left: bool(failed(left)))
    if not left:
        return MemberOutcome(True)
    one = [*failed(left), *left][0]
    return MemberOutcome(False, why=f"{one.node.name}: {one.error or 'no word of its agent'}")
