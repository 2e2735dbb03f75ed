"""The agent on real nodes: trust, pull by the kubelet's call, and every byte back.

Takes the images that `inv up` or the e2e session has built, and is skipped where there are none.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("docker")

import docker

from moorage.archive import agent_archive
from tests.agent.authority import Authority
from tests.agent.real import LAB, NAME, REGISTRY, Node, Registry, connected, images, plan
from tests.agent.words.certificates import own

pytestmark = pytest.mark.engine
CONFIG = "/etc/containerd/config.toml"
STATE = "/var/lib/moorage"
LOOK = "sha256sum /etc/hosts /etc/containerd/config.toml; ls -R /etc/containerd"
PROGRAM = Path("/bin/true")


@pytest.fixture(scope="module")
def client() -> docker.DockerClient:
    return connected()


@pytest.fixture(scope="module")
def registry(client: docker.DockerClient) -> Iterator[Registry]:
    found = images(client, REGISTRY)
    if not found:
        pytest.skip("no registry image; inv up builds one")
    made = Registry(client, next(iter(found.values())), Authority())
    try:
        yield made
    finally:
        made.container.remove(force=True, v=True)


class Itself(Authority):
    """No CA: a server's certificate that signed itself."""

    def __init__(self) -> None:
        self.pair = own((NAME,))
        self.pem = self.pair[0].decode()

    def issue(self, *names: str, days: float = 30) -> tuple[bytes, bytes]:
        return self.pair


@pytest.fixture(scope="module")
def own_registry(client: docker.DockerClient) -> Iterator[Registry]:
    found = images(client, REGISTRY)
    if not found:
        pytest.skip("no registry image; inv up builds one")
    made = Registry(client, next(iter(found.values())), Itself())
    try:
        yield made
    finally:
        made.container.remove(force=True, v=True)


@pytest.fixture(scope="module", params=["1.6", "1.7", "2"])
def machine(
    request: pytest.FixtureRequest,
    client: docker.DockerClient,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Node]:
    found = images(client, LAB)
    if request.param not in found:
        pytest.skip(f"no lab image with containerd {request.param}; inv up builds one")
    made = Node(client, found[request.param])
    try:
        made.start(agent_archive(tmp_path_factory.mktemp("state")).path)
        made.sh(f"cp -p {CONFIG} /root/pristine.toml; cp /etc/hosts /root/pristine.hosts")
        yield made
    finally:
        made.remove()


@pytest.fixture
def node(machine: Node) -> Iterator[Node]:
    """The machine as its packages left it; what a test leaves is cleared away without the agent."""
    yield machine
    machine.sh(
        f"rm -rf /etc/containerd/certs.d {STATE}/history {STATE}/active {STATE}/blobs;"
        f" cat /root/pristine.hosts > /etc/hosts; cmp -s {CONFIG} /root/pristine.toml ||"
        f" {{ cp -p /root/pristine.toml {CONFIG}; systemctl reset-failed containerd;"
        " systemctl restart containerd; }"
    )
    machine.wait()


@pytest.fixture(scope="module")
def image(client: docker.DockerClient, registry: Registry) -> str:
    return registry.push(client, PROGRAM)


@pytest.mark.parametrize("kind", ["package", "default", "none"])
def test_trust_pulls_and_is_taken_away_without_a_trace(
    node: Node, registry: Registry, image: str, kind: str
) -> None:
    if kind == "default":
        node.sh(f"containerd config default > {CONFIG} && systemctl restart containerd")
    elif kind == "none":
        node.sh(f"rm {CONFIG} && systemctl restart containerd")
    node.wait()
    config, hosts = node.read(CONFIG), node.read("/etc/hosts")
    document = plan(registry, image)
    assert node.agent("apply", {**document, "parts": ["hosts"]}).code == 0
    assert node.agent("verify", document).fault == "x509-unknown-authority"
    first = node.agent("apply", document)
    assert (first.code, first.result["status"], first.noise) == (0, "changed", "")
    assert first.result["verified"] is True
    assert first.result["restarts"] == ["containerd.service"]
    second = node.agent("apply", document)
    assert (second.result["status"], second.result["restarts"]) == ("unchanged", [])
    away = node.agent("untrust", document)
    assert (away.code, away.result["status"]) == (0, "changed")
    assert (node.read(CONFIG), node.read("/etc/hosts")) == (config, hosts)
    node.agent("apply", {**document, "parts": ["hosts"]})
    assert node.agent("verify", document).fault == "x509-unknown-authority"


