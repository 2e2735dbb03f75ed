"""k3s, RKE2 and k0s on real containerds, started by a stand-in for each: see image/rancher.py.

Their names, places and units are none that anybody would guess.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytest.importorskip("docker")
pytest.importorskip("yaml")

import docker
import yaml

from agent.wire.report import NOT_PROVEN
from moorage.archive import agent_archive
from tests.agent import runtimes
from tests.agent.real import NAME, Registry, plan
from tests.agent.test_real import client, image, registry

__all__ = ["client", "image", "registry"]
pytestmark = pytest.mark.engine

STAND_IN = Path(__file__).parent / "image" / "rancher.py"
LOOK = (
    "find /etc/rancher /etc/k0s/containerd.d /etc/docker /etc/containerd -type f 2>/dev/null |"
    " sort | xargs -r sha256sum; sha256sum /etc/hosts"
)


class Kind(NamedTuple):
    name: str
    program: str
    unit: str
    words: str
    part: str


KINDS = {
    "k3s": Kind("k3s", "/opt/edge/k3s", "k3s-edge.service", "server --token s3cret", "k3s"),
    "rke2": Kind("rke2", "/opt/rke2/bin/rke2", "rke2-edge.service", "agent", "k3s"),
    "k0s": Kind("k0s", "/srv/k0s", "k0s-edge.service", "worker --token-file /x", "k0s"),
}


class RancherNode(runtimes.RuntimeNode):
    """One with Debian's containerd, and no service of it but those that a test starts."""

    images = "/var/lib/rancher"

    def install(self, kind: Kind) -> None:
        """The stand-in in the place of one of them, and its service."""
        self.write("/root/rancher.py", STAND_IN.read_bytes())
        for module in Path(yaml.__file__).parent.glob("*.py"):  # the nodes have none of their own
            self.write(f"/root/yaml/{module.name}", module.read_bytes())
        starts = f'#!/bin/sh\nexec python3 /root/rancher.py {kind.name} "$0" "$@"\n'
        self.write(kind.program, starts.encode())
        unit = (
            f"[Service]\nKillMode=process\nRestartSec=1\nExecStart={kind.program} \\\n"
            f"    {kind.words}\n"
        )
        self.write(f"/etc/systemd/system/{kind.unit}", unit.encode())
        # Overlay file systems do not go on another: what unpacks images does so on the volume.
        self.sh(
            f"chmod 755 {kind.program}; mkdir -p {self.images}/k0s; ln -sfn {self.images}/k0s"
            f" /var/lib/k0s; systemctl daemon-reload; systemctl restart {kind.unit}"
        )
        self.serves(kind)

    def uninstall(self, kind: Kind) -> None:
        self.sh(
            f"systemctl stop {kind.unit} docker.socket docker containerd; rm -rf {kind.program}"
            f" /etc/systemd/system/{kind.unit} /etc/rancher /etc/k0s /var/lib/rancher/*"
            " /var/lib/k0s /run/k0s /run/k3s /var/lib/moorage /etc/containerd/certs.d"
            " /etc/docker/certs.d; systemctl daemon-reload;"
            " sed -i '/# moorage/d' /etc/hosts 2>/dev/null || { grep -v '# moorage' /etc/hosts"
            " > /root/hosts; cat /root/hosts > /etc/hosts; }"
        )

    def serves(self, kind: Kind) -> None:
        socket = "/run/k0s/containerd.sock" if kind.name == "k0s" else (
            "/run/k3s/containerd/containerd.sock")  # fmt: skip
        code, said = self.sh(
            f"for try in $(seq 60); do test -S {socket} && exit 0; sleep 0.5; done;"
            f" journalctl -u {kind.unit} -n 20 -o cat; exit 1"
        )
        assert code == 0, said

    def start_of(self, unit: str) -> str:
        return self.sh(f"systemctl show -p InvocationID --value {unit}")[1]


