"""Runtimes that cannot be installed here, on file trees laid out as theirs.

What is written, what is restarted, and that taking it away gives the same bytes back.
"""

from __future__ import annotations

from typing import Any

import pytest

from agent.edit.toml import parse
from agent.facts import gather
from agent.facts.runtimes import Runtime
from agent.node.host import Host
from agent.runtimes import table
from agent.wire.plan import PARTS
from tests.agent.authority import Authority
from tests.agent.conftest import Box, spelled

PROGRAM = b"#!/bin/sh\nexit 0\n"
K3S = "/etc/rancher/k3s/registries.yaml"
K3S_CA = "/etc/rancher/k3s/moorage/my.registry.io.crt"
BUILDKITD = "/etc/buildkit/buildkitd.toml"
HUB: list[dict[str, Any]] = [{"of": "docker.io"}]
NO_HUB: list[dict[str, Any]] = [{"of": "docker.io", "fallback": False}]


def lay_out(box: Box, name: str) -> Box:
    """A node with one of them: its program, its unit, what its installer leaves."""
    units = {
        "crio": ("crio.service", "/usr/bin/crio"),
        "k3s": ("k3s-agent.service", "/usr/local/bin/k3s agent"),
        "rke2": ("rke2-server.service", "/usr/local/bin/rke2 server"),
        "microk8s": ("snap.microk8s.daemon-containerd.service", "/usr/bin/snap run microk8s"),
        "k0s": ("k0sworker.service", "/usr/local/bin/k0s worker"),
        "buildkit": ("buildkit.service", "/usr/local/bin/buildkitd --addr fd://"),
    }
    programs = {"buildkit": "buildkitd", "podman": "podman"}
    box.write(f"/usr/local/bin/{programs.get(name, name)}", PROGRAM, 0o755)
    if name in units:
        unit, argv = units[name]
        box.write(f"/etc/systemd/system/{unit}", f"[Service]\nExecStart={argv}\n".encode())
    if name == "microk8s":
        template = b'[plugins."io.containerd.grpc.v1.cri".registry]\n  config_path = "${SNAP}"\n'
        box.write("/var/snap/microk8s/7000/args/containerd-template.toml", template)
        (box.root / "var/snap/microk8s/current").symlink_to("7000")
    if name == "k0s":
        box.write("/etc/k0s/containerd.toml", b"# k0s_managed=true\nversion = 2\n")
    return box


def only(part: str, **more: Any) -> dict[str, Any]:
    return {"parts": [part], **more}


