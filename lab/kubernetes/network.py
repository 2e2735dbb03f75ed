"""Addresses of the lab's cluster: which node's pods live where, and how one finds the other's.

Each node has a subnet of its own on a bridge, and a route to every other node's subnet; so has the
control plane, whose proxy reaches pods. Nothing of it is seen outside the lab's containers.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping

PODS = ipaddress.IPv4Network("10.244.0.0/16")
SERVICES = ipaddress.IPv4Network("10.96.0.0/16")
# The service "kubernetes" gets the first address.
API_SERVICE = SERVICES[1]


def pod_subnet(number: int) -> ipaddress.IPv4Network:
    """The pods' subnet of the lab's node ``number`` (1 to 254)."""
    base = int(PODS.network_address) + (number << 8)
    return ipaddress.IPv4Network((base, 24))


def cni_config(subnet: ipaddress.IPv4Network) -> str:
    """A CNI network list: https://www.cni.dev/docs/spec/#configuration-format.

    ``ipMasq``: to the world outside, a pod has its node's address.
    """
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": str(subnet)}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}
    network = {"cniVersion": "0.4.0", "name": "moorage-lab", "plugins": [bridge, portmap]}
    return json.dumps(network, indent=2) + "\n"


def routes(subnets: Mapping[str, ipaddress.IPv4Network], *, own: str = "") -> str:
    """Lines of ``SUBNET GATEWAY`` for everybody's pods but our ``own``.

    ``subnets``: a node's address -> its pods' subnet.
    """
    others = sorted((subnet, address) for address, subnet in subnets.items() if address != own)
    return "".join(f"{subnet} {address}\n" for subnet, address in others)
