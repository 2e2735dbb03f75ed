"""Docker Engine, Podman, Buildah and Skopeo out of Debian: no pull before, one after, none again.

Takes the images that `inv up` has built, and is skipped where there are none.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("docker")

import docker

from agent.proof.verify import HOSTS_CACHE_SECONDS
from agent.wire.report import NOT_PROVEN
from moorage.archive import agent_archive
from tests.agent import runtimes
from tests.agent.authority import Authority
from tests.agent.real import NAME, PASSWORD, REGISTRY, USER, Node, Registry, images, plan
from tests.agent.test_real import client, image, machine, node, own_registry, registry

__all__ = ["client", "image", "machine", "node", "own_registry", "registry"]
pytestmark = pytest.mark.engine
PARTS: dict[str, Any] = {"parts": ["hosts", "docker"]}
DOCKERS = {
    "20.10": ("bookworm", None),
    "newest": ("sid", None),
    "newest, containerd's image store": ("sid", b'{"features": {"containerd-snapshotter": true}}'),
}
DAEMON = "/etc/docker/daemon.json"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return agent_archive(tmp_path_factory.mktemp("state")).path


@pytest.fixture(scope="module", params=DOCKERS)
def engine(
    request: pytest.FixtureRequest, client: docker.DockerClient, archive: Path
) -> Iterator[runtimes.RuntimeNode]:
    suite, daemon = DOCKERS[request.param]
    made = runtimes.image(client, "docker", suite, "docker.io")
    files = {} if daemon is None else {DAEMON: daemon}
    with runtimes.started(runtimes.RuntimeNode(client, made), archive, files) as node:
        yield node


@pytest.fixture(scope="module")
def rootless(client: docker.DockerClient, archive: Path) -> Iterator[runtimes.RootlessNode]:
    made = runtimes.image(client, "rootless", "bookworm", runtimes.RootlessNode.packages)
    with runtimes.started(runtimes.RootlessNode(client, made), archive) as node:
        yield node


@pytest.fixture(scope="module")
def podman(client: docker.DockerClient, archive: Path) -> Iterator[runtimes.PodmanNode]:
    made = runtimes.image(
        client, "podman", "bookworm", "podman buildah skopeo ca-certificates curl"
    )
    with runtimes.started(runtimes.PodmanNode(client, made), archive) as node:
        yield node


def registry_image(client: docker.DockerClient) -> str:
    found = images(client, REGISTRY)
    if not found:
        pytest.skip("no registry image; inv up builds one")
    return next(iter(found.values()))


@pytest.fixture(scope="module")
def open_registry(client: docker.DockerClient) -> Iterator[Registry]:
    """One that anyone may read: Docker sends a mirror no login."""
    made = Registry(client, registry_image(client), Authority(), login=False)
    try:
        made.push(client, Path("/bin/true"), "library/moored:1")
        yield made
    finally:
        made.container.remove(force=True, v=True)


@pytest.fixture(scope="module")
def plain_registry(client: docker.DockerClient) -> Iterator[Registry]:
    made = Registry(client, registry_image(client), Authority(), tls=False, login=False)
    try:
        made.push(client, Path("/bin/true"))
        yield made
    finally:
        made.container.remove(force=True, v=True)


def tree(node: runtimes.RuntimeNode) -> str:
    return node.sh(
        "find /etc/docker /etc/containers /etc/systemd/system/docker.service.d -type f "
        "2>/dev/null | sort | xargs -r sha256sum; sha256sum /etc/hosts"
    )[1]


def test_docker_pulls_once_trusted_and_never_without(
    engine: runtimes.RuntimeNode, registry: Registry, image: str
) -> None:
    before = tree(engine)
    pid = engine.sh("pidof dockerd")
    document = {**plan(registry, image), **PARTS}
    assert engine.agent("apply", {**document, "parts": ["hosts"]}).code == 0
    assert engine.agent("verify", document).fault == "x509-unknown-authority"
    first = engine.agent("apply", document)
    assert (first.code, first.result["status"], first.noise) == (0, "changed", "")
    assert (first.result["verified"], first.result["restarts"]) == (True, [])
    assert [one["detail"] for one in first.events if one.get("step") == "pull"] == ["docker"]
    assert engine.agent("apply", document).result["status"] == "unchanged"
    spelled = plan(registry, image.replace(NAME, f"{NAME}:443"))
    assert engine.agent("verify", {**spelled, **PARTS}).fault == ""
    assert engine.agent("untrust", document).result["status"] == "changed"
    assert tree(engine) == before
    engine.agent("apply", {**document, "parts": ["hosts"]})
    assert engine.agent("verify", document).fault == "x509-unknown-authority"
    engine.agent("untrust", document)
    assert engine.sh("pidof dockerd") == pid


SERVICE = "/etc/systemd/system/docker.service.d/own.conf"
START = b"[Service]\nExecStart=\nExecStart=/usr/sbin/dockerd%s\n"
SOCKET = "/etc/systemd/system/docker.socket.d/own.conf"
ELSEWHERE = {
    "in its file": {SERVICE: START % b"", DAEMON: b'{"hosts": ["unix:///run/own.sock"]}'},
    "at a port": {SERVICE: START % b"", DAEMON: b'{"hosts": ["tcp://127.0.0.1:2375"]}'},
    "by a flag": {SERVICE: START % b" --host=unix:///run/own.sock"},
    "by systemd": {SOCKET: b"[Socket]\nListenStream=\nListenStream=/run/own.sock\n"},
}


@pytest.mark.parametrize("place", ELSEWHERE)
def test_docker_that_listens_elsewhere_is_asked_there_and_not_at_a_socket_nobody_serves(
    client: docker.DockerClient, archive: Path, registry: Registry, image: str, place: str
) -> None:
    """systemd holds /run/docker.sock in the first three, and no one answers there."""
    made = runtimes.image(client, "docker", "bookworm", "docker.io")
    document = {**plan(registry, image), **PARTS}
    with runtimes.started(runtimes.RuntimeNode(client, made), archive, ELSEWHERE[place]) as node:
        before = tree(node)
        first = node.agent("apply", document)
        assert (first.code, first.fault, first.result["verified"]) == (0, "", True), first
        assert first.result["pull_seconds"] < 200
        assert node.agent("untrust", document).result["status"] == "changed"
        assert tree(node) == before


def test_a_rootless_engine_pulls_once_trusted_and_never_without(
    rootless: runtimes.RootlessNode, registry: Registry, image: str
) -> None:
    look = "find /home/ship/.config /etc/docker 2>&1; sha256sum /etc/hosts"
    before = rootless.sh(look)
    document = {**plan(registry, image), **PARTS}
    # It has a copy of the hosts file from its start: all is done, and a word says what waits.
    first = rootless.agent("apply", document)
    assert (first.fault, first.result["status"]) == ("name-unresolved", "failed"), first
    assert "systemctl --user restart docker" in first.result["error"]["cure"]
    ours = "/home/ship/.config/docker/certs.d/my.registry.io/ca.crt"
    assert {one["path"] for one in first.result["changes"]} >= {ours, "/etc/hosts"}
    rootless.restart()
    again = rootless.agent("apply", document)
    assert (again.code, again.result["status"], again.result["verified"]) == (0, "unchanged", True)
    assert rootless.agent("untrust", document).result["status"] == "changed"
    assert rootless.sh(look) == before
    rootless.agent("apply", {**document, "parts": ["hosts"]})
    assert rootless.agent("verify", document).fault == "x509-unknown-authority"
    rootless.agent("untrust", document)


# Stands in for a registry on the node itself: what comes to loopback goes to the real one.
FORWARD = """
import asyncio, sys

