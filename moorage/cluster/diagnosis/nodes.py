"""The cluster as inventory: addresses, runtimes, and which nodes trust the registry, by what proof.

What the agents of ``k8s.agents`` know of their node is in its annotation ``moorage.dev/trusted``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from moorage.cluster.api import paths
from moorage.cluster.api.refusals import ApiError
from moorage.cluster.symptoms import causes
from moorage.cluster.symptoms.evidence import (
    AGENT,
    FAILED,
    PULLED,
    SET_UP,
    TRUST_CODES,
    UNDONE,
    UNTRUSTED,
    Clocks,
    Evidence,
    judged,
    node_of,
    seconds,
    shown,
    told,
)
from moorage.cluster.symptoms.stuck import containers
from moorage.errors import Refused
from moorage.fleet.report import deeds, logbook

if TYPE_CHECKING:
    from moorage.cluster.api.client import Api
    from moorage.fleet.report.deeds import Deed
    from moorage.settings import Settings

TRUSTED = "moorage.dev/trusted"
UNTRUSTED_TAINT = "moorage.dev/untrusted"


@dataclass(frozen=True)
class ClusterNode:
    """A node as the API reports it. ``address``: where it is reached from inside the cluster's net.

    ``others``: its further addresses and names, those first that are more likely to be reached.
    ``runtime`` as ``containerd 2.1.9``; ``trusted``: by registry, when an agent last proved it;
    ``created``: when the Node was made, in seconds since 1970, 0.0 for unknown.
    """

    name: str
    address: str
    host_name: str
    runtime: str
    kubelet: str
    platform: str
    ready: bool
    tainted: bool = False
    trusted: Mapping[str, str] = field(default_factory=dict)
    others: tuple[str, ...] = ()
    created: float = 0.0


@dataclass(frozen=True)
class TrustProof:
    """Whether a node trusts the registry (None: unknown), and what says so."""

    node: ClusterNode
    trusts: bool | None
    by: str
    words: str

    def to_json(self) -> dict[str, Any]:
        node = self.node
        return {
            "name": node.name,
            "address": node.address,
            "runtime": node.runtime,
            "kubelet": node.kubelet,
            "platform": node.platform,
            "ready": node.ready,
            "tainted": node.tainted,
            "trusts": self.trusts,
            "by": self.by,
            "proof": self.words,
        }


def addresses(api: Api, selector: str = "") -> tuple[ClusterNode, ...]:
    """The cluster's nodes, those with these labels.

    Raises Refused if there is none; ApiError where nodes may not be listed.
    """
    listed = api.items(paths.all_of("Node"), "list nodes", selector=selector)
    nodes = tuple(from_document(document) for document in listed)
    if not nodes:
        raise Refused(
            "no-nodes",
            f"no node of {api.where.context}" + (f" has the labels {selector}" if selector else ""),
            cause="the selector fits none" if selector else "the cluster has none yet",
            cure="look at them: kubectl get nodes --show-labels",
        )
    return nodes


def linux(nodes: Sequence[ClusterNode]) -> tuple[ClusterNode, ...]:
    """Those that the agent runs on. Raises Refused if it is none. Pure."""
    found = tuple(node for node in nodes if node.platform.startswith("linux"))
    if not found:
        raise Refused(
            "no-nodes",
            "none of these nodes runs Linux",
            cause=f"{nodes[0].name} is {nodes[0].platform or 'of an unknown platform'}",
            cure="leave --selector out, or choose others by it",
        )
    return found


def described(nodes: Sequence[ClusterNode]) -> str:
    """``3 nodes: 2 with containerd 1.7.24 and kubelet v1.33.1, one with …``. Pure."""
    kinds = Counter(f"{node.runtime} and kubelet {node.kubelet}" for node in nodes)
    words = [
        f"{count if count > 1 else 'one'} with {kind}" for kind, count in sorted(kinds.items())
    ]
    return f"{_counted(len(nodes))}: {', '.join(words)}"


def _counted(count: int) -> str:
    return "one node" if count == 1 else f"{count} nodes"


def hosts_by_node(settings: Settings, nodes: Sequence[ClusterNode]) -> dict[str, str]:
    """Node name -> what ``nodes.trust`` takes: its address, but lab nodes by their name.

    The lab's OpenSSH configuration knows its names, and the host keys by them. An address that two
    nodes give is no way to either. Raises Refused if nothing else of such a node is unique.
    """
    from moorage.fleet.ssh.routing import lab_hosts

    lab = lab_hosts(settings)
    known = set(lab.in_order) if lab is not None else set()
    shared = _shared(nodes)
    return {
        node.name: node.name if node.name in known else _unique(node, nodes, shared)
        for node in nodes
    }


def _shared(nodes: Sequence[ClusterNode]) -> dict[str, list[str]]:
    """Addresses that several nodes give, with the names of those. Pure."""
    found: dict[str, list[str]] = {}
    for node in nodes:
        found.setdefault(node.address.lower(), []).append(node.name)
    return {address: names for address, names in found.items() if len(names) > 1}


def _unique(
    node: ClusterNode, nodes: Sequence[ClusterNode], shared: Mapping[str, Sequence[str]]
) -> str:
    """What of the node is no other's. Pure; raises Refused."""
    if node.address.lower() not in shared:
        return node.address
    theirs = {
        address.lower()
        for other in nodes
        if other.name != node.name
        for address in (other.address, *other.others)
    }
    for address in node.others:
        if address.lower() not in theirs:
            return address
    names = _listed(shared[node.address.lower()])
    raise Refused(
        "same-address",
        f"{names} give the same address, {node.address}",
        cause="their kubelets took it from a network that is each machine's own (Vagrant's first "
        f"one, most of the time), and {node.name} has no other address or name that is unique",
        cure="name the nodes by what reaches them: --hosts=...; for good: --node-ip of the kubelet",
    )


