"""Trust on nodes."""

from invoke.collection import Collection

namespace = Collection("nodes")