# Per runtime: the plan's part, the files that come, what is restarted.
CASES: dict[str, tuple[str, set[str], list[str]]] = {
    "crio": ("crio", {"/etc/containers/certs.d/my.registry.io/ca.crt"}, []),
    "podman": ("podman", {"/etc/containers/certs.d/my.registry.io/ca.crt"}, []),
    "k3s": ("k3s", {K3S, K3S_CA}, ["k3s-agent.service"]),
    "rke2": (
        "k3s",
        {
            "/etc/rancher/rke2/registries.yaml",
            "/etc/rancher/rke2/moorage/my.registry.io.crt",
        },
        ["rke2-server.service"],
    ),
    "microk8s": (
        "microk8s",
        {
            "/var/snap/microk8s/current/args/certs.d/my.registry.io/ca.crt",
            "/var/snap/microk8s/current/args/certs.d/my.registry.io/hosts.toml",
        },
        [],
    ),
    "k0s": (
        "k0s",
        {
            "/etc/k0s/containerd.d/certs.d/my.registry.io/ca.crt",
            "/etc/k0s/containerd.d/certs.d/my.registry.io/hosts.toml",
            "/etc/k0s/containerd.d/moorage.toml",
        },
        ["k0sworker.service"],
    ),
    "buildkit": (
        "buildkit",
        {BUILDKITD, "/etc/buildkit/moorage/my.registry.io.crt"},
        ["buildkit.service"],
    ),
    "nerdctl": (
        "nerdctl",
        {
            "/etc/containerd/certs.d/my.registry.io/ca.crt",
            "/etc/containerd/certs.d/my.registry.io/hosts.toml",
        },
        [],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_trust_comes_with_its_restart_and_goes_without_a_trace(box: Box, name: str) -> None:
    part, paths, restarts = CASES[name]
    lay_out(box, name)
    files, folders = box.files(), box.folders()
    result = box.apply(**only(part))
    assert {one["path"] for one in result["changes"]} == {*spelled(*paths)}, result["error"]
    assert (result["status"], result["restarts"]) == ("changed", restarts)
    assert box.apply(**only(part))["status"] == "unchanged"
    assert box.restarted == restarts
    away = box.untrust(**only(part))
    assert (away["status"], away["restarts"]) == ("changed", restarts)
    assert (box.files(), box.folders()) == (files, folders)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    "more",
    [
        {"mirrors": HUB},
        {"registry": {"names": ["cache.registry.io"]}},
        {"registry": {"insecure": "http", "ca": None, "port": 5000}, "verify": None},
    ],
    ids=["mirror", "names", "http"],
)
def test_every_form_of_a_plan_comes_and_goes(box: Box, name: str, more: dict[str, Any]) -> None:
    part = CASES[name][0]
    lay_out(box, name)
    files, folders = box.files(), box.folders()
    first = box.apply(**only(part, **more))
    assert first["status"] == "changed", first["error"]
    assert box.apply(**only(part, **more))["status"] == "unchanged"
    box.untrust(**only(part, **more))
    assert (box.files(), box.folders()) == (files, folders)


@pytest.mark.parametrize("name", [*CASES, "nothing"])
def test_a_part_explains_what_it_found(box: Box, name: str) -> None:
    if name != "nothing":
        lay_out(box, name)
    facts = gather(Host(str(box.root)))
    for part in ("crio", "podman", "k3s", "microk8s", "k0s", "buildkit", "nerdctl", "docker"):
        found = table.TABLE[part].resource.explain(facts, box.plan())
        here = name != "nothing" and part == CASES[name][0]
        assert any(one.applies for one in found) == here, (part, found)
        assert all(one.why for one in found)


def test_k3s_names_the_registry_as_a_mirror_of_itself_too(box: Box) -> None:
    lay_out(box, "k3s").apply(**only("k3s", mirrors=HUB))
    text = (box.read(K3S) or b"").decode()
    plain = "\n".join(line.partition(" # moorage")[0] for line in text.splitlines())
    assert plain == (
        "mirrors:\n"
        '  "docker.io":\n'
        "    endpoint:\n"
        '      - "https://my.registry.io"\n'
        '  "my.registry.io:443":\n'
        "    endpoint:\n"
        '      - "https://my.registry.io:443"\n'
        '  "my.registry.io":\n'
        "    endpoint:\n"
        '      - "https://my.registry.io"\n'
        "configs:\n"
        '  "my.registry.io:443":\n'
        "    tls:\n"
        f'      ca_file: "{K3S_CA}"\n'
        '  "my.registry.io":\n'
        "    tls:\n"
        f'      ca_file: "{K3S_CA}"'
    )
    assert (box.root / K3S[1:]).stat().st_mode & 0o777 == 0o600


def test_others_content_and_comments_in_registries_yaml_stay(box: Box) -> None:
    theirs = (
        b'# ours for years\nmirrors:\n  docker.io:\n    endpoint:\n      - "https://old.corp"\n'
        b"configs:\n  my.registry.io:\n    auth:\n      username: ship  # who\n"
        b"      password: 'secret'\n"
    )
    lay_out(box, "k3s").write(K3S, theirs, 0o600)
    box.apply(**only("k3s", mirrors=HUB))
    after = box.read(K3S) or b""
    assert [line for line in after.splitlines() if b"# moorage" not in line] == theirs.splitlines()
    assert b'tls: # moorage my.registry.io\n      ca_file: "/etc' in after
    box.write(K3S, after + b"  last.io:\n    auth:\n      username: x\n", 0o600)
    box.untrust(**only("k3s"))
    assert box.read(K3S) == theirs + b"  last.io:\n    auth:\n      username: x\n"


def test_a_registries_yaml_that_is_not_understood_is_refused(box: Box) -> None:
    lay_out(box, "k3s").write(K3S, b"configs: {my.registry.io: {tls: {ca_file: /x}}}\n")
    files = box.files()
    assert box.apply(**only("k3s"))["code"] == "yaml-not-understood"
    assert box.files() == files


def test_another_ca_in_registries_yaml_is_refused_unless_it_is_ours(box: Box) -> None:
    lay_out(box, "k3s").write("/etc/corp.crt", Authority("other").pem.encode())
    box.write(K3S, b"configs:\n  my.registry.io:\n    tls:\n      ca_file: /etc/corp.crt\n")
    assert box.apply(**only("k3s"))["code"] == "registries-yaml-foreign"
    box.write("/etc/corp.crt", box.ca.encode())
    assert box.apply(**only("k3s"))["status"] == "changed"
    assert b"ca_file: /etc/corp.crt" in (box.read(K3S) or b"")


def test_k3s_with_another_file_or_with_docker_is_seen(box: Box) -> None:
    lay_out(box, "k3s").write("/etc/rancher/k3s/config.yaml", b"private-registry: /srv/r.yaml\n")
    assert {one["path"] for one in box.apply(**only("k3s"))["changes"]} == {
        "/srv/r.yaml",
        K3S_CA,
    }
    box.untrust(**only("k3s"))
    unit = "/etc/systemd/system/k3s-agent.service"
    box.write(unit, b"[Service]\nExecStart=/usr/local/bin/k3s agent --docker\n")
    result = box.apply(**only("k3s"))
    assert result["code"] == "no-runtime"
    assert "--docker" in result["error"]["message"]


def test_two_registries_share_registries_yaml_and_leave_it_one_by_one(box: Box) -> None:
    second = {"registry": {"host": "second.registry.io"}, "verify": None}
    lay_out(box, "k3s")
    files = box.files()
    box.apply(**only("k3s"))
    box.apply(**only("k3s", **second))
    box.untrust(**only("k3s"))
    assert b"my.registry.io" not in (box.read(K3S) or b"").replace(b"# moorage my.registry.io", b"")
    box.untrust(**only("k3s", **second))
    assert box.files() == files


def test_buildkit_says_the_same_as_before_and_ours(box: Box) -> None:
    theirs = (
        b'# kept\ndebug = true\n\n[registry."docker.io"]\n  http = false # why\n\n[grpc]\n  uid = 0'
    )
    lay_out(box, "buildkit").write(BUILDKITD, theirs)
    box.apply(**only("buildkit", mirrors=HUB))
    after = box.read(BUILDKITD) or b""
    told = parse(after)
    assert told["registry"]["docker.io"] == {"http": False, "mirrors": ["my.registry.io"]}
    for name in ("my.registry.io", "my.registry.io:443"):
        assert told["registry"][name] == {"ca": ["/etc/buildkit/moorage/my.registry.io.crt"]}
    box.untrust(**only("buildkit"))
    assert box.read(BUILDKITD) == theirs
    box.apply(**only("buildkit"))
    edited = (box.read(BUILDKITD) or b"") + b"  insecure = false\n[dns]\n"
    box.write(BUILDKITD, edited)
    box.untrust(**only("buildkit"))
    assert box.read(BUILDKITD) == (
        theirs + b'\n[registry."my.registry.io:443"]\n  insecure = false\n[dns]\n'
    )


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b'[registry."my.registry.io"]\n  ca = ["/etc/other.crt"]\n', "buildkitd-foreign"),
        (b'registry = {"docker.io" = {http = true}}\n', "config-not-understood"),
        (b"not toml", "config-not-understood"),
    ],
)
def test_a_buildkitd_toml_that_says_otherwise_is_refused(
    box: Box, content: bytes, code: str
) -> None:
    lay_out(box, "buildkit").write(BUILDKITD, content)
    assert box.apply(**only("buildkit"))["code"] == code
    assert box.read(BUILDKITD) == content


