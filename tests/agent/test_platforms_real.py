"""The demo image as one index of two platforms, by a real containerd of each line: pulled and run.

It needs Debian's archive and the package index, and takes the images that `inv up` has built.
"""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("invoke", reason="moorage, which builds the image, wants a newer Python")

import docker

from moorage.images import demo
from moorage.platforms import PLATFORMS
from moorage.settings import ImageSettings
from moorage.ui import UI
from tests.agent.authority import Authority
from tests.agent.real import NAME, PASSWORD, USER, Node, Registry, plan
from tests.agent.test_real import client, machine, node
from tests.agent.test_runtimes_real import registry_image
from tests.images.upstream import environment
from tests.unit.elsewhere import registry_project

__all__ = ["client", "machine", "node"]
pytestmark = pytest.mark.engine
BOTH = ("linux/amd64", "linux/arm64")


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `image.build --platform=linux/amd64,linux/arm64` makes."""
    made = registry_project(tmp_path_factory.mktemp("project"))
    settings = replace(made, image=ImageSettings(platforms=BOTH))
    return Path(demo.build(settings, no_engine, UI(yes=True).progress).layout)


def no_engine() -> Any:
    raise AssertionError("an engine was asked for")


@pytest.fixture(scope="module")
def served(client: docker.DockerClient, layout: Path, tmp_path_factory: Any) -> Iterator[Registry]:
    made = Registry(client, registry_image(client), Authority())
    try:
        there = f"docker://127.0.0.1:{made.port}/serve_hostname:both"
        words = ["skopeo", "copy", "--all", "--preserve-digests", "--quiet"]
        words += ["--dest-tls-verify=false", f"--dest-creds={USER}:{PASSWORD}"]
        known = environment(tmp_path_factory.mktemp("home"))
        subprocess.run([*words, f"oci:{layout}", there], check=True, env=known)
        yield made
    finally:
        made.container.remove(force=True, v=True)


def layers(layout: Path, name: str) -> set[str]:
    """The digests of the layers of one platform's member."""

    def read(digest: str) -> Any:
        return json.loads((layout / "blobs/sha256" / digest.removeprefix("sha256:")).read_bytes())

    (listed,) = json.loads((layout / "index.json").read_bytes())["manifests"]
    rows = read(listed["digest"])["manifests"]
    (row,) = (one for one in rows if one["platform"] == PLATFORMS[name].described)
    return {str(one["digest"]) for one in read(row["digest"])["layers"]}


def test_the_member_of_the_node_s_platform_is_pulled_and_runs(
    node: Node, served: Registry, layout: Path
) -> None:
    image = f"{NAME}/serve_hostname:both"
    trusted = node.agent("apply", plan(served, image))
    assert (trusted.code, trusted.result["verified"]) == (0, True), trusted
    (own,) = (name for name in BOTH if PLATFORMS[name].machine == platform.machine())
    (other,) = set(BOTH) - {own}
    held = set(node.sh("ctr -n k8s.io content ls -q")[1].split())
    assert layers(layout, own) <= held
    assert not layers(layout, other) & held
    code, said = node.sh(
        f"ctr -n k8s.io run -d --net-host {image} both && for try in $(seq 60); do python3 -c"
        " 'import urllib.request as u;"
        ' print(u.urlopen("http://127.0.0.1:8080/").read().decode())\' 2>/dev/null && break;'
        " sleep 0.5; done"
    )
    try:
        assert (code, said.strip()) == (0, node.sh("hostname")[1].strip())
    finally:
        node.sh(
            "ctr -n k8s.io tasks kill -s KILL both; sleep 0.5; ctr -n k8s.io tasks rm -f both;"
            f" ctr -n k8s.io containers rm both; ctr -n k8s.io images rm {image}"
        )
