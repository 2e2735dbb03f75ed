"""The agent that stays on a node with OpenRC: supervised, its trust live, and gone whole.

Debian's OpenRC as the first process; and Alpine's, with all of Alpine but Python and containerd.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("docker")

import docker

from moorage.archive import agent_archive
from moorage.fleet.rollout.fleet import Fleet
from moorage.ui import UI
from tests.agent.real import NAME, PASSWORD, USER, Registry, plan
from tests.resident.alpine import alpine_image
from tests.resident.lab import (
    OpenRcNode,
    ResidentNode,
    drift,
    openrc_image,
    resident_node,
    run,
    until,
)

pytestmark = pytest.mark.engine

FILES = "find /etc -type f | sort | xargs sha256sum; ls /etc/runlevels/*"
AGENT = "pgrep -f '[a]gent.pyz serve'"
CONTAINERD = "pidof containerd"


@pytest.fixture(scope="module", params=[openrc_image, alpine_image])
def node(
    request: pytest.FixtureRequest,
    client: docker.DockerClient,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ResidentNode]:
    folder = tmp_path_factory.mktemp("operator")
    with resident_node(client, folder, OpenRcNode, request.param(client)) as made:
        yield made


def test_it_is_supervised_keeps_trust_and_is_taken_away_whole(
    node: ResidentNode, ui: UI, registry: Registry
) -> None:
    before, hosts = node.sh(FILES)[1], node.read("/etc/hosts") or b""
    report = Fleet(node.settings, ui).run("adopt", ["node"])
    assert report.ok, (report, node.sh(node.log)[1])
    assert node.sh("rc-service moorage-agent status")[0] == 0
    assert "moorage-agent" in node.sh("rc-update show default")[1]
    try:
        old = node.sh(CONTAINERD)[1]
        report = run(node, ui, registry, "apply")
        assert report.hosts[0].restarts == ("containerd",), (report, node.sh(node.log)[1])
        new = node.sh(CONTAINERD)[1]
        assert old != new
        # Restarted by the agent's child, it must not be under the agent's limits.
        status = node.sh(f"grep NoNewPrivs /proc/{new.strip()}/status; rc-status default")[1]
        assert status.split()[1] == "0"
        assert "POST '/v1/apply'" in node.sh(node.log)[1]

        trusted, first = node.read("/etc/hosts"), node.sh(AGENT)[1]
        node.sh(f"kill -9 {first}")
        until(lambda: node.sh(AGENT)[1] not in ("", first), node, 10)
        fleet = Fleet(node.settings, ui)
        until(lambda: bool(fleet.run("status", ["node"]).states["node"]), node, 10)
        node.write_hosts(hosts)
        until(lambda: node.read("/etc/hosts") == trusted, node)
        until(lambda: drift(node, ui)["healed"] == 1, node)
        assert run(node, ui, registry, "untrust").hosts[0].restarts == ("containerd",)
    finally:
        assert Fleet(node.settings, ui).run("release", ["node"]).ok
    assert node.sh(AGENT)[1] == ""
    assert node.sh("test -e /var/lib/moorage/resident")[0] != 0
    assert node.sh(FILES)[1] == before


def test_alpines_own_store_trusts_only_when_asked(node: ResidentNode, registry: Registry) -> None:
    """By curl, a program of Alpine's; the other node is Debian's, whose store has a test."""
    if node.sh("test -e /etc/alpine-release")[0]:
        pytest.skip("not Alpine")
    look = "sha256sum /etc/ssl/certs/ca-certificates.crt /etc/hosts; ls -l /etc/ssl/certs | wc -l"
    asked = f"curl -sS -o /dev/null -u {USER}:{PASSWORD} https://{NAME}/v2/ && echo trusted"
    before = node.sh(look)
    node.write("/root/agent.pyz", agent_archive(node.settings.state).path.read_bytes())
    assert node.agent("apply", plan(registry, parts=["hosts"])).code == 0
    assert "trusted" not in node.sh(asked)[1]
    run = node.agent("apply", plan(registry, parts=["hosts", "system"]))
    assert (run.code, run.result["restarts"]) == (0, ["update-ca-certificates"]), run
    assert "trusted" in node.sh(asked)[1]
    assert node.agent("untrust", plan(registry)).result["restarts"] == ["update-ca-certificates"]
    assert node.sh(look) == before
