"""k3s, RKE2 and k0s: what they are told, who pulls for them, and what a restart would not bring."""

from __future__ import annotations

from typing import Any

import pytest

from agent.edit import yaml_block
from agent.facts import Runtime, gather
from agent.node.host import Host
from agent.node.tree import Tree
from agent.runtimes import k3s_config, table
from agent.runtimes.k3s_config import PullConfig
from agent.wire.faults import RefusedError
from tests.agent.conftest import Box
from tests.agent.test_runtimes import lay_out, only, process

USUAL = "/etc/rancher/k3s/registries.yaml"
DATA = "/var/lib/rancher/k3s"
CONFIG = "/etc/rancher/k3s/config.yaml"


def told(box: Box, *argv: str, **environment: str) -> PullConfig:
    runtime = Runtime("k3s", argv=("/usr/local/bin/k3s", "server", *argv), environment=environment)
    return k3s_config.read(Tree(str(box.root)), runtime)


@pytest.mark.parametrize(
    ("text", "docker"),
    [
        (b"docker: true\n", True),
        (b'"docker" : "true" # why\n', True),
        (b"---\ndocker: yes\n...\n", True),
        (b"\xef\xbb\xbfdocker: on\r\ntls-san:\r\n- a\r\n", True),
        (b"docker:\n", False),
        (b"docker: ~\n", False),
        (b"docker: 'false'\n", False),
        (b"# docker: true\nnode-label: [docker=true]\n", False),
        (b"kubelet-arg:\n  - docker: true\n", False),
        (b"write-kubeconfig-mode: |\n  docker: true\n", False),
        (b'{"docker": true, "tls-san": ["a"]}', True),
        (b"docker: true\ndocker: false\n", False),
        (b"tls-san+:\n- a\ndocker: true\n", True),
        (b"", False),
    ],
)
def test_config_yaml_is_read_where_it_counts(box: Box, text: bytes, docker: bool) -> None:
    box.write(CONFIG, text)
    assert told(box) == PullConfig(docker, "", USUAL, DATA)


@pytest.mark.parametrize(
    "text",
    [
        b"docker: &a true\n",
        b"docker: !!bool true\n",
        b"docker: >-\n  true\n",
        b"docker:\n  true\n",
        b'docker: "tr\\u0075e"\n',
        b"{docker: true}\n",
        b'{"docker": [true]}',
        b"? docker\n: true\n",
        b"private-registry: [a]\n",
        b"docker: true\n  more\n",
        b"\xff\xfe",
    ],
)
def test_config_yaml_that_is_not_understood_where_it_counts_is_refused(
    box: Box, text: bytes
) -> None:
    lay_out(box, "k3s").write(CONFIG, text)
    files = box.files()
    result = box.apply(**only("k3s"))
    assert (result["code"], box.files()) == ("yaml-not-understood", files)
    assert CONFIG in result["error"]["message"]
    box.write(CONFIG, b"")
    box.apply(**only("k3s"))
    box.write(CONFIG, text)
    away = box.untrust(**only("k3s"))  # what is ours goes all the same, and the service restarts
    assert (away["status"], away["restarts"]) == ("changed", ["k3s-agent.service"])


def test_drop_ins_come_in_order_and_the_command_line_is_last(box: Box) -> None:
    box.write(CONFIG, b"private-registry: /a.yaml\ndata-dir: /a\ndocker: true\n")
    box.write(f"{CONFIG}.d/50.yaml", b"private-registry: /b.yaml\n")
    box.write(f"{CONFIG}.d/60.YML", b"docker: false\ncontainer-runtime-endpoint: unix:///c.sock\n")
    box.write(f"{CONFIG}.d/70.txt", b"private-registry: /ignored.yaml\n")
    (box.root / f"{CONFIG[1:]}.d/80.yaml").mkdir()
    assert told(box) == PullConfig(False, "/c.sock", "/b.yaml", "/a")
    assert told(box, "--docker", "--data-dir=/d/") == PullConfig(True, "/c.sock", "/b.yaml", "/d")
    assert told(box, "--private-registry", "/e.yaml").registries == "/e.yaml"
    assert told(box, "--docker=true", "--docker=false").docker is False
    assert told(box, "-docker").docker is True


def test_another_config_file_is_the_one_of_the_variable_then_of_the_option(box: Box) -> None:
    box.write("/srv/a.yaml", b"docker: true\n")
    box.write("/srv/b.yaml.d/10.yaml", b"disable-agent: true\n")
    assert told(box, K3S_CONFIG_FILE="/srv/a.yaml").docker
    assert not told(box, "--config", "/srv/b.yaml").agent
    assert told(box, "-c=/srv/b.yaml", K3S_CONFIG_FILE="/srv/a.yaml") == PullConfig(
        True, "", USUAL, DATA
    )
    with pytest.raises(RefusedError, match="not on this node"):
        told(box, "--config=https://config.corp/k3s.yaml")


