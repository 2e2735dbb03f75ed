"""The names of Kubernetes' programs: what a control plane, a node and people need."""

from __future__ import annotations

CONTROL = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
NODE = ("kubelet", "kube-proxy")
NEEDED = (*CONTROL, *NODE)
# For people; nothing here needs it.
WELCOME = ("kubectl",)
# A folder in the settings may bring its own: a current API server wants a newer one than Debian's.
ETCD = "etcd"
SUMS = "SHA256SUMS"
