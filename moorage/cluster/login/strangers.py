"""What is in a namespace of ours and is somebody's: deleting the namespace would take it along.

What controllers write into every namespace is nobody's loss: they write it wherever one is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from moorage.cluster.api import ours, paths
from moorage.cluster.api.refusals import ApiError

if TYPE_CHECKING:
    from moorage.cluster.api.client import Api

_KINDS = (
    *("Pod", "Service", "Deployment", "DaemonSet", "StatefulSet", "ReplicaSet"),
    *("ReplicationController", "Job", "CronJob", "PersistentVolumeClaim", "Ingress"),
    *("Secret", "ConfigMap"),
)
# Written into every namespace: kind and name -> by whom.
_EVERYWHERE = {
    # https://kubernetes.io/docs/concepts/configuration/configmap/ (since 1.20)
    ("ConfigMap", "kube-root-ca.crt"): "Kubernetes",
    # https://docs.redhat.com/en/documentation/openshift_container_platform (service CA)
    ("ConfigMap", "openshift-service-ca.crt"): "OpenShift",
    # https://github.com/istio/istio: security/pkg/k8s, CACertNamespaceConfigMap
    ("ConfigMap", "istio-ca-root-cert"): "Istio",
}
# Labels and annotations of what a controller copies, or makes for a ServiceAccount.
_COPIES = frozenset(
    (
        "kubernetes.io/service-account.name",  # its tokens, and OpenShift's dockercfg Secrets
        "istio.io/config",
        "trust.cert-manager.io/bundle",
        "reflector.v1.k8s.emberstack.com/auto-reflects",
        "kubed.appscode.com/origin",
        "generate.kyverno.io/rule-name",
    )
)
# No controller that writes into every namespace need write into these (Istio passes them over).
_PASSED_OVER = "kube-"


def within(api: Api, namespace: str) -> list[str]:
    """What is not ours in a namespace, as ``ConfigMap theirs``."""
    found = []
    for kind in _KINDS:
        for one in _listed(api, kind, namespace):
            if not ours.is_ours(one) and not is_made_for_it(kind, one):
                if kind in ("ConfigMap", "Secret") and _is_everywhere(api, kind, one, namespace):
                    continue
                found.append(f"{kind} {one['metadata']['name']}")
    return found


def _listed(api: Api, kind: str, namespace: str) -> Iterable[dict[str, Any]]:
    try:
        yield from api.items(paths.all_of(kind, namespace), f"look into {namespace}")
    except ApiError as problem:
        if problem.status != 404:  # this API server does not know the kind
            raise


def is_made_for_it(kind: str, one: Mapping[str, Any]) -> bool:
    """Whether it goes with something else, or is written wherever there is a namespace. Pure."""
    metadata = one["metadata"]
    marks = {*(metadata.get("labels") or {}), *(metadata.get("annotations") or {})}
    return (
        (kind, metadata["name"]) in _EVERYWHERE
        or bool(metadata.get("ownerReferences"))
        or bool(marks & _COPIES)
    )


def _is_everywhere(api: Api, kind: str, one: Mapping[str, Any], namespace: str) -> bool:
    """Whether every other namespace holds the very same: a controller's that we do not know."""
    name = one["metadata"]["name"]
    try:
        copies = {
            copy["metadata"]["namespace"]
            for copy in api.items(
                paths.all_of(kind), f"look for {name}", fields=f"metadata.name={name}"
            )
            if _content(copy) == _content(one)
        }
        others = {
            space["metadata"]["name"]
            for space in api.items(paths.all_of("Namespace"))
            if not space["metadata"].get("deletionTimestamp")
        }
    except ApiError as problem:
        if problem.status != 403:
            raise
        return False  # who may not look cannot tell
    others = {space for space in others if not space.startswith(_PASSED_OVER)} - {namespace}
    return bool(others) and others <= copies


def _content(one: Mapping[str, Any]) -> tuple[Any, ...]:
    return one.get("type"), one.get("data"), one.get("binaryData")
