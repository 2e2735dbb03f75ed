"""What runs on a node. Stands alone: CPython 3.9+, nothing from ``moorage``, no network."""