def test_k0s_uses_the_folder_another_drop_in_names(box: Box) -> None:
    theirs = b'[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = "/etc/k0s/certs"\n'
    lay_out(box, "k0s").write("/etc/k0s/containerd.d/corp.toml", theirs)
    result = box.apply(**only("k0s"))
    assert result["restarts"] == []
    assert all(one["path"].startswith("/etc/k0s/certs/") for one in result["changes"])


def test_k0s_that_is_managed_by_hand_is_refused(box: Box) -> None:
    lay_out(box, "k0s").write("/etc/k0s/containerd.toml", b"version = 2\n")
    assert box.apply(**only("k0s"))["code"] == "k0s-not-managed"


def test_k0s_of_the_newer_containerd_gets_the_newer_table(box: Box) -> None:
    lay_out(box, "k0s").write("/etc/k0s/containerd.toml", b"# k0s_managed=true\nversion = 3\n")
    box.apply(**only("k0s"))
    told = parse(box.read("/etc/k0s/containerd.d/moorage.toml") or b"")
    assert told["version"] == 3
    assert "io.containerd.cri.v1.images" in told["plugins"]


def test_the_drop_in_of_k0s_stays_for_a_second_registry(box: Box) -> None:
    second = {"registry": {"host": "second.registry.io"}, "verify": None}
    lay_out(box, "k0s")
    files = box.files()
    box.apply(**only("k0s"))
    box.apply(**only("k0s", **second))
    assert box.untrust(**only("k0s"))["restarts"] == []
    assert box.read("/etc/k0s/containerd.d/moorage.toml") is not None
    box.untrust(**only("k0s", **second))
    assert box.files() == files


