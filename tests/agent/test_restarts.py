"""What the restart of a service stops: decided from what the service manager tells."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from agent.clients import docker as docker_client
from agent.edit.change import Change
from agent.engine import survey
from agent.engine.back import WayBack
from agent.engine.phases import Phases
from agent.engine.proving import ProofOutcome, Proving
from agent.engine.restarts import Container, Foreseen, Stop, Survey, foreseen, refuse, words
from agent.engine.steps import Step
from agent.engine.survey import Before
from agent.facts import Docker, Facts, containers, services
from agent.facts.services import Service, _of_systemd, shown
from agent.journal import desired, transaction
from agent.journal.ledger import Store
from agent.node.host import DROP_INS, Done, Host
from agent.node.tree import Tree
from agent.server.drift import Drift
from agent.server.work import Operation
from agent.wire.faults import RefusedError
from agent.wire.report import event_to_json
from tests.agent.conftest import DEBIAN_CONFIG, Box

CONTAINERD = Service("containerd.service", active=True, bound=(("docker.service", "BindsTo="),))
DOCKER = Service("docker.service", active=True)
WEB, DB = Container("web"), Container("db", returns=True)


def found(*services: Service, **more: Any) -> Foreseen:
    by_name = {one.name: one for one in services}
    survey = Survey(by_name, more.get("held", {}), more.get("ended", {}))
    return foreseen(["containerd.service"], survey)


def test_a_runtime_on_its_own_that_spares_its_containers_stops_nothing() -> None:
    assert found(CONTAINERD._replace(bound=())) == Foreseen()


def test_a_stop_of_the_whole_group_ends_its_containers() -> None:
    killer = CONTAINERD._replace(bound=(), kill_mode="KillMode=control-group")
    got = found(killer, held={"containerd.service": (WEB, DB)})
    assert words(got) == (
        "containerd.service has KillMode=control-group: its restart ends 2 running containers "
        "(web, db)",
    )
    assert found(killer, held={"containerd.service": ()}) == Foreseen()


def test_what_cannot_be_counted_is_asked_all_the_same() -> None:
    killer = CONTAINERD._replace(bound=(), kill_mode="KillMode=mixed")
    (sentence,) = words(found(killer, held={"containerd.service": None}))
    assert "how many is not known" in sentence


def test_docker_goes_along_and_says_which_containers_nobody_starts_again() -> None:
    got = found(CONTAINERD, DOCKER, ended={"docker.service": (WEB, DB)})
    assert got.along == ("docker.service",)
    assert words(got) == (
        "docker.service has no live-restore: its restart ends 2 running containers (web, db), and "
        "1 without a restart policy stays down (web)",
        "docker.service has BindsTo=containerd.service: it is restarted too",
    )


@pytest.mark.parametrize("containers", [(), None])
def test_docker_without_a_container_is_told_and_not_asked(
    containers: tuple[Container, ...] | None,
) -> None:
    got = found(CONTAINERD, DOCKER, ended={"docker.service": containers})
    assert got.along == ("docker.service",)
    assert bool(got.stops) == (containers is None)


def test_an_inactive_service_does_not_go_along() -> None:
    assert found(CONTAINERD, DOCKER._replace(active=False)) == Foreseen()
    assert found(CONTAINERD._replace(active=False), DOCKER) == Foreseen()


def test_what_is_bound_to_what_is_bound_goes_along_and_a_circle_ends() -> None:
    docker = DOCKER._replace(bound=(("app.service", "Requires="), ("docker.socket", "PartOf=")))
    app = Service("app.service", active=True, bound=(("containerd.service", "BindsTo="),))
    socket = Service("docker.socket", active=True)
    got = found(CONTAINERD, docker, app, socket, ended={"docker.service": ()})
    assert got.along == ("docker.service", "app.service", "docker.socket")
    assert [one.words for one in got.stops] == [
        "app.service has Requires=docker.service: it is restarted too"
    ]


def test_a_kubelet_that_goes_along_is_told_and_not_asked() -> None:
    runtime = CONTAINERD._replace(bound=(("kubelet.service", "Requires="),))
    got = found(runtime, Service("kubelet.service", active=True))
    assert (got.stops, got.along) == ((), ("kubelet.service",))
    assert got.notes == ("kubelet.service has Requires=containerd.service: it is restarted too",)


@pytest.mark.parametrize(
    ("operation", "command"),
    [("apply", "inv nodes.trust --yes"), ("undo", "inv nodes.undo --yes"),
     ("untrust", "inv nodes.untrust --yes"), ("recover", "inv nodes.recover --yes")],
)  # fmt: skip
def test_the_refusal_names_the_command_that_agrees(operation: str, command: str) -> None:
    got = Foreseen((Stop("x.service", "it ends 1 running container (web)", "echo cured"),))
    with pytest.raises(RefusedError) as caught:
        refuse(got, operation)
    fault = caught.value.fault
    assert fault.code == "restart-stops-running"
    assert command in fault.cure
    assert ("--no-restart" in fault.cure) == (operation != "recover")
    assert "echo cured" in fault.cure
    refuse(Foreseen(), operation)


# What OpenRC tells, by its own files


def test_openrc_stops_along_what_needs_a_service() -> None:
    """As OpenRC 0.45 wrote it."""
    tree = (
        "depinfo_1_service='containerd'\ndepinfo_1_iafter_0='net'\n"
        "depinfo_1_needsme_0='docker'\ndepinfo_1_needsme_1='app'\n"
        "depinfo_2_service='docker'\ndepinfo_2_ineed_0='containerd'\n"
        "depinfo_11_service='containerd-x'\ndepinfo_11_needsme_0='other'\n"
    )
    assert services._needed_by("containerd", tree) == ("docker", "app")
    assert services._needed_by("docker", tree) == ()


@pytest.mark.parametrize(
    ("texts", "value"),
    [
        (("", '# rc_cgroup_cleanup="NO"\n'), ""),
        (("", 'rc_cgroup_cleanup="YES"\n'), "YES"),
        (("rc_cgroup_cleanup=no\n", 'rc_cgroup_cleanup="YES"\n'), "no"),
    ],
)
def test_a_services_own_file_of_openrc_goes_before_the_file_for_all(
    texts: tuple[str, str], value: str
) -> None:
    assert services._configured("rc_cgroup_cleanup", texts) == value


# What systemd tells


class Systemd(Host):
    """Stands in for systemctl: answers with what was shown by 252 on a real node."""

    systemd = True

    def __init__(self, told: str) -> None:
        super().__init__("/")
        self.told = told
        self.asked: list[list[str]] = []

    def run(self, argv: list[str], timeout: float = 20, *, brief: bool = False) -> Done:
        self.asked.append(argv)
        return Done(0, self.told, "")


TOLD = """KillMode=control-group
RequiredBy=a.service b.socket
RequisiteOf=
BoundBy=docker.service
ConsistsOf=
LoadState=loaded
ActiveState=active
InvocationID=abc
ControlGroup=/system.slice/containerd.service
MainPID=42"""


def test_services_are_asked_in_one_call_and_told_in_its_order() -> None:
    absent = "LoadState=not-found\nActiveState=inactive\nKillMode=control-group"
    host = Systemd(f"{absent}\n\n{TOLD}\n")
    got = shown(host, ["none.service", "containerd.service"])
    assert len(host.asked) == 1
    assert list(got) == ["containerd.service"]
    assert got["containerd.service"] == Service(
        "containerd.service", True, "abc", "KillMode=control-group",
        "/system.slice/containerd.service", 42,
        (("docker.service", "BindsTo="), ("a.service", "Requires="), ("b.socket", "Requires=")),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("shown", "written", "current"),
    [
        ("NeedDaemonReload=no\nDropInPaths=", "/etc/containerd/config.toml", True),
        ("NeedDaemonReload=no\nDropInPaths=", f"{DROP_INS}/containerd.service.d/x.conf", False),
        ("NeedDaemonReload=yes\nDropInPaths=", "/etc/containerd/config.toml", False),
        ("", "/etc/containerd/config.toml", False),
    ],
)
def test_a_restart_looks_for_files_that_systemd_has_not_read_unless_it_told(
    box: Box, shown: str, written: str, current: bool
) -> None:
    host = Systemd(f"{TOLD}\n{shown}\n".replace("KillMode=control-group", "KillMode=process"))
    out = ProofOutcome()
    store = Store(str(box.root))
    back = WayBack(host, store, out, [], Proving(store, out, False, None))
    phases = Phases("apply", box.plan(), host, store, out, back)
    change = Change("containerd", written, written, None, b"")
    phases.step = Step("apply", box.plan(), (change,), ("containerd.service",))
    back.before = survey.look(host, None, ["containerd.service"])
    assert (phases._current == ("containerd.service",)) is current


@pytest.mark.parametrize("mode", ["process", "none"])
def test_a_kill_mode_that_spares_the_others_is_none(mode: str) -> None:
    got = _of_systemd("x", TOLD.replace("KillMode=control-group", f"KillMode={mode}"))
    assert got is not None
    assert got.kill_mode == ""


def test_nothing_is_asked_where_nothing_is_restarted() -> None:
    host = Systemd(TOLD)
    assert shown(host, []) == {}
    assert survey.look(host, None, ["update-ca-certificates"]).foreseen == Foreseen()
    assert host.asked == []


@pytest.mark.parametrize(
    ("line", "held"),
    [
        ("0::/system.slice/containerd.service", True),
        ("0::/system.slice/containerd.service/init", True),
        ("1:name=systemd:/system.slice/containerd.service", True),
        ("0::/../../system.slice/containerd.service", True),  # seen from a pod
        ("0::/system.slice/containerd.service-other", False),
        ("0::/docker/abc/system.slice/containerd.service", False),  # a node in a container
        ("0::/kubepods/pod1", False),
    ],
)
def test_a_control_group_is_told_from_others_that_are_called_alike(line: str, held: bool) -> None:
    assert containers._within(f"12:cpu:/\n{line}\n", "/system.slice/containerd.service") is held


@pytest.mark.parametrize("restores", [True, False])
def test_docker_with_live_restore_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, restores: bool
) -> None:
    """As systemd and Docker's API tell it; both are stood in for."""
    monkeypatch.setattr(docker_client, "docker_info", lambda _: {"LiveRestoreEnabled": restores})
    monkeypatch.setattr(docker_client, "docker_containers", lambda _: {"web": False, "db": True})
    runtime = TOLD.replace("control-group", "process").replace("a.service b.socket", "")
    bound = TOLD.replace("control-group", "process").replace("a.service b.socket", "").replace(
        "BoundBy=docker.service", "BoundBy="
    )  # fmt: skip

    class Both(Systemd):
        def run(self, argv: list[str], timeout: float = 20, *, brief: bool = False) -> Done:
            self.told = bound if "docker.service" in argv else runtime
            return super().run(argv, timeout, brief=brief)

    engine = Docker(unit="docker.service", running=True)
    facts = Facts("node", Tree(str(tmp_path)), engine, None)
    host = Both("")
    before = survey.look(host, facts, ["containerd.service"])
    assert len(host.asked) == 2  # one call, and one more for what is bound
    assert before.foreseen.along == ("docker.service",)
    assert bool(before.foreseen.stops) is not restores
    assert (before.docker == ()) is restores