@pytest.fixture(scope="module", params=["bookworm", "sid"])
def node(request: pytest.FixtureRequest, client: docker.DockerClient,
         tmp_path_factory: pytest.TempPathFactory) -> Iterator[RancherNode]:  # fmt: skip
    """containerd 1.6 and 2.1."""
    made = runtimes.image(client, "docker", request.param, "docker.io")
    archive = agent_archive(tmp_path_factory.mktemp("state")).path
    with runtimes.started(RancherNode(client, made), archive) as started:
        started.sh("systemctl disable --now docker.socket docker containerd")
        yield started


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, node: RancherNode) -> Iterator[Kind]:
    made = KINDS[request.param]
    node.install(made)
    yield made
    node.uninstall(made)


@pytest.fixture
def k3s(node: RancherNode) -> Iterator[Kind]:
    yield KINDS["k3s"]
    node.uninstall(KINDS["k3s"])


def steps(run: Any) -> list[tuple[str, str]]:
    return [(one["step"], one["detail"]) for one in run.events if one["event"] == "verify"]


def test_whatever_it_is_called_its_service_restarts_and_its_cri_pulls(
    node: RancherNode, kind: Kind, registry: Registry, image: str
) -> None:
    document = plan(registry, image)
    before = node.sh(LOOK)
    assert node.agent("apply", {**document, "parts": ["hosts"]}).code == 0
    assert node.agent("verify", document).fault == "x509-unknown-authority"
    first = node.agent("apply", document)
    assert (first.code, first.result["status"], first.noise) == (0, "changed", ""), first.result
    assert (first.result["verified"], first.result["unproven"]) == (True, [])
    assert first.result["restarts"] == [kind.unit]
    assert ("pull", "") in steps(first)
    again = node.agent("apply", document)
    assert (again.code, again.result["status"], again.result["restarts"]) == (0, "unchanged", [])
    away = node.agent("untrust", document)
    assert (away.code, away.result["restarts"]) == (0, [kind.unit])
    assert node.sh(LOOK) == before
    node.agent("apply", {**document, "parts": ["hosts"]})
    assert node.agent("verify", document).fault == "x509-unknown-authority"


def test_one_that_no_service_runs_is_refused_before_anything_is_touched(
    node: RancherNode, kind: Kind, registry: Registry, image: str
) -> None:
    node.sh(
        f"systemctl stop {kind.unit}; rm /etc/systemd/system/{kind.unit}; systemctl daemon-reload;"
        f" rm -f /run/k3s/containerd/containerd.sock /run/k0s/containerd.sock;"
        f" systemd-run --quiet --unit=nightly.service sh -c '{kind.program} {kind.words} & wait'"
    )
    node.serves(kind)
    before = node.sh(LOOK)
    refused = node.agent("apply", plan(registry, image))
    assert (refused.code, refused.fault, node.sh(LOOK)) == (1, "no-unit", before), refused
    prepared = node.agent("apply", plan(registry, image, options={"restart": False}))
    assert (prepared.code, prepared.result["verified"]) == (NOT_PROVEN, None), prepared
    assert [one["part"] for one in prepared.result["unproven"]] == [kind.part]
    node.sh("systemctl stop nightly")


TEMPLATES = {"bookworm": "config.toml.tmpl", "sid": "config-v3.toml.tmpl"}


@pytest.mark.parametrize("name", ["k3s", "rke2"])
def test_a_template_without_the_registries_part_is_told_before_the_restart(
    node: RancherNode, registry: Registry, image: str, name: str
) -> None:
    kind = KINDS[name]
    node.install(kind)
    try:
        etc = f"/var/lib/rancher/{name}/agent/etc/containerd"
        newer = b"version = 3" in (node.read(f"{etc}/config.toml") or b"")
        template = f"{etc}/{'config-v3' if newer else 'config'}.toml.tmpl"
        bare = (
            f"grep -v config_path {etc}/config.toml | grep -v '.registry\\]' > {template};"
            f" systemctl restart {kind.unit}"
        )
        assert node.sh(bare)[0] == 0
        node.serves(kind)
        before, start = node.sh(LOOK), node.start_of(kind.unit)
        refused = node.agent("apply", plan(registry, image))
        assert (refused.code, refused.fault) == (1, "k3s-template"), refused
        assert template in refused.result["error"]["message"]
        assert (node.sh(LOOK), node.start_of(kind.unit)) == (before, start)
        node.write(template, b'{{ template "base" . }}\n')  # as the cure says
        mended = node.agent("apply", plan(registry, image))
        assert (mended.code, mended.result["verified"]) == (0, True), mended.result["error"]
    finally:
        node.uninstall(kind)