def test_microk8s_without_folders_in_its_template_is_refused(box: Box) -> None:
    lay_out(box, "microk8s")
    box.write("/var/snap/microk8s/7000/args/containerd-template.toml", b"version = 2\n")
    assert box.apply(**only("microk8s"))["code"] == "microk8s-template"


def test_nerdctl_and_containerd_share_one_folder(box: Box) -> None:
    lay_out(box, "nerdctl").with_containerd()
    result = box.apply(parts=["containerd", "nerdctl"])
    paths = [one["path"] for one in result["changes"]]
    assert len(paths) == len(set(paths)) == 5
    box.write("/etc/nerdctl/nerdctl.toml", b'hosts_dir = ["/srv/certs.d"]\n')
    added = box.apply(parts=["containerd", "nerdctl"])["changes"]
    assert {one["path"] for one in added} == {
        *spelled("/srv/certs.d/my.registry.io/ca.crt", "/srv/certs.d/my.registry.io/hosts.toml")
    }


@pytest.mark.parametrize(
    ("mirror", "text"),
    [
        (
            HUB,
            '[[registry]]\nprefix = "docker.io"\nlocation = "docker.io"\n\n'
            '[[registry.mirror]]\nlocation = "my.registry.io"\n',
        ),
        (NO_HUB, '[[registry]]\nprefix = "docker.io"\nlocation = "my.registry.io"\n'),
    ],
)
def test_podman_and_crio_get_a_drop_in_for_a_mirror_alone(
    box: Box, mirror: list[dict[str, Any]], text: str
) -> None:
    lay_out(box, "crio")
    result = box.apply(**only("crio", mirrors=mirror))
    assert result["restarts"] == ["reload crio.service"]
    drop_in = box.read("/etc/containers/registries.conf.d/50-moorage-docker.io.conf") or b""
    assert drop_in.decode().partition("\n")[2] == text


def test_a_table_for_the_same_registry_is_never_doubled(box: Box) -> None:
    theirs = b'[[registry]]\nprefix = "docker.io"\nlocation = "mirror.corp"\n'
    lay_out(box, "podman").write("/etc/containers/registries.conf", theirs)
    assert box.apply(**only("podman", mirrors=HUB))["code"] == "registries-conf-foreign"
    assert box.apply(**only("podman"))["status"] == "changed"


def test_a_clients_key_in_dockers_folder_keeps_counting_for_podman(box: Box) -> None:
    for ending in ("cert", "key"):
        place = f"/etc/docker/certs.d/my.registry.io/client.{ending}"
        lay_out(box, "podman").write(place, b"x")
    result = box.apply(**only("podman"))
    assert [one["path"] for one in result["changes"]] == [
        "/etc/docker/certs.d/my.registry.io/ca.crt",
        "/etc/containers/certs.d/my.registry.io:443/ca.crt",
    ]


def test_crio_is_asked_where_its_configuration_says(box: Box) -> None:
    lay_out(box, "crio").write(
        "/etc/crio/crio.conf.d/10-here.conf", b'[crio.api]\nlisten = "/srv/crio.sock"\n'
    )
    facts = gather(Host(str(box.root)))
    assert [one.socket for one in table.TABLE["crio"].proofs(facts)] == ["/srv/crio.sock"]


def test_the_active_one_of_two_services_is_the_one(box: Box) -> None:
    lay_out(box, "k3s")
    facts = gather(Host(str(box.root)))
    assert facts.others["k3s"] == Runtime(
        "k3s", "/usr/local/bin/k3s", "k3s-agent.service", True, ("/usr/local/bin/k3s", "agent")
    )
    assert "k3s" in facts.runtime


# -- found by what runs, and by what would start it ---------------------------------------------

