"""The lab's cluster is a real one, and it comes up, mends and goes as the rest of the lab does.

Takes the lab's names and minutes, so it runs when asked for: MOORAGE_CLUSTER=1 ./run pytest
tests/k8s/test_cluster.py
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.kubernetes.programs import binaries
from moorage.settings import ROOT, Settings
from tests.e2e import machine
from tests.k8s import cluster
from tests.k8s.cluster import CONTROL, LAB1, LAB2, PREFIX, LabCluster

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not os.environ.get("MOORAGE_CLUSTER"), reason="MOORAGE_CLUSTER is not set"),
]

TUNABLES = ("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops")
WEB = """
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: localhost/busybox:1
        imagePullPolicy: Never
        command:
        - /busybox
        - sh
        - -c
        - mkdir /tmp/w; echo $NODE >/tmp/w/index.html; exec /busybox httpd -fp 8080 -h /tmp/w
        env: [{name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]
        volumeMounts: [{name: tmp, mountPath: /tmp}]
      volumes: [{name: tmp, emptyDir: {}}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
"""


def tunables() -> dict[str, str]:
    return {name: Path("/proc/sys", name).read_text() for name in TUNABLES}


@pytest.fixture(scope="module")
def before() -> dict[str, str]:
    return tunables()


@pytest.fixture(scope="module")
def lab(before: dict[str, str]) -> Iterator[LabCluster]:
    del before
    with cluster.running() as made:
        for node in made.nodes:
            _give_image(node)
        _run_web(made)
        yield made


def _run_web(made: LabCluster) -> None:
    made.kubectl("apply", "-f", "-", stdin=WEB)
    made.kubectl("rollout", "status", "daemonset/web", "--timeout=60s")


def _give_image(node: str) -> None:
    """The node's own pause image is a busybox: under a second name it serves as a program."""
    script = (
        "image=$(ctr -n k8s.io images list -q | grep pause | head -n 1); "
        "ctr -n k8s.io images tag --force $image localhost/busybox:1"
    )
    cluster.on_node(node, "sh", "-c", script)


def _pods(lab: LabCluster) -> dict[str, str]:
    """Node -> its pod."""
    found = lab.get("pods", "-l", "app=web")["items"]
    return {pod["spec"]["nodeName"]: pod["metadata"]["name"] for pod in found}


def _until(holds: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "it does not come to hold"
        time.sleep(0.5)


def test_nodes_of_both_containerd_lines_are_ready(lab: LabCluster) -> None:
    runtimes = {
        node["metadata"]["name"]: node["status"]["nodeInfo"]["containerRuntimeVersion"]
        for node in lab.get("nodes")["items"]
    }
    assert runtimes[LAB1].startswith("containerd://1.6")
    assert runtimes[LAB2].startswith("containerd://1.7")


def test_the_kubeconfig_is_for_its_owner_alone(lab: LabCluster) -> None:
    assert lab.kubeconfig.stat().st_mode & 0o777 == 0o600
    assert lab.kubeconfig.parent.stat().st_mode & 0o777 == 0o700


def test_a_second_up_changes_nothing_within_ten_seconds(lab: LabCluster) -> None:
    pods = _pods(lab)
    begun = time.monotonic()
    again = cluster.up()
    assert time.monotonic() - begun < 10
    assert again.document["changed"] is False
    assert _pods(lab) == pods


def test_the_api_servers_proxy_reaches_a_pod_on_each_node(lab: LabCluster) -> None:
    for node, pod in _pods(lab).items():
        path = f"/api/v1/namespaces/default/pods/{pod}:8080/proxy/"
        assert lab.kubectl("get", "--raw", path).strip() == node


def test_a_service_reaches_pods_of_both_nodes(lab: LabCluster) -> None:
    address = lab.get("service", "web")["spec"]["clusterIP"]
    pod = next(iter(_pods(lab).values()))
    ask = f"for i in 1 2 3 4 5 6 7 8 9 10 11 12; do /busybox wget -qO- http://{address}/; done"
    answers = lab.kubectl("exec", pod, "--", "/busybox", "sh", "-c", ask).split()
    assert set(answers) == set(lab.nodes)


def test_a_pod_reaches_the_api_server_by_its_service(lab: LabCluster) -> None:
    for pod in _pods(lab).values():
        ask = "/busybox nc -w 3 $KUBERNETES_SERVICE_HOST 443 </dev/null && echo reached"
        assert "reached" in lab.kubectl("exec", pod, "--", "/busybox", "sh", "-c", ask)


def test_a_kubelet_may_not_read_what_is_no_pods_of_its_node(
    lab: LabCluster, tmp_path: Path
) -> None:
    lab.kubectl("create", "secret", "generic", "not-yours", "--from-literal=a=b")
    try:
        own = tmp_path / "kubelet.kubeconfig"
        own.write_text(cluster.on_node(LAB1, "cat", "/etc/kubernetes/kubelet.kubeconfig"))
        refused = lab.try_kubectl("get", "secret", "not-yours", kubeconfig=own)
        assert "Forbidden" in refused.stderr
        other = lab.try_kubectl("label", "node", LAB2, "taken=over", kubeconfig=own)
        assert "Forbidden" in other.stderr
    finally:
        lab.kubectl("delete", "secret", "not-yours")


def test_a_stranger_is_let_in_neither_by_the_api_server_nor_by_a_kubelet(lab: LabCluster) -> None:
    control_address = lab.get("endpoints", "kubernetes")["subsets"][0]["addresses"][0]["ip"]
    node = lab.get("node", LAB1)["status"]["addresses"][0]["address"]
    for place, code in (
        (f"https://{control_address}:6443/api/v1/secrets", "403"),
        (f"https://{node}:10250/pods", "401"),
    ):
        argv = ["curl", "-sk", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", place]
        assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout == code
    for port in (10248, 10249, 10256, 10255, 8080, 2379):
        for address in (node, control_address):
            argv = ["curl", "-s", "-m", "2", f"http://{address}:{port}/"]
            assert subprocess.run(argv, capture_output=True, check=False).returncode == 7


def test_a_restart_of_containerd_leaves_pods_running(lab: LabCluster) -> None:
    pods = _pods(lab)
    cluster.on_node(LAB1, "systemctl", "restart", "containerd.service")
    time.sleep(3)
    _until(lambda: "True" in _conditions(lab, LAB1))
    found = lab.get("pods", "-l", "app=web")["items"]
    assert {pod["metadata"]["name"] for pod in found} == set(pods.values())
    assert {pod["status"]["containerStatuses"][0]["restartCount"] for pod in found} == {0}


def _conditions(lab: LabCluster, node: str) -> str:
    path = "jsonpath={.status.conditions[?(@.type=='Ready')].status}"
    return lab.kubectl("get", "node", node, "-o", path)


def test_nothing_secret_is_where_others_can_see_it(lab: LabCluster) -> None:
    key = lab.kubeconfig.with_name("authority.pem").read_text().splitlines()[-2]
    for name in (CONTROL, f"moorage-{LAB1}"):
        seen = subprocess.run(
            ["docker", "inspect", name], capture_output=True, text=True, check=True
        )
        assert key not in seen.stdout
        listing = cluster.container(name, ["sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"])
        assert "PRIVATE" not in listing
        assert "client-key-data" not in listing
    modes = cluster.container(CONTROL, ["sh", "-c", "stat -c '%a %n' /etc/kubernetes/pki/*.key"])
    assert {line.split()[0] for line in modes.splitlines()} == {"600"}


def test_the_machines_kernel_is_left_as_it_was(lab: LabCluster, before: dict[str, str]) -> None:
    del lab
    assert tunables() == before


def test_a_control_plane_that_was_stopped_comes_back_with_what_it_knew(lab: LabCluster) -> None:
    subprocess.run(["docker", "stop", CONTROL], capture_output=True, check=True)
    again = cluster.up()
    assert again.document["changed"] is True
    _until(lambda: len(_pods(lab)) == 2)


def test_a_control_plane_that_was_lost_is_made_anew_and_its_nodes_register(lab: LabCluster) -> None:
    subprocess.run(["docker", "rm", "-fv", CONTROL], capture_output=True, check=True)
    assert set(cluster.up().nodes) == set(lab.nodes)
    assert len(lab.get("nodes")["items"]) == len(lab.nodes)
    _run_web(lab)  # the new one began with an empty cluster


def test_a_program_that_dies_takes_the_control_plane_along_and_up_mends_it(
    lab: LabCluster,
) -> None:
    cluster.container(CONTROL, ["pkill", "-KILL", "-x", "kube-scheduler"])
    _until(lambda: not _runs(CONTROL))
    said = subprocess.run(["docker", "logs", CONTROL], capture_output=True, text=True)  # noqa: PLW1510
    assert "kube-scheduler ended" in said.stdout
    assert cluster.up().nodes == lab.nodes


def _runs(name: str) -> bool:
    argv = ["docker", "inspect", "-f", "{{.State.Running}}", name]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.stdout.strip() == "true"


def test_a_node_that_was_made_anew_joins_again(lab: LabCluster) -> None:
    subprocess.run(["docker", "rm", "-fv", f"moorage-{LAB2}"], capture_output=True, check=True)
    again = cluster.up()
    assert again.nodes == lab.nodes
    _give_image(LAB2)
    lab.kubectl(
        "delete", "pod", "-l", "app=web", f"--field-selector=spec.nodeName={LAB2}", check=False
    )
    _until(lambda: set(_pods(lab)) == {LAB1, LAB2}, 90)


def test_a_node_that_left_the_lab_leaves_the_cluster(lab: LabCluster) -> None:
    smaller = cluster.up("1.6")
    assert smaller.nodes == (LAB1,)
    assert [node["metadata"]["name"] for node in lab.get("nodes")["items"]] == [LAB1]
    assert cluster.up().nodes == (LAB1, LAB2)
    _give_image(LAB2)


def test_a_mix_that_no_kubelet_speaks_to_is_refused_before_anything_changes(
    lab: LabCluster,
) -> None:
    answer = machine.inv("lab.up", "--kubernetes", "--nodes=2", "--yes")
    assert answer.code == 2
    assert answer.document["error"]["code"] == "no-cluster-nodes"
    assert {node["metadata"]["name"] for node in lab.get("nodes")["items"]} == {LAB1, LAB2}


@pytest.mark.parametrize("seconds", [0.8, 1.6, 2.6, 4, 6, 8])
def test_up_after_a_kill_in_the_middle_ends_well(seconds: float) -> None:
    machine.good("lab.down")
    argv = [machine.RUN, "inv", "lab.up", "--kubernetes", f"--nodes={cluster.NODES}", "--yes"]
    with subprocess.Popen(
        argv,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as maker:
        time.sleep(2.5 + seconds)  # the nodes themselves take so long
        maker.kill()
    assert cluster.up().nodes == (LAB1, LAB2)


def test_down_leaves_nothing_and_the_cache(before: dict[str, str]) -> None:
    made = cluster.up()
    for node in made.nodes:
        _give_image(node)
    _run_web(made)
    pods = made.get("pods", "-l", "app=web")["items"]
    programs = [pod["status"]["containerStatuses"][0]["containerID"] for pod in pods]
    assert [_groups(program) for program in programs if not _groups(program)] == []
    machine.good("lab.down")
    argv = ["docker", "ps", "-aq", "--filter", f"label={machine.LABEL}"]
    left = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
    names = [_name(container) for container in left]
    assert not [name for name in names if name.startswith(f"moorage-{PREFIX}")]
    assert not made.kubeconfig.parent.exists()
    assert [_groups(program) for program in programs if _groups(program)] == []
    assert tunables() == before
    assert binaries.pending(Settings()) == []


def _groups(program: str) -> list[Path]:
    """The control groups of a pod's program, named as containerd names it."""
    return list(Path("/sys/fs/cgroup").glob(f"**/{program.removeprefix('containerd://')}"))


def _name(container: str) -> str:
    argv = ["docker", "inspect", "-f", "{{.Name}}", container]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.stdout.strip().removeprefix("/")
