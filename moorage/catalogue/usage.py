"""What of the registry is in use: asked of the cluster, and of the nodes.

Every answer counts, of whatever registry it speaks: a node may know ours by several names, or ask
it as a mirror of another. What cannot be asked ends in a refusal: it might use anything.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moorage.catalogue.retention import InUse
from moorage.errors import Refused
from moorage.references import HUB, below, is_registry, split

if TYPE_CHECKING:
    from moorage.cluster.api.client import Api
    from moorage.settings import Settings

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# What has a pod template of its own: a rollback starts an old one again.
_TEMPLATES = (
    *("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "ReplicationController"),
    *("Job", "CronJob", "ControllerRevision"),
)
_CONTAINERS = ("containers", "initContainers", "ephemeralContainers")
_STATUSES = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")


@dataclass(frozen=True)
class Asked:
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
        digests |= set(_DIGEST.findall(name))
        path, tag, digest = split(name)
        if not _DIGEST.fullmatch(name) and (tag or not digest):
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


def ask(settings: Settings, api: Api | None, *, without_nodes: bool = False) -> Asked:
    """Asks the cluster, if there is one. Raises ApiError if that does not answer; Refused
    (``usage-unknown``) if there are nodes beside it, unless they do not count."""
    found: set[str] = set()
    known: set[str] = set()
    said = ["no cluster is known here" if api is None else _cluster(api, found, known)]
    unasked = sorted(_nodes(settings) - known)
    if unasked and not without_nodes:
        raise Refused(
            "usage-unknown",
            f"it is unknown what these nodes use: {', '.join(unasked[:5])}",
            cause="they are in no cluster that answers, and any image here might run on them",
            cure="--without-nodes if what they run may be pruned",
        )
    said.append(f"{len(unasked)} nodes were not asked" if unasked else "no node is left unasked")
    return Asked(references(filter(None, found), settings.nodes.mirror_path), tuple(said))


def _nodes(settings: Settings) -> set[str]:
    """Every node that is known to trust the registry, by its host's name."""
    from moorage.pki.roster import Roster

    return set(settings.nodes.hosts) | Roster(settings).residents().keys()


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
                yield from (str(one.get("image") or "") for one in inner if isinstance(one, dict))
            elif key == "volumes" and isinstance(inner, list):  # image volumes, since 1.31
                yield from (
                    str((one.get("image") or {}).get("reference") or "")
                    for one in inner
                    if isinstance(one, dict)
                )
            elif key != "status":
                yield from _in_spec(inner)
    elif isinstance(document, list):
        for inner in document:
            yield from _in_spec(inner)


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