def sharing(nodes: Sequence[ClusterNode], hosts: Mapping[str, str]) -> list[str]:
    """What to say of addresses that several nodes give: a line per address. Pure."""
    return [
        f"{_listed(names)} give the same address, {address}, which leads to none of them for sure; "
        f"they are reached as {', '.join(hosts[name] for name in names)}"
        for address, names in _shared(nodes).items()
    ]


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


def from_document(document: Mapping[str, Any]) -> ClusterNode:
    """A Node object -> what of it matters here. Pure."""
    metadata, status = document["metadata"], document.get("status") or {}
    by_kind: dict[str, str] = {}
    for one in status.get("addresses") or ():
        by_kind.setdefault(one.get("type", ""), one.get("address", ""))
    info = status.get("nodeInfo") or {}
    name = metadata["name"]
    address = by_kind.get("InternalIP") or by_kind.get("ExternalIP") or name
    return ClusterNode(
        name=name,
        address=address,
        others=_other_addresses(status, address),
        host_name=by_kind.get("Hostname") or name,
        runtime=info.get("containerRuntimeVersion", "").replace("://", " "),
        kubelet=info.get("kubeletVersion", ""),
        platform=f"{info.get('operatingSystem', '')}/{info.get('architecture', '')}".strip("/"),
        ready=any(
            one.get("type") == "Ready" and one.get("status") == "True"
            for one in status.get("conditions") or ()
        ),
        tainted=any(
            one.get("key") == UNTRUSTED_TAINT
            for one in (document.get("spec") or {}).get("taints") or ()
        ),
        trusted=_trusted((metadata.get("annotations") or {}).get(TRUSTED, "")),
        created=seconds(metadata.get("creationTimestamp")),
    )


_REACHED_BY = ("InternalIP", "ExternalIP", "ExternalDNS", "InternalDNS", "Hostname")


def _other_addresses(status: Mapping[str, Any], taken: str) -> tuple[str, ...]:
    listed = status.get("addresses") or ()
    found = [
        one.get("address", "") for kind in _REACHED_BY for one in listed if one.get("type") == kind
    ]
    return tuple(dict.fromkeys(address for address in found if address and address != taken))