def test_mirrors_in_a_drop_in_of_k0s_are_told_before_any_restart(
    node: RancherNode, registry: Registry, image: str
) -> None:
    kind = KINDS["k0s"]
    node.install(kind)
    try:
        newer = b"version = 3" in (node.read("/etc/k0s/containerd.toml") or b"")
        plugin = "io.containerd.cri.v1.images" if newer else "io.containerd.grpc.v1.cri"
        mirror = (
            f'version = {3 if newer else 2}\n[plugins."{plugin}".registry.mirrors."docker.io"]\n'
            '  endpoint = ["https://mirror.corp"]\n'
        )
        node.write("/etc/k0s/containerd.d/mirror.toml", mirror.encode())
        node.sh(f"systemctl restart {kind.unit}")
        node.serves(kind)
        before, start = node.sh(LOOK), node.start_of(kind.unit)
        refused = node.agent("apply", plan(registry, image))
        assert (refused.code, refused.fault) == (1, "k0s-mirrors"), refused
        assert "/etc/k0s/containerd.d/mirror.toml" in refused.result["error"]["message"]
        assert (node.sh(LOOK), node.start_of(kind.unit)) == (before, start)
    finally:
        node.uninstall(kind)


def test_the_containerd_that_k3s_is_given_is_set_up_and_proven(
    node: RancherNode, k3s: Kind, registry: Registry, image: str
) -> None:
    socket = "/run/containerd/containerd.sock"
    text = f"container-runtime-endpoint: {socket}\n"
    node.write("/etc/rancher/k3s/config.yaml.d/50.yaml", text.encode())
    node.sh(
        'mkdir -p /etc/containerd; printf \'version = 2\\n[plugins."io.containerd.grpc.v1.cri"'
        '.containerd]\\nsnapshotter = "native"\\n\' > /etc/containerd/config.toml;'
        " systemctl restart containerd; mkdir -p /run/k3s/containerd;"
        f" ln -sf {socket} /run/k3s/containerd/containerd.sock"
    )
    node.install(k3s)
    run = node.agent("apply", plan(registry, image))
    assert (run.code, run.result["verified"]) == (0, True), run
    assert run.result["restarts"] == ["containerd.service"]
    assert all("/etc/rancher" not in one["path"] for one in run.result["changes"])
    assert [one for one in steps(run) if one[0] == "pull"] == [("pull", "")]


def test_docker_that_k3s_is_told_to_use_is_set_up_and_proven(
    node: RancherNode, k3s: Kind, registry: Registry, image: str
) -> None:
    node.write("/etc/rancher/k3s/config.yaml", b"docker: true\n")
    node.sh("rm -rf /var/lib/docker; mkdir -p /var/lib/rancher/docker;"
            " ln -s /var/lib/rancher/docker /var/lib/docker;"
            " systemctl start docker; mkdir -p /run/k3s/containerd;"
            " ln -sf /run/docker.sock /run/k3s/containerd/containerd.sock")  # fmt: skip
    node.install(k3s)
    refused = node.agent("apply", plan(registry, image, parts=["hosts", "k3s"]))
    assert (refused.fault, "the docker part" in refused.result["error"]["message"]) == (
        "no-runtime", True)  # fmt: skip
    run = node.agent("apply", plan(registry, image, parts=["hosts", "docker", "k3s"]))
    assert (run.code, run.result["verified"], run.result["restarts"]) == (0, True, []), run
    assert [one for one in steps(run) if one[0] == "pull"] == [("pull", "docker")]
    assert node.read(f"/etc/docker/certs.d/{NAME}/ca.crt") is not None
