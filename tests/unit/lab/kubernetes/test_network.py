"""Every node has its own pods' subnet, and a way to everybody else's."""

from __future__ import annotations

import json
from itertools import pairwise

from lab.kubernetes import network


def test_subnets_of_64_nodes_do_not_overlap_and_are_within_the_pods_network() -> None:
    subnets = [network.pod_subnet(number) for number in range(1, 65)]
    assert all(subnet.subnet_of(network.PODS) for subnet in subnets)
    assert all(not one.overlaps(other) for one, other in pairwise(subnets))
    assert not network.PODS.overlaps(network.SERVICES)


def test_a_node_has_no_route_to_itself() -> None:
    subnets = {"172.17.0.3": network.pod_subnet(1), "172.17.0.4": network.pod_subnet(2)}
    assert network.routes(subnets, own="172.17.0.3") == "10.244.2.0/24 172.17.0.4\n"
    assert network.routes(subnets) == "10.244.1.0/24 172.17.0.3\n10.244.2.0/24 172.17.0.4\n"


def test_the_network_list_names_the_plugins_that_the_package_brings() -> None:
    config = json.loads(network.cni_config(network.pod_subnet(7)))
    assert [plugin["type"] for plugin in config["plugins"]] == ["bridge", "portmap"]
    assert config["plugins"][0]["ipam"]["ranges"] == [[{"subnet": "10.244.7.0/24"}]]
