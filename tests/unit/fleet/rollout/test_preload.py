"""The shell's part of `nodes.preload`, with programs that stand in for the runtimes' own clients.

Real runtimes take an image in the journey (tests/k8s).
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from moorage.fleet.rollout import preload
from moorage.settings import ROOT

ID = "sha256:" + "a" * 64
# Keeps what it was given in a file, and tells of it as the real one does.
CTR = """#!/bin/sh
case "$*" in
    "plugins ls"*) ;;
    *"plugins ls") echo "io.containerd.grpc.v1   cri   linux/amd64   ok  " ;;
    *"images import -") [ ! -e refuses ] || { echo "no space left on device" >&2; exit 1; }
        cat >ctr.tar ;;
    *"images ls"*) echo REF; [ ! -s ctr.tar ] || echo "reg.example/a:1 type sha256:m" ;;
    *"content get sha256:m") cat ctr.tar ;;
esac
"""
DOCKER = """#!/bin/sh
case "$1" in
    load) cat >docker.tar ;;
    image) [ -s docker.tar ] && cat docker.tar ;;
esac
"""


class Node:
    def __init__(self, folder: Path, **programs: str) -> None:
        self.folder = folder
        for name, text in programs.items():
            path = folder / name
            path.write_text(text)
            path.chmod(0o755)

    def run(self, mode: str, stdin: str = "") -> tuple[list[dict[str, Any]], int, str]:
        done = subprocess.run(
            ["sh", "-c", preload.words(mode, "reg.example/a:1", ID)],
            input=stdin,
            capture_output=True,
            text=True,
            cwd=self.folder,
            env={"PATH": f"{self.folder}:{os.environ['PATH']}"},
            check=False,
        )
        return [json.loads(line) for line in done.stdout.splitlines()], done.returncode, done.stderr


# This machine may have a ctr and an engine of its own.
NONE = "#!/bin/sh\nexit 1\n"


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path, ctr=CTR, docker=NONE, podman=NONE, k3s=NONE)


def test_an_image_that_is_lacking_is_loaded_and_then_there(node: Node) -> None:
    events, code, _ = node.run("look")
    assert events == [{"event": "runtimes", "all": "containerd", "lacking": "containerd"}]
    assert code == 0
    events, code, said = node.run("load", ID)
    assert (events[-1], code) == ({"event": "loaded"}, 0), said
    events, _, _ = node.run("look")
    assert events[0]["lacking"] == ""


def test_two_runtimes_get_the_same_archive(node: Node) -> None:
    (node.folder / "docker").write_text(DOCKER)
    events, code, said = node.run("load", ID)
    assert (events[-1], code) == ({"event": "loaded"}, 0), said
    assert events[0]["lacking"] == "containerd docker"
    assert (node.folder / "ctr.tar").read_text() == (node.folder / "docker.tar").read_text() == ID
    assert not list(Path("/var/tmp").glob("moorage-preload.*"))


def test_a_runtime_that_refuses_says_why(node: Node) -> None:
    (node.folder / "refuses").touch()
    events, code, said = node.run("load", ID)
    assert code == 1
    assert "no space left on device" in said
    assert {"event": "loaded"} not in events


def test_an_archive_of_something_else_is_noticed(node: Node) -> None:
    events, code, said = node.run("load", "another image")
    assert code == 1
    assert "does not know reg.example/a:1" in said
    assert {"event": "loaded"} not in events


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("my.registry.io/a:1", "my.registry.io/a:1"),
        ("python:3.13-slim", "docker.io/library/python:3.13-slim"),
        ("grafana/loki:3", "docker.io/grafana/loki:3"),
        ("localhost/a:1", "localhost/a:1"),
    ],
)
def test_names_are_as_containerd_has_them(name: str, full: str) -> None:
    assert preload.in_full(name) == full


def test_the_words_fit_on_a_command_line() -> None:
    # Linux takes 128 KiB for one argument (MAX_ARG_STRLEN); sudo's quoting makes it longer.
    assert len(preload.words("load", "r" * 255, ID)) < 8 << 10


def test_an_image_that_is_nowhere_is_refused() -> None:
    done = subprocess.run(
        [str(ROOT / "run"), "inv", "nodes.preload", "--hosts=a", "--json"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["code"] == "wrong-use"
