"""What a node is told, and when it has to be told again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab import kubernetes
from lab.kubernetes import authority, network, worker
from lab.kubernetes.programs.binaries import Binaries
from lab.kubernetes.programs.version import parse
from lab.machines.node import LabNode
from moorage.errors import Refused
from moorage.settings import LabSettings
from tests.unit.elsewhere import project


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> worker.Plan:
    folder = tmp_path_factory.mktemp("lab")
    subnets = {"172.17.0.3": network.pod_subnet(1), "172.17.0.4": network.pod_subnet(2)}
    return worker.Plan(
        node=LabNode("lab1", "172.17.0.3", "1.6", "0" * 64),
        server=worker.server("172.17.0.2"),
        routes=network.routes(subnets, own="172.17.0.3"),
        binaries=Binaries(folder, parse("1.20.2"), "digest"),
        authority=authority.ensure(folder / "authority.pem"),
    )


def test_the_same_plan_has_the_same_record(plan: worker.Plan) -> None:
    assert plan.record == replace(plan).record


@pytest.mark.parametrize(
    "change",
    [
        {"server": "https://172.17.0.9:6443"},
        {"routes": ""},
        {"node": LabNode("lab1", "172.17.0.7", "1.6", "0" * 64)},
        {"binaries": Binaries(Path("/"), parse("1.20.2"), "another")},
        {"binaries": Binaries(Path("/"), parse("1.34.1"), "digest")},
    ],
)
def test_whatever_changes_is_in_the_record(plan: worker.Plan, change: dict[str, Any]) -> None:
    assert replace(plan, **change).record != plan.record


def test_a_cluster_made_anew_is_another_one(plan: worker.Plan, tmp_path: Path) -> None:
    other = replace(plan, authority=authority.ensure(tmp_path / "authority.pem"))
    assert other.record != plan.record


def test_what_is_compared_holds_nothing_secret(plan: worker.Plan) -> None:
    text = "".join(plan.files.values())
    assert "PRIVATE KEY" not in text
    assert "client-key-data" not in text
    assert "PRIVATE" not in repr(plan)


def test_the_kubelet_is_called_as_the_lab_calls_its_node(plan: worker.Plan) -> None:
    options = plan.files["etc/kubernetes/kubelet.arguments"].splitlines()
    assert "--hostname-override=lab1" in options
    assert "--node-ip=172.17.0.3" in options
    assert "--node-labels=moorage.dev/containerd=1.6" in options


def test_a_mix_that_the_kubelet_cannot_speak_to_is_refused_beforehand(tmp_path: Path) -> None:
    settings = project(tmp_path, lab=LabSettings(nodes="2*2"))
    with pytest.raises(Refused) as refusal:
        kubernetes.pending(settings)
    assert refusal.value.code == "no-cluster-nodes"
    assert "--nodes=1.6,1.7" in refusal.value.cure


def test_a_current_kubelet_takes_them_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    settings = project(tmp_path, lab=LabSettings(nodes="2*2", kubernetes_version="1.34.1"))
    texts = [action.text for action in kubernetes.pending(settings)]
    assert texts[-1] == "make the lab's nodes a Kubernetes cluster"
    assert [action.asks for action in kubernetes.pending(settings)] == [True, False]


@pytest.mark.parametrize("version", ["1.20", "v1.20.2", "latest", ""])
def test_a_version_in_the_settings_is_three_numbers(version: str) -> None:
    from moorage.configuration import parsing

    with pytest.raises(Refused, match=r"lab\.kubernetes_version"):
        parsing.parse({"lab": {"kubernetes_version": version}})


@pytest.mark.parametrize("place", ["http://example.org/release", "ftp://x", "example.org"])
def test_a_release_without_tls_is_refused(place: str) -> None:
    from moorage.configuration import parsing

    with pytest.raises(Refused, match=r"lab\.kubernetes_release"):
        parsing.parse({"lab": {"kubernetes_release": place}})