async def copy(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()

async def both(reader, writer):
    there, back = await asyncio.open_connection(sys.argv[1], 443)
    await asyncio.gather(copy(reader, back), copy(there, writer), return_exceptions=True)

async def main():
    async with await asyncio.start_server(both, "127.0.0.1", 443) as server:
        await server.serve_forever()

asyncio.run(main())
"""


@pytest.fixture
def at_loopback(engine: runtimes.RuntimeNode, registry: Registry) -> Iterator[runtimes.RuntimeNode]:
    engine.write("/root/forward.py", FORWARD.encode())
    engine.sh(f"systemd-run --quiet --unit=forward python3 /root/forward.py {registry.address}")
    yield engine
    engine.sh("systemctl stop forward")


def test_docker_at_loopback_is_proven_by_its_files_since_it_verifies_nothing(
    at_loopback: runtimes.RuntimeNode, registry: Registry, image: str
) -> None:
    node = at_loopback
    document = {**plan(registry, image), **PARTS}
    document["registry"]["address"] = "127.0.0.1"
    store = b"containerd-snapshotter" in (node.read(DAEMON) or b"")
    ca = f"/etc/docker/certs.d/{NAME}/ca.crt"
    assert node.agent("apply", {**document, "parts": ["hosts"]}).code == 0
    time.sleep(HOSTS_CACHE_SECONDS)
    # The pull needs no trust, but with containerd's image store, which does verify.
    without = node.agent("verify", document)
    assert without.fault == "x509-unknown-authority"
    failed = [one["step"] for one in without.events if one["event"] == "verify" and not one["ok"]]
    assert failed == (["pull"] if store else ["files"])
    assert ("x509" in node.pull(f"{NAME}/probe", "1")) is store  # else it goes on, to plain HTTP
    run = node.agent("apply", document)
    assert (run.code, run.result["verified"], run.result["unproven"]) == (0, True, []), run
    steps = [(one["step"], one["detail"]) for one in run.events if one["event"] == "verify"]
    assert (("files", "docker") in steps) is not store
    quick = node.agent("verify", {**document, "verify": None})
    assert quick.code == (NOT_PROVEN if store else 0)
    node.sh(f"chmod 644 /root/agent.pyz /root/plan.json; chmod 755 /root; sed -i s/x/x/ {ca}")
    anyone = node.agent(
        "verify", {**document, "verify": None}, "setpriv --reuid=65534 --clear-groups"
    )
    assert anyone.code == quick.code, anyone
    node.sh(f"echo > {ca}")
    spoilt = "ca-unreadable" if store else "x509-unknown-authority"
    assert node.agent("verify", document).fault == spoilt
    node.sh(f"rm {ca}")
    assert node.agent("untrust", document).code == 0


def test_docker_says_what_is_wrong_with_a_pull_that_is_not_trust(
    engine: runtimes.RuntimeNode, registry: Registry, image: str
) -> None:
    document = {**plan(registry, image), **PARTS}
    assert engine.agent("apply", document).code == 0
    gone = {**plan(registry, f"{NAME}/none:1", options={"preflight": False}), **PARTS}
    for change, code in (({"verify": gone["verify"]}, "image-missing"),):
        assert engine.agent("verify", {**document, **change}).fault == code
    assert engine.agent("untrust", document).code == 0


def test_docker_asks_a_mirror_of_docker_hub_without_a_restart(
    engine: runtimes.RuntimeNode, open_registry: Registry
) -> None:
    before = tree(engine)
    pid = engine.sh("pidof dockerd")
    document = {**plan(open_registry), **PARTS, "mirrors": [{"of": "docker.io"}]}
    run = engine.agent("apply", document)
    store = engine.read("/etc/docker/certs.d/docker.io/hosts.toml") is not None
    reloaded = [] if store else ["reload docker.service"]
    assert (run.code, run.result["restarts"]) == (NOT_PROVEN, reloaded)  # no image was pulled
    time.sleep(HOSTS_CACHE_SECONDS)  # what Docker knows of the hosts file may be that old
    pulled = engine.pull("docker.io/library/moored", "1")
    assert "Downloaded newer image" in pulled or "Pull complete" in pulled, pulled
    assert engine.sh("pidof dockerd") == pid
    assert engine.agent("untrust", document).result["restarts"] == reloaded
    assert tree(engine) == before


def test_docker_speaks_plain_http_where_that_was_asked_for(
    engine: runtimes.RuntimeNode, plain_registry: Registry
) -> None:
    before = tree(engine)
    document = {**plan(plain_registry, f"{NAME}:443/probe:1"), **PARTS}
    document["registry"].update({"insecure": "http", "ca": None})
    document["verify"] = {"image": f"{NAME}:443/probe:1"}
    run = engine.agent("apply", document)
    assert (run.code, run.result["verified"]) == (0, True), run
    assert run.result["restarts"] == ["reload docker.service"]
    assert engine.agent("untrust", document).code == 0
    assert tree(engine) == before


def test_a_proxy_is_told_apart_and_mended(
    engine: runtimes.RuntimeNode, registry: Registry, image: str
) -> None:
    # Not below /etc: the folder that is new to systemd is the harder case.
    engine.write(
        "/run/systemd/system/docker.service.d/http-proxy.conf",
        b'[Service]\nEnvironment="HTTPS_PROXY=http://127.0.0.1:9" "NO_PROXY=localhost"\n',
    )
    engine.sh("systemctl daemon-reload; systemctl restart docker")
    before = tree(engine)
    document = {**plan(registry, image), **PARTS}
    failed = engine.agent("apply", document)
    assert failed.fault == "proxy"
    assert any("--fix-proxy" in one.get("message", "") for one in failed.events)
    mended = engine.agent("apply", {**document, "options": {"fix_proxy": True}})
    assert (mended.code, mended.result["restarts"]) == (0, ["docker.service"]), mended
    again = engine.agent("apply", {**document, "options": {"fix_proxy": True}})
    assert again.result["status"] == "unchanged"
    assert engine.agent("untrust", document).result["restarts"] == ["docker.service"]
    assert tree(engine) == before
    assert engine.sh("tr '\\0' '\\n' </proc/$(pidof dockerd)/environ | grep NO_PROXY")[1] == (
        "NO_PROXY=localhost\n"
    )
    engine.sh("rm -r /run/systemd/system/docker.service.d; systemctl daemon-reload")
    engine.sh("systemctl restart docker")


@pytest.mark.parametrize("program", ["podman", "buildah", "skopeo"])
def test_podman_and_its_kin_pull_once_trusted_and_never_without(
    podman: runtimes.PodmanNode, registry: Registry, image: str, program: str
) -> None:
    before = tree(podman)
    document = {**plan(registry, image), "parts": ["hosts", "podman"]}
    assert podman.agent("apply", {**document, "parts": ["hosts"]}).code == 0
    assert "x509" in podman.pull_by(program, image)
    assert podman.agent("verify", document).fault == "x509-unknown-authority"
    run = podman.agent("apply", document)
    assert (run.code, run.result["verified"], run.result["restarts"]) == (0, True, []), run
    spelled = image.replace(NAME, f"{NAME}:443")
    for name in (image, spelled):
        assert podman.pull_by(program, name).endswith("\npulled\n")
    assert podman.agent("apply", document).result["status"] == "unchanged"
    assert podman.agent("verify", {**document, **plan(registry, spelled)}).fault == ""
    assert podman.agent("untrust", document).code == 0
    assert tree(podman) == before
    podman.agent("apply", {**document, "parts": ["hosts"]})
    assert "x509" in podman.pull_by(program, image)
    podman.agent("untrust", document)


@pytest.mark.parametrize("content", ["an older CA", ""])
def test_podman_pulls_although_root_has_a_folder_of_its_own(
    podman: runtimes.PodmanNode, registry: Registry, image: str, content: str
) -> None:
    place = f"/root/.config/containers/certs.d/{NAME}"
    podman.sh(f"mkdir -p {place}")
    if content:
        podman.write(f"{place}/ca.crt", Authority("older").pem.encode())
    before = podman.sh(f"find {place} | xargs ls -ld")
    document = {**plan(registry, image), "parts": ["hosts", "podman"]}
    try:
        run = podman.agent("apply", document)
        assert (run.code, run.result["verified"]) == (0, True), run
        assert podman.agent("untrust", document).code == 0
        files = podman.sh(f"find {place} -type f")[1].split()
        assert files == ([f"{place}/ca.crt"] if content else [])
        assert podman.sh(f"test -d {place}")[0] == before[0]
    finally:
        podman.sh("rm -rf /root/.config/containers")


@pytest.mark.parametrize("name", ["ca.cert", "registry.key"])
def test_a_file_that_ends_every_pull_is_named_beforehand(
    podman: runtimes.PodmanNode, registry: Registry, image: str, name: str
) -> None:
    place = f"/etc/containers/certs.d/{NAME}"
    podman.write(f"{place}/{name}", registry.authority.pem.encode())
    document = {**plan(registry, image), "parts": ["hosts", "podman"]}
    try:
        refused = podman.agent("apply", document)
        assert (refused.code, refused.fault) == (1, "client-certificate"), refused
        cure = re.search(r"mv \S+ [^\s;]+", refused.result["error"]["cure"])
        assert cure is not None
        assert podman.sh(cure[0])[0] == 0
        assert podman.agent("apply", document).code == 0
        assert podman.agent("untrust", document).code == 0
    finally:
        podman.sh(f"rm -rf {place}")


def test_podman_trusts_a_registry_that_is_its_own_ca(
    podman: runtimes.PodmanNode, client: docker.DockerClient, own_registry: Registry
) -> None:
    pushed = own_registry.push(client, Path("/bin/true"))
    document = {**plan(own_registry, pushed), "parts": ["hosts", "podman"]}
    run = podman.agent("apply", document)
    assert (run.code, run.result["verified"]) == (0, True), run
    assert podman.agent("untrust", document).code == 0


def test_docker_trusts_a_registry_that_is_its_own_ca(
    engine: runtimes.RuntimeNode, client: docker.DockerClient, own_registry: Registry
) -> None:
    document = {**plan(own_registry, own_registry.push(client, Path("/bin/true"))), **PARTS}
    run = engine.agent("apply", document)
    assert (run.code, run.result["verified"]) == (0, True), run
    assert engine.agent("untrust", document).code == 0


@pytest.mark.parametrize("fallback", [True, False])
def test_podman_asks_a_mirror(
    podman: runtimes.PodmanNode, open_registry: Registry, fallback: bool
) -> None:
    before = tree(podman)
    mirrors = [{"of": "docker.io", "fallback": fallback}]
    document = {**plan(open_registry), "parts": ["hosts", "podman"], "mirrors": mirrors}
    assert podman.agent("apply", document).code == NOT_PROVEN
    assert podman.pull_by("podman", "docker.io/library/moored:1").endswith("\npulled\n")
    podman.sh("podman rmi -af")
    assert podman.agent("untrust", document).code == 0
    assert tree(podman) == before


def test_podman_speaks_plain_http_where_that_was_asked_for(
    podman: runtimes.PodmanNode, plain_registry: Registry
) -> None:
    document = {**plan(plain_registry), "parts": ["hosts", "podman"]}
    document["registry"].update({"insecure": "http", "ca": None})
    document["verify"] = {"image": f"{NAME}:443/probe:1"}
    run = podman.agent("apply", document)
    assert (run.code, run.result["verified"]) == (0, True), run
    assert podman.agent("untrust", document).code == 0


def test_the_hosts_own_store_trusts_only_when_asked(
    podman: runtimes.PodmanNode, registry: Registry
) -> None:
    document = plan(registry)
    bundle = "sha256sum /etc/ssl/certs/ca-certificates.crt; ls /etc/ssl/certs"
    before = podman.sh(bundle)
    asked = f"curl -sS -o /dev/null -u {USER}:{PASSWORD} https://{NAME}/v2/ 2>&- && echo trusted"
    assert podman.agent("apply", document).code == NOT_PROVEN
    assert "trusted" not in podman.sh(asked)[1]
    run = podman.agent("apply", {**document, "parts": ["hosts", "podman", "system"]})
    assert (run.code, run.result["restarts"]) == (NOT_PROVEN, ["update-ca-certificates"]), run
    assert [one["part"] for one in run.result["unproven"]] == ["podman"]
    steps = [(one["step"], one["detail"]) for one in run.events if one["event"] == "verify"]
    assert ("files", "system") in steps
    assert "trusted" in podman.sh(asked)[1]
    away = podman.agent("untrust", document)
    assert away.result["restarts"] == ["update-ca-certificates"]
    assert podman.sh(bundle) == before


def cri_pull(node: Node, image: str) -> str:
    """The kubelet's call, by the agent's own code."""
    return node.sh(
        "python3 - <<'END_OF_PROGRAM' 2>&1\n"
        "import sys\n"
        "sys.path.insert(0, '/root/agent.pyz')\n"
        "from agent.wire.plan import Verify\n"
        "from agent.clients.cri import with_cri\n"
        f"verify = Verify('{image}')\n"
        "socket = '/run/containerd/containerd.sock'\n"
        "print('pulled', with_cri(socket, lambda cri: cri.pull(verify, 60)))\n"
        "END_OF_PROGRAM"
    )[1]


@pytest.mark.parametrize("fallback", [True, False])
def test_containerd_asks_a_mirror(node: Node, open_registry: Registry, fallback: bool) -> None:
    mirrors = [{"of": "docker.io", "fallback": fallback}]
    document = {**plan(open_registry), "parts": ["hosts", "containerd"], "mirrors": mirrors}
    assert "pulled" not in cri_pull(node, "docker.io/library/moored:1")
    assert node.agent("apply", document).code == NOT_PROVEN
    time.sleep(HOSTS_CACHE_SECONDS)
    assert "pulled" in cri_pull(node, "docker.io/library/moored:1")
    assert node.agent("untrust", document).code == 0
    node.wait()
    assert "pulled" not in cri_pull(node, "docker.io/library/moored:1")


def test_containerd_speaks_plain_http_where_that_was_asked_for(
    node: Node, plain_registry: Registry
) -> None:
    document = {**plan(plain_registry), "parts": ["hosts", "containerd"]}
    document["registry"].update({"insecure": "http", "ca": None})
    document["verify"] = {"image": f"{NAME}:443/probe:1"}
    run = node.agent("apply", document)
    assert (run.code, run.result["verified"]) == (0, True), run
    assert node.agent("untrust", document).code == 0