def sockets(box: Box) -> list[tuple[str, str]]:
    facts = gather(Host(str(box.root)))
    return [(one.kind, one.socket) for one in table.TABLE["k3s"].proofs(facts)]


@pytest.mark.parametrize("name", ["k3s", "rke2"])
@pytest.mark.parametrize(
    ("text", "proof", "words"),
    [
        (b"docker: true\n", [("docker", "/run/docker.sock")], "the docker part"),
        (
            b"docker: true\ncontainer-runtime-endpoint: /srv/docker.sock\n",
            [("docker", "/srv/docker.sock")],
            "the docker part",
        ),
        (
            b"container-runtime-endpoint: unix:///run/crio/crio.sock\n",
            [("cri", "/run/crio/crio.sock")],
            "/run/crio/crio.sock",
        ),
        (b"disable-agent: true\n", [], "pulls nothing"),
    ],
)
def test_another_runtime_that_pulls_is_the_one_to_prove(
    box: Box, name: str, text: bytes, proof: list[tuple[str, str]], words: str
) -> None:
    lay_out(box, name).write(f"/etc/rancher/{name}/config.yaml.d/50.yaml", text)
    files = box.files()
    refused = box.apply(**only("k3s"))
    assert (refused["code"], box.files()) == ("no-runtime", files)
    assert words in refused["error"]["message"]
    assert sockets(box) == proof


def test_the_runtime_that_pulls_for_k3s_is_set_up_and_proven_once(box: Box) -> None:
    lay_out(box.with_containerd(), "k3s").write(
        CONFIG, b"container-runtime-endpoint: /run/containerd/containerd.sock\n"
    )
    result = box.apply(parts=["containerd", "k3s"])
    assert (result["status"], result["verified"]) == ("changed", True)
    assert any("/run/containerd/containerd.sock" in one.get("message", "")
               for one in result["events"])  # fmt: skip
    assert all("/etc/rancher" not in one["path"] for one in result["changes"])
    assert box.prover.asked.count("pull") == 1


def test_an_unknown_runtime_that_pulls_for_k3s_is_not_passed_over(box: Box) -> None:
    lay_out(box.with_containerd(), "k3s").write(CONFIG, b"container-runtime-endpoint: /x.sock\n")
    box.prover.reasons["cri"] = "the test has taken it away"
    result = box.apply(parts=["containerd", "k3s"])
    assert [one["part"] for one in result["unproven"]] == ["containerd", "k3s"]


