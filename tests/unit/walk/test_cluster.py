"""What `inv up --kubernetes` says it would do, before there is a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from moorage.errors import Refused
from moorage.settings import NodesSettings, Settings
from moorage.ui import UI
from moorage.walk import cluster, phase
from moorage.walk.phase import Walk
from moorage.walk.up import KUBERNETES_PHASES, PHASES


def test_hosts_of_the_user_s_are_no_lab_and_nothing_is_begun() -> None:
    walk = Walk(Settings(nodes=NodesSettings(hosts=("node1", "node2"))), UI(as_json=True))
    with pytest.raises(Refused) as refusal:
        phase.pending(walk, [cluster.PROGRAMS])
    assert refusal.value.code == "hosts-of-yours"
    assert "k8s.secret" in refusal.value.cure


def test_it_says_that_it_gets_programs_makes_a_cluster_and_runs_a_pod(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moorage.settings.ROOT", tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    walk = Walk(Settings(), UI(as_json=True))
    actions = phase.pending(walk, [cluster.PROGRAMS, cluster.CLUSTER, cluster.WORKLOAD])
    texts = [action.text for action in actions]
    assert texts[0].startswith("get Kubernetes 1.20.2 into ")
    # Outside the repository: the user agrees first.
    assert [action.asks for action in actions] == [True, False, False, False]
    assert texts[1] == "make the lab's nodes a Kubernetes cluster"
    assert "default as Secret my-registry" in texts[2]
    assert texts[3].startswith("run private-reg in the cluster from my.registry.io/")


def test_it_is_the_walk_without_it_and_three_phases_more() -> None:
    more = [one for one in KUBERNETES_PHASES if one not in PHASES]
    assert more == [cluster.PROGRAMS, cluster.CLUSTER, cluster.WORKLOAD]
    assert [one for one in KUBERNETES_PHASES if one in PHASES] == list(PHASES)
