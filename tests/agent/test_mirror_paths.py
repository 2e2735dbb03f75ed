"""A mirror whose images lie below a path of ours: what runtimes are told, and what goes again."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from agent.edit.toml import parse
from agent.formats import hosts_toml, registries_conf
from agent.runtimes import docker
from agent.wire.faults import PlanError
from agent.wire.plan import Mirror, Plan
from tests.agent.conftest import Box
from tests.agent.test_runtimes import BUILDKITD, CASES, K3S, lay_out, only

BELOW: list[dict[str, Any]] = [{"of": "docker.io", "path": "team/docker.io"}]
FIRM: list[dict[str, Any]] = [{"of": "quay.io", "fallback": False, "path": "quay.io"}]
URL = "https://my.registry.io/v2/team/docker.io"


def test_the_path_survives_the_wire_and_a_plan_without_one_stays_as_it_was(box: Box) -> None:
    plan = box.plan(mirrors=BELOW)
    assert plan.mirrors == (Mirror("docker.io", path="team/docker.io"),)
    assert Plan.parse(json.dumps(plan.to_json()).encode()) == plan
    old = box.plan(mirrors=[{"of": "docker.io"}])
    assert old.mirrors[0].place(old.registry) == "my.registry.io"
    # Agents from before it refuse a field that they do not know.
    assert list(old.to_json()["mirrors"]) == [{"of": "docker.io", "fallback": True}]


@pytest.mark.parametrize(
    "path", ["/x", "x/", "x//y", "X", "../x", 'x"', "x y", "x\n", "{registry}"]
)
def test_a_path_that_is_none_is_refused(box: Box, path: str) -> None:
    with pytest.raises(PlanError, match="not a path"):
        box.plan(mirrors=[{"of": "docker.io", "path": path}])


def test_containerd_takes_the_path_as_it_is(box: Box) -> None:
    plan = box.plan(mirrors=[*BELOW, *FIRM])
    first, second = (hosts_toml.mirror(plan.registry, one, "/ca.crt") for one in plan.mirrors)
    ours = {"capabilities": ["pull", "resolve"], "override_path": True, "ca": "/ca.crt"}
    assert parse(first) == {"server": "https://registry-1.docker.io", "host": {URL: ours}}
    url = "https://my.registry.io/v2/quay.io"
    expected = {"server": url, "override_path": True, "ca": "/ca.crt", "host": {url: ours}}
    assert parse(second) == expected


def test_a_registry_without_tls_has_no_ca_there(box: Box) -> None:
    plan = box.plan(mirrors=FIRM)
    registry = replace(plan.registry, insecure="http", ca=None, port=5000)
    url = "http://my.registry.io:5000/v2/quay.io"
    ours = {"capabilities": ["pull", "resolve"], "override_path": True}
    assert parse(hosts_toml.mirror(registry, plan.mirrors[0], "")) == {
        "server": url,
        "override_path": True,
        "host": {url: ours},
    }


def test_podman_and_crio_get_a_location_with_it(box: Box) -> None:
    plan = box.plan(mirrors=[*BELOW, *FIRM])
    first, second = (registries_conf.mirror_table(one, plan.registry) for one in plan.mirrors)
    (table,) = parse(first.encode())["registry"]
    assert table["mirror"] == [{"location": "my.registry.io/team/docker.io"}]
    (table,) = parse(second.encode())["registry"]
    assert (table["prefix"], table["location"]) == ("quay.io", "my.registry.io/quay.io")


def test_k3s_and_buildkit_get_it_in_their_own_words(box: Box) -> None:
    lay_out(box, "k3s").apply(**only("k3s", mirrors=BELOW))
    assert f'- "{URL}"' in (box.read(K3S) or b"").decode()
    lay_out(box, "buildkit").apply(**only("buildkit", mirrors=BELOW))
    tables = parse(box.read(BUILDKITD) or b"")["registry"]
    assert tables["docker.io"]["mirrors"] == ["my.registry.io/team/docker.io"]
    # The same path alone asks at another place, so it is not enough.
    changed = box.apply(**only("buildkit", mirrors=[{"of": "docker.io"}]))
    assert changed["status"] == "changed" or changed["code"] == "buildkitd-foreign"


@pytest.mark.parametrize("name", CASES)
def test_it_comes_and_goes_without_a_trace(box: Box, name: str) -> None:
    part = CASES[name][0]
    lay_out(box, name)
    files, folders = box.files(), box.folders()
    assert box.apply(**only(part, mirrors=BELOW))["status"] == "changed"
    assert box.apply(**only(part, mirrors=BELOW))["status"] == "unchanged"
    box.untrust(**only(part, mirrors=BELOW))
    assert (box.files(), box.folders()) == (files, folders)


@pytest.mark.parametrize("name", ["crio", "podman", "microk8s"])
def test_a_node_of_before_gets_it_by_a_second_apply(box: Box, name: str) -> None:
    part = CASES[name][0]
    lay_out(box, name)
    files = box.files()
    box.apply(**only(part, mirrors=[{"of": "docker.io"}]))
    assert box.apply(**only(part, mirrors=BELOW))["status"] == "changed"
    written = b"\n".join(box.files().values())
    assert b"my.registry.io/team/docker.io" in written or URL.encode() in written
    box.untrust(**only(part, mirrors=BELOW))
    assert box.files() == files


def test_docker_says_that_its_mirror_takes_no_path(box: Box) -> None:
    (note,) = docker._unspeakable(box.plan(mirrors=BELOW, verify=None))
    assert "cannot take a path" in note
    assert "my.registry.io/team/docker.io" in note
    assert docker._unspeakable(box.plan(mirrors=[{"of": "docker.io"}], verify=None)) == []
