"""The main job on real daemons, in the order a user meets it: up, up again, untrust, down."""

from __future__ import annotations

import os
import platform
import socket
import ssl
import stat
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.kubernetes.programs import binaries
from tests.debian import program
from tests.e2e import theirs, upkeep
from tests.e2e.machine import (
    LABEL,
    ROOT,
    Machine,
    containerd_pid,
    docker,
    good,
    inv,
    node,
    ours,
    start,
)

NODES = ("lab1", "lab2", "lab3")
IMAGE = "my.registry.io/serve_hostname:0.0.1"


def test_without_agreement_it_says_what_it_would_do_and_changes_nothing(machine: Machine) -> None:
    answer = inv("up")
    assert answer.code == 2
    assert answer.document["error"]["code"] == "not-confirmed"
    assert "--yes" in answer.document["error"]["cure"]
    assert "/etc/hosts" in answer.words
    assert Machine.look() == machine
    assert ours() == []


def test_dry_run_prints_every_change_and_changes_nothing(machine: Machine) -> None:
    answer = good("up", "--dry-run")
    changed_files = {action["path"] for action in answer.document["actions"] if action["path"]}
    assert "/etc/hosts" in changed_files
    assert "my.registry.io" in answer.words
    assert Machine.look() == machine


def test_up_ends_with_three_runtimes_that_pulled() -> None:
    answer = good("up", "--yes")
    assert answer.document["changed"] is True
    assert tuple(answer.hosts) == NODES
    for host in answer.hosts.values():
        assert host["status"] == "changed", host
        assert host["verified"] is True
        assert host["pull_seconds"] > 0
        assert host["error"] is None
        assert {change["path"] for change in host["changes"]} >= {"/etc/hosts"}
    runtimes = [answer.document["runtimes"][name] for name in NODES]
    assert [runtime.split(" ")[1].rsplit(".", 1)[0] for runtime in runtimes][:2] == ["1.6", "1.7"]
    assert runtimes[2].startswith("containerd 2.")
    assert answer.document["this_machine"]["verified"] is True
    assert answer.document["next"]


@pytest.mark.parametrize("name", NODES)
def test_the_image_stands_in_the_namespace_of_the_kubelet(name: str) -> None:
    assert IMAGE in node(name, "ctr --namespace k8s.io images list --quiet").split()


def test_second_up_changes_nothing_and_restarts_nothing() -> None:
    before = {name: containerd_pid(name) for name in NODES}
    containers = docker("ps", "--no-trunc", "-q", "--filter", f"label={LABEL}")
    hosts_file = Path("/etc/hosts").stat().st_mtime_ns
    answer = good("up", "--yes")
    assert answer.document["changed"] is False
    for host in answer.hosts.values():
        assert host["status"] == "unchanged"
        assert host["changes"] == []
        assert host["restarts"] == []
        assert host["verified"] is True
    assert {name: containerd_pid(name) for name in NODES} == before
    assert docker("ps", "--no-trunc", "-q", "--filter", f"label={LABEL}") == containers
    assert Path("/etc/hosts").stat().st_mtime_ns == hosts_file


def test_a_second_up_needs_no_agreement_because_it_changes_nothing() -> None:
    assert good("up").document["changed"] is False


def test_keys_are_private() -> None:
    folder = ROOT / "certs"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for key in folder.glob("*.key"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE((ROOT / ".moorage").stat().st_mode) == 0o700


def test_the_password_stands_in_no_place_where_others_look() -> None:
    password = good("registry.status", "--show-password").document["password"]
    assert len(password) >= 16
    of_nodes = (ROOT / ".moorage" / "registry" / "logins" / "moorage-nodes").read_text().strip()
    assert of_nodes != password
    for container in ("moorage-registry", "moorage-registry-front"):
        assert password not in docker("inspect", container)
        assert password not in docker("logs", container)
    assert "password" not in good("registry.status").document
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert password.encode() not in process.read_bytes()
        except OSError:
            continue
    for name in NODES:
        # Nowhere on the node's disk: the pull's login travels in memory.
        found = node(
            name,
            f"grep -rlF -e '{password}' -e '{of_nodes}' /var/lib/moorage /etc /root /tmp"
            " 2>/dev/null; :",
        )
        assert found == ""


def test_the_registry_refuses_strangers_and_old_tls() -> None:
    context = ssl.create_default_context(cafile=str(ROOT / "certs" / "ca.crt"))
    with pytest.raises(urllib.error.HTTPError) as refusal:
        urllib.request.urlopen("https://my.registry.io/v2/", context=context, timeout=10)
    assert refusal.value.code == 401
    with (
        pytest.raises(ssl.SSLCertVerificationError),
        socket.create_connection(("my.registry.io", 443), timeout=10) as stream,
    ):
        ssl.create_default_context().wrap_socket(stream, server_hostname="my.registry.io")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        pytest.raises(ssl.SSLError),
        socket.create_connection(("my.registry.io", 443), timeout=10) as stream,
    ):
        context.wrap_socket(stream, server_hostname="my.registry.io")


