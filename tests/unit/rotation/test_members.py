"""Who takes part in the rotation of a CA, how a cluster's agents do, and what the tasks refuse."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from agent.wire.faults import Fault
from agent.wire.plan import Plan
from agent.wire.report import CHANGED, FAILED, UNCHANGED, UNREACHABLE, HostResult, Unproven
from moorage.backup import freeze, giving_back
from moorage.cluster.agents.documents import plan_secret
from moorage.cluster.agents.states import STATUS, digest
from moorage.cluster.api import told
from moorage.cluster.api.told import PLAN_KEY, UNTRUST
from moorage.errors import Refused
from moorage.files import private_folder
from moorage.fleet.inventory import Target
from moorage.fleet.inventory.targets import parse_names
from moorage.fleet.report import FleetReport, logbook
from moorage.fleet.rollout import plans
from moorage.fleet.rollout.operation import Wish, proof
from moorage.fleet.ssh import routing
from moorage.lock import project_lock
from moorage.pki import registry as pki
from moorage.pki import succession
from moorage.pki.roster import Resident, Roster
from moorage.registry import handed
from moorage.registry.front.configuration import proving_name
from moorage.registry.logins import users
from moorage.registry.logins.credentials import ensure
from moorage.rotation import course, joining, kept, members, rotation
from moorage.rotation.course import Member, State
from moorage.rotation.members import Means
from moorage.settings import NodesSettings, Settings
from moorage.ui import UI
from tests.unit.elsewhere import checkout, project
from tests.unit.program.test_help import inv


def done(settings: Settings, verb: str, *names: str, status: str = CHANGED) -> None:
    command, hosts = f"{verb} {settings.registry_name}", parse_names(names)
    results = [HostResult(name, status) for name in names]
    logbook.note(logbook.folder(settings), command, hosts, results)


def way(name: str) -> str:
    return json.dumps(asdict(parse_names([name])[0]))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = project(tmp_path)
    pki.issue(made)
    ensure(made)
    users.for_purpose(made, users.NODES)
    return made


def test_whoever_was_trusted_takes_part_and_whoever_was_let_go_does_not(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(members, "DOCKER_CERTS", tmp_path)
    monkeypatch.setattr(members, "_clusters", lambda _: [])
    done(settings, "trust", "a", "admin@b:2222", "c")
    done(settings, "untrust", "c")
    done(settings, "trust", "d", status=FAILED)
    Roster(settings).put("e", Resident("0" * 32, 7443, "1", 1))
    assert [one.name for one in members.trusting(settings)] == ["a", "admin@b:2222", "e"]
    means = Means(settings, UI(), None)  # type: ignore[arg-type]
    found = members.found(means, [Target("a", "a"), Target("f", "f", ssh_args=("Port=22",))])
    assert [one.name for one in found] == ["a", "f", "admin@b:2222", "e"]
    assert [members.target(one) for one in found][1:3] == [
        Target("f", "f", ssh_args=("Port=22",)),
        Target("admin@b:2222", "b", "admin", 2222),
    ]
    (tmp_path / settings.registry_name).mkdir()
    (tmp_path / settings.registry_name / "ca.crt").touch()
    assert members.found(means, [])[-1] == Member(members.HERE, course.MACHINE)


def test_a_node_that_was_untrusted_under_another_name_is_told(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(members, "DOCKER_CERTS", tmp_path)
    monkeypatch.setattr(members, "_clusters", lambda _: [])
    warned: list[str] = []
    monkeypatch.setattr(UI, "warn", lambda _, words: warned.append(words))
    done(settings, "trust", "a", "b", "c")
    for name, number in (("a", "1"), ("b", "1"), ("c", "2")):
        Roster(settings).put(name, Resident(number * 32, 7443, "1", 2000000000))
    means = Means(settings, UI(), None)  # type: ignore[arg-type]
    members.found(means, [])
    assert warned == []
    done(settings, "untrust", "a")
    assert [one.name for one in members.found(means, [])] == ["b", "c"]
    assert len(warned) == 1
    assert "b follows, and its node was untrusted as a" in warned[0]


def test_two_ports_of_one_address_are_two_nodes(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(members, "DOCKER_CERTS", tmp_path)
    done(settings, "trust", "10.0.0.1:2201", "10.0.0.1:2202")
    means = Means(settings, UI(), None)  # type: ignore[arg-type]
    both = members.without_clusters(means, [])
    assert [one.name for one in both] == ["10.0.0.1:2201", "10.0.0.1:2202"]
    (third,) = parse_names(["10.0.0.1:2203"])
    asked = joining.look(means, State(course.PROVE, "N", members=both), [third])
    assert [one.name for one in asked.members] == ["10.0.0.1:2201", "10.0.0.1:2202", third.name]
    done(settings, "untrust", "10.0.0.1:2202")
    assert [one.name for one in members.trusting(settings)] == ["10.0.0.1:2201"]


# -- a node of several names, an address of several nodes -----------------------------------------


@dataclass
class Visitor:
    """Stands in for the fleet: refuses what that refuses, and reaches whoever is not ``away``."""

    settings: Settings
    away: set[str] = field(default_factory=set)
    visits: list[list[str]] = field(default_factory=list)

    def run(self, _task: str, targets: Sequence[Target], _wish: Wish) -> FleetReport:
        routes = routing.to(self.settings, targets, by_agents=True)
        self.visits.append([route.name for route in routes])
        fault = Fault("unreachable", "no route", cause="it is away", cure="")
        return FleetReport(tuple(
            HostResult(one.name, UNREACHABLE, error=fault)
            if one.name in self.away
            else HostResult(one.name, CHANGED, verified=True)
            for one in routes
        ))  # fmt: skip


@pytest.fixture
def visitor(settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Visitor:
    monkeypatch.setattr(members, "DOCKER_CERTS", tmp_path)
    config = tmp_path / "ssh_config"
    config.write_text(
        "Host n1\n  HostName 10.0.0.1\n  Port 2201\nHost n2\n  HostName 10.0.0.1\n  Port 2202\n"
    )
    return Visitor(replace(settings, nodes=NodesSettings(ssh_config=str(config))))


def visited(visitor: Visitor, deed: str = course.PULL) -> dict[str, tuple[bool, bool]]:
    """Whether it was done on each member, and whether that one was absent."""
    means = Means(visitor.settings, UI(), visitor)  # type: ignore[arg-type]
    visitor.visits = []
    told = members.visit(means, deed, members.without_clusters(means, []), "")
    return {name: (one.ok, one.absent) for name, one in told.items()}


def test_a_machine_is_visited_once_whatever_it_is_called(visitor: Visitor) -> None:
    """By one name, an alias of OpenSSH, its port said or not, another user."""
    done(visitor.settings, "trust", "n1", "10.0.0.1:2202", "node1")
    done(visitor.settings, "trust", "root@node1", "10.0.0.1:2201", "n2:2202")
    done(visitor.settings, "trust", "node1:22", "n1:2201")
    told = visited(visitor)
    assert told == dict.fromkeys(
        ("10.0.0.1:2201", "10.0.0.1:2202", "n1", "n1:2201", "n2:2202", "node1:22", "root@node1"),
        (True, False),
    )
    assert visitor.visits == [["10.0.0.1:2201", "10.0.0.1:2202", "node1:22"]]


def test_a_machine_that_one_name_does_not_reach_is_visited_by_the_next(visitor: Visitor) -> None:
    done(visitor.settings, "trust", "n1", "node2")
    done(visitor.settings, "trust", "10.0.0.1:2201")
    visitor.away = {"10.0.0.1:2201", "node2"}
    assert visited(visitor) == {
        "10.0.0.1:2201": (True, False), "n1": (True, False), "node2": (False, True),
    }  # fmt: skip
    assert visitor.visits == [["10.0.0.1:2201", "node2"], ["n1"]]
    visitor.away.add("n1")
    assert set(visited(visitor).values()) == {(False, True)}


def test_two_nodes_behind_an_address_with_an_agent_are_both_visited(visitor: Visitor) -> None:
    for port in (0, 2201):
        agent = Resident("0" * 32, 7443, "1", 1, "10.0.0.1", port)
        Roster(visitor.settings).put("10.0.0.1", agent)
        done(visitor.settings, "trust", "10.0.0.1:2201", "10.0.0.1:2202")
        assert len(visited(visitor)) == 2
        assert visitor.visits == [["10.0.0.1:2201", "10.0.0.1:2202"]]


def test_a_node_with_an_agent_that_is_named_with_its_port_is_visited_once(visitor: Visitor) -> None:
    means = Means(visitor.settings, UI(), visitor)  # type: ignore[arg-type]
    for host, port, usual in (("127.0.0.1", 0, False), ("127.0.0.1", 22, True)):
        agent = Resident("0" * 32, 7443, "1", 1, host, port, usual)
        Roster(visitor.settings).put(host, agent)
        both = members.without_clusters(means, parse_names([f"{host}:22"]))
        assert [one.name for one in both] == [f"{host}:22", host]
        told = members.visit(means, course.PULL, both, "")
        assert [one.ok for one in told.values()] == [True, True]
    assert visitor.visits == [["127.0.0.1:22"]] * 2


def test_one_address_behind_two_jump_hosts_is_two_nodes(visitor: Visitor) -> None:
    here = visitor.settings
    both = [Target(f"{at}1", "10.0.0.1", ssh_args=(f"ProxyJump=gate-{at}",)) for at in "ab"]
    command = f"trust {here.registry_name}"
    results = [HostResult(one.name, CHANGED) for one in both]
    logbook.note(logbook.folder(here), command, both, results)
    assert visited(visitor) == {"a1": (True, False), "b1": (True, False)}
    means = Means(here, UI(), None)  # type: ignore[arg-type]
    state = State(course.PROVE, "N", members=members.without_clusters(means, both[:1])[:1])
    assert [one.name for one in joining.look(means, state).members] == ["a1", "b1"]


def test_a_host_whose_configuration_is_gone_keeps_back_itself_alone(visitor: Visitor) -> None:
    here, gone = visitor.settings, Target("x", "x", ssh_config="/nowhere/inventory")
    logbook.note(
        logbook.folder(here), f"trust {here.registry_name}", [gone], [HostResult("x", CHANGED)]
    )
    done(here, "trust", "a", "b")
    assert visited(visitor) == {"a": (True, False), "b": (True, False), "x": (False, True)}
    means = Means(here, UI(), visitor)  # type: ignore[arg-type]
    one = Member("x", way=json.dumps(asdict(gone)))
    assert "/nowhere/inventory" in members.visit(means, course.HAND_OUT, [one], "")["x"].why


def test_the_agent_of_a_node_without_a_logbook_follows_by_the_port_it_was_adopted_by(
    visitor: Visitor,
) -> None:
    here = visitor.settings
    agent = Resident("0" * 32, 7443, "1", 1, "10.0.0.1", 2201)
    Roster(here).put("10.0.0.1", agent)
    Roster(here).put("n2", replace(agent, id="1" * 32, ssh_port=2202, usual_port=True))
    done(here, "trust", "10.0.0.1:2202")  # another node: it says nothing of that one
    assert [(one.name, one.place) for one in members.trusting(here)] == [
        ("10.0.0.1:2201", ("10.0.0.1", 2201)), ("10.0.0.1:2202", ("10.0.0.1", 2202)),
        ("n2", ("n2", 0)),
    ]  # fmt: skip
    assert len(visited(visitor)) == 3
    assert visitor.visits == [["10.0.0.1:2201", "10.0.0.1:2202"]]
    done(here, "trust", "10.0.0.1:2201", "n2")
    done(here, "untrust", "10.0.0.1:2201", "n2")
    assert [one.name for one in members.trusting(here)] == ["10.0.0.1:2202"]


def test_who_trusts_is_in_a_backup(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done(settings, "trust", "a", "b")
    monkeypatch.setattr(logbook, "KEPT", 1)
    done(settings, "trust", "c")
    done(settings, "untrust", "b")
    freeze._project(settings, tmp_path / "backup")
    elsewhere = project(tmp_path / "elsewhere")
    giving_back._put_in_place(elsewhere, tmp_path / "backup")
    assert [one.name for one in members.trusting(elsewhere)] == ["a", "c"]
    giving_back._put_in_place(elsewhere, tmp_path / "backup")
    assert [one.name for one in members.trusting(elsewhere)] == ["a", "c"]
    done(elsewhere, "untrust", "a")
    done(elsewhere, "trust", "b", "d")
    giving_back._put_in_place(elsewhere, tmp_path / "backup")
    assert [one.name for one in members.trusting(elsewhere)] == ["b", "c", "d"]


def test_a_sum_that_cannot_be_read_stops_a_restore_before_it_changes_anything(
    settings: Settings, tmp_path: Path
) -> None:
    done(settings, "trust", "a")
    freeze._project(settings, tmp_path / "backup")
    elsewhere = project(tmp_path / "elsewhere")
    spoilt = private_folder(logbook.folder(elsewhere)) / "trusting.json"
    spoilt.write_text("no JSON")
    with pytest.raises(Refused) as refused:
        giving_back._put_in_place(elsewhere, tmp_path / "backup")
    assert refused.value.code == "trusting-unreadable"
    assert not elsewhere.certs_dir.exists()
    spoilt.unlink()
    giving_back._put_in_place(elsewhere, tmp_path / "backup")
    assert [one.name for one in members.trusting(elsewhere)] == ["a"]


def test_what_a_resumed_run_found_done_is_done_once(settings: Settings) -> None:
    folder, command = logbook.folder(settings), f"trust {settings.registry_name}"
    done(settings, "trust", "a")
    again = logbook.Logbook.begin(folder, command, parse_names(["a", "b"]))
    again.settled_before(HostResult("a", CHANGED))
    again.result(HostResult("b", FAILED))
    assert logbook.newest(folder, command).settled == {"a"}
    done(settings, "undo", "a")
    assert members.trusting(settings) == []


@pytest.mark.parametrize(
    ("deeds", "stands"),
    [
        ("trust", True), ("trust untrust", False), ("trust undo", False),
        ("trust trust undo", True), ("trust same undo", False), ("trust trust undo undo", False),
        ("undo", False), ("trust undo trust", True), ("trust trust untrust undo", False),
    ],
)  # fmt: skip
def test_an_undo_takes_back_one_trust(settings: Settings, deeds: str, stands: bool) -> None:
    for word in deeds.split():
        status = UNCHANGED if word == "same" else CHANGED
        done(settings, "trust" if word == "same" else word, "a", status=status)
    assert bool(members.trusting(settings)) is stands


@pytest.mark.parametrize(
    ("verified", "unproven", "ok"),
    [(True, (), True), (None, (Unproven("docker", "it does not run"),), False), (None, (), False)],
)
def test_a_ca_is_proved_by_a_pull_and_by_nothing_else(
    verified: bool | None, unproven: tuple[Unproven, ...], ok: bool
) -> None:
    result = HostResult("a", CHANGED, verified=verified, unproven=unproven)
    assert members._outcome(result, course.PULL).ok is ok
    assert members._outcome(result, course.HAND_OUT).ok


def test_whoever_is_trusted_meanwhile_joins_and_whoever_is_untrusted_leaves(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(members, "DOCKER_CERTS", tmp_path)
    means = Means(settings, UI(), None)  # type: ignore[arg-type]
    done(settings, "trust", "a", "b")
    Roster(settings).put("b", Resident("0" * 32, 7443, "1", 1))
    began = "2026-01-01T00:00:00+00:00"
    state = State(course.PROVE, "N", members=members.without_clusters(means, []), began=began)
    assert joining.look(means, state) == state
    done(settings, "untrust", "b")
    done(settings, "trust", "c")
    handed.note(settings, [users.name_for(users.NODES)], "https://far:6443")
    after = joining.look(means, state)
    assert [one.name for one in after.members] == ["a", "c", "cluster/https://far:6443"]
    assert [one.touched for one in after.members] == [False, True, True]
    assert joining.look(means, after) == after
    asked = joining.look(means, after, [Target("d", "d"), Target("a", "a")])
    assert [one.name for one in asked.members][-1] == "d"


# -- a cluster -----------------------------------------------------------------------------------


class Where:
    context, server = "prod", "https://prod:6443"

    def __str__(self) -> str:
        return f"{self.context} ({self.server})"


@dataclass
class Cluster:
    """Stands in for an API server and the agents behind it, which say of a plan what is wished."""

    settings: Settings
    said: str = "trusted"
    told: list[Plan] = field(default_factory=list)
    where = Where()

    def find(self, _path: str, _words: str) -> dict[str, Any] | None:
        return plan_secret(self.settings, plans.wire(self.told[-1])) if self.told else None

    def apply(self, _path: str, document: dict[str, Any], *_words: object, force: bool) -> None:
        assert force
        self.told.append(Plan.parse(base64.b64decode(document["data"][PLAN_KEY])))

    def items(self, *_words: object, **_options: object) -> Iterator[dict[str, Any]]:
        word = {"plan": digest(plans.wire(self.told[-1])), "status": self.said, "proven": True}
        word["error"] = {"message": "no route"} if self.said == "failed" else None
        metadata = {"name": "n1", "annotations": {STATUS: json.dumps(word)}}
        yield {"metadata": metadata, "status": {"nodeInfo": {"operatingSystem": "linux"}}}


@pytest.fixture
def cluster(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster(settings)
    monkeypatch.setattr(members, "_api", lambda *_: made)
    ca, login = pki.ca_pem(settings), proof(settings, None)
    made.told.append(plans.make(settings, ca=ca, address="192.0.2.7", verify=login))
    return made


def test_the_agents_of_a_cluster_get_both_cas_and_prove_the_new_one(cluster: Cluster) -> None:
    settings = cluster.settings
    means = Means(settings, UI(), None)  # type: ignore[arg-type]
    [one] = members._clusters(means)
    assert (one.name, one.kind) == ("cluster/prod", course.CLUSTER)
    succession.make(settings, ["192.0.2.7"])
    assert members.visit(means, course.HAND_OUT, [one], "")[one.name].ok
    assert (cluster.told[-1].registry.ca or "").count("BEGIN CERTIFICATE") == 2
    assert cluster.told[-1].registry.address == "192.0.2.7"
    assert members.visit(means, course.PULL, [one], "word")[one.name].ok
    *_, proved, after = cluster.told
    assert proved.verify is not None
    assert after.verify is not None
    assert (proved.verify.username, proved.verify.password) == (proving_name("192.0.2.7"), "word")
    assert after.verify == proof(settings, None)


@pytest.mark.parametrize(
    "data",
    [{}, {"plan.json": "no base64"}, {"plan.json": "e30="}, {"plan.json": "W10="}, None,
     {"plan.json": base64.b64encode(b'{"registry": {"host": "my.registry.io"}}').decode()}],
)  # fmt: skip
def test_a_spoilt_plan_of_the_agents_is_told_with_its_cure(
    settings: Settings, data: dict[str, str] | None
) -> None:
    api = Mock()
    api.find.return_value = {"metadata": {"name": "moorage-plan"}, "data": data}
    with pytest.raises(Refused) as refused:
        told.order(api, settings)
    assert (refused.value.code, refused.value.cure[:14]) == (
        "agents-plan-unreadable",
        "inv k8s.agents",
    )
    assert "moorage-system/moorage-plan" in refused.value.message
    with pytest.raises(Refused, match="moorage-system/moorage-plan"):
        told.plan(api.find.return_value, settings)


def test_a_plan_of_a_newer_moorage_is_told_as_one(settings: Settings) -> None:
    text = b'{"version": 99, "registry": {"host": "my.registry.io"}}'
    api = Mock()
    api.find.return_value = {"data": {"plan.json": base64.b64encode(text).decode()}}
    with pytest.raises(Refused, match="that this build could follow") as refused:
        told.order(api, settings)
    assert refused.value.cause.endswith("; a newer Moorage has written it")
    assert refused.value.cure == "use that one; inv k8s.agents writes it again"


def test_an_agent_that_fails_is_named_and_its_plan_has_the_usual_login(cluster: Cluster) -> None:
    means = Means(cluster.settings, UI(), None)  # type: ignore[arg-type]
    cluster.said = "failed"
    told = members.visit(means, course.PULL, members._clusters(means), "word")
    assert (told["cluster/prod"].ok, told["cluster/prod"].why) == (False, "n1: no route")
    assert cluster.told[-1].verify == proof(cluster.settings, None)


def test_a_cluster_whose_agents_serve_another_registry_takes_no_part(cluster: Cluster) -> None:
    other = project(cluster.settings.root, registry=type(cluster.settings.registry)(port=5443))
    assert members._clusters(Means(other, UI(), None)) == []  # type: ignore[arg-type]


def test_another_cluster_proves_nothing_for_the_one_that_is_meant(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    means = Means(cluster.settings, UI(), None)  # type: ignore[arg-type]
    [one] = members._clusters(means)
    told = list(cluster.told)
    monkeypatch.setattr(Where, "context", "staging")
    monkeypatch.setattr(Where, "server", "https://staging:6443")
    found = members.visit(means, course.PULL, [one], "word")[one.name]
    assert (found.ok, found.absent) == (False, True)
    assert "staging (https://staging:6443) is another cluster" in found.why
    assert cluster.told == told


def test_each_cluster_is_reached_by_the_context_that_leads_to_it(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two are named; a third is found by its API server in the kubeconfig, a fourth is not."""
    settings, others = cluster.settings, {}
    for name in ("prod", "far", "third"):
        one = others[name] = Cluster(settings)
        one.told.append(cluster.told[-1])
        one.where = type("W", (), {"context": name, "server": f"https://{name}:6443"})()
    config = tmp_path / "kubeconfig"
    config.write_text(json.dumps({
        "clusters": [{"name": "c", "cluster": {"server": "https://third:6443"}}],
        "contexts": [{"name": "third", "context": {"cluster": "c"}}],
    }))  # fmt: skip
    monkeypatch.setattr(members, "_api", lambda _, context: others[context])
    for server in ("https://third:6443", "https://fourth:6443"):
        handed.note(settings, [users.name_for(users.NODES)], server)
    means = Means(settings, UI(), None, str(config), "prod, far")  # type: ignore[arg-type]
    found = members._clusters(means)
    assert [one.name for one in found] == [
        "cluster/prod", "cluster/far", "cluster/https://fourth:6443", "cluster/https://third:6443",
    ]  # fmt: skip
    succession.make(settings, ["192.0.2.7"])
    told = members.visit(means, course.HAND_OUT, found, "")
    assert [told[one.name].ok for one in found] == [True, True, False, True]
    assert told["cluster/https://fourth:6443"].absent
    for one in others.values():
        assert (one.told[-1].registry.ca or "").count("BEGIN CERTIFICATE") == 2


