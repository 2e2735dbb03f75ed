"""Kubernetes: the login as Secrets, a workload that proves it, and why a pod cannot pull.

``access`` finds the cluster, ``api`` speaks to it, ``refusals`` says why it says no; the rest is
one room a command. The rooms that decide (``pull_secret``, ``causes``, ``diagnosis``) ask nothing.
"""
