"""Proof against a registry that no one here wrote: Pulp."""
