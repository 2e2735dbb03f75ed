"""Caches of other registries, looked at: do their upstreams answer, how old is what they have."""
