"""The agent on a real node is killed, hangs, and its node loses power in the middle of a change."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

pytest.importorskip("docker")

from moorage.fleet.rollout.fleet import Fleet
from moorage.ui import UI
from tests.agent.real import Registry
from tests.resident.lab import ResidentNode, drift, run, until

pytestmark = pytest.mark.engine

PID = "systemctl show -p MainPID --value moorage-agent"
DROP_INS = "/etc/systemd/system/moorage-agent.service.d"
SLOW = "/etc/systemd/system/containerd.service.d"
FILES = "find /etc/containerd /var/lib/moorage/active -type f | sort | xargs sha256sum"


@pytest.fixture
def adopted(node: ResidentNode, ui: UI) -> Iterator[ResidentNode]:
    assert Fleet(node.settings, ui).run("adopt", ["node"]).ok
    yield node
    assert Fleet(node.settings, ui).run("release", ["node"]).ok


def answers(node: ResidentNode, ui: UI) -> bool:
    return "resident" in Fleet(node.settings, ui).run("status", ["node"]).states.get("node", {})


def slow_down(node: ResidentNode) -> None:
    """The restart that a change needs takes long enough to be cut off in, while /root/slow is."""
    node.sh(f"mkdir -p {SLOW}; touch /root/slow")
    start = b"[Service]\nExecStartPre=/bin/sh -c '[ ! -e /root/slow ] || sleep 30'\n"
    node.write(f"{SLOW}/slow.conf", start)
    node.sh("systemctl daemon-reload")


def test_one_that_hangs_is_killed_by_the_watchdog_and_serves_again(
    adopted: ResidentNode, ui: UI
) -> None:
    adopted.sh(f"mkdir -p {DROP_INS}")
    adopted.write(f"{DROP_INS}/test.conf", b"[Service]\nWatchdogSec=3\n")
    try:
        adopted.sh("systemctl daemon-reload; systemctl restart moorage-agent")
        pid = adopted.sh(PID)[1].strip()
        adopted.sh(f"sleep 5; kill -STOP {pid}")  # it has been alive for longer than the limit
        until(lambda: adopted.sh(PID)[1].strip() not in ("0", pid), adopted, 15)
        assert "watchdog" in adopted.sh("journalctl -u moorage-agent -n 20 -o cat")[1].lower()
        until(lambda: answers(adopted, ui), adopted, 10)
    finally:
        adopted.sh(f"rm -r {DROP_INS}; systemctl daemon-reload; systemctl restart moorage-agent")


def hosts_but_its_own(node: ResidentNode) -> list[bytes]:
    """The hosts file without the node's own line: the engine may give it another address."""
    name = str(node.container.attrs["Config"]["Hostname"]).encode()
    return [
        line for line in (node.read("/etc/hosts") or b"").splitlines() if not line.endswith(name)
    ]


def test_a_power_cut_in_the_middle_of_a_change_is_rolled_back_and_the_node_is_watched(
    adopted: ResidentNode, ui: UI, registry: Registry
) -> None:
    before = adopted.sh(FILES)[1]
    slow_down(adopted)
    worker = threading.Thread(target=lambda: run(adopted, ui, registry, "apply"), daemon=True)
    worker.start()
    until(lambda: adopted.sh("pgrep -f '[s]leep 30'")[0] == 0, adopted, 20)
    assert adopted.sh(FILES)[1] != before
    adopted.sh("rm /root/slow")
    adopted.container.kill()
    worker.join(60)
    adopted.container.start()
    adopted.wait(60)
    adopted.locate()
    until(lambda: answers(adopted, ui), adopted, 20)
    assert adopted.sh(FILES)[1] == before
    assert drift(adopted, ui)["state"] == "watching"

    # A reboot of a node in order: its hosts file is written anew by who makes it.
    assert run(adopted, ui, registry, "apply").ok
    trusted = hosts_but_its_own(adopted)
    assert any(b"my.registry.io" in line for line in trusted)
    adopted.container.restart(timeout=20)
    adopted.wait(60)
    adopted.locate()
    until(lambda: hosts_but_its_own(adopted) == trusted, adopted, 20)
    until(lambda: answers(adopted, ui), adopted, 20)
    adopted.sh("rm -rf /etc/containerd/certs.d")
    ca = "/etc/containerd/certs.d/my.registry.io/ca.crt"
    until(lambda: adopted.sh(f"test -s {ca}")[0] == 0, adopted)
    until(lambda: drift(adopted, ui)["state"] == "watching", adopted)
    assert run(adopted, ui, registry, "untrust").ok


def test_a_killed_operation_is_rolled_back_by_the_agent_itself(
    adopted: ResidentNode, ui: UI, registry: Registry
) -> None:
    before = adopted.sh(FILES)[1]
    slow_down(adopted)
    adopted.sh(
        "(while ! pgrep -f '[s]leep 30' >/dev/null; do sleep 0.05; done; rm /root/slow; "
        "pkill -9 -P $(systemctl show -p MainPID --value moorage-agent); pkill -f '[s]leep 30') "
        ">/dev/null 2>&1 &"
    )
    report = run(adopted, ui, registry, "apply")
    assert (report.hosts[0].error or pytest.fail()).code == "agent-died", report
    until(lambda: adopted.sh(FILES)[1] == before, adopted, 10)
    adopted.wait()
    assert run(adopted, ui, registry, "apply").ok
    assert run(adopted, ui, registry, "untrust").ok
