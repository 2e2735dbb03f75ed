"""A real node with nothing to do: its agent answers without a process, whatever hangs there."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator

import pytest

pytest.importorskip("docker")

from agent.proof.decision import NO_IMAGE
from agent.wire.report import HostResult
from moorage.fleet.rollout.fleet import Fleet
from moorage.ui import UI
from tests.agent.real import Registry
from tests.resident.lab import ResidentNode, asked, run

pytestmark = pytest.mark.engine

PID = "$(systemctl show -p MainPID --value moorage-agent)"
STOP_OR_GO = "kill -{} $(systemctl show -p MainPID --value containerd)"
# A containerd that someone runs by hand, known by its process alone.
ANOTHER = """
mkdir -p /root/another; cat > /root/another.toml <<END
version = 2
root = "/root/another/root"
state = "/root/another/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
END
containerd --config /root/another.toml --address /root/another/socket >/dev/null 2>&1 &
echo $! > /root/another.pid; sleep 1
"""


@pytest.fixture
def trusting(node: ResidentNode, ui: UI, registry: Registry) -> Iterator[ResidentNode]:
    assert Fleet(node.settings, ui).run("adopt", ["node"]).ok
    assert run(node, ui, registry, "apply").ok
    yield node
    assert Fleet(node.settings, ui).run("release", ["node"]).ok


def apply(node: ResidentNode, ui: UI, registry: Registry) -> HostResult:
    return run(node, ui, registry, "apply").hosts[0]


def children_ticks(node: ResidentNode) -> int:
    """Processor time of all processes it has made, in hundredths of a second (proc_pid_stat(5))."""
    said = node.sh(f"cut -d' ' -f16,17 /proc/{PID}/stat")[1]
    return sum(map(int, said.split()))


def test_an_apply_that_has_nothing_to_do_makes_no_process(
    trusting: ResidentNode, ui: UI, registry: Registry
) -> None:
    first = apply(trusting, ui, registry)  # its process learns what containerd answers
    before = children_ticks(trusting)
    for _ in range(10):
        assert apply(trusting, ui, registry) == first
    assert (first.status, first.verified) == ("unchanged", None)
    assert [(one.part, one.because) for one in first.unproven] == [("containerd", NO_IMAGE)]
    assert children_ticks(trusting) == before
    trusting.sh("cat /dev/null > /etc/containerd/certs.d/my.registry.io/ca.crt")
    mended = apply(trusting, ui, registry)
    assert mended.ok
    assert children_ticks(trusting) > before


def test_a_containerd_that_hangs_holds_up_no_other_question(
    trusting: ResidentNode, ui: UI, registry: Registry
) -> None:
    assert apply(trusting, ui, registry).status == "unchanged"
    trusting.sh(STOP_OR_GO.format("STOP"))
    told: list[HostResult] = []
    asking = threading.Thread(target=lambda: told.append(apply(trusting, ui, registry)))
    try:
        asking.start()
        slowest = 0.0
        while asking.is_alive():
            began = time.monotonic()
            assert json.loads(asked(trusting, "/healthz"))["ok"]
            slowest = max(slowest, time.monotonic() - began)
            time.sleep(0.1)
    finally:
        trusting.sh(STOP_OR_GO.format("CONT"))
    assert slowest < 1
    assert told[0].error is not None
    assert (told[0].status, told[0].error.code) == ("failed", "cri-not-serving")
    assert apply(trusting, ui, registry).status == "unchanged"


def runtimes(said: str) -> str:
    """What an agent's events say of the runtimes; on a busy node one says first that it works."""
    events = [json.loads(line) for line in said.splitlines()]
    return str(next(event["runtime"] for event in events if "runtime" in event))


def test_the_agent_that_stays_sees_the_runtimes_that_one_over_ssh_sees(
    trusting: ResidentNode,
) -> None:
    """It has mounts of its own, in which no process of the node's is."""
    trusting.sh(ANOTHER)
    try:
        ours = runtimes(asked(trusting, "/v1/facts"))
        code, said = trusting.sh("python3 -I /var/lib/moorage/resident/agent.pyz facts")
        assert code == 0, said
        assert ours == runtimes(said)
        assert ours.count("containerd") == 2
    finally:
        trusting.sh("kill $(cat /root/another.pid); rm -r /root/another*")
