"""Nothing is verified that was not proven: each part's proof, taken away in turn."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest

from agent.daemonset import loop
from agent.daemonset.hosts import PodProver
from agent.facts import Docker, Facts, Names, gather
from agent.facts.docker import LOOPBACK, _registries
from agent.formats.proposal import Proof
from agent.node.host import Host
from agent.node.tree import Tree
from agent.proof import decision
from agent.runtimes import buildkit, nerdctl, podman, table
from agent.wire.plan import PARTS, Registry, Verify
from agent.wire.report import HostResult, ResultEvent, Unproven
from tests.agent.conftest import Box
from tests.agent.test_runtimes import CASES, lay_out, only

CALLED = b"#!/bin/sh\nexit 0\n"


def laid(box: Box, name: str) -> Box:
    """A node with one runtime, all that its proof needs, and none other."""
    if name == "docker":
        return box.with_docker()
    if name == "containerd":
        return box.with_containerd()
    if name == "system":
        (box.root / "usr/local/share/ca-certificates").mkdir(parents=True)
        return box
    if name == "buildkit":
        box.write("/usr/local/bin/buildctl", CALLED, 0o755)
    if name == "nerdctl":
        box.write("/run/containerd/containerd.sock", b"")
    return lay_out(box, name)


# Per part: how a node with it is laid out, and the kind of its proof.
PROVEN = {
    "containerd": ("containerd", "cri"),
    "crio": ("crio", "cri"),
    "podman": ("podman", "podman"),
    "k3s": ("k3s", "cri"),
    "rke2": ("k3s", "cri"),
    "microk8s": ("microk8s", "cri"),
    "k0s": ("k0s", "cri"),
    "buildkit": ("buildkit", "buildctl"),
    "nerdctl": ("nerdctl", "nerdctl"),
    "system": ("system", "files"),
}


def told(result: dict[str, Any]) -> list[dict[str, str]]:
    return list(result["unproven"])


@pytest.mark.parametrize("name", PROVEN)
def test_a_part_is_verified_by_its_proof_and_not_without(box: Box, name: str) -> None:
    part, kind = PROVEN[name]
    laid(box, name)
    first = box.apply(**only(part))
    assert (first["status"], first["verified"], told(first)) == ("changed", True, []), first
    assert ("files" if kind == "files" else "pull") in box.prover.asked
    box.prover.reasons[kind] = "the test has taken it away"
    again = box.apply(**only(part))
    assert (again["status"], again["verified"]) == ("unchanged", None)
    assert told(again) == [{"part": part, "because": "the test has taken it away"}]


@pytest.mark.parametrize("name", PROVEN)
def test_a_part_whose_row_has_no_proof_is_never_verified(
    box: Box, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, _ = PROVEN[name]
    laid(box, name)
    bare = table.TABLE[part]._replace(proofs=lambda facts: (), further=lambda facts, plan: ())
    monkeypatch.setitem(table.TABLE, part, bare)
    result = box.apply(**only(part))
    if bare.runtime:
        assert result["verified"] is None
        assert told(result) == [{"part": part, "because": decision.NOTHING_RUNS}]
    else:  # the host's own store serves no images: TLS by name is what is said of it
        assert result["verified"] is True


def test_every_part_of_a_plan_has_a_proof_here() -> None:
    assert {part for part, _ in PROVEN.values()} == set(PARTS) - {"hosts", "docker"}


@pytest.mark.parametrize("name", sorted({*CASES, "containerd"}))
def test_without_an_image_tls_alone_is_said_to_be_proven(box: Box, name: str) -> None:
    part = PROVEN[name][0]
    result = laid(box, name).apply(**only(part, verify=None))
    assert (result["status"], result["verified"]) == ("changed", None)
    assert told(result) == [{"part": part, "because": decision.NO_IMAGE}]
    assert "pull" not in box.prover.asked


def test_the_hosts_entry_is_proven_by_tls_by_name(box: Box) -> None:
    result = box.apply(parts=["hosts"], verify=None)
    assert (result["status"], result["verified"], told(result)) == ("changed", True, [])
    assert box.prover.asked == ["beforehand", "registry"]


def test_a_node_without_a_runtime_is_not_verified_by_tls_alone(box: Box) -> None:
    result = box.run(box.engine().verify(box.plan()))
    assert (result["status"], result["verified"]) == ("unchanged", None)
    assert told(result) == [{"part": "docker", "because": decision.NO_RUNTIME}]


def test_a_restart_that_waits_leaves_its_runtime_unproven(box: Box) -> None:
    laid(box, "k3s")
    later = {"options": {"restart": False}}
    result = box.apply(**only("k3s", **later))
    assert (result["status"], result["verified"]) == ("changed", None)
    assert told(result) == [{"part": "k3s", "because": "a restart of k3s-agent.service is waiting"}]
    assert "pull" not in box.prover.asked


def test_buildkit_without_its_client_is_not_proven(box: Box) -> None:
    result = lay_out(box, "buildkit").apply(**only("buildkit"))
    assert (result["status"], result["verified"]) == ("changed", None)
    assert "buildctl" in told(result)[0]["because"]


def test_nerdctl_beside_no_containerd_is_not_in_use(box: Box) -> None:
    lay_out(box.with_containerd(), "nerdctl")
    assert box.apply(parts=["containerd", "nerdctl"])["verified"] is True
    box.write("/etc/nerdctl/nerdctl.toml", b'address = "/run/containerd/containerd.sock"\n')
    box.write("/run/containerd/containerd.sock", b"")
    box.prover.reasons["nerdctl"] = "the test has taken it away"
    assert [one["part"] for one in told(box.apply(parts=["containerd", "nerdctl"]))] == ["nerdctl"]


HOSTS_TOML = (
    b'server = "https://my.registry.io"\n[host."https://my.registry.io"]\nskip_verify = true\n'
)
YAML = b"configs:\n  my.registry.io:\n    tls:\n      insecure_skip_verify: true\n"
CONF = b'[[registry]]\nlocation = "my.registry.io"\ninsecure = true\n'
UNVERIFIED = [
    ("k3s", "/etc/rancher/k3s/registries.yaml", YAML),
    ("rke2", "/etc/rancher/rke2/registries.yaml", YAML),
    ("podman", "/etc/containers/registries.conf", CONF),
    ("crio", "/etc/containers/registries.conf.d/corp.conf", CONF),
    ("buildkit", "/etc/buildkit/buildkitd.toml", b'[registry."my.registry.io"]\ninsecure = true\n'),
    ("nerdctl", "/etc/nerdctl/nerdctl.toml", b"insecure_registry = true\n"),
]


@pytest.mark.parametrize(("name", "path", "content"), UNVERIFIED)
def test_a_pull_that_verifies_no_certificate_proves_nothing(
    box: Box, name: str, path: str, content: bytes
) -> None:
    part = PROVEN[name][0]
    laid(box, name).write(path, content)
    result = box.apply(**only(part))
    assert (result["status"], result["verified"]) == ("changed", None), result["error"]
    assert [one["part"] for one in told(result)] == [part]
    assert path in told(result)[0]["because"]
    plain = box.plan(registry={"insecure": "http", "ca": None}, verify=None)
    assert table.TABLE[part].doubts(gather(Host(str(box.root))), plain) == ()


@pytest.mark.parametrize("name", ["containerd", "nerdctl", "microk8s", "k0s"])
def test_a_folder_with_skip_verify_proves_nothing(box: Box, name: str) -> None:
    part = PROVEN[name][0]
    laid(box, name).apply(**only(part))
    written = next(path for path in box.files() if path.endswith("/my.registry.io/hosts.toml"))
    facts = gather(Host(str(box.root)))
    assert not table.TABLE[part].doubts(facts, box.plan())
    box.write(written, HOSTS_TOML)
    facts = gather(Host(str(box.root)))
    assert (
        "/my.registry.io/hosts.toml has skip_verify"
        in (table.TABLE[part].doubts(facts, box.plan())[0])
    )


# -- Docker, which verifies nothing at loopback -------------------------------------------------


class Known(Names):
    def addresses(self, name: str) -> frozenset[str]:
        return frozenset({"127.0.0.1"}) if name == "here.lan" else frozenset({"10.0.0.9"})


def with_docker(tmp_path: Path, **more: Any) -> Facts:
    engine = Docker("20.10.24", running=True, unit="docker.service", **more)
    return Facts("node", Tree(str(tmp_path)), engine, None, names=Known())


def decided(box: Box, facts: Facts, **more: Any) -> decision.Decision:
    return decision.decide(facts, box.plan(parts=["hosts", "docker"], **more))


def test_docker_at_loopback_is_proven_by_what_it_would_read(box: Box, tmp_path: Path) -> None:
    here = {"registry": {"address": "127.0.0.1"}}
    found = decided(box, with_docker(tmp_path), **here)
    assert [one.kind for one in found.proofs] == ["docker", "files", "files"]
    assert [one.reads[0] for one in found.proofs[1:]] == [
        f"/etc/docker/certs.d/{name}" for name in ("my.registry.io", "my.registry.io:443")
    ]
    assert found.verified is True
    without = decided(box, with_docker(tmp_path), **here, verify=None)
    assert ([one.kind for one in without.proofs], without.verified) == (["files", "files"], True)


def test_docker_elsewhere_is_proven_by_its_pull_alone(box: Box, tmp_path: Path) -> None:
    found = decided(box, with_docker(tmp_path))
    assert ([one.kind for one in found.proofs], found.verified) == (["docker"], True)
    without = decided(box, with_docker(tmp_path), verify=None)
    assert (without.proofs, without.verified) == ((), None)
    assert without.unproven == (Unproven("docker", decision.NO_IMAGE),)


@pytest.mark.parametrize(
    ("unverified", "entry"),
    [(("my.registry.io",), "my.registry.io"), (("10.0.0.0/8",), "10.0.0.0/8")],
)
def test_docker_that_is_told_to_verify_nothing_is_not_proven(
    box: Box, tmp_path: Path, unverified: tuple[str, ...], entry: str
) -> None:
    facts = with_docker(tmp_path, unverified=(*LOOPBACK, *unverified))
    found = decided(box, facts)
    assert found.verified is None
    assert entry in found.unproven[0].because
    assert "take it out of /etc/docker/daemon.json" in found.unproven[0].because
    plain = decided(box, facts, registry={"insecure": "http", "ca": None}, verify=None)
    assert [one.because for one in plain.unproven] == [decision.NO_IMAGE]


def test_the_address_is_looked_up_where_the_plan_gives_none(box: Box, tmp_path: Path) -> None:
    here = {"registry": {"host": "here.lan", "address": None}, "verify": None}
    there = {"registry": {"address": None}, "verify": None}
    kinds = [one.kind for one in decided(box, with_docker(tmp_path), **here).proofs]
    assert kinds == ["files", "files"]
    assert decided(box, with_docker(tmp_path), **there).proofs == ()


def test_what_docker_tells_of_registries_is_understood() -> None:
    # Docker 20.10.24 of Debian, with insecure-registries ["a.lan:5000", "10.1.0.0/16"].
    said = {
        "InsecureRegistryCIDRs": ["10.1.0.0/16", "127.0.0.0/8"],
        "IndexConfigs": {
            "a.lan:5000": {"Name": "a.lan:5000", "Mirrors": [], "Secure": False},
            "docker.io": {"Name": "docker.io", "Mirrors": [], "Secure": True, "Official": True},
        },
        "Mirrors": [],
    }
    assert _registries(said) == (("10.1.0.0/16", "127.0.0.0/8", "a.lan:5000"), False)
    assert _registries(None) == (LOOPBACK, False)


def test_two_ways_to_one_socket_are_one_proof() -> None:
    assert Proof("cri", "/var/run/x.sock").key == Proof("cri", "/run/x.sock", "x.service").key
    assert Proof("cri", "/run/x.sock").key != Proof("docker", "/run/x.sock").key


# -- the result, and the exit code --------------------------------------------------------------


def test_a_result_tells_what_is_not_proven_and_older_ones_are_read() -> None:
    result = HostResult("a", "changed", unproven=(Unproven("k3s", "why"),))
    assert (result.ok, result.proven, result.exit_code) == (True, False, 3)
    document = result.to_json()
    assert document["unproven"] == [{"part": "k3s", "because": "why"}]
    assert HostResult.from_json(document) == result
    del document["unproven"]
    old = HostResult.from_json(document)
    assert (old.unproven, old.exit_code) == ((), 0)
    assert HostResult("a", "failed", unproven=result.unproven).exit_code == 1


# -- programs that pull for runtimes which cannot be had here: what they are called with ---------

# Stands in for nerdctl, buildctl and their kind: notes how it was called and what it could read.
CLIENT = """#!/bin/sh
echo "$*" > {log}
for word in "$@"; do case "$word" in /proc/self/fd/*) cat "$word" >> {log};; esac; done
[ -z "$DOCKER_CONFIG" ] || cat "$DOCKER_CONFIG/config.json" >> {log}
[ ! -f "$DOCKER_CONFIG/Dockerfile" ] || cat "$DOCKER_CONFIG/Dockerfile" >> {log}
echo 'x509: certificate signed by unknown authority' >&2
exit $(cat {log}.code)
"""
HELD = '{"auth": "dTpwYXNzLXdvcmQtMQ=="}'
LOGIN = f'{{"auths": {{"my.registry.io": {HELD}, "my.registry.io:443": {HELD}}}}}'


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        ("nerdctl", "nerdctl", "pull --quiet my.registry.io/app:1"),
        ("buildctl", "buildctl", "--addr unix:///b.sock build --progress plain"),
        ("podman", "podman", "pull --quiet --authfile"),
        ("podman", "buildah", "pull --quiet --authfile"),
        ("podman", "skopeo", "inspect --authfile"),
    ],
)
def test_clients_get_the_image_and_the_login_and_nothing_on_a_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, name: str, words: str
) -> None:
    from agent.proof import verify
    from agent.wire.faults import TrustError

    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    log = tmp_path / "log"
    code = tmp_path / "log.code"
    program = tmp_path / name
    program.write_text(CLIENT.format(log=log))
    program.chmod(0o755)
    socket = "unix:///b.sock" if kind == "buildctl" else str(program)
    commands = {
        "nerdctl": lambda: nerdctl.command(str(program)),
        "buildctl": lambda: buildkit.command(str(program), socket),
        "podman": lambda: podman.command(str(program)),
    }
    proof = Proof(kind, socket, command=commands[kind]())
    image = Verify("my.registry.io/app:1", "u", "pass-word-1")
    registry = Registry("my.registry.io", ca="x")
    code.write_text("0")
    verify.pull(proof, registry, image, 30)
    said = log.read_text()
    assert said.startswith(words)
    assert "my.registry.io/app:1" in said
    assert LOGIN in said
    assert "pass-word-1" not in said.splitlines()[0]
    assert list(temporary.iterdir()) == []
    code.write_text("1")
    with pytest.raises(TrustError) as failed:
        verify.pull(proof, registry, image, 30)
    assert failed.value.code == "x509-unknown-authority"


def test_an_event_tells_by_whose_certificates(box: Box) -> None:
    result = laid(box, "system").apply(**only("system"))
    steps = [one for one in result["events"] if one["event"] == "verify"]
    assert [(one["step"], one["detail"]) for one in steps][-1] == ("files", "system")


# -- in a pod -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unproven", "seconds", "proven"),
    [((), 1.0, True), (("buildkit",), 1.0, True), (("containerd",), 1.0, False), ((), None, False)],
)
def test_a_node_s_taint_goes_by_the_kubelet_s_own_runtime(
    unproven: tuple[str, ...], seconds: float | None, proven: bool
) -> None:
    parts_of_it = tuple(Unproven(part, "why") for part in unproven)
    result = HostResult("n", "changed", pull_seconds=seconds, unproven=parts_of_it)
    assert loop._ended(iter([ResultEvent(result)])).pulled is proven


def test_a_pod_proves_by_the_kubelets_socket_alone() -> None:
    full, files = PodProver("/host", pulls=True), PodProver("/host", pulls=False)
    assert full.cannot(Proof("cri", "/run/x.sock")) == ""
    assert "a pod" in full.cannot(Proof("docker", "/run/docker.sock"))
    assert "the kubelet's own pull" in files.cannot(Proof("cri", "/run/x.sock"))