# The engine


@pytest.fixture
def node(box: Box, monkeypatch: pytest.MonkeyPatch) -> Box:
    """Its containerd would end a container."""
    stop = Stop("containerd.service", "its restart ends 1 running container (web)")

    def look(host: Host, facts: object, units: tuple[str, ...]) -> Before:
        return Before(Foreseen((stop,)) if units else Foreseen(), dict.fromkeys(units, ""))

    monkeypatch.setattr(survey, "look", look)
    return box.with_containerd()


AGREED = {"stop_running": True}


def test_it_is_refused_before_anything_is_touched(node: Box) -> None:
    files = node.files()
    result = node.apply()
    assert (result["status"], result["code"]) == ("failed", "restart-stops-running")
    assert (node.files(), node.restarted) == (files, [])
    assert Store(str(node.root)).numbers() == []
    assert node.apply(options=AGREED)["status"] == "changed"
    assert node.untrust()["code"] == "restart-stops-running"
    assert node.untrust(options=AGREED)["status"] == "changed"


def test_a_dry_run_says_what_would_be_stopped_and_fails_nothing(node: Box) -> None:
    result = node.apply(dry_run=True)
    assert result["status"] == "changed"
    (restart,) = (event for event in result["events"] if event["event"] == "restart")
    assert restart["stops"] == ("its restart ends 1 running container (web)",)


