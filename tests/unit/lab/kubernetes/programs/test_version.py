"""What differs between Kubernetes versions is in tables, and the tables say what was measured."""

from __future__ import annotations

import pytest

from lab.kubernetes import control, worker
from lab.kubernetes.programs import version
from lab.kubernetes.programs.version import Version, parse


@pytest.mark.parametrize("text", ["1.20.2", "v1.20.2", "Kubernetes v1.20.2\n", "v1.20.2-k3s1"])
def test_versions_are_read_as_programs_and_people_write_them(text: str) -> None:
    assert parse(text) == Version(1, 20, 2)


@pytest.mark.parametrize("text", ["", "1.20", "latest", "1.20.2.1", "kubelet 1.20.2"])
def test_anything_else_is_no_version(text: str) -> None:
    with pytest.raises(ValueError, match="not a version"):
        parse(text)


@pytest.mark.parametrize(
    ("kubelet", "lines"),
    [
        ("1.20.2", ("1.6", "1.7")),
        ("1.22.17", ("1.6", "1.7")),
        ("1.23.0", ("1.6", "1.7", "2")),
        ("1.34.1", ("1.6", "1.7", "2")),
    ],
)
def test_an_old_kubelet_cannot_speak_to_containerd_2(kubelet: str, lines: tuple[str, ...]) -> None:
    assert version.lines(parse(kubelet)) == lines


def test_options_that_a_version_does_not_know_are_not_given_to_it() -> None:
    old, new = parse("1.20.2"), parse("1.34.1")
    assert "--container-runtime=remote" in version.kubelet_flags(old)
    assert version.kubelet_flags(new) == ()
    assert version.kubelet_keys(old) == {}
    assert version.kubelet_keys(new)["containerRuntimeEndpoint"].startswith("unix://")
    assert "--port=0" in control.arguments(old)["kube-scheduler"]
    assert "--port=0" not in control.arguments(new)["kube-scheduler"]


def test_a_current_kubelet_accepts_a_machine_with_old_control_groups() -> None:
    assert worker.kubelet_config(parse("1.34.1"))["failCgroupV1"] is False
    assert "failCgroupV1" not in worker.kubelet_config(parse("1.20.2"))


def test_no_port_answers_without_authentication() -> None:
    options = control.arguments(parse("1.20.2"))
    assert "--authorization-mode=Node,RBAC" in options["kube-apiserver"]
    assert "--enable-admission-plugins=NodeRestriction" in options["kube-apiserver"]
    for name in ("kube-controller-manager", "kube-scheduler"):
        assert "--bind-address=127.0.0.1" in options[name]
    config = worker.kubelet_config(parse("1.20.2"))
    assert config["authentication"]["anonymous"] == {"enabled": False}
    assert config["authorization"] == {"mode": "Webhook"}