def test_status_of_nodes_tells_trust() -> None:
    answer = good("nodes.status")
    assert tuple(answer.hosts) == NODES


def test_one_unreachable_host_does_not_stop_the_others() -> None:
    answer = inv("nodes.trust", "--hosts=lab1,nowhere.invalid,lab2")
    assert answer.code == 1
    assert answer.hosts["lab1"]["status"] == "unchanged"
    assert answer.hosts["lab2"]["status"] == "unchanged"
    lost = answer.hosts["nowhere.invalid"]
    assert lost["status"] == "unreachable"
    assert lost["error"]["cause"]
    assert lost["error"]["cure"]


@pytest.mark.parametrize("hosts", ["", "lab1,lab1", "lab1,,lab2", "-oProxyCommand=x", "a b"])
def test_a_bad_list_of_hosts_is_refused(hosts: str) -> None:
    answer = inv("nodes.trust", f"--hosts={hosts}")
    assert answer.code == 2
    assert answer.document["error"]["cure"]


def test_an_image_that_does_not_exist_fails_and_keeps_the_trust() -> None:
    answer = inv("nodes.trust", "--hosts=lab3", "--image=my.registry.io/missing:1")
    assert answer.code == 1
    assert answer.hosts["lab3"]["status"] == "failed"
    assert good("nodes.verify", "--hosts=lab3").hosts["lab3"]["verified"] is True


def test_after_untrust_the_same_pull_fails_with_x509() -> None:
    answer = good("nodes.untrust", f"--hosts={','.join(NODES)}")
    for name in NODES:
        assert answer.hosts[name]["status"] == "changed"
    _pull_fails_with_x509()


def test_trusted_again_they_pull_again() -> None:
    # The test's own line would stand in the way of the agent's.
    for name in NODES:
        node(name, "sed '/# by the test/d' /etc/hosts > /tmp/h && cat /tmp/h > /etc/hosts")
    answer = good("nodes.trust", f"--hosts={','.join(NODES)}")
    assert all(host["verified"] for host in answer.hosts.values())


def test_somebody_elses_registry_is_trusted_beside_ours_in_three_commands(tmp_path: Path) -> None:
    """From an empty checkout: no engine, no CA's key; logins by token; undone without a trace."""
    listing = "find /etc/containerd /etc/hosts -type f | sort | xargs sha256sum"
    before = {name: node(name, listing) for name in NODES}
    hosts = f"--hosts={','.join(NODES)}"
    with theirs.checkout(tmp_path) as (there, fingerprint):
        trusted = theirs.trusted(there, fingerprint, NODES)
        assert all(one["pull_seconds"] > 0 for one in trusted), trusted
        assert all(one["verified"] for one in good("nodes.verify", hosts).hosts.values())
        there.inv("nodes.untrust", hosts).want()
        assert not (there.folder / "certs" / "ca.key").exists()
    assert {name: node(name, listing) for name in NODES} == before


def test_each_role_may_what_it_says_and_a_removed_login_nothing() -> None:
    reader = upkeep.login("reader", "--role=pull")
    robot = upkeep.login("robot$ci", "--role=push", "--repositories=short", "--expires=1h")
    for tag in ("old", "new"):
        upkeep.push("short", tag, robot, f"layer of {tag}".encode() * 1000)
    manifest, upload = "/v2/short/manifests/new", "/v2/{}/blobs/uploads/"
    tried = [
        ("GET", manifest, reader, 200), ("POST", upload.format("short"), reader, 403),
        ("GET", manifest, robot, 200), ("POST", upload.format("other"), robot, 403),
        ("DELETE", manifest, robot, 403),
    ]  # fmt: skip
    for method, path, who, status in tried:
        assert upkeep.status(method, path, who) == status, (method, path)
    good("users.remove", "robot$ci")
    assert [upkeep.status("GET", manifest, one) for one in (robot, reader)] == [401, 200]
    good("users.remove", "reader")


def test_images_are_pruned_their_bytes_come_back_and_a_backup_restores(tmp_path: Path) -> None:
    # What an earlier run in this checkout has set aside.
    earlier = len(good("registry.restore-blobs").document["blobs"])
    pruned = good("images.prune", "--keep=1", "--yes").document
    assert pruned["deleted"] == ["short:old"]
    collected = good("registry.collect", "--grace=0s").document
    assert collected["blobs"] == 3 + earlier  # manifest, configuration, layer
    assert len(good("registry.restore-blobs").document["blobs"]) == 3 + earlier
    assert good("registry.verify").document["wrong"] == []
    path = f"{Path(program('restic')).parent}:{os.environ['PATH']}"
    (tmp_path / "word").write_text("of a test\n")
    at, word = tmp_path / "backup", f"--passphrase-file={tmp_path / 'word'}"
    backed = good("registry.backup", str(at), word, PATH=path).document
    there = upkeep.restored(at, tmp_path / "word", tmp_path / "scratch", path)
    assert (there["tags"], backed["tags"]) == (2, 2)
    ca = (ROOT / "certs" / "ca.crt").read_bytes()
    assert (tmp_path / "scratch" / "certs" / "ca.crt").read_bytes() == ca