def test_every_cluster_that_was_given_the_login_takes_part(cluster: Cluster) -> None:
    means = Means(cluster.settings, UI(), None)  # type: ignore[arg-type]
    name = users.name_for(users.NODES)
    for server in ("https://prod:6443", "https://far:6443"):
        handed.note(cluster.settings, [name], server)
    assert [one.name for one in members._clusters(means)] == [
        "cluster/prod", "cluster/https://far:6443",
    ]  # fmt: skip
    cluster.told.clear()
    [far] = members._clusters(means)
    assert not members.visit(means, course.HAND_OUT, [far], "")[far.name].ok


def test_a_cluster_that_is_gone_is_not_waited_for_and_one_that_comes_again_is(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(members, "DOCKER_CERTS", tmp_path)
    here, login = cluster.settings, [users.name_for(users.NODES)]
    means = Means(here, UI(), None)  # type: ignore[arg-type]
    prod, far = "https://prod:6443", "https://far:6443"
    for server in (prod, far):
        handed.note(here, login, server)
    found = (*members._clusters(means), Member("n1", way=way("n1")))
    state = State(course.BOTH, "N", members=found, without=frozenset(("cluster/prod", "n1")))
    kept.write(here, state)
    rotation.let_cluster_go(here, "https://another:6443")
    assert kept.read(here) == state
    handed.forget(here, prod)
    rotation.let_cluster_go(here, prod)
    after = kept.read(here)
    assert after is not None
    assert [one.name for one in after.members] == [f"cluster/{far}", "n1"]
    assert after.without == {"n1"}
    assert joining.look(means, after) == after
    handed.let_go(here, far)  # for the logins alone: it may be reached, with the old CA
    assert joining.look(means, after) == after
    handed.note(here, login, prod)
    again = joining.look(means, after)
    assert [one.name for one in again.members][-1] == f"cluster/{prod}"
    assert again.members[-1] in course.blockers(again)
    kept.path(here).write_text("{")
    rotation.let_cluster_go(here, prod)
    kept.path(here).unlink()
    rotation.let_cluster_go(here, prod)
    assert not kept.path(here).exists()


def test_agents_that_take_the_trust_away_are_not_told_to_trust(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    means = Means(cluster.settings, UI(), None)  # type: ignore[arg-type]
    document = plan_secret(cluster.settings, plans.wire(cluster.told[-1]), UNTRUST)
    monkeypatch.setattr(cluster, "find", lambda *_: document)
    assert members._clusters(means) == []


@pytest.mark.parametrize("content", ["null", '"x"', "1", "[]", "{}", "no JSON"])
def test_a_damaged_note_of_a_rotation_is_told(settings: Settings, content: str) -> None:
    kept.path(settings).parent.mkdir(parents=True, exist_ok=True)
    kept.path(settings).write_text(content)
    with pytest.raises(Refused) as refused:
        kept.read(settings)
    assert refused.value.code == "rotation-unreadable"


# -- the tasks -----------------------------------------------------------------------------------


def test_the_tasks_refuse_what_would_cut_nodes_off(tmp_path: Path) -> None:
    folder = checkout(tmp_path)
    here = project(folder)
    assert inv(folder, ["certs.issue"])[0][0] == 0
    rotating = State(
        course.DROP, "N", members=(Member("n1", why="no route", absent=True, way=way("n1")),)
    )
    done(here, "trust", "n1")
    lines = [
        ["certs.issue", "--new-ca", "--json"],
        ["certs.issue", "--new-ca", "--at-once", "--json"],
        ["certs.rotate-ca", "--status", "--json"],
        ["certs.rotate-ca", "--status", "--abort", "--json"],
        ["certs.rotate-ca", "--hosts=n1", "--json"],
    ]
    answers = [json.loads(out) for _, out, _ in inv(folder, *lines)]
    codes = [one["error"]["code"] if "error" in one else one["ok"] for one in answers]
    assert codes == ["ca-in-use", True, "no-rotation", "wrong-use", "front-silent"]
    kept.write(here, rotating)
    lines = [
        ["certs.issue", "--new-ca", "--at-once", "--json"],
        ["certs.rotate-ca", "--hosts=n1", "--json"],
        ["certs.rotate-ca", "--abort", "--json"],
        ["certs.rotate-ca", "--resume", "--without=n2", "--json"],
        ["certs.rotate-ca", "--status", "--json"],
    ]
    answers = [json.loads(out) for _, out, _ in inv(folder, *lines)]
    codes = [one["error"]["code"] if "error" in one else one["ok"] for one in answers]
    assert codes == [
        "rotation-under-way", "rotation-under-way", "rotation-switched", "no-such-member", True
    ]  # fmt: skip
    assert answers[-1]["waits_for"] == ["n1"]
    assert answers[-1]["members"][0]["absent"] is True
    assert kept.read(here) == rotating


def test_status_answers_beside_the_run_that_rotates_and_names_it(tmp_path: Path) -> None:
    folder = checkout(tmp_path)
    here = project(folder)
    assert inv(folder, ["certs.issue"])[0][0] == 0
    kept.write(
        here, State(course.PROVE, "N", members=(Member("n1", holds=course.BOTH, way=way("n1")),))
    )
    lines = [["certs.rotate-ca", "--status", *more] for more in ([], ["--json"])]
    lines.append(["certs.rotate-ca", "--resume", "--json"])
    with project_lock(here.state, "inv certs.rotate-ca"):
        (code, words, _), (_, document, _), (_, busy, _) = inv(folder, *lines)
    name = f"inv certs.rotate-ca (process {os.getpid()})"
    assert (code, json.loads(document)["at_work"]) == (0, name)
    assert f"At work in this folder now: {name}." in words
    assert "--resume" not in words
    assert json.loads(busy)["error"]["code"] == "busy"
    code, words, _ = inv(folder, lines[0])[0]
    assert "At work" not in words
    assert "inv certs.rotate-ca --resume goes on with it" in words


def test_a_dry_run_shows_the_way_that_is_asked_for(tmp_path: Path) -> None:
    folder = checkout(tmp_path)
    here = project(folder)
    # Not the name of a registry that this machine may trust by now.
    elsewhere = {"INVOKE_REGISTRY_HOST": "dry.registry.test"}
    assert inv(folder, ["certs.issue"], **elsewhere)[0][0] == 0
    held = Member("n1", holds=course.BOTH, way=way("n1"), touched=True)
    rotating = State(course.PROVE, "N", members=(held, Member("n2", way=way("n2"))))
    kept.write(here, rotating)
    lines = [["certs.rotate-ca", way, "--dry-run"] for way in ("--abort", "--resume")]
    back, on, document = inv(folder, *lines, [*lines[1], "--json"], **elsewhere)
    assert [line for line in back[1].splitlines() if line.startswith("would")] == [
        "would hand out the old CA alone again",
        "would take the new CA away: 1 node (n1)",
        "would end the rotation",
    ]
    would = [line for line in on[1].splitlines() if line.startswith("would")]
    assert would[:2] == [
        "would hand out both CAs: 1 node (n2)",
        "would have everybody pull under the new CA: 2 nodes (n1, n2)",
    ]
    assert "would take the old CA away: 2 nodes (n1, n2)" in would
    assert not any("make a new CA" in line for line in would)
    assert json.loads(document[1])["steps"][0] == {"deed": "hand-out", "members": ["n2"]}
    assert kept.read(here) == rotating


def test_a_new_ca_is_made_at_once_where_nobody_trusts_the_present_one(settings: Settings) -> None:
    rotation.refuse_if_trusted(settings, at_once=False)
