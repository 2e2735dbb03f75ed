"""Docker's folder: the CA in it, others' files beside it."""

from __future__ import annotations

from typing import Any

from agent.facts.docker import rootless_configs
from agent.node.host import Host
from agent.resident import units
from tests.agent.authority import Authority
from tests.agent.conftest import Box, spelled

ONLY: dict[str, Any] = {"parts": ["docker"]}
CA = "/etc/docker/certs.d/my.registry.io/ca.crt"


def test_the_ca_comes_and_goes_with_its_folders(box: Box) -> None:
    box.with_docker()
    folders, files = box.folders(), box.files()
    result = box.apply(**ONLY)
    assert result["changes"] == [{"path": one, "action": "created"} for one in spelled(CA)]
    assert result["restarts"] == []
    for path in spelled(CA):
        assert (box.read(path) or b"").decode() == box.ca
        assert (box.root / path[1:]).stat().st_mode & 0o777 == 0o644
    box.untrust(**ONLY)
    assert (box.folders(), box.files()) == (folders, files)


def test_a_port_is_part_of_the_folders_name(box: Box) -> None:
    box.with_docker().apply(registry={"port": 5000}, verify=None, **ONLY)
    assert box.read("/etc/docker/certs.d/my.registry.io:5000/ca.crt")


def test_the_same_ca_under_another_name_is_enough(box: Box) -> None:
    box.with_docker()
    for path in spelled("/etc/docker/certs.d/my.registry.io/corp.crt"):
        box.write(path, box.ca.encode())
    assert box.apply(**ONLY)["status"] == "unchanged"


def test_anothers_ca_stays_and_ours_comes_beside_it(box: Box) -> None:
    other = Authority("other").pem.encode()
    box.with_docker().write(CA, other)
    result = box.apply(**ONLY)
    beside = CA.replace("ca.crt", "moorage-ca.crt")
    assert [one["path"] for one in result["changes"]] == [beside, spelled(CA)[1]]
    assert box.read(CA) == other
    assert box.apply(**ONLY)["status"] == "unchanged"
    box.untrust(**ONLY)
    assert box.read(CA) == other
    assert box.read(CA.replace("ca.crt", "moorage-ca.crt")) is None


def test_a_new_ca_replaces_ours_and_untrust_still_takes_all_away(box: Box) -> None:
    before = box.with_docker().files()
    box.apply(**ONLY)
    second = Authority("second").pem
    assert box.apply(registry={"ca": second}, **ONLY)["changes"] == [
        {"path": one, "action": "edited"} for one in spelled(CA)
    ]
    assert (box.read(CA) or b"").decode() == second
    box.untrust(**ONLY)
    assert box.files() == before


def test_what_others_put_into_our_file_stays(box: Box) -> None:
    box.with_docker().apply(**ONLY)
    other = Authority("other").pem.encode()
    box.write(CA, (box.read(CA) or b"") + other)
    box.untrust(**ONLY)
    assert box.read(CA) == other


def test_a_host_without_any_runtime_is_refused(box: Box) -> None:
    before = box.files()
    result = box.apply()
    assert (result["status"], result["code"]) == ("failed", "no-runtime")
    assert box.files() == before
    assert box.apply(parts=["hosts"])["status"] == "changed"


def process(
    box: Box, number: int, argv: str, uid: int = 0, nested: bool = False, **env: str
) -> None:
    """A running program, as /proc shows it."""
    folder = f"/proc/{number}"
    box.write(f"{folder}/cmdline", argv.replace(" ", "\0").encode() + b"\0")
    box.write(f"{folder}/environ", "\0".join(f"{k}={v}" for k, v in env.items()).encode())
    levels = f"{number}\t7" if nested else str(number)
    box.write(f"{folder}/status", f"Uid:\t{uid}\t{uid}\t0\t0\nNSpid:\t{levels}\n".encode())
    box.write(f"{folder}/cgroup", b"0::/system.slice/docker.service\n")


HOME = "/home/ann"


def test_a_rootless_engine_gets_the_ca_in_its_users_folder(box: Box) -> None:
    (box.root / HOME[1:] / ".config").mkdir(parents=True)
    process(box, 100, "/usr/bin/dockerd", 1000, HOME=HOME, ROOTLESSKIT_STATE_DIR="/run/x")
    result = box.apply(**ONLY)
    assert [one["path"] for one in result["changes"]] == spelled(
        f"{HOME}/.config/docker/certs.d/my.registry.io/ca.crt"
    )
    assert box.apply(**ONLY)["status"] == "unchanged"


