"""Manifests from ``k8s/``, the same files that ``kubectl apply -k`` takes, fitted to the settings.

Pure but for reading. What is fitted: namespace, name, image, Secret, our labels; nothing else.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moorage.errors import Refused

# What the files themselves say, and so what is fitted.
NAME, SECRET, IMAGE = "private-reg", "my-registry", "my.registry.io/serve_hostname:0.0.1"
CONTAINER = "serve-hostname"

# What the user may ask for -> the folder below k8s/.
WORKLOADS = {"pod": "", "deployment": "deployment", "daemonset": "daemonset"}


@dataclass(frozen=True)
class Fit:
    """What the manifests are fitted to; ``secret``: "" for an image that needs none."""

    namespace: str
    name: str
    image: str
    secret: str
    labels: Mapping[str, str]
    replicas: int | None = None
    node: str = ""


def read(folder: Path) -> list[dict[str, Any]]:
    """The documents of a folder, in the order of its kustomization. Raises Refused."""
    kustomization = documents(folder / "kustomization.yaml")[0]
    return [
        document
        for name in kustomization.get("resources") or ()
        for document in documents(folder / name)
    ]


def documents(path: Path) -> list[dict[str, Any]]:
    """The documents of one YAML file. Raises Refused if it is not a manifest."""
    import yaml

    try:
        found = [one for one in yaml.safe_load_all(path.read_text("utf-8")) if one]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as problem:
        raise Refused(
            "bad-manifest",
            f"{path} cannot be read",
            cause=" ".join(str(problem).split()),
            cure="correct it, or take it back from the repository: git checkout k8s/",
            path=str(path),
        ) from None
    for one in found:
        if not isinstance(one, dict) or not isinstance(one.get("kind"), str):
            raise Refused(
                "bad-manifest",
                f"{path} is not a manifest",
                cause="a document in it has no kind",
                cure="correct it, or take it back from the repository: git checkout k8s/",
                path=str(path),
            )
    return found


def fit(read: Iterable[Mapping[str, Any]], to: Fit) -> list[dict[str, Any]]:
    """Copies of the documents, fitted."""
    return [_fitted(document, to) for document in read]


def _fitted(document: Mapping[str, Any], to: Fit) -> dict[str, Any]:
    made = copy.deepcopy(dict(document))
    metadata = made["metadata"]
    metadata["namespace"] = to.namespace
    if metadata["name"] == NAME:
        metadata["name"] = to.name
    metadata["labels"] = {**(metadata.get("labels") or {}), **to.labels}
    if to.replicas is not None and made["kind"] == "Deployment":
        made["spec"]["replicas"] = to.replicas
    pod = made if made["kind"] == "Pod" else made["spec"].get("template")
    if pod:
        _fit_pod(pod["spec"], to)
    if to.name != NAME:
        made = _renamed(made, to.name)
    return made


def _fit_pod(spec: dict[str, Any], to: Fit) -> None:
    for container in spec["containers"]:
        if container["name"] == CONTAINER:
            container["image"] = to.image
    spec["imagePullSecrets"] = [{"name": to.secret}]
    if not to.secret:
        del spec["imagePullSecrets"]
    if to.node:
        # By its label: the scheduler still looks at taints and room.
        spec["nodeSelector"] = {"kubernetes.io/hostname": to.node}


def _renamed(value: Any, name: str) -> Any:
    """The name is in the labels that selectors look for as well."""
    if isinstance(value, dict):
        return {
            key: name if key == "app.kubernetes.io/name" and one == NAME else _renamed(one, name)
            for key, one in value.items()
        }
    return [_renamed(one, name) for one in value] if isinstance(value, list) else value


def shown(document: Mapping[str, Any] | None, like: Mapping[str, Any] | None = None) -> str | None:
    """A live or wanted object as YAML for a diff: what people write, not what servers add.

    ``like``: only fields that are in it as well, so that a server's defaults do not show.
    """
    import yaml

    if document is None:
        return None
    picked = _picked(document, like) if like is not None else document
    text: str = yaml.safe_dump(picked, sort_keys=False, default_flow_style=False)
    return text


def _picked(value: Any, like: Any) -> Any:
    if isinstance(value, Mapping) and isinstance(like, Mapping):
        return {key: _picked(value[key], like[key]) for key in like if key in value}
    if isinstance(value, list) and isinstance(like, list) and len(value) == len(like):
        return [_picked(one, other) for one, other in zip(value, like, strict=True)]
    return value


def same(live: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether an apply would change nothing a person can see."""
    return _bare(live) == _bare(after)


_SERVERS_OWN = ("managedFields", "resourceVersion", "generation", "uid", "creationTimestamp")


def _bare(document: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {
        key: value for key, value in document["metadata"].items() if key not in _SERVERS_OWN
    }
    rest = {key: value for key, value in document.items() if key not in ("status", "metadata")}
    return {**rest, "metadata": metadata}
