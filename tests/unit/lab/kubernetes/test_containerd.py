"""A node's containerd configuration is changed by one line, and by none where none is needed."""

from __future__ import annotations

import difflib
import io
import json
import tarfile
import tomllib

import pytest

from lab.kubernetes import containerd, worker

DEBIAN = """\
version = 2

[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    [plugins."io.containerd.grpc.v1.cri".cni]
      bin_dir = "/usr/lib/cni"
      conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.internal.v1.opt"]
    path = "/var/lib/containerd"
"""
TRUSTED = """\
version = 2
# a colleague's remark
[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "/etc/containerd/certs.d" # moorage
"""


def value(text: str, plugin: str = "io.containerd.grpc.v1.cri") -> object:
    return tomllib.loads(text)["plugins"][plugin]["restrict_oom_score_adj"]


@pytest.mark.parametrize("text", [DEBIAN, TRUSTED, DEBIAN.replace("\n", "\r\n")])
def test_only_lines_are_added_and_all_others_stay(text: str) -> None:
    edited = containerd.restrict_oom(text)
    assert value(edited) is True
    diff = list(difflib.ndiff(text.splitlines(), edited.splitlines()))
    assert not [line for line in diff if line.startswith("- ")]
    before, after = tomllib.loads(text), tomllib.loads(edited)
    del after["plugins"]["io.containerd.grpc.v1.cri"]["restrict_oom_score_adj"]
    assert before == after


def test_a_second_edit_changes_nothing() -> None:
    once = containerd.restrict_oom(DEBIAN)
    assert containerd.restrict_oom(once) == once


def test_no_file_becomes_one_of_version_2() -> None:
    edited = containerd.restrict_oom("")
    assert tomllib.loads(edited)["version"] == 2
    assert value(edited) is True


@pytest.mark.parametrize("version", [3, 4, 5])
def test_a_file_of_version_3_or_newer_has_the_option_in_its_own_table(version: int) -> None:
    edited = containerd.restrict_oom(f"version = {version}\n")
    assert value(edited, "io.containerd.cri.v1.runtime") is True


def test_what_is_no_toml_is_refused() -> None:
    with pytest.raises(ValueError, match="line 1"):
        containerd.restrict_oom("[plugins\n")


@pytest.mark.parametrize(
    ("dump", "name"),
    [
        (
            '[plugins."io.containerd.grpc.v1.cri"]\nsandbox_image = "k8s.example/pause:3.6"\n',
            "k8s.example/pause:3.6",
        ),
        (
            "version = 3\n[plugins.'io.containerd.cri.v1.images'.pinned_images]\n"
            "sandbox = 'k8s.example/pause:3.10'\n",
            "k8s.example/pause:3.10",
        ),
    ],
)
def test_the_sandbox_image_is_read_as_1_x_and_2_x_name_it(dump: str, name: str) -> None:
    assert containerd.sandbox_image(dump) == name


def test_a_node_without_a_sandbox_image_is_not_guessed_at() -> None:
    with pytest.raises(ValueError, match="names no image"):
        containerd.sandbox_image("version = 2\n")


def test_the_pause_image_is_the_same_each_time_and_points_to_its_layer() -> None:
    first = containerd.pause_image(b"\x7fELF", "k8s.example/pause:3.6", architecture="amd64")
    assert first == containerd.pause_image(
        b"\x7fELF", "k8s.example/pause:3.6", architecture="amd64"
    )
    with tarfile.open(fileobj=io.BytesIO(first)) as tar:
        manifest = json.loads(tar.extractfile("manifest.json").read())[0]  # type: ignore[union-attr]
        assert manifest["RepoTags"] == ["k8s.example/pause:3.6"]
        assert set(tar.getnames()) == {"manifest.json", manifest["Config"], *manifest["Layers"]}


def test_the_option_is_needed_only_without_the_capability() -> None:
    assert worker.may_lower_oom_score("Name:\tsystemd\nCapBnd:\t000001ffffffffff\n")
    assert not worker.may_lower_oom_score("CapBnd:\t000001fffeffffff\n")
