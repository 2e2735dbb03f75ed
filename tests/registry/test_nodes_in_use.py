"""A prune asks the agents of nodes: real agents over HTTPS, their nodes with Podman's own store."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moorage.catalogue import policy, pruning, usage
from moorage.errors import MoorageError, Refused
from moorage.fleet.rollout.fleet import Fleet
from moorage.pki.roster import Resident, Roster
from moorage.registry.storage.layout import Layout
from moorage.settings import Settings
from moorage.ui import UI
from tests.adopted import Folder, adopted_by_address
from tests.registry.program import Registry

QUIET = UI(as_json=True)
DAY = 86400.0


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Folder]:
    """A node with Podman alone, whose agent stays."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    with adopted_by_address(tmp_path) as made:
        for name in ("usr/bin/containerd", "etc/containerd", "lib/systemd/system"):
            path = made.box.root / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        made.box.write("/usr/bin/podman", b"#!/bin/sh\n", 0o755)
        yield made


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    (tmp_path / "registry").mkdir()
    made = Registry(tmp_path / "registry" / "data")
    made.data.mkdir()
    made.start()
    yield made
    made.kill()


def has(node: Folder, *names: str, ids: tuple[str, ...] = ()) -> None:
    """The node's runtime has these images, by names and by manifests' digests."""
    stored = [{"id": "0" * 64, "names": list(names), "digest": one} for one in ids or ("",)]
    path = "/var/lib/containers/storage/overlay-images/images.json"
    node.box.write(path, json.dumps(stored).encode())


def settings_of(node: Folder, registry: Registry) -> Settings:
    """The operator's settings, with that registry's folder."""
    chosen = replace(node.settings.registry, data=str(registry.data))
    nodes = replace(node.settings.nodes, retries=0)
    return replace(node.settings, registry=chosen, nodes=nodes)


def old(registry: Registry, count: int) -> list[str]:
    """Images that are a month old, v0 the oldest -> their digests."""
    digests = [registry.push("a", f"v{one}", b"layer%d" % one) for one in range(count)]
    for number in range(count):
        at = time.time() - (40 - number) * DAY
        os.utime(Layout(registry.data).tag_link("a", f"v{number}"), (at, at))
    return digests


def going(settings: Settings, **options: Any) -> set[str]:
    wanted = policy.parse("1", "", "", untagged=False)
    fleet = Fleet(settings, QUIET)
    api = usage.cluster(settings)
    plan = pruning.plan(settings, api, fleet, wanted, everything=False, **options)
    return {one.name for one in plan.going}


def test_what_a_nodes_runtime_has_is_never_pruned(node: Folder, registry: Registry) -> None:
    digests = old(registry, 4)
    settings = settings_of(node, registry)
    has(node, "my.registry.io/a:v0", ids=(digests[1],))
    assert going(settings, without_nodes=False) == {"a:v2"}
    assert going(settings, without_nodes=True) == {"a:v0", "a:v1", "a:v2"}


def test_who_was_asked_is_said(node: Folder, registry: Registry) -> None:
    has(node)
    settings = settings_of(node, registry)
    asked = usage.ask(settings, None, Fleet(settings, QUIET))
    assert asked.said_by == ("no cluster is known here", "1 of 1 nodes, by their agents")


def test_a_node_that_does_not_answer_refuses_the_prune(node: Folder, registry: Registry) -> None:
    old(registry, 2)
    node.agent.stop()
    _refused(settings_of(node, registry), "127.0.0.1")


def test_a_runtime_that_cannot_be_asked_refuses_the_prune(node: Folder, registry: Registry) -> None:
    old(registry, 2)
    has(node)
    node.box.with_docker()
    refusal = _refused(settings_of(node, registry), "127.0.0.1")
    assert "docker" in refusal.cause


def test_one_silent_node_of_two_refuses_the_prune(node: Folder, registry: Registry) -> None:
    old(registry, 2)
    has(node)
    roster = Roster(node.settings)
    roster.put("older", Resident("3" * 32, 1, "1", 2000000000, address="127.0.0.1"))
    refusal = _refused(settings_of(node, registry), "older")
    assert "127.0.0.1" not in refusal.message


def _refused(settings: Settings, name: str) -> Refused:
    with pytest.raises(Refused) as problem:
        going(settings, without_nodes=False)
    assert problem.value.code == "usage-unknown"
    assert name in problem.value.message
    assert "--without-nodes" in problem.value.cure
    return problem.value


def test_a_clock_that_is_off_refuses_the_prune(
    node: Folder, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    old(registry, 2)
    has(node)
    settings = settings_of(node, registry)
    now = time.time()
    for hours in (-2, 2):
        monkeypatch.setattr(time, "time", lambda hours=hours: now + hours * 3600)
        with pytest.raises(Refused) as problem:
            usage.ask(settings, None, Fleet(settings, QUIET))
        assert problem.value.code == "clock-off"
        assert "2.0 hours apart" in problem.value.message


def test_a_push_of_the_future_refuses_the_prune(node: Folder, registry: Registry) -> None:
    old(registry, 2)
    at = time.time() + 5 * DAY
    os.utime(Layout(registry.data).tag_link("a", "v1"), (at, at))
    with pytest.raises(Refused) as problem:
        going(settings_of(node, registry), without_nodes=True)
    assert problem.value.code == "clock-off"
    assert "a:v1" in problem.value.message


def test_a_fleet_that_cannot_be_gone_to_refuses_and_the_cluster_counts(
    node: Folder, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere(*_: object, **__: object) -> None:
        raise MoorageError("no-ssh", "there is no way to any node")

    old(registry, 2)
    monkeypatch.setattr(Fleet, "run", nowhere)
    settings = settings_of(node, registry)
    assert "no way" in _refused(settings, "127.0.0.1").cause

    def by_cluster(_: object, found: set[str], known: set[str]) -> str:
        """A stand-in for a cluster that has the node and says what it uses."""
        found.add("my.registry.io/a:v0")
        known.add("127.0.0.1")
        return "the cluster"

    monkeypatch.setattr(usage, "cluster", lambda _: object())
    monkeypatch.setattr(usage, "_cluster", by_cluster)
    assert going(settings, without_nodes=False) == set()
