"""What of the registry is in use: asked of the cluster, and of the nodes.

Every answer counts, of whatever registry it speaks: a node may know ours by several names, or ask
it as a mirror of another. What cannot be asked ends in a refusal: it might use anything.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from moorage.catalogue.retention import InUse
from moorage.errors import MoorageError, Refused
from moorage.references import DIGEST, HUB, below, is_registry, split

if TYPE_CHECKING:
    from moorage.cluster.api.client import Api
    from moorage.fleet.inventory import Target
    from moorage.fleet.rollout.fleet import Fleet
    from moorage.settings import Settings

# What has a pod template of its own: a rollback starts an old one again.
_TEMPLATES = (
    *("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "ReplicationController"),
    *("Job", "CronJob", "ControllerRevision"),
)
# A node at the edge may be some minutes off; that changes no verdict that counts in days.
_CLOCKS_APART = 3600
_CONTAINERS = ("containers", "initContainers", "ephemeralContainers")
_STATUSES = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")


@dataclass(frozen=True)
class ImagesInUse:
    """What is in use, and who said so: a word for the cluster and one for the nodes."""

    in_use: InUse
    said_by: tuple[str, ...]


def references(words: Iterable[str], mirror_path: str = "{registry}") -> InUse:
    """References and image ids as runtimes and manifests have them -> what they name. Pure.

    An image of another registry is named where it lands here, too: by ``nodes.mirror_path``.

    ``REGISTRY/a/b:tag``, ``a@sha256:…``, ``docker-pullable://…`` and a bare ``sha256:…`` are known.
    No tag means ``latest``; no registry means Docker Hub, which leaves ``library/`` unsaid.
    """
    tags: set[tuple[str, str]] = set()
    digests: set[str] = set()
    for word in words:
        name = word.partition("://")[2] or word
        digests |= set(DIGEST.findall(name))
        path, tag, digest = split(name)
        if not DIGEST.fullmatch(name) and (tag or not digest):
            tags |= {(one, tag or "latest") for one in _repositories(path, mirror_path)}
    return InUse(frozenset(tags), frozenset(digests))


def of_objects(documents: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Every image that a Kubernetes object names, in templates, statuses and nodes' lists. Pure."""
    for document in documents:
        yield from _in_spec(document)
        status = document.get("status") or {}
        for key in _STATUSES:
            for one in status.get(key) or ():
                yield from (one.get("image") or "", one.get("imageID") or "")
        for one in status.get("images") or ():
            yield from one.get("names") or ()


def ask(
    settings: Settings, api: Api | None, fleet: Fleet, *, without_nodes: bool = False
) -> ImagesInUse:
    """Asks the cluster, if there is one, then by ``fleet`` the agent of every known node.

    What a node of the cluster uses the cluster says too, so that one of those may be silent.
    Raises MoorageError if there is a cluster that does not answer; Refused (``usage-unknown``) if
    another node, or a runtime of one, cannot be asked, unless such nodes do not count;
    (``clock-off``) if a node's clock and this machine's are far apart.
    """
    found: set[str] = set()
    known: set[str] = set()
    said = ["no cluster is known here" if api is None else _cluster(api, found, known)]
    targets = _nodes(settings)
    if without_nodes:
        outside = [one for one in targets if one.host not in known]
        said.append(f"{len(outside)} nodes were not asked" if outside else "no node is left")
        return ImagesInUse(references(filter(None, found), settings.nodes.mirror_path), tuple(said))
    older: set[str] = set()
    unasked = _agents(fleet, targets, found, older)
    there = {target.name for target in targets if target.host in known}
    silent = {name: why for name, why in unasked.items() if name not in there}
    if silent:
        raise _unknown(silent, [name for name in sorted(silent) if name in older])
    if targets:
        said.append(f"{len(targets) - len(unasked)} of {len(targets)} nodes, by their agents")
    return ImagesInUse(references(filter(None, found), settings.nodes.mirror_path), tuple(said))


def _nodes(settings: Settings) -> list[Target]:
    """Every node that is known to trust the registry."""
    from moorage.fleet import choose_hosts
    from moorage.fleet.ssh import routing
    from moorage.pki.roster import Roster

    named = choose_hosts(settings) if settings.nodes.hosts else ()
    known = {target.host for target in routing.with_agent(settings, named)}
    residents = Roster(settings).residents().items()
    return [*named, *(routing.of_agent(host, one) for host, one in residents if host not in known)]


