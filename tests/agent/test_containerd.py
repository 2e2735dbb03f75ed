"""containerd's strategies: facts in, changes or a refusal out."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from agent.edit.change import Change
from agent.edit.toml import at, parse
from agent.formats.proposal import Proposal
from agent.runtimes.containerd import differs_in_trust_alone, explain, propose
from agent.runtimes.containerd.state import TABLES
from agent.runtimes.containerd.strategies import STRATEGIES
from agent.wire.faults import RefusedError
from agent.wire.plan import Registry
from tests.agent.authority import Authority
from tests.agent.conftest import DEBIAN_CONFIG, Box, facts, spelled

CONFIG = "/etc/containerd/config.toml"
FOLDER = "/etc/containerd/certs.d/my.registry.io"
V2 = 'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry]\n'
V3 = "version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\n"


def proposed(
    box: Box, config: bytes | None, version: tuple[int, int, int] = (1, 7, 24), **more: Any
) -> Proposal:
    if config is not None:
        box.write(CONFIG, config)
    return propose(facts(box.root, config, version), box.plan(**more), {})


def edited(proposal: Proposal) -> Change | None:
    return next((one for one in proposal.changes if one.path == CONFIG), None)


def refusal(box: Box, config: bytes, version: tuple[int, int, int] = (1, 7, 24)) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        proposed(box, config, version)
    assert caught.value.fault.cause
    assert caught.value.fault.cure
    return caught.value


@pytest.mark.parametrize(
    ("version", "config", "table"),
    [
        ((1, 6, 20), None, 2),
        ((1, 7, 24), None, 2),
        ((2, 1, 9), None, 3),
        ((2, 1, 9), b"", 3),
        ((1, 7, 24), b"# nothing but a comment", 2),
        ((1, 6, 20), DEBIAN_CONFIG, 2),
        ((2, 1, 9), DEBIAN_CONFIG, 2),
        ((2, 1, 9), b"version = 3\n", 3),
        ((1, 6, 20), b"[plugins.cri]\n  sandbox_image = 'p'\n", 1),
        ((1, 7, 24), V2.encode() + b'  config_path = ""\n', 2),
    ],
)
def test_config_path_is_set_where_none_is(
    box: Box, version: tuple[int, int, int], config: bytes | None, table: int
) -> None:
    proposal = proposed(box, config, version)
    change = edited(proposal)
    assert change is not None
    assert change.after is not None
    assert at(parse(change.after), *TABLES[table], "config_path") == "/etc/containerd/certs.d"
    assert proposal.restarts == ("containerd.service",)
    kept = [line for line in (config or b"").splitlines() if b"config_path" not in line]
    assert all(line in change.after for line in kept)


@pytest.mark.parametrize(
    ("path", "folder"),
    [
        ("/certs", "/certs/my.registry.io"),
        ("/certs/", "/certs/my.registry.io"),
        ("/etc/containerd/certs.d:/etc/docker/certs.d", FOLDER),
    ],
)
def test_a_config_path_that_is_there_is_used(box: Box, path: str, folder: str) -> None:
    proposal = proposed(box, f'{V2}  config_path = "{path}"\n'.encode())
    places = spelled(f"{folder}/")
    paths = [f"{place}{name}" for place in places for name in ("ca.crt", "hosts.toml")]
    assert [one.path for one in proposal.changes] == paths
    assert proposal.restarts == ()


def test_of_several_folders_the_one_that_has_the_registry_is_used(box: Box) -> None:
    for path in spelled("/etc/docker/certs.d/my.registry.io/ca.crt"):
        box.write(path, box.ca.encode())
    config = f'{V2}  config_path = "/etc/containerd/certs.d:/etc/docker/certs.d"\n'.encode()
    assert proposed(box, config).changes == ()


def test_the_folder_with_the_port_spelt_the_other_way_wins(box: Box) -> None:
    config = f'{V2}  config_path = "/certs"\n'.encode()
    port: dict[str, Any] = {"registry": {"port": 5000}, "verify": None}
    plain = proposed(box, config, **port)
    assert plain.changes[0].path == "/certs/my.registry.io:5000/ca.crt"
    (box.root / "certs/my.registry.io_5000_").mkdir(parents=True)
    other = proposed(box, config, **port)
    assert other.changes[0].path == "/certs/my.registry.io_5000_/ca.crt"
    assert b'server = "https://my.registry.io:5000"' in (other.changes[1].after or b"")


@pytest.mark.parametrize(
    ("version", "config", "code"),
    [
        ((1, 7, 24), b"version = [", "config-not-toml"),
        ((1, 7, 24), b"version = 2 # \xff", "config-not-utf8"),
        ((1, 7, 24), b"version = 2\nversion = 2\n", "config-not-toml"),
        ((1, 7, 24), V3.encode(), "config-version"),
        ((1, 4, 3), b"version = 2\n", "containerd-too-old"),
        (
            (1, 7, 24),
            b'version = 2\nplugins = {"io.containerd.grpc.v1.cri" = {sandbox_image = "p"}}\n',
            "config-not-understood",
        ),
    ],
)
def test_what_is_not_understood_is_refused(
    box: Box, version: tuple[int, int, int], config: bytes, code: str
) -> None:
    assert refusal(box, config, version).code == code


def test_a_dangling_link_is_refused(box: Box) -> None:
    (box.root / "etc/containerd").mkdir(parents=True)
    (box.root / "etc/containerd/config.toml").symlink_to("/nowhere/config.toml")
    with pytest.raises(RefusedError) as caught:
        proposed(box, None)
    assert caught.value.code == "dangling-link"


def test_a_file_containerd_itself_refuses_is_refused(box: Box) -> None:
    box.write(CONFIG, DEBIAN_CONFIG)
    with pytest.raises(RefusedError) as caught:
        propose(facts(box.root, None), box.plan(), {})
    assert caught.value.code == "config-refused-by-containerd"


def test_anothers_hosts_toml_that_trusts_our_ca_is_enough(box: Box) -> None:
    box.write("/corp/ca.pem", b"# corp\n" + box.ca.encode())
    for place in spelled(f"{FOLDER}/"):
        host = place.split("/")[-2]
        text = f'[host."https://{host}"]\nca = ["/corp/ca.pem"]\n'
        box.write(f"{place}hosts.toml", text.encode())
    config = f'{V2}  config_path = "/etc/containerd/certs.d"\n'.encode()
    assert proposed(box, config).changes == ()


def test_certificates_without_a_hosts_toml_are_joined(box: Box) -> None:
    for place in spelled(f"{FOLDER}/"):
        box.write(f"{place}ca.crt", Authority("other").pem.encode())
        for ending in ("cert", "key"):
            box.write(f"{place}client.{ending}", b"x")
    config = f'{V2}  config_path = "/etc/containerd/certs.d"\n'.encode()
    changes = proposed(box, config).changes
    assert [one.path for one in changes] == spelled(f"{FOLDER}/moorage-ca.crt")


def test_dumps_may_differ_in_config_path_alone() -> None:
    one = f'{V2}config_path = ""\n[debug]\nlevel = "x"\n'.encode()
    registry = Registry("my.registry.io")
    assert differs_in_trust_alone(one, one.replace(b'""', b'"/x"'), registry)
    assert not differs_in_trust_alone(one, one.replace(b'"x"', b'"y"'), registry)


# Real containerds, where this machine has them: the installed one, and those MOORAGE_CONTAINERDS
# names (a colon-separated list of programs).
BINARIES = [
    path
    for path in ["/usr/bin/containerd", *os.environ.get("MOORAGE_CONTAINERDS", "").split(":")]
    if path and Path(path).is_file()
]


@pytest.fixture(params=BINARIES)
def binary(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def real_box(box: Box, binary: str, config: bytes | None) -> Box:
    box.with_containerd(config)
    program = box.root / "usr/bin/containerd"
    program.write_text(f'#!/bin/sh\nexec {binary} "$@"\n')
    program.chmod(0o755)
    return box


def default_of(binary: str) -> bytes:
    return subprocess.run([binary, "config", "default"], capture_output=True, check=True).stdout


@pytest.mark.parametrize("kind", ["none", "package", "default"])
def test_the_real_containerd_agrees_with_the_edit(box: Box, binary: str, kind: str) -> None:
    config = {"none": None, "package": DEBIAN_CONFIG, "default": default_of(binary)}[kind]
    real_box(box, binary, config)
    before = box.files()
    result = box.apply()
    assert result["status"] == "changed", result["error"]
    assert box.apply()["status"] == "unchanged"
    dump = subprocess.run(
        [binary, "--config", str(box.root / CONFIG[1:]), "config", "dump"],
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    assert re.search(rb"""config_path = ['"]/etc/containerd/certs.d['"]""", dump)
    box.untrust()
    assert box.files() == before


def test_every_row_tells_whether_it_applies_and_why(box: Box) -> None:
    told = explain(facts(box.root, box_config(box, DEBIAN_CONFIG)), box.plan())
    assert [row.strategy for row in told] == [row.name for row in STRATEGIES]
    assert [row.strategy for row in told if row.applies] == ["set-config-path"]
    assert all(row.why for row in told)


def test_a_configuration_that_is_refused_is_explained_by_its_code(box: Box) -> None:
    told = explain(facts(box.root, box_config(box, b"version = [")), box.plan())
    assert (told[0].strategy, told[0].applies) == ("refused", True)
    assert "config-not-toml" in told[0].why
    assert not any(row.applies for row in told[1:])


def box_config(box: Box, config: bytes) -> bytes:
    box.write(CONFIG, config)
    return config