def test_certificate_and_ca_are_replaced_under_pulls_on_three_containerds() -> None:
    before = {name: containerd_pid(name) for name in NODES}
    ca = (ROOT / "certs" / "ca.crt").read_bytes()
    with upkeep.pulls("/v2/short/manifests/new", upkeep.operator()) as failed:
        for _ in range(3):
            assert good("certs.renew").document["changed"] is True
        done = good("certs.rotate-ca", f"--hosts={','.join(NODES)}", "--yes").document
    assert failed == []
    assert done["phase"] == "done"
    assert {one["name"] for one in done["members"]} >= set(NODES)
    assert {one["holds"] for one in done["members"]} == {"new"}
    assert (ROOT / "certs" / "ca.crt").read_bytes() != ca
    assert {name: containerd_pid(name) for name in NODES} == before
    verified = good("nodes.verify", f"--hosts={','.join(NODES)}").hosts
    assert all(host["verified"] for host in verified.values())


def test_each_node_takes_its_own_platform_out_of_an_index_and_runs_it() -> None:
    """The other platform's member comes first, and nothing in it runs."""
    login, own = upkeep.operator(), f"linux/{binaries.architecture()}"
    other = "linux/s390x"
    foreign = upkeep.push(
        "serve_hostname", "foreign", login, b"no tar", os="linux", architecture="s390x"
    )
    members = {other: foreign, own: upkeep.described("serve_hostname", "0.0.1", login)}
    upkeep.index("serve_hostname", "both", login, members)
    image = "my.registry.io/serve_hostname:both"
    good("nodes.verify", f"--hosts={','.join(NODES)}", f"--image={image}")
    for name in NODES:
        words = "python3 -c 'import platform; print(platform.machine())'"
        said = node(name, f"ctr -n k8s.io run --rm {image} both {words}")
        assert said == platform.machine()
    for tag in ("both", "foreign"):  # a next run here counts what is pruned and collected
        good("images.delete", f"serve_hostname:{tag}", "--yes")
    good("registry.collect", "--grace=0s")


def test_a_new_node_fails_with_x509_until_it_is_trusted() -> None:
    good("lab.down")
    good("lab.up", "--yes")
    _pull_fails_with_x509()


def _pull_fails_with_x509() -> None:
    """The kubelet's own call, on every runtime, with the name known and the CA not."""
    for name in NODES:
        gateway = node(name, "ip route show default").split()[2]
        node(name, f"grep -q my.registry.io /etc/hosts || "
             f"echo '{gateway} my.registry.io # by the test' >> /etc/hosts")  # fmt: skip
    answer = inv("nodes.verify", f"--hosts={','.join(NODES)}")
    assert answer.code == 1
    for name in NODES:
        error = answer.hosts[name]["error"]
        assert error["code"] == "x509-unknown-authority", error
        assert error["cure"]


def test_two_ups_at_once_one_is_told_to_wait() -> None:
    first = start("up", "--yes")
    assert first.stderr is not None
    next(line for line in first.stderr if "[1/" in line)
    second = inv("up", "--yes")
    first.stderr.read()
    assert first.wait(timeout=300) == 0
    assert second.code == 2
    assert second.document["error"]["code"] == "busy"


def test_doctor_finds_nothing_wrong() -> None:
    answer = good("doctor")
    assert all(finding["state"] == "fine" for finding in answer.document["findings"])


def test_down_leaves_the_machine_as_it_was(machine: Machine) -> None:
    answer = good("down")
    assert answer.document["changed"] is True
    assert Machine.look() == machine
    assert not Path("/var/lib/moorage").exists()
    assert ours() == []
    assert (ROOT / "certs" / "ca.key").exists()
    again = good("down")
    assert again.document["changed"] is False


OTHER = {"INVOKE_REGISTRY_PORT": "5443", "INVOKE_LAB_NODES": "2"}


@pytest.fixture
def other_port(machine: Machine) -> Iterator[None]:
    """Settings of another registry, taken down with them whatever the test did."""
    del machine  # it looks before, and after
    yield
    good("down", **OTHER)


@pytest.mark.usefixtures("other_port")
def test_a_free_port_is_as_good_as_443(machine: Machine) -> None:
    answer = good("up", "--yes", **OTHER)
    assert answer.document["image"] == "my.registry.io:5443/serve_hostname:0.0.1"
    assert answer.hosts["lab1"]["verified"] is True
    assert good("up", "--yes", **OTHER).document["changed"] is False
    good("down", **OTHER)
    assert Machine.look() == machine


@pytest.mark.usefixtures("other_port")
def test_a_taken_port_is_refused_with_the_name_of_its_holder(machine: Machine) -> None:
    with socket.create_server(("0.0.0.0", 5443)):
        answer = inv("up", "--yes", **OTHER)
    assert answer.code == 2
    assert answer.document["error"]["code"] == "port-taken"
    assert str(os.getpid()) in answer.document["error"]["cause"]
    good("down", **OTHER)
    assert Machine.look() == machine