def test_without_a_restart_nothing_is_asked(node: Box) -> None:
    assert node.apply(options={"restart": False})["status"] == "changed"


def test_what_was_agreed_to_once_is_not_agreed_to_for_every_repair(node: Box) -> None:
    plan = node.plan(options=AGREED)
    store = Store(str(node.root))
    list(desired.applied(store, plan, node.engine().apply(plan)))
    (kept,) = desired.plans(store)
    assert not kept.options.stop_running


def test_an_untrust_that_is_refused_leaves_the_node_held_to_its_plan(node: Box) -> None:
    plan = node.plan(options=AGREED)
    store = Store(str(node.root))
    list(desired.applied(store, plan, node.engine().apply(plan)))
    events = list(desired.untrusted(store, node.plan(), node.engine().untrust(node.plan())))
    assert node.run(iter(events))["code"] == "restart-stops-running"
    assert len(desired.plans(store)) == 1


@pytest.mark.parametrize("agreed", [False, True])
def test_recovery_asks_unless_its_run_had_been_agreed_to(
    node: Box, monkeypatch: pytest.MonkeyPatch, agreed: bool
) -> None:
    files = node.files()
    with monkeypatch.context() as nothing_runs:
        nothing_runs.setattr("agent.engine.restarts.refuse", lambda *_: None)
        killed_at_the_restart(node, nothing_runs, agreed)
    result = node.run(node.engine().recover())
    assert result["code"] == (None if agreed else "restart-stops-running")
    if not agreed:
        assert node.restarted == []
        assert node.apply()["code"] == "restart-stops-running"  # it would recover first
        assert node.run(node.engine().recover(stop_running=True))["status"] == "changed"
    assert (node.files(), node.restarted) == (files, ["containerd.service"])