PLACES = {
    "k3s": ("k3s-edge.service", "/opt/k3s/k3s", "server --docker=false"),
    "rke2": ("rke2-edge.service", "/opt/rke2/bin/rke2", "agent"),
    "k0s": ("k0s-edge.service", "/srv/k0s", "worker --token-file /x"),
    "crio": ("crio-edge.service", "/opt/crio/bin/crio", "--log-level info"),
    "buildkit": ("build.service", "/opt/buildkit/bin/buildkitd", "--addr fd://"),
}


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("written", ["{} {}", "-{} \\\n  {} \\\n"])
def test_one_that_does_not_run_is_found_by_the_unit_that_starts_it(
    box: Box, name: str, written: str
) -> None:
    unit, program, words = PLACES[name]
    box.write(program, PROGRAM, 0o755)
    text = f"[Service]\nExecStart=/bin/false\nExecStart={written.format(program, words)}\n"
    box.write(f"/etc/systemd/system/{unit}", text.encode())
    box.write("/etc/systemd/system/backup.service", b"[Service]\nExecStart=/bin/backup k3s rke2\n")
    found = gather(Host(str(box.root))).others
    assert list(found) == [name]
    assert found[name] == Runtime(name, program, unit, True, (program, *words.split()))
    box.write(f"/etc/systemd/system/{unit}", b"[Service]\nExecStart=/bin/false\n")
    assert gather(Host(str(box.root))).others == {}


def process(box: Box, number: int, argv: str, group: str, **environment: str) -> None:
    """A program at work, in its own or another's control group."""
    folder = f"/proc/{number}"
    box.write(f"{folder}/cmdline", argv.encode())
    box.write(f"{folder}/status", b"Uid:\t0\t0\t0\t0\nNSpid:\t7\n")
    said = "\0".join(f"{key}={value}" for key, value in environment.items())
    box.write(f"{folder}/environ", said.encode())
    box.write(f"{folder}/cgroup", f"0::{group}\n".encode())


def unit(box: Box, name: str, argv: str) -> None:
    box.write(f"/etc/systemd/system/{name}", f"[Service]\nExecStart={argv}\n".encode())


def found(box: Box, name: str) -> Runtime:
    return gather(Host(str(box.root))).others[name]


@pytest.mark.parametrize("name", PLACES)
def test_one_that_runs_is_found_by_its_process_and_its_control_group(box: Box, name: str) -> None:
    service, program, words = PLACES[name]
    unit(box, service, f"{program} {words}")
    process(box, 100, "\0".join([program, *words.split()]), f"/system.slice/{service}")
    # Others of the same name: a client, one of a user's, and one in a container.
    process(box, 90, f"{program}\0kubectl\0get", "/system.slice/cron.service")
    result = found(box, name)
    assert (result.binary, result.unit, result.running) == (program, service, True)
    assert result.argv == (program, *words.split())


def test_a_title_in_the_place_of_the_words_is_read_as_k3s_writes_it(box: Box) -> None:
    program = "/opt/k3s/k3s"
    unit(box, "k3s-edge.service", f"{program} server --docker --token secret")
    process(box, 100, f"{program} server", "/system.slice/k3s-edge.service", K3S_TOKEN="secret",
            K3S_CONFIG_FILE="/srv/k3s.yaml")  # fmt: skip
    result = found(box, "k3s")
    assert (result.unit, "--docker" in result.argv) == ("k3s-edge.service", True)
    assert dict(result.environment) == {"K3S_CONFIG_FILE": "/srv/k3s.yaml"}


@pytest.mark.parametrize(
    "group",
    [
        "/system.slice/cron.service",
        "/system.slice/ssh.service",
        "/user.slice/user-0.slice/session-3.scope",
        "/user.slice/user-0.slice/user@0.service/app.slice/run.scope",
    ],
)
def test_whoever_started_it_is_not_taken_for_its_service(box: Box, group: str) -> None:
    for name in ("cron", "ssh"):
        unit(box, f"{name}.service", f"/usr/sbin/{name}")
    process(box, 100, "/usr/local/bin/k3s\0server", group)
    assert (found(box, "k3s").unit, found(box, "k3s").running) == ("", True)
    files = box.files()
    result = box.apply(**only("k3s"))
    assert (result["status"], result["code"]) == ("failed", "no-unit")
    assert "k3s" in result["error"]["message"]
    assert "--no-restart" in result["error"]["cure"]
    assert (box.files(), box.restarted) == (files, [])
    prepared = box.apply(**only("k3s", options={"restart": False}))
    assert (prepared["status"], prepared["verified"]) == ("changed", None)
    assert box.apply(**only("k3s"))["verified"] is True  # its user restarted it: a pull tells
    assert box.untrust(**only("k3s"))["code"] == "no-unit"
    assert box.untrust(**only("k3s", options={"restart": False}))["status"] == "changed"
    assert box.files() == files


def test_every_part_of_a_plan_is_in_the_table() -> None:
    assert set(PARTS) == set(table.TABLE) - {"proxy"}
