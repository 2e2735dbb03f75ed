"""Pull-through caches of other registries: which there are, and where."""