def test_at_boot_nothing_is_asked(node: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as nothing_runs:
        nothing_runs.setattr("agent.engine.restarts.refuse", lambda *_: None)
        killed_at_the_restart(node, nothing_runs, agreed=False)
    assert node.run(node.engine().recover(boot=True))["error"] is None


class Killed(BaseException):
    """The end of this process, as far as Python can act it."""


def killed_at_the_restart(node: Box, patch: pytest.MonkeyPatch, agreed: bool) -> None:
    def kill(name: str) -> None:
        if name == "restart noted":
            raise Killed

    engine = node.engine()
    patch.setattr(engine._back, "roll_back", lambda *_: None)
    patch.setattr(transaction, "on_step", kill)
    with pytest.raises(Killed):
        node.run(engine.apply(node.plan(options={"stop_running": agreed})))


class Inline:
    """Stands in for the server's processes: an operation is done where it is begun."""

    count = 0

    def begin(self, operation: Operation) -> asyncio.Queue[bytes | None]:
        lines: asyncio.Queue[bytes | None] = asyncio.Queue()
        for event in operation():
            lines.put_nowait(json.dumps(event_to_json(event)).encode())
        lines.put_nowait(None)
        return lines


def test_an_agent_that_stays_stops_nothing_by_itself_and_says_what_it_would(node: Box) -> None:
    store, plan = Store(str(node.root)), node.plan(options=AGREED)
    list(desired.applied(store, plan, node.engine().apply(plan)))
    node.write("/etc/containerd/config.toml", DEBIAN_CONFIG)  # a package upgrade
    files, restarted = node.files(), list(node.restarted)

    async def one_round() -> Drift:
        work: Any = Inline()
        drift = Drift(
            store,
            work,
            lambda wanted: lambda: node.engine().apply(wanted),
            lambda: node.engine().recover(),
            lambda *_: None,
        )
        await drift._round()
        return drift

    drift = asyncio.run(one_round())
    assert (drift.state, drift.times) == ("failing", 0)
    assert "restart-stops-running" in drift.error
    assert "1 running container (web)" in drift.error
    assert (node.files(), node.restarted) == (files, restarted)


def test_agreement_is_sent_only_where_it_was_given(node: Box) -> None:
    """Agents from before it know no such field."""
    assert "stop_running" not in node.plan().to_json()["options"]
    assert node.plan(options=AGREED).to_json()["options"]["stop_running"] is True
