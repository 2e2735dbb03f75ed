"""A registry with TLS that others' files ask by plain HTTP: moved, or named with its line."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from agent.edit.toml import parse
from agent.formats.plain import asks, line
from agent.wire.plan import Registry
from tests.agent.conftest import Box
from tests.agent.test_containerd_kept import ROOT, TABLE, apply, notes, with_config

NAME = "my.registry.io"
CONFIG = "/etc/containerd/config.toml"
V2 = 'plugins."io.containerd.grpc.v1.cri".registry'


@pytest.mark.parametrize(
    ("url", "port", "same"),
    [("http://my.registry.io", 443, True), ("http://my.registry.io/", 443, True),
     ("http://my.registry.io:80", 443, True), ("http://my.registry.io:443", 443, True),
     ("http://MY.registry.io", 443, True), ("http://my.registry.io:5000", 5000, True),
     ("http://my.registry.io:5000", 443, False), ("http://my.registry.io", 5000, False),
     ("http://my.registry.io/cache", 443, False), ("https://my.registry.io", 443, False),
     ("http://other.registry.io", 443, False), ("http://my.registry.io:x", 443, False),
     ("my.registry.io", 443, False)],
)  # fmt: skip
def test_a_url_is_the_registrys_own_by_name_and_port(url: str, port: int, same: bool) -> None:
    assert asks(url, Registry(NAME, port)) is same
    assert not asks(url, Registry(NAME, port, insecure="http"))


def test_the_line_is_counted_as_an_editor_counts_and_a_remark_is_none() -> None:
    text = (
        b"\xef\xbb\xbf# http://my.registry.io\r\n\r\nendpoint = ['a', 'http://my.registry.io']\r\n"
    )
    assert line(text, Registry(NAME)) == (3, "http://my.registry.io")


MIRROR = f"""version = 3
[{TABLE}.mirrors."my.registry.io"]
  endpoint = ["http://my.registry.io"]
[{TABLE}.mirrors."docker.io"]
  endpoint = ["http://my.registry.io"]
"""


def test_a_table_that_moves_asks_by_https_and_its_bytes_come_back(box: Box) -> None:
    node = with_config(box, MIRROR)
    files, folders = node.files(), node.folders()
    result = node.apply(parts=["containerd"])
    assert result["status"] == "changed"
    assert "asked my.registry.io by plain HTTP (http://my.registry.io)" in notes(result)
    told = parse(node.read(f"{ROOT}/{NAME}/hosts.toml") or b"")
    assert told["server"] == "https://my.registry.io"
    assert told["ca"] == f"{ROOT}/{NAME}/moorage-ca.crt"
    # Another registry's mirror is another's matter.
    assert "http://my.registry.io" in str(parse(node.read(f"{ROOT}/docker.io/hosts.toml") or b""))
    assert node.apply(parts=["containerd"])["status"] == "unchanged"
    assert node.untrust()["status"] == "changed"
    assert (node.files(), node.folders()) == (files, folders)


PLACES = {
    "1.x's table": (CONFIG, f'version = 2\n[{V2}.mirrors."{NAME}"]\n  endpoint = ["http://{NAME}"]\n'),
    "hosts.toml": (f"{ROOT}/{NAME}/hosts.toml", f'server = "http://{NAME}:80"\n'),
    "its host": (f"{ROOT}/{NAME}/hosts.toml",
                 f'server = "https://m.io"\n\n[host."http://{NAME}"]\n  capabilities = ["pull"]\n'),
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_a_line_that_stays_is_named_and_the_cure_works_when_typed(box: Box, place: str) -> None:
    path, text = PLACES[place]
    node = with_config(box, f'version = 2\n[{V2}]\n  config_path = "{ROOT}"\n', "1.7.24")
    node.write(path, text.encode())
    files = node.files()
    result = node.apply(parts=["containerd"])
    assert result["code"] == "asked-by-plain-http"
    number = next(n for n, one in enumerate(text.split("\n"), 1) if f"http://{NAME}" in one)
    assert f"{path}, line {number}, asks {NAME} by plain HTTP" in result["error"]["message"]
    assert node.files() == files
    typed(node.root, result["error"]["cure"], path)
    assert node.apply(parts=["containerd"])["status"] == "changed"


def typed(root: Path, cure: str, path: str) -> None:
    """The command of a cure, run as it stands but for the root of the tree."""
    command = re.match(r"(sed .*?), then", cure)
    assert command is not None
    words = command[1].replace(path, str(root / path[1:]))
    subprocess.run(["sh", "-c", words], check=True)


REGISTRIES = """mirrors:
  my.registry.io:
    endpoint:
      - "http://my.registry.io"
"""


def test_k3s_is_told_of_its_line_too(box: Box) -> None:
    box.write("/usr/local/bin/k3s", b"#!/bin/sh\n", 0o755)
    (box.root / "etc/rancher/k3s").mkdir(parents=True)
    path = "/etc/rancher/k3s/registries.yaml"
    box.write(path, REGISTRIES.encode())
    result = box.apply(parts=["k3s"])
    assert (result["code"], f"{path}, line 4," in result["error"]["message"]) == (
        "asked-by-plain-http", True,
    )  # fmt: skip
    typed(box.root, result["error"]["cure"], path)
    assert box.apply(parts=["k3s"])["status"] == "changed"


def test_an_endpoint_with_tls_beside_it_is_reached_and_nothing_is_refused(box: Box) -> None:
    both = '["http://my.registry.io", "https://my.registry.io"]'
    apply(with_config(box, MIRROR.replace('["http://my.registry.io"]', both)))


def test_a_registry_without_tls_is_asked_so_by_right(box: Box) -> None:
    node = with_config(box, MIRROR)
    result = node.apply(parts=["containerd"], registry={"insecure": "http", "port": 80, "ca": None})
    assert result["code"] is None