def test_a_containerd_of_k3s_with_its_files_elsewhere_is_not_the_node_s_own(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    box.with_containerd()
    lay_out(box, "k3s")
    process(box, 100, "/usr/local/bin/k3s\0agent", "/system.slice/k3s-agent.service")
    config = "/opt/k3s/agent/etc/containerd/config.toml"
    box.write(config, b"version = 2\n")
    monkeypatch.setattr(Host, "is_own", lambda self, pid: True)
    child = f"/usr/bin/containerd\0-c\0{config}"
    process(box, 101, child, "/system.slice/k3s-agent.service")
    assert gather(Host(str(box.root))).containerds == ()
    process(box, 101, child, "/system.slice/x.service")
    assert [one.pid for one in gather(Host(str(box.root))).containerds] == [101]


def test_a_containerd_in_a_container_is_not_the_node_s_own(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    box.with_containerd()
    process(box, 101, "/usr/bin/containerd", "/system.slice/containerd.service")
    for own in (True, False):
        monkeypatch.setattr(Host, "is_own", lambda self, pid, own=own: own)
        assert [one.pid for one in gather(Host(str(box.root))).containerds] == [101 * own]


# -- a template that leaves registries.yaml out -------------------------------------------------

ETC = f"{DATA}/agent/etc/containerd"
PLUGIN = '[plugins."io.containerd.grpc.v1.cri".registry]\n'
BARE = 'version = 2\n[plugins."io.containerd.grpc.v1.cri"]\n  sandbox_image = "x"\n'
CARRY = [
    '{{ template "base" . }}\n[plugins."x"]\n',
    '{{- template "base" . -}}\n',
    PLUGIN + '  config_path = {{ printf "%q" .NodeConfig.Containerd.Registry }}\n',
    PLUGIN + f'  config_path = "{ETC}/certs.d"\n',
    "{{ if .PrivateRegistryConfig }}{{ range $k, $v := .PrivateRegistryConfig.Mirrors }}\n",
]
LACK = [
    BARE,
    BARE + '# {{ template "base" . }}\n',
    BARE + '{{/* {{ template "base" . }} */}}\n',
    PLUGIN + '  config_path = "/etc/containerd/certs.d"\n',
    "",
]


@pytest.mark.parametrize("text", CARRY)
def test_a_template_with_the_registries_part_is_fine(box: Box, text: str) -> None:
    lay_out(box, "k3s").write(f"{ETC}/config.toml.tmpl", text.encode())
    assert box.apply(**only("k3s"))["status"] == "changed"


@pytest.mark.parametrize("text", LACK)
@pytest.mark.parametrize("name", ["k3s", "rke2"])
def test_a_template_without_it_is_told_before_anything_is_touched(
    box: Box, text: str, name: str
) -> None:
    path = f"/var/lib/rancher/{name}/agent/etc/containerd/config.toml.tmpl"
    lay_out(box, name).write(path, text.encode())
    files = box.files()
    result = box.apply(**only("k3s"))
    assert (result["code"], box.files(), box.restarted) == ("k3s-template", files, [])
    assert path in result["error"]["message"]
    assert 'template "base"' in result["error"]["cure"]
    box.write(path, text.encode() + b'\n{{ template "base" . }}\n')  # the cure
    assert box.apply(**only("k3s"))["status"] == "changed"


@pytest.mark.parametrize(
    ("made", "newer", "older", "code"),
    [
        (b"version = 3\n", BARE, CARRY[0], "k3s-template"),
        (b"version = 3\n", CARRY[0], BARE, None),
        (b"version = 3\n", None, BARE, "k3s-template"),
        (b"version = 2\n", BARE, CARRY[0], None),
        (b"version = 2\n", CARRY[0], BARE, "k3s-template"),
        (b"version = 2\n", BARE, None, None),
        (None, BARE, CARRY[0], "k3s-template"),
    ],
)
def test_the_template_that_counts_is_the_one_of_its_containerd(
    box: Box, made: bytes | None, newer: str | None, older: str | None, code: str | None
) -> None:
    lay_out(box, "k3s")
    files = {"config.toml": made, "config-v3.toml.tmpl": newer, "config.toml.tmpl": older}
    for name, text in files.items():
        if text is not None:
            box.write(f"{ETC}/{name}", text if isinstance(text, bytes) else text.encode())
    assert box.apply(**only("k3s"))["code"] == code


def test_the_template_is_looked_for_where_its_data_is(box: Box) -> None:
    lay_out(box, "k3s").write(CONFIG, b"data-dir: /srv/k3s\n")
    box.write(f"{ETC}/config.toml.tmpl", BARE.encode())
    assert box.apply(**only("k3s"))["status"] == "changed"
    box.write("/srv/k3s/agent/etc/containerd/config.toml.tmpl", BARE.encode())
    assert box.apply(**only("k3s"))["code"] == "k3s-template"


# -- k0s ----------------------------------------------------------------------------------------

DROP_IN = "/etc/k0s/containerd.d/mirror.toml"
TABLE = '[plugins."io.containerd.grpc.v1.cri".registry'
NEWER = '[plugins."io.containerd.cri.v1.images".registry'


@pytest.mark.parametrize(
    "text",
    [
        f'{TABLE}.mirrors."docker.io"]\n  endpoint = ["https://mirror.corp"]\n',
        f'version = 3\n{NEWER}.mirrors."docker.io"]\n  endpoint = ["https://mirror.corp"]\n',
        f'{TABLE}]\n  mirrors = {{"a.io" = {{endpoint = ["https://b.io"]}}}}\n',
        f'{TABLE}.configs."my.registry.io".tls]\n  ca_file = "/etc/corp.crt"\n',
        '[plugins.cri.registry.mirrors."docker.io"]\n  endpoint = ["https://mirror.corp"]\n',
    ],
)
def test_mirrors_in_a_drop_in_of_k0s_are_seen_before_anything_is_touched(
    box: Box, text: str
) -> None:
    lay_out(box, "k0s").write(DROP_IN, text.encode())
    files = box.files()
    result = box.apply(**only("k0s"))
    assert (result["code"], box.files(), box.restarted) == ("k0s-mirrors", files, [])
    assert DROP_IN in result["error"]["message"]
    assert "hosts.toml" in result["error"]["cure"]


@pytest.mark.parametrize(
    "text",
    [
        f'{TABLE}.configs."my.registry.io".auth]\n  username = "u"\n',
        f"{TABLE}.mirrors]\n",
        '[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.gvisor]\nruntime_type = "x"\n',
    ],
)
def test_drop_ins_that_go_with_a_folder_are_left_alone(box: Box, text: str) -> None:
    lay_out(box, "k0s").write(DROP_IN, text.encode())
    assert box.apply(**only("k0s"))["status"] == "changed"
    assert box.read(DROP_IN) == text.encode()


@pytest.mark.parametrize(
    ("argv", "proofs"),
    [
        ("worker", [("cri", "/run/k0s/containerd.sock")]),
        ("controller --enable-worker", [("cri", "/run/k0s/containerd.sock")]),
        ("controller --single", [("cri", "/run/k0s/containerd.sock")]),
        ("controller", []),
        ("worker --cri-socket=remote:unix:///run/crio/crio.sock", [("cri", "/run/crio/crio.sock")]),
        ("worker --cri-socket docker:unix:///run/docker.sock", [("docker", "/run/docker.sock")]),
    ],
)
def test_k0s_is_proven_by_whoever_pulls_for_it(
    box: Box, argv: str, proofs: list[tuple[str, str]]
) -> None:
    lay_out(box, "k0s")
    unit = f"[Service]\nExecStart=/usr/local/bin/k0s {argv}\n"
    box.write("/etc/systemd/system/k0sworker.service", unit.encode())
    facts = gather(Host(str(box.root)))
    assert [(one.kind, one.socket) for one in table.TABLE["k0s"].proofs(facts)] == proofs
    own = proofs == [("cri", "/run/k0s/containerd.sock")]
    result: dict[str, Any] = box.apply(**only("k0s"))
    assert result["code"] == (None if own else "no-runtime")


@pytest.mark.parametrize(
    ("argv", "socket"),
    [
        ("--listen unix:///srv/x.sock", "/srv/x.sock"),
        ("--config /srv/crio.conf", "/srv/y.sock"),
        ("--config-dir=/srv/crio.d", "/srv/z.sock"),
    ],
)
def test_crio_is_asked_where_its_options_say(box: Box, argv: str, socket: str) -> None:
    lay_out(box, "crio")
    box.write("/srv/crio.conf", b'[crio.api]\nlisten = "/srv/y.sock"\n')
    box.write("/srv/crio.d/10.conf", b'[crio.api]\nlisten = "/srv/z.sock"\n')
    unit = f"[Service]\nExecStart=/usr/bin/crio {argv}\n"
    box.write("/etc/systemd/system/crio.service", unit.encode())
    facts = gather(Host(str(box.root)))
    assert [one.socket for one in table.TABLE["crio"].proofs(facts)] == [socket]


def test_what_stands_at_the_top_is_told_with_its_line() -> None:
    with pytest.raises(yaml_block.Unsafe, match="line 2"):
        yaml_block.top("a: b\ndocker: |\n  true\n", ("docker",))


def test_who_pulls_is_not_known_where_config_yaml_is_not_understood(box: Box) -> None:
    lay_out(box, "k3s").write(CONFIG, b"docker: &a true\n")
    result = box.run(box.engine().verify(box.plan(parts=["k3s"])))
    assert (result["status"], result["verified"]) == ("unchanged", None)
    assert CONFIG in result["unproven"][0]["because"]


@pytest.mark.parametrize(
    ("name", "root"),
    [
        ("k3s", f"{DATA}/agent/etc/containerd/certs.d"),
        ("rke2", "/var/lib/rancher/rke2/agent/etc/containerd/certs.d"),
        ("k0s", "/etc/k0s/containerd.d/certs.d"),
        ("microk8s", "/var/snap/microk8s/current/args/certs.d"),
    ],
)
def test_a_pull_knows_in_which_folder_its_mirrors_stand(box: Box, name: str, root: str) -> None:
    lay_out(box, name)
    part = "k3s" if name == "rke2" else name
    [proof] = table.TABLE[part].proofs(gather(Host(str(box.root))))
    assert proof.roots == (root,)


@pytest.mark.parametrize(
    ("text", "root"), [("/srv/c.d", "/srv/c.d"), ("{", "/etc/k0s/containerd.d/certs.d")]
)
def test_a_pull_by_k0s_knows_the_folder_that_a_drop_in_names(
    box: Box, text: str, root: str
) -> None:
    named = f'[plugins."io.containerd.grpc.v1.cri".registry]\n  config_path = "{text}"\n'
    lay_out(box, "k0s").write(DROP_IN, named.encode() if text != "{" else b"{")
    [proof] = table.TABLE["k0s"].proofs(gather(Host(str(box.root))))
    assert proof.roots == (root,)


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_registries_yaml_keeps_its_byte_order_mark_and_line_ends(box: Box, newline: str) -> None:
    yaml = pytest.importorskip("yaml")
    lines = ["mirrors:", "  quay.io:", "    endpoint:", "      - https://q.example", ""]
    text = b"\xef\xbb\xbf" + newline.join(lines).encode()
    lay_out(box, "k3s").write(USUAL, text)
    assert box.apply(**only("k3s"))["status"] == "changed"
    edited = box.read(USUAL) or b""
    assert edited.startswith(b"\xef\xbb\xbfmirrors:")
    assert edited.count(b"\xef\xbb\xbf") == 1
    assert "my.registry.io" in yaml.safe_load(edited.decode("utf-8-sig"))["mirrors"]
    assert box.untrust()["status"] == "changed"
    assert box.read(USUAL) == text