def _unknown(silent: Mapping[str, str], older: Sequence[str]) -> Refused:
    """``older``: those of them whose agent does not know the question."""
    cure = "inv nodes.images says the same and more; --without-nodes (upkeep.without_nodes) if what"
    upgrade = f"inv nodes.upgrade --hosts={','.join(older)}, then again; " if older else ""
    return Refused(
        "usage-unknown",
        f"it is unknown what these nodes use: {', '.join(sorted(silent)[:5])}",
        cause="; ".join(f"{name}: {silent[name]}" for name in sorted(silent)[:3])
        + "; any image here might run on them",
        cure=f"{upgrade}{cure} they run may be pruned",
    )


def _agents(
    fleet: Fleet, targets: Sequence[Target], found: set[str], older: set[str]
) -> dict[str, str]:
    """Adds what the nodes have to ``found`` -> those that could not be asked, and why; to ``older``
    those whose agent has no such path.

    Raises Refused (``clock-off``).
    """
    if not targets:
        return {}
    try:
        report = fleet.run("images", targets)
    except MoorageError as problem:
        return {target.name: problem.message for target in targets}
    report.stop_if_interrupted()
    unasked: dict[str, str] = {}
    for result in report.hosts:
        told = report.images.get(result.host)
        if told is None:
            why = result.error.message if result.error else "it does not say"
            unasked[result.host] = why
            if result.error is not None and result.error.code == "not-served":
                older.add(result.host)
            continue
        _require_clock(result.host, int(told["time"]))
        found.update(map(str, told["names"]))
        if told["unasked"]:
            one = told["unasked"][0]
            unasked[result.host] = f"{one['part']}: {one['because']}"
    return unasked


def _require_clock(host: str, theirs: int) -> None:
    """Ages are told by this clock: one that is ahead makes every image old."""
    ours = time.time()
    if abs(ours - theirs) > _CLOCKS_APART:
        raise Refused(
            "clock-off",
            f"nothing is pruned: the clocks of {host} and of this machine are "
            f"{abs(ours - theirs) / 3600:,.1f} hours apart",
            cause=f"here it is {_utc(ours)}, there {_utc(theirs)}; ages of images depend on this "
            "clock",
            cure="timedatectl on both shows which one is wrong; set it, then prune again",
        )


def _utc(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"


def cluster(settings: Settings) -> Api | None:
    """The cluster whose pods count; None if none is known here.

    Raises as :func:`moorage.cluster.login.access.connect` does.
    """
    from moorage.cluster.login import access

    try:
        return access.connect(settings)
    except Refused as problem:
        named = settings.kubernetes.kubeconfig or os.environ.get("KUBECONFIG", "")
        if problem.code != "no-kubeconfig" or named:
            raise
        return None


def _cluster(api: Api, found: set[str], known: set[str]) -> str:
    from moorage.cluster.api import paths
    from moorage.cluster.login import access

    with access.typed_for(api):
        for kind in ("Pod", "Node", *_TEMPLATES):
            objects = list(api.items(paths.all_of(kind)))
            found.update(of_objects(objects))
            known.update(_names(objects) if kind == "Node" else ())
    return f"the cluster {api.where}"


def _names(nodes: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """What a cluster calls its nodes: their names and addresses."""
    for node in nodes:
        yield node["metadata"]["name"]
        for address in (node.get("status") or {}).get("addresses") or ():
            yield str(address.get("address"))


def _in_spec(document: Any) -> Iterator[str]:
    """Pod specifications, however deep: a CronJob has a Job's template with a pod's in it."""
    if isinstance(document, dict):
        for key, inner in document.items():
            if key in _CONTAINERS and isinstance(inner, list):
                yield from (_word(one.get("image")) for one in inner if isinstance(one, dict))
            elif key == "volumes" and isinstance(inner, list):  # image volumes, since 1.31
                volumes = (one.get("image") for one in inner if isinstance(one, dict))
                yield from (_word(one.get("reference")) for one in volumes if isinstance(one, dict))
            elif key != "status":
                yield from _in_spec(inner)
    elif isinstance(document, list):
        for inner in document:
            yield from _in_spec(inner)


def _word(found: Any) -> str:
    """What stands for an image's name; a number is none, and must not pass for one."""
    return found if isinstance(found, str) else f"{found!r}, which is not a text" if found else ""


def _repositories(path: str, mirror_path: str) -> Iterator[str]:
    first, _, rest = path.partition("/")
    if rest and is_registry(first):
        yield rest
        yield f"{below(mirror_path, first)}/{rest}"
        return
    yield path
    yield f"{below(mirror_path, HUB)}/{path if rest else f'library/{path}'}"
    if not rest:
        yield f"library/{path}"
