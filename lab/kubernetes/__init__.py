"""The lab's nodes as a real Kubernetes cluster, for `inv lab.up --kubernetes`.

.moorage/lab/kubernetes/ (0700)   admin.kubeconfig  admin.pem  authority.pem (all 0600)
"""

from __future__ import annotations

from lab.kubernetes.lifecycle import (
    Cluster,
    down,
    fetch,
    kubeconfig_path,
    pending,
    pending_cluster,
    server,
    up,
)

__all__ = [
    "Cluster",
    "down",
    "fetch",
    "kubeconfig_path",
    "pending",
    "pending_cluster",
    "server",
    "up",
]
