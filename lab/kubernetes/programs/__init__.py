"""Kubernetes' own programs: which version, from where, into which image."""