def test_a_registry_that_is_its_own_ca_is_trusted(
    node: Node, client: docker.DockerClient, own_registry: Registry
) -> None:
    document = plan(own_registry, own_registry.push(client, PROGRAM))
    first = node.agent("apply", document)
    assert (first.code, first.result["verified"]) == (0, True), first
    assert node.agent("untrust", document).code == 0


def test_one_trust_holds_for_both_spellings_of_the_usual_port(
    node: Node, registry: Registry, image: str
) -> None:
    spelled = plan(registry, image.replace(NAME, f"{NAME}:443"))
    assert node.agent("apply", {**spelled, "parts": ["hosts"]}).code == 0
    assert node.agent("verify", spelled).fault == "x509-unknown-authority"
    assert node.agent("apply", plan(registry, image)).result["verified"] is True
    pulled = node.agent("verify", spelled)
    assert (pulled.code, pulled.fault) == (0, "")
    assert node.agent("apply", spelled).result["status"] == "unchanged"
    node.agent("untrust", plan(registry, image))
    node.agent("apply", {**spelled, "parts": ["hosts"]})
    assert node.agent("verify", spelled).fault == "x509-unknown-authority"


def test_a_node_that_the_build_before_set_up_is_given_the_other_spelling(
    node: Node, registry: Registry, image: str
) -> None:
    document = plan(registry, image)
    hosts = node.read("/etc/hosts")
    node.agent("apply", document)
    node.sh(f"rm -r /etc/containerd/certs.d/{NAME}:443")  # as that build left it
    pid = node.sh("pidof containerd")
    again = node.agent("apply", document)
    assert (again.result["status"], again.result["restarts"]) == ("changed", [])
    assert {one["path"].split("/")[4] for one in again.result["changes"]} == {f"{NAME}:443"}
    assert node.sh("pidof containerd") == pid
    node.agent("untrust", document)
    assert node.sh("ls /etc/containerd/certs.d")[0] != 0
    assert node.read("/etc/hosts") == hosts


def test_running_containers_keep_their_process_ids(
    node: Node, registry: Registry, image: str
) -> None:
    node.sh(
        "mkdir -p /root/fs/bin /root/fs/proc /root/fs/sys /root/fs/dev; cp /usr/bin/sleep"
        " /root/fs/bin/; cp --parents $(ldd /usr/bin/sleep | grep -o '/[^ ]*') /root/fs/"
    )
    code, said = node.sh("ctr -n k8s.io run -d --rootfs /root/fs bystander /bin/sleep 1000")
    assert code == 0, said
    try:
        tasks = "ctr -n k8s.io tasks ls | grep bystander"
        before, daemon = node.sh(tasks)[1].split(), node.sh("pidof containerd")[1]
        assert node.agent("apply", plan(registry, image)).result["restarts"]
        assert node.sh(tasks)[1].split() == before
        assert before[2] == "RUNNING"
        assert node.sh(f"cat /proc/{before[1]}/comm")[1].strip() == "sleep"
        assert node.sh("pidof containerd")[1] != daemon
    finally:
        node.sh(
            "{ ctr -n k8s.io tasks kill -s KILL bystander; sleep 0.5;"
            " ctr -n k8s.io tasks rm -f bystander; ctr -n k8s.io containers rm bystander;"
            " } > /dev/null 2>&1"
        )


def test_a_wrong_ca_is_refused_with_nothing_changed(
    node: Node, registry: Registry, image: str
) -> None:
    before = node.sh("sha256sum /etc/hosts /etc/containerd/config.toml; pidof containerd")
    wrong = plan(registry, image, ca=Authority("other").pem)
    assert node.agent("apply", wrong).fault == "x509-unknown-authority"
    assert node.sh("sha256sum /etc/hosts /etc/containerd/config.toml; pidof containerd") == before


