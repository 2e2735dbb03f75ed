"""Throw-away nodes in Docker."""

from invoke.collection import Collection

namespace = Collection("lab")
