"""Where nodes of a cluster are reached: an address that two of them give leads to neither."""

from __future__ import annotations

from typing import Any

import pytest

from moorage.cluster.diagnosis import nodes
from moorage.cluster.diagnosis.nodes import ClusterNode
from moorage.errors import Refused
from moorage.fleet.inventory.selection import Selection, resolve
from moorage.fleet.ssh import routing
from moorage.settings import Settings


@pytest.fixture(autouse=True)
def no_lab(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing, "lab_hosts", lambda _: None)


def node(name: str, *addresses: tuple[str, str]) -> ClusterNode:
    listed: list[dict[str, Any]] = [{"type": kind, "address": one} for kind, one in addresses]
    return nodes.from_document({"metadata": {"name": name}, "status": {"addresses": listed}})


NAT = ("InternalIP", "10.0.2.15")


def hosts(*found: ClusterNode) -> list[str]:
    named = nodes.hosts_by_node(Settings(), found)
    # They are hosts that nodes.trust takes, and each is one of its own.
    assert len(resolve(Selection(",".join(named.values())), {}, lambda _: b"")) == len(found)
    return list(named.values())


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((NAT, ("Hostname", "a.lan")), (NAT, ("Hostname", "b.lan")), ["a.lan", "b.lan"]),
        (
            (NAT, ("Hostname", "a"), ("ExternalIP", "192.0.2.1")),
            (NAT, ("Hostname", "b"), ("ExternalIP", "192.0.2.2")),
            ["192.0.2.1", "192.0.2.2"],
        ),
        (
            (NAT, ("ExternalIP", "192.0.2.9"), ("Hostname", "a")),
            (NAT, ("ExternalIP", "192.0.2.9"), ("Hostname", "b")),
            ["a", "b"],
        ),
        (
            (NAT, ("InternalIP", "192.168.56.11"), ("Hostname", "a")),
            (NAT, ("InternalIP", "192.168.56.12"), ("Hostname", "b")),
            ["192.168.56.11", "192.168.56.12"],
        ),
        (
            (NAT, ("InternalDNS", "a.internal"), ("Hostname", "same")),
            (NAT, ("ExternalDNS", "b.example"), ("Hostname", "SAME")),
            ["a.internal", "b.example"],
        ),
    ],
)
def test_what_is_unique_is_used_in_place_of_a_shared_address(
    first: tuple[tuple[str, str], ...], second: tuple[tuple[str, str], ...], expected: list[str]
) -> None:
    other = node("c", ("InternalIP", "10.0.0.3"))
    found = node("a", *first), node("b", *second), other
    assert hosts(*found) == [*expected, "10.0.0.3"]
    (said,) = nodes.sharing(found, nodes.hosts_by_node(Settings(), found))
    assert "a and b give the same address, 10.0.2.15" in said
    assert f"reached as {', '.join(expected)}" in said


def test_nodes_with_addresses_of_their_own_are_reached_by_them() -> None:
    found = [node(name, ("InternalIP", f"10.0.0.{ord(name)}")) for name in "abc"]
    assert hosts(*found) == ["10.0.0.97", "10.0.0.98", "10.0.0.99"]
    assert nodes.sharing(found, nodes.hosts_by_node(Settings(), found)) == []


def test_nodes_that_nothing_tells_apart_are_both_named_with_the_reason() -> None:
    found = node("a", NAT), node("b", NAT, ("Hostname", "10.0.2.15")), node("c", NAT)
    with pytest.raises(Refused) as refusal:
        hosts(*found)
    assert "a, b and c give the same address, 10.0.2.15" in refusal.value.message
    assert "Vagrant" in refusal.value.cause
    assert "--node-ip" in refusal.value.cure
