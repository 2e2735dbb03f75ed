"""Where objects are in the API: kind -> URL path. A new kind is a new row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ApiKind:
    """``group`` is the API's first part of the path; ``plural`` its name there."""

    group: str
    plural: str
    namespaced: bool = True


ALIVE = "status.phase!=Succeeded,status.phase!=Failed"  # of pods: those that may still run
KINDS: dict[str, ApiKind] = {
    "Namespace": ApiKind("/api/v1", "namespaces", namespaced=False),
    "Node": ApiKind("/api/v1", "nodes", namespaced=False),
    "Pod": ApiKind("/api/v1", "pods"),
    "Service": ApiKind("/api/v1", "services"),
    "Secret": ApiKind("/api/v1", "secrets"),
    "ConfigMap": ApiKind("/api/v1", "configmaps"),
    "ServiceAccount": ApiKind("/api/v1", "serviceaccounts"),
    "Event": ApiKind("/api/v1", "events"),
    "Deployment": ApiKind("/apis/apps/v1", "deployments"),
    "DaemonSet": ApiKind("/apis/apps/v1", "daemonsets"),
    "ReplicaSet": ApiKind("/apis/apps/v1", "replicasets"),
    "ControllerRevision": ApiKind("/apis/apps/v1", "controllerrevisions"),
    "StatefulSet": ApiKind("/apis/apps/v1", "statefulsets"),
    "ReplicationController": ApiKind("/api/v1", "replicationcontrollers"),
    "Job": ApiKind("/apis/batch/v1", "jobs"),
    "CronJob": ApiKind("/apis/batch/v1", "cronjobs"),
    "PersistentVolumeClaim": ApiKind("/api/v1", "persistentvolumeclaims"),
    "Ingress": ApiKind("/apis/networking.k8s.io/v1", "ingresses"),
    "Role": ApiKind("/apis/rbac.authorization.k8s.io/v1", "roles"),
    "RoleBinding": ApiKind("/apis/rbac.authorization.k8s.io/v1", "rolebindings"),
    "ClusterRole": ApiKind("/apis/rbac.authorization.k8s.io/v1", "clusterroles", namespaced=False),
    "ClusterRoleBinding": ApiKind(
        "/apis/rbac.authorization.k8s.io/v1", "clusterrolebindings", namespaced=False
    ),
    "ValidatingAdmissionPolicy": ApiKind(
        "/apis/admissionregistration.k8s.io/v1", "validatingadmissionpolicies", namespaced=False
    ),
    "ValidatingAdmissionPolicyBinding": ApiKind(
        "/apis/admissionregistration.k8s.io/v1",
        "validatingadmissionpolicybindings",
        namespaced=False,
    ),
}


def all_of(kind: str, namespace: str = "") -> str:
    """The list of a kind, in one namespace or in all."""
    row = KINDS[kind]
    place = f"/namespaces/{namespace}" if namespace and row.namespaced else ""
    return f"{row.group}{place}/{row.plural}"


def one(kind: str, name: str, namespace: str = "") -> str:
    """One object."""
    return f"{all_of(kind, namespace)}/{name}"


def of(document: Mapping[str, Any]) -> str:
    """The object that ``document`` describes."""
    metadata = document["metadata"]
    return one(document["kind"], metadata["name"], metadata.get("namespace", ""))


def words(document: Mapping[str, Any]) -> str:
    """How people call it: ``Secret default/my-registry``."""
    metadata = document["metadata"]
    place = f"{metadata['namespace']}/" if metadata.get("namespace") else ""
    return f"{document['kind']} {place}{metadata['name']}"