def test_a_trust_that_does_not_hold_is_rolled_back(
    node: Node, registry: Registry, image: str
) -> None:
    """Without the preflight, the wrong CA shows after the restart only."""
    before = node.sh("sha256sum /etc/hosts /etc/containerd/config.toml; ls -R /etc/containerd")
    wrong = plan(registry, image, ca=Authority("other").pem, options={"preflight": False})
    run = node.agent("apply", wrong)
    assert (run.result["status"], run.fault) == ("rolled-back", "x509-unknown-authority")
    assert (
        node.sh("sha256sum /etc/hosts /etc/containerd/config.toml; ls -R /etc/containerd") == before
    )
    node.wait()


def test_an_image_that_is_not_there_keeps_the_trust(node: Node, registry: Registry) -> None:
    missing = plan(registry, f"{NAME}/none:1", options={"preflight": False})
    run = node.agent("apply", missing)
    assert (run.result["status"], run.fault) == ("failed", "image-missing")
    assert len(run.result["changes"]) == 6  # the folder of each spelling of its port among them


def test_the_last_apply_is_taken_back_and_told(node: Node, registry: Registry, image: str) -> None:
    document, before = plan(registry, image), node.sh(LOOK)
    looked = node.agent("diff", document)
    assert (looked.code, looked.result["status"]) == (1, "differs")
    assert node.sh(LOOK) == before
    assert node.agent("apply", document).code == 0
    assert node.agent("diff", document).result["status"] == "unchanged"
    back = node.agent("undo", document)
    assert (back.code, back.result["restarts"]) == (0, ["containerd.service"])
    assert node.sh(LOOK) == before
    told = next(event for event in node.agent("history").events if event["event"] == "history")
    assert [one["operation"] for one in told["records"]] == ["undo", "apply"]
    found = next(e for e in node.agent("explain", document).events if e["event"] == "explain")
    assert any(one["part"] == "containerd" and one["applies"] for one in found["findings"])


def test_trust_is_taken_away_where_the_notes_are_lost(
    node: Node, registry: Registry, image: str
) -> None:
    before, document = node.sh("sha256sum /etc/hosts /etc/containerd/config.toml"), plan(registry)
    assert node.agent("apply", plan(registry, image)).code == 0
    node.sh(f"rm -rf {STATE}/history {STATE}/active {STATE}/blobs")
    away = node.agent("untrust", document)
    assert (away.code, away.result["status"]) == (0, "changed"), away
    assert node.sh("sha256sum /etc/hosts /etc/containerd/config.toml") == before
    assert node.agent("verify", plan(registry, image)).code == 1


def test_a_switched_off_node_is_as_before_once_it_has_booted(
    node: Node, registry: Registry, image: str
) -> None:
    """The unit that stands meanwhile is systemd's to start: no agent is run by hand."""
    before = node.sh("sha256sum /etc/containerd/config.toml; ls -R /etc/containerd")
    node.sh(
        "mkdir -p /run/systemd/system/containerd.service.d; printf '[Service]\\n"
        "ExecStartPre=/bin/sleep 600\\n' > /run/systemd/system/containerd.service.d/slow.conf;"
        " systemctl daemon-reload"
    )
    node.write("/root/plan.json", json.dumps(plan(registry, image)).encode())
    node.container.exec_run(
        ["sh", "-c", "setsid python3 /root/agent.pyz apply < /root/plan.json"], detach=True
    )
    for _ in range(200):
        if node.read(f"{STATE}/active/restarting") is not None:
            break
        time.sleep(0.1)
    assert node.read("/etc/systemd/system/moorage-recover.service") is not None
    node.container.restart(timeout=0)
    node.wait()
    assert node.sh("sha256sum /etc/containerd/config.toml; ls -R /etc/containerd") == before
    assert node.read(f"{STATE}/active/intent.json") is None
    assert node.read("/etc/systemd/system/moorage-recover.service") is None
