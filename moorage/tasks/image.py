"""The demo image."""

from invoke.collection import Collection

namespace = Collection("image")