def prove(api: Api, settings: Settings, selector: str = "") -> list[TrustProof]:
    """Every node, with what is known of its trust in our registry."""
    nodes = addresses(api, selector)
    registry = settings.registry_name
    found: dict[str, list[Evidence]] = {node.name: [] for node in nodes}
    clocks = Clocks()
    for name, one in _events(api, registry, clocks):
        if name in found:
            found[name].append(one)
    for name, one in _stuck_now(api, registry, found):
        found[name].append(one)
    known = deeds.deeds(logbook.folder(settings), registry)
    for node in nodes:
        names = _names_of(node, nodes)
        found[node.name] += [
            _of_deed(deed, api.ahead)
            for deed in known
            if deed.result.ok and names & {deed.host, deed.address}
        ]
        if when := node.trusted.get(registry):
            at = clocks.by_server(node.name, seconds(when))
            found[node.name].append(Evidence(at, True, AGENT, f"its agent proved it at {when}"))
    return [TrustProof(node, *judged(found[node.name], node.created)) for node in nodes]


def _names_of(node: ClusterNode, nodes: Sequence[ClusterNode]) -> set[str]:
    """What a command of ours may have called this node, and no other. Pure."""
    theirs = {
        address
        for other in nodes
        if other.name != node.name
        for address in (other.address, *other.others)
    }
    return {node.name, node.host_name, node.address, *node.others} - theirs


def _of_deed(deed: Deed, ahead: float) -> Evidence:
    """What a command of ours did on a node -> what that says of its trust. Pure."""
    when, at = deed.at + ahead, f"at {shown(deed.at + ahead)}"
    if deed.verb.endswith("untrust"):
        return Evidence(when, False, UNTRUSTED, f"{_COMMANDS[deed.verb]} left no trust {at}")
    if deed.verb == "undo":
        words = f"inv nodes.undo took the last change back {at}; nothing was pulled there since"
        return Evidence(when, None, UNDONE, words)
    if deed.result.verified and deed.result.pull_seconds is not None:
        return Evidence(when, True, PULLED, f"inv nodes.trust proved it by a pull {at}")
    words = f"inv nodes.trust set it up {at}; nothing was pulled there since"
    return Evidence(when, None, SET_UP, words)


# Verbs of the logbook -> what was typed.
AGENTS_UNTRUST = "agents-untrust"
_COMMANDS = {
    "untrust": "inv nodes.untrust",
    AGENTS_UNTRUST: "inv k8s.agents --remove --untrust",
}


def _events(api: Api, registry: str, clocks: Clocks) -> list[tuple[str, Evidence]]:
    """What kubelets reported of pulls from the registry, by node, and how their clocks go."""
    heard: list[tuple[str, tuple[float, bool, str]]] = []
    try:
        for event in api.items(
            paths.all_of("Event"), "list events", fields="involvedObject.kind=Pod"
        ):
            clocks.learn(event)
            said = told(event, registry)
            if said is not None:
                heard.append((node_of(event), said))
    except ApiError as problem:
        if problem.status != 403:
            raise
    return [
        (node, Evidence(at, well, PULLED if well else FAILED, f"{words} ({shown(at)})"))
        for node, (when, well, words) in heard
        for at in [clocks.by_server(node, when)]
    ]


def _stuck_now(
    api: Api, registry: str, found: Mapping[str, Sequence[Evidence]]
) -> list[tuple[str, Evidence]]:
    """Pods that miss the trust, on nodes where no event tells when they last tried."""
    silent = {name for name, known in found.items() if not known}
    waiting = []
    for pod in api.items(paths.all_of("Pod"), "list pods", fields=paths.ALIVE) if silent else ():
        node = (pod.get("spec") or {}).get("nodeName", "")
        for one in containers(pod) if node in silent else ():
            code = causes.classify(one.words).code if one.words else ""
            ours = causes.same_registry(causes.registry_of(one.image), registry)
            if ours and code in TRUST_CODES:
                words = f"{one.name} cannot pull there: {code}"
                waiting.append((node, Evidence(_NOW, False, FAILED, words)))
    return waiting


# Later than anything that bears a time.
_NOW = float("inf")


def _trusted(annotation: str) -> dict[str, str]:
    try:
        found = json.loads(annotation or "{}")
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {str(registry): str(when) for registry, when in found.items()}
