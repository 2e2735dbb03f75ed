"""What nodes.trust leaves on a node: the agent as a service, or with --once nothing of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from agent.wire.report import HostResult
from agent.wire.verbs import named
from moorage.configuration import parsing
from moorage.fleet.rollout.fleet import Fleet
from moorage.fleet.rollout.operation import Operation
from moorage.pki.roster import Roster
from moorage.settings import CertsSettings, Settings
from moorage.ui import UI
from tests.agent.real import Registry
from tests.resident.lab import ResidentNode, until

pytestmark = pytest.mark.engine

SERVICE = "systemctl is-active moorage-agent"
ARCHIVES = "ls /var/lib/moorage/agent 2>/dev/null | wc -l"


def trust(
    node: ResidentNode, ui: UI, registry: Registry, settings: Settings, name: str = "node"
) -> HostResult:
    """As nodes.trust does it, proved by TLS to the registry; no image is pulled."""
    ca = registry.authority.pem
    wanted = Operation(named("apply"), ca=ca, stay=settings.nodes.resident)
    address = dataclasses.replace(settings.registry, address=registry.address)
    settings = dataclasses.replace(settings, registry=address)
    return Fleet(settings, ui).carry_out(wanted, [name]).hosts[0]


def test_the_agent_stays_after_the_first_trust_and_answers_the_second(
    node: ResidentNode, ui: UI, registry: Registry
) -> None:
    first = trust(node, ui, registry, node.settings)
    assert (first.status, first.restarts) == ("changed", ("containerd.service",)), first
    assert first.changes[-1].path == "/etc/systemd/system/moorage-agent.service"
    assert Roster(node.settings).residents().keys() == {"node"}
    second = trust(node, ui, registry, node.settings)
    assert (second.status, second.changes, second.restarts) == ("unchanged", (), ())
    assert "POST '/v1/apply'" in node.sh("journalctl -u moorage-agent -o cat")[1]


def test_a_node_of_two_names_has_one_agent(node: ResidentNode, ui: UI, registry: Registry) -> None:
    """Its own, and its address in a cluster, for instance."""
    config = Path(node.settings.nodes.ssh_config)
    config.write_text(config.read_text().replace("Host node", "Host node another", 1))
    before = Roster(node.settings).residents()["node"]
    for name in ("another", "node", "another"):
        result = trust(node, ui, registry, node.settings, name)
        assert (result.status, result.changes) == ("unchanged", ()), name
    roster = Roster(node.settings).residents()
    assert roster == {"node": before, "another": before}
    assert Fleet(node.settings, ui).run("release", ["another"]).ok
    assert Roster(node.settings).residents() == {}
    assert trust(node, ui, registry, node.settings).status == "changed"


def test_another_operators_agent_is_not_taken_over_unasked(
    node: ResidentNode, ui: UI, registry: Registry, tmp_path: Path
) -> None:
    other = dataclasses.replace(node.settings, certs=CertsSettings(dir=str(tmp_path)))
    authority = node.read("/var/lib/moorage/resident/authority.pem")
    assert trust(node, ui, registry, other).ok
    assert Roster(other).residents() == {}
    assert node.read("/var/lib/moorage/resident/authority.pem") == authority
    assert "next" not in node.sh("ls /var/lib/moorage/resident")[1]
    assert trust(node, ui, registry, node.settings).status == "unchanged"
    assert Fleet(node.settings, ui).run("release", ["node"]).ok


def test_a_port_in_use_keeps_no_trust_away(
    node: ResidentNode, ui: UI, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = dataclasses.replace(node.settings.nodes, agent_port=22)
    result = trust(node, ui, registry, dataclasses.replace(node.settings, nodes=nodes))
    assert (result.ok, result.error) == (True, None)
    said = capsys.readouterr().err
    assert "the agent does not stay here: port 22" in said
    assert "--port" in said
    assert node.sh(SERVICE)[0] != 0
    assert node.sh("test -e /var/lib/moorage/resident")[0] != 0
    assert Roster(node.settings).residents() == {}


def test_a_service_that_does_not_come_up_is_gone_and_the_next_command_says_why(
    node: ResidentNode, ui: UI, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    drop_in = "/etc/systemd/system/moorage-agent.service.d"
    node.sh(f"mkdir -p {drop_in}")
    node.write(f"{drop_in}/test.conf", b"[Service]\nInaccessiblePaths=/dev/null\n")
    try:
        assert trust(node, ui, registry, node.settings).ok
        assert Roster(node.settings).residents()["node"].settling
        until(lambda: node.sh("test -e /var/lib/moorage/unsettled.json")[0] == 0, node, 30)
        until(lambda: node.sh("test -e /var/lib/moorage/resident")[0] != 0, node)
        report = Fleet(node.settings, ui).run("status", ["node"])
        assert report.states["node"]["stays"]["error"]["code"] == "agent-does-not-start"
        assert "/dev/null" in capsys.readouterr().err
        assert Roster(node.settings).residents() == {}
    finally:
        node.sh(f"rm -r {drop_in}")
    assert Fleet(node.settings, ui).run("adopt", ["node"]).ok
    assert node.sh(SERVICE)[0] == 0
    assert Fleet(node.settings, ui).run("release", ["node"]).ok
    assert node.sh("test -e /var/lib/moorage/unsettled.json")[0] != 0


def test_once_leaves_the_trust_and_nothing_of_the_agent(
    node: ResidentNode, ui: UI, registry: Registry
) -> None:
    node.sh("rm -rf /var/lib/moorage/agent")
    once = parsing.with_nodes(node.settings, resident=False)
    assert trust(node, ui, registry, once).ok
    assert node.sh(SERVICE)[0] != 0
    assert node.sh(ARCHIVES)[1].strip() == "0"
    assert node.read("/etc/containerd/certs.d/my.registry.io/ca.crt") is not None
    taken = Operation(named("untrust"))
    assert Fleet(once, ui).carry_out(taken, ["node"]).ok
    assert node.read("/etc/containerd/certs.d/my.registry.io/ca.crt") is None
    assert node.sh(ARCHIVES)[1].strip() == "0"


def test_a_folder_that_containerd_was_told_of_elsewhere_is_kept_right_too(
    node: ResidentNode, ui: UI, registry: Registry
) -> None:
    config = node.read("/etc/containerd/config.toml") or b""
    table = b'[plugins."io.containerd.grpc.v1.cri".registry]\n'
    there = b'config_path = "/opt/registries"\n'
    told = config.replace(table, table + there) if table in config else config + table + there
    node.write("/etc/containerd/config.toml", told)
    node.sh("mkdir /opt/registries; systemctl restart containerd")
    node.wait()
    try:
        assert trust(node, ui, registry, node.settings).restarts == ()
        ours = "/opt/registries/my.registry.io/ca.crt"
        assert node.read(ours)
        node.sh("rm -r /opt/registries/my.registry.io")
        until(lambda: bool(node.read(ours)), node)
        assert Fleet(node.settings, ui).run("release", ["node"]).ok
    finally:
        node.write("/etc/containerd/config.toml", config)
        node.sh("systemctl restart containerd")
