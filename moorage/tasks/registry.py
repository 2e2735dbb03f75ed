"""The TLS registry."""

from invoke.collection import Collection

namespace = Collection("registry")
