"""What is made for the agents, from the manifests in ``k8s/agents``. Pure but for reading them."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moorage.cluster.api import manifests, ours, paths
from moorage.cluster.api.told import ACTION_KEY, APPLY, PLAN, PLAN_KEY

if TYPE_CHECKING:
    from moorage.archive import AgentArchive
    from moorage.settings import Settings

AUTO, FILES, FULL = "auto", "files", "full"
GRADES = (AUTO, FILES, FULL)
# The label that gives a node the grade full.
GRADE_LABEL = "moorage.dev/agent-grade"

_ACCOUNT = "moorage-agent"
# What the container `trust` has put there (agent/daemonset/passed.py): it ends well in any image.
_PASSED = "/moorage/proof/passed"
_DEFAULT_IMAGE = "python:3.13-slim"


@dataclass(frozen=True)
class Wanted:
    """What the user asks for. ``unavailable``: how many nodes at once get a new version.

    ``secret``: whether the proof is pulled with the Secret; a registry may give without a login.
    """

    grade: str = AUTO
    image: str = ""
    unavailable: str = "10%"
    timeout: float = 180.0
    secret: bool = True


@dataclass(frozen=True)
class Cluster:
    """What of the cluster decides the documents: its runtimes (containerd, docker), whether a node
    needs the grade full, and whether the API server can hold agents to their own Node."""

    runtimes: frozenset[str]
    full: bool
    policies: bool


def documents(
    settings: Settings, wanted: Wanted, plan: bytes, archive: AgentArchive, cluster: Cluster
) -> list[dict[str, Any]]:
    """Everything that is applied, in order, but the namespace."""
    mapped = archive_map(settings, archive, archive.path.read_bytes())
    names = ["rbac.yaml", "service.yaml"]
    if cluster.policies:
        names.append("policy.yaml")
    if wanted.grade != FULL:
        names.append("files.yaml")
    if cluster.full or wanted.grade == FULL:
        names.append("full.yaml")
    folder = settings.root / "k8s" / "agents"
    read = [one for name in names for one in manifests.documents(folder / name)]
    archive_name = mapped["metadata"]["name"]
    made = [_fitted(one, settings, archive_name, wanted, cluster.runtimes) for one in read]
    return [mapped, plan_secret(settings, plan), *made]


def full(settings: Settings, archive_name: str, wanted: Wanted) -> dict[str, Any]:
    """The DaemonSet of the grade full alone."""
    document = manifests.documents(settings.root / "k8s" / "agents" / "full.yaml")[0]
    return _fitted(document, settings, archive_name, wanted, frozenset())


def plan_secret(settings: Settings, plan: bytes, action: str = APPLY) -> dict[str, Any]:
    """The Secret that every agent watches."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": PLAN,
            "namespace": settings.kubernetes.agents_namespace,
            "labels": ours.labels(settings, "agents"),
        },
        "type": "Opaque",
        "data": {
            PLAN_KEY: base64.b64encode(plan).decode("ascii"),
            ACTION_KEY: base64.b64encode(action.encode()).decode("ascii"),
        },
    }


def archive_map(settings: Settings, archive: AgentArchive, content: bytes) -> dict[str, Any]:
    """The ConfigMap that carries the agent: one a version, so that pods of two can run at once."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": f"moorage-agent-{archive.digest[:10]}",
            "namespace": settings.kubernetes.agents_namespace,
            "labels": ours.labels(settings, "agents"),
        },
        "immutable": True,
        "binaryData": {"agent.pyz": base64.b64encode(content).decode("ascii")},
    }


def namespace_document(settings: Settings) -> dict[str, Any]:
    """The agents' namespace. Folders of the node take the Pod Security level privileged."""
    labels = ours.labels(settings, "agents")
    labels["pod-security.kubernetes.io/enforce"] = "privileged"
    name = settings.kubernetes.agents_namespace
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def _fitted(
    document: dict[str, Any],
    settings: Settings,
    archive_name: str,
    wanted: Wanted,
    runtimes: frozenset[str],
) -> dict[str, Any]:
    """A manifest with our namespace, labels, images and archive."""
    kind, metadata = document["kind"], document["metadata"]
    if paths.KINDS[kind].namespaced:
        metadata["namespace"] = settings.kubernetes.agents_namespace
    metadata["labels"] = {**(metadata.get("labels") or {}), **ours.labels(settings, "agents")}
    for subject in document.get("subjects") or ():
        subject["namespace"] = settings.kubernetes.agents_namespace
    if kind == "DaemonSet":
        _fit_daemonset(document["spec"], settings, archive_name, wanted)
        _drop_folders(document["spec"]["template"]["spec"], runtimes)
    if kind == "ValidatingAdmissionPolicy":
        _fit_policy(document, settings)
    return document


def _fit_daemonset(
    spec: dict[str, Any], settings: Settings, archive_name: str, wanted: Wanted
) -> None:
    spec["updateStrategy"]["rollingUpdate"]["maxUnavailable"] = _number_or_share(wanted.unavailable)
    pod = spec["template"]["spec"]
    for container in (*pod.get("initContainers", ()), *pod["containers"]):
        proof = container["name"] == "proof"
        container["image"] = settings.image_reference if proof else agent_image(settings, wanted)
        if proof and settings.registry.external:
            container["command"] = [_PASSED]
    for volume in pod["volumes"]:
        if volume["name"] == "agent":
            volume["configMap"]["name"] = archive_name
    if pod.pop("imagePullSecrets", None) and wanted.secret:
        pod["imagePullSecrets"] = [{"name": settings.kubernetes.secret}]
    if wanted.grade != AUTO:
        terms = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        for term in terms["nodeSelectorTerms"]:
            kept = [one for one in term["matchExpressions"] if one["key"] != GRADE_LABEL]
            term["matchExpressions"] = kept


# The volumes of k8s/agents/files.yaml that belong to one runtime.
_FOLDERS_OF = {"containerd": ("config", "containerd"), "docker": ("docker",)}


def _drop_folders(pod: dict[str, Any], runtimes: frozenset[str]) -> None:
    """Folders of runtimes that no node has are not mounted: a mount would make them."""
    absent = {
        name for runtime, names in _FOLDERS_OF.items() if runtime not in runtimes for name in names
    }
    pod["volumes"] = [one for one in pod["volumes"] if one["name"] not in absent]
    for container in (*pod.get("initContainers", ()), *pod["containers"]):
        mounts = container.get("volumeMounts")
        if mounts:
            container["volumeMounts"] = [one for one in mounts if one["name"] not in absent]


def _fit_policy(document: dict[str, Any], settings: Settings) -> None:
    account = f"system:serviceaccount:{settings.kubernetes.agents_namespace}:{_ACCOUNT}"
    for condition in document["spec"]["matchConditions"]:
        condition["expression"] = f"request.userInfo.username == '{account}'"


def _number_or_share(text: str) -> int | str:
    return int(text) if text.isdigit() else text


def agent_image(settings: Settings, wanted: Wanted) -> str:
    """Any image with Python 3.9 or later serves."""
    named = wanted.image or settings.kubernetes.agent_image
    return _DEFAULT_IMAGE if named == AUTO else named
