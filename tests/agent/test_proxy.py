"""Proxies in units, drop-ins and environment files: noticed, and on request mended."""

from __future__ import annotations

from typing import Any

import pytest

from agent.facts import gather
from agent.facts.proxies import Proxied
from agent.node.host import Host
from agent.system.proxy import leaves_out
from tests.agent.conftest import Box

UNIT = "/lib/systemd/system/docker.service"
FOLDER = "/etc/systemd/system/docker.service.d"
OURS = f"{FOLDER}/zz-moorage-no-proxy.conf"
ENVIRONMENT = f"{FOLDER}/zz-moorage-no-proxy.env"
FIX: dict[str, Any] = {"parts": ["docker"], "options": {"fix_proxy": True}}


@pytest.fixture
def docker(box: Box) -> Box:
    box.write(UNIT, b"[Service]\nExecStart=/usr/sbin/dockerd\n")
    box.write("/usr/sbin/dockerd", b"#!/bin/sh\necho Docker version 28.5.2\n", 0o755)
    return box.with_docker()


def proxied(box: Box) -> tuple[Proxied, ...]:
    return gather(Host(str(box.root))).proxied


@pytest.mark.parametrize(
    ("files", "bypass"),
    [
        ({"http-proxy.conf": 'Environment="HTTPS_PROXY=http://p:3128"'}, ""),
        ({"p.conf": 'Environment="https_proxy=http://p:3128" no_proxy=a,b'}, "a,b"),
        (
            {
                "1.conf": "Environment=HTTPS_PROXY=http://p:3128 NO_PROXY=a",
                "2.conf": "Environment=NO_PROXY=b",
            },
            "b",
        ),
        ({"p.conf": "EnvironmentFile=-/etc/default/docker"}, "from.file"),
        (
            {"p.conf": "Environment=NO_PROXY=plain\nEnvironmentFile=/etc/default/do*"},
            "from.file",
        ),
    ],
)
def test_a_proxy_is_seen_in_all_places_systemd_reads(
    docker: Box, files: dict[str, str], bypass: str
) -> None:
    docker.write("/etc/default/docker", b"# c\nHTTPS_PROXY=http://p:3128\nNO_PROXY='from.file'\n")
    for name, lines in files.items():
        docker.write(f"{FOLDER}/{name}", f"[Service]\n{lines}\n".encode())
    found = proxied(docker)
    assert [(one.unit, one.https, one.bypass) for one in found] == [
        ("docker.service", "http://p:3128", bypass)
    ]


def test_what_is_taken_back_again_is_no_proxy(docker: Box) -> None:
    docker.write(f"{FOLDER}/1.conf", b"[Service]\nEnvironment=HTTPS_PROXY=http://p:3128\n")
    docker.write(f"{FOLDER}/2.conf", b"[Service]\nEnvironment=\n")
    assert proxied(docker) == ()


def test_it_is_said_with_its_cure_and_without_the_proxys_login(docker: Box) -> None:
    docker.write(f"{FOLDER}/p.conf", b"[Service]\nEnvironment=HTTPS_PROXY=http://u:secret@p:1\n")
    result = docker.apply(parts=["docker"])
    notes = [one["message"] for one in result["events"] if one["event"] == "note"]
    assert any("inv nodes.trust --fix-proxy" in note and "http://p:1" in note for note in notes)
    assert "secret" not in str(result["events"])
    assert docker.read(OURS) is None


def test_the_drop_in_keeps_what_was_there_and_goes_without_a_trace(docker: Box) -> None:
    docker.write(
        f"{FOLDER}/p.conf", b'[Service]\nEnvironment="HTTPS_PROXY=http://p:1" "NO_PROXY=a, .b"\n'
    )
    files = docker.files()
    # The engine of a laid-out tree does not run, so nothing is restarted.
    assert docker.apply(**FIX)["status"] == "changed"
    assert b'NO_PROXY="a, .b,my.registry.io"\n' in (docker.read(ENVIRONMENT) or b"")
    assert f"EnvironmentFile={ENVIRONMENT}".encode() in (docker.read(OURS) or b"")
    assert proxied(docker)[0].bypass == "a, .b,my.registry.io"
    assert docker.apply(**FIX)["status"] == "unchanged"
    docker.untrust(**FIX)
    assert docker.files() == files


def test_an_environment_file_has_the_last_word_so_ours_is_one_too(docker: Box) -> None:
    docker.write("/etc/default/docker", b"HTTPS_PROXY=http://p:1\nNO_PROXY=a\n")
    docker.write(
        UNIT, b"[Service]\nExecStart=/usr/sbin/dockerd\nEnvironmentFile=/etc/default/docker\n"
    )
    docker.apply(**FIX)
    assert proxied(docker)[0].bypass == "a,my.registry.io"


def test_a_registry_that_is_left_out_already_needs_nothing(docker: Box) -> None:
    lines = b"[Service]\nEnvironment=HTTPS_PROXY=http://p:1 NO_PROXY=.registry.io\n"
    docker.write(f"{FOLDER}/p.conf", lines)
    result = docker.apply(**FIX)
    assert docker.read(OURS) is None
    assert not [one for one in result["events"] if one["event"] == "note"]


def test_dockers_own_proxies_go_before_the_environment(docker: Box) -> None:
    docker.write(
        "/etc/docker/daemon.json", b'{"proxies": {"https-proxy": "http://p:1", "no-proxy": "a"}}'
    )
    result = docker.apply(parts=["docker"])
    notes = [one["message"] for one in result["events"] if one["event"] == "note"]
    assert any("daemon.json" in note and "no-proxy" in note for note in notes)


@pytest.mark.parametrize(
    ("bypass", "left_out"),
    [
        ("", False),
        ("*", True),
        ("my.registry.io", True),
        ("MY.registry.io", True),
        ("registry.io", True),
        (".registry.io", True),
        ("*.registry.io", True),
        (".my.registry.io", False),
        ("y.registry.io", False),
        ("my.registry.io:5000", False),
        ("my.registry.io:443", True),
        ("10.0.0.0/8, localhost", False),
        ("other, my.registry.io ", True),
    ],
)
def test_no_proxy_is_read_as_go_reads_it(bypass: str, left_out: bool) -> None:
    assert leaves_out(bypass, "my.registry.io", 443) == left_out
