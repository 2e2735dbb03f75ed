"""A file that cannot be written is found out before the journal begins: on a real node.

Takes the images that `inv up` or the e2e session has built, and is skipped where there are none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("docker")

import docker

from moorage.archive import agent_archive
from tests.agent.authority import Authority
from tests.agent.real import LAB, REGISTRY, Node, Registry, connected, images, plan

pytestmark = pytest.mark.engine
STATE = "/var/lib/moorage"
CONFIG = "/etc/containerd/config.toml"
# Every file that an apply may touch, the journal, and whatever the agent may have left beside them.
LOOK = (
    "sha256sum /etc/hosts $(find /etc/containerd /etc/docker /etc/cloud -type f | sort);"
    " find /etc -name '*.moorage-*' -o -name 'moorage-*';"
    f" find {STATE}/active {STATE}/history {STATE}/blobs"
)
COVER = (
    "mkdir -p {0} && cp -a {0} /run/covered && mount -t tmpfs -o mode=755 tmpfs {0} &&"
    " cp -a /run/covered/. {0}/ && rm -r /run/covered"
)
# What is wrong -> how it is made, the code, and what the message, the cause and the cure name.
TROUBLES: dict[str, tuple[str, str, str, str, str]] = {
    "folder": (
        COVER.format("/etc/containerd") + " && mount -o remount,ro /etc/containerd",
        "read-only", "/etc/containerd", "/etc/containerd is mounted read-only",
        "mount -o remount,rw /etc/containerd",
    ),
    "file": (
        f"mount --bind {CONFIG} {CONFIG} && mount -o remount,bind,ro {CONFIG}",
        "read-only", CONFIG, f"{CONFIG} is mounted read-only", f"mount -o remount,rw {CONFIG}",
    ),
    "certs.d": (
        COVER.format("/etc/containerd/certs.d")
        + " && mount -o remount,ro /etc/containerd/certs.d",
        "read-only", "/etc/containerd/certs.d", "/etc/containerd/certs.d is mounted read-only",
        "mount -o remount,rw /etc/containerd/certs.d",
    ),
    "hosts": (
        "mount -o remount,bind,ro /etc/hosts",
        "read-only", "/etc/hosts", "/etc/hosts is mounted read-only",
        "mount -o remount,rw /etc/hosts",
    ),
    "docker": (
        COVER.format("/etc/docker") + " && mount -o remount,ro /etc/docker",
        "read-only", "/etc/docker", "/etc/docker is mounted read-only",
        "mount -o remount,rw /etc/docker",
    ),
    "cloud-init": (
        "mkdir -p /etc/cloud/templates && echo 'manage_etc_hosts: true' > /etc/cloud/cloud.cfg &&"
        " echo '127.0.0.1 localhost' > /etc/cloud/templates/hosts.debian.tmpl && "
        + COVER.format("/etc/cloud/templates") + " && mount -o remount,ro /etc/cloud/templates",
        "read-only", "/etc/cloud/templates", "/etc/cloud/templates is mounted read-only",
        "mount -o remount,rw /etc/cloud/templates",
    ),
    "state": (
        COVER.format(STATE) + f" && mount -o remount,ro {STATE}",
        "read-only", STATE, f"{STATE} is mounted read-only", f"mount -o remount,rw {STATE}",
    ),
    "immutable-file": (
        f"chattr +i {CONFIG}",
        "not-permitted", CONFIG, "chattr +i", f"chattr -i {CONFIG}",
    ),
    "append-only-folder": (
        "chattr +a /etc/containerd",
        "not-permitted", "/etc/containerd", "chattr +a", "chattr -a /etc/containerd",
    ),
}  # fmt: skip
_HEAL = (
    f"chattr -i {CONFIG}; chattr -a /etc/containerd;"
    " for one in /etc/containerd/certs.d /etc/containerd /etc/docker /etc/cloud/templates"
    f" {STATE} {CONFIG}; do while mountpoint -q $one; do mount -o remount,rw $one; umount $one;"
    " done; done; mount -o remount,bind,rw /etc/hosts;"
    f" rm -rf /etc/containerd /etc/docker /etc/cloud {STATE}; cp -a /root/containerd /etc/;"
    " mkdir /etc/docker; cat /root/hosts > /etc/hosts; systemctl reset-failed containerd;"
    " systemctl restart containerd"
)


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    client = connected()
    found = images(client, REGISTRY)
    if not found:
        pytest.skip("no registry image; inv up builds one")
    made = Registry(client, next(iter(found.values())), Authority())
    try:
        yield made
    finally:
        made.container.remove(force=True, v=True)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    client: docker.DockerClient = connected()
    found = images(client, LAB)
    if "1.7" not in found:
        pytest.skip("no lab image with containerd 1.7; inv up builds one")
    # A file system of its own below /etc/containerd, which knows the attributes of chattr(1).
    made = Node(client, found["1.7"])
    try:
        made.start(agent_archive(tmp_path_factory.mktemp("state")).path)
        made.sh("cp -a /etc/containerd /root/; cp /etc/hosts /root/; mkdir -p /etc/docker")
        yield made
    finally:
        made.sh(_HEAL)
        made.remove()


@pytest.fixture
def node(machine: Node) -> Iterator[Node]:
    machine.sh(_HEAL)
    machine.wait()
    yield machine
    machine.sh(_HEAL)


def wanted(registry: Registry) -> dict[str, Any]:
    return plan(registry, options={"lock_wait": 2})


@pytest.mark.parametrize("trouble", TROUBLES)
def test_it_is_refused_before_the_first_write_and_the_cure_works_when_typed(
    node: Node, registry: Registry, trouble: str
) -> None:
    make, code, path, cause, cure = TROUBLES[trouble]
    made, said = node.sh(make)
    if made and code == "not-permitted":
        pytest.skip(f"the file system below has no attributes: {said}")
    assert made == 0, said
    before = node.sh(LOOK)[1]
    run = node.agent("apply", wanted(registry))
    error = run.result["error"]
    assert (run.result["status"], run.fault) == ("failed", code), error
    assert path in error["message"]
    assert cause in error["cause"]
    assert cure in error["cure"]
    assert node.sh(LOOK)[1] == before
    # Nothing is pending: recover has nothing to do, unless its own folder cannot be written.
    assert node.agent("recover").fault == ("read-only" if trouble == "state" else "")
    assert node.sh(cure)[0] == 0
    assert node.agent("apply", wanted(registry)).fault == ""
    assert node.agent("untrust", wanted(registry)).fault == ""


@pytest.mark.parametrize("trouble", ["folder", "hosts", "state", "immutable-file"])
@pytest.mark.parametrize("verb", ["untrust", "undo"])
def test_taking_away_is_refused_alike_and_what_the_node_is_held_to_stays(
    node: Node, registry: Registry, trouble: str, verb: str
) -> None:
    make, code, _, _, cure = TROUBLES[trouble]
    assert node.agent("apply", wanted(registry)).fault == ""
    made, said = node.sh(make)
    if made and code == "not-permitted":
        pytest.skip(f"the file system below has no attributes: {said}")
    assert made == 0, said
    before = node.sh(LOOK)[1]
    held = f"{STATE}/plans/my.registry.io.json"
    plan_before = json.loads(node.read(held) or b"null")
    run = node.agent(verb, wanted(registry))
    assert (run.result["status"], run.fault) == ("failed", code), run.result["error"]
    assert node.sh(LOOK)[1] == before
    assert json.loads(node.read(held) or b"null") == plan_before
    assert node.sh(cure)[0] == 0
    assert node.agent(verb, wanted(registry)).fault == ""
