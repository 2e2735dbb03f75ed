"""What a part says of itself: the strategy taken, and why."""

from __future__ import annotations

from agent.facts import gather
from agent.formats.proposal import Explained
from agent.node.host import Host
from agent.runtimes import docker
from agent.system import hosts
from tests.agent.conftest import Box


def test_docker_tells_where_the_ca_comes_or_already_is(box: Box) -> None:
    assert docker.explain(gather(Host(str(box.root))), box.plan()) == (
        Explained("docker", "certs.d", False, "there is no Docker Engine here"),
    )
    box.with_docker()
    facts = gather(Host(str(box.root)))
    assert "comes into /etc/docker/certs.d" in docker.explain(facts, box.plan())[0].why
    box.apply(parts=["docker"])
    facts = gather(Host(str(box.root)))
    assert "has the CA" in docker.explain(facts, box.plan())[0].why


def test_the_hosts_file_tells_of_an_entry_that_is_anothers(box: Box) -> None:
    facts = gather(Host(str(box.root)))
    assert [one.strategy for one in hosts.explain(facts, box.plan())] == ["entry"]
    left = box.plan(registry={"address": None})
    assert [one.strategy for one in hosts.explain(facts, left)] == ["left-to-dns"]
    box.write("/etc/hosts", b"10.0.0.9 my.registry.io\n")
    found = hosts.explain(gather(Host(str(box.root))), box.plan())[0]
    assert (found.strategy, found.applies) == ("refused", True)
    assert "hosts-conflict" in found.why