def test_no_name_of_a_home_brings_a_line_into_the_agents_unit(box: Box) -> None:
    for name in ("ada", "a b", "x\nExecStart=y", "%n", "..x"):
        box.write(f"/home/{name}/.config/systemd/user/docker.service", b"")
    unit = units.systemd("x", rootless_configs(Host(str(box.root))))
    opened = [line for line in unit.splitlines() if "/home" in line]
    assert opened == ["ReadWritePaths=-/home/ada/.config"]
    assert unit.count("ExecStart=") == 1


def test_a_rootless_engine_that_does_not_run_is_known_by_its_unit(box: Box) -> None:
    box.with_docker().write(f"{HOME}/.config/systemd/user/docker.service", b"[Service]\n")
    paths = {one["path"] for one in box.apply(**ONLY)["changes"]}
    assert paths == {*spelled(CA, f"{HOME}/.config/docker/certs.d/my.registry.io/ca.crt")}


def test_root_follows_no_link_out_of_a_users_home(box: Box) -> None:
    (box.root / HOME[1:] / ".config").mkdir(parents=True)
    (box.root / HOME[1:] / ".config/docker").symlink_to("/etc/cron.d")
    (box.root / "etc/cron.d").mkdir()
    process(box, 100, "/usr/bin/dockerd", 1000, HOME=HOME)
    result = box.apply(**ONLY)
    assert result["changes"] == []
    assert any("leads out" in one.get("message", "") for one in result["events"])


def test_a_snap_reads_its_own_folders(box: Box) -> None:
    process(box, 100, "/snap/docker/2915/bin/dockerd --group docker")
    result = box.apply(**ONLY)
    assert [one["path"] for one in result["changes"]] == spelled(
        "/var/snap/docker/common/etc/certs.d/my.registry.io/ca.crt"
    )


def test_an_engine_inside_a_container_is_no_business_of_ours(box: Box) -> None:
    process(box, 100, "/usr/bin/dockerd", nested=True)
    assert box.apply(**ONLY)["code"] == "no-runtime"


MIRROR: dict[str, Any] = {**ONLY, "mirrors": [{"of": "docker.io"}]}
DAEMON = "/etc/docker/daemon.json"


def test_a_mirror_comes_into_daemon_json_and_its_bytes_come_back(box: Box) -> None:
    theirs = b'{\n  "debug": true,\n  "registry-mirrors": ["https://old"]\n}\n'
    process(box, 100, "/usr/sbin/dockerd -H fd://")
    box.write(DAEMON, theirs)
    result = box.apply(**MIRROR)
    assert result["restarts"] == ["reload docker.service"]
    assert b'"registry-mirrors": ["https://old", "https://my.registry.io"]' in (
        box.read(DAEMON) or b""
    )
    box.write(DAEMON, (box.read(DAEMON) or b"").replace(b"true", b"false"))
    assert box.untrust(**MIRROR)["restarts"] == ["reload docker.service"]
    assert box.read(DAEMON) == theirs.replace(b"true", b"false")


def test_containerds_image_store_asks_a_mirror_by_hosts_toml(box: Box) -> None:
    box.with_docker().write(DAEMON, b'{"features": {"containerd-snapshotter": true}}')
    result = box.apply(**MIRROR)
    assert [one["path"] for one in result["changes"]] == [
        *spelled(CA),
        "/etc/docker/certs.d/docker.io/hosts.toml",
    ]
    text = (box.read("/etc/docker/certs.d/docker.io/hosts.toml") or b"").decode()
    assert 'server = "https://registry-1.docker.io"' in text
    assert f'ca = "{CA}"' in text


def test_a_flag_that_daemon_json_would_double_is_refused(box: Box) -> None:
    process(box, 100, "/usr/sbin/dockerd --registry-mirror=https://old")
    assert box.apply(**MIRROR)["code"] == "daemon-flag"


def test_a_daemon_json_that_is_none_is_refused(box: Box) -> None:
    box.with_docker().write(DAEMON, b"{nonsense")
    assert box.apply(**MIRROR)["code"] == "config-not-json"


def test_what_docker_cannot_do_is_said(box: Box) -> None:
    more = {**ONLY, "mirrors": [{"of": "docker.io", "fallback": False}, {"of": "quay.io"}]}
    told = " ".join(one.get("message", "") for one in box.with_docker().apply(**more)["events"])
    assert "quay.io" in told
    assert "falls back" in told
    assert "does not send a login" in told


def test_another_file_of_the_daemon_is_found(box: Box) -> None:
    process(box, 100, "/usr/sbin/dockerd --config-file /srv/daemon.json")
    paths = {one["path"] for one in box.apply(**MIRROR)["changes"]}
    assert paths == {*spelled(CA), "/srv/daemon.json"}
