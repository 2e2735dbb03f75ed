"""Keys and certificates."""

from invoke.collection import Collection

namespace = Collection("certs")
