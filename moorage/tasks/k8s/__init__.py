"""Kubernetes: the login, a workload that proves it, and why a pod cannot pull."""

from invoke.collection import Collection

from moorage.tasks.k8s.nodes import agents, nodes
from moorage.tasks.k8s.removal import rm
from moorage.tasks.k8s.secret import secret
from moorage.tasks.k8s.workload import deploy, diagnose

namespace = Collection("k8s", secret, deploy, diagnose, nodes, agents, rm)
