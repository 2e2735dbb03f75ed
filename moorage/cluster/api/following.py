"""Follows a list of objects by a watch, through everything that ends a watch early."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from moorage.cluster.api.refusals import ApiError

if TYPE_CHECKING:
    from moorage.cluster.api.client import Api

_BREATH = 2
_FEWEST_SECONDS = 0.3


def follow(
    api: Api, path: str, *, seconds: float, selector: str = "", fields: str = ""
) -> Iterator[dict[str, dict[str, Any]]]:
    """The objects by name: at once, after each change, and every few seconds without one.

    Ends after ``seconds``. A watch that is too old (410) or broken off begins anew with a list,
    as https://kubernetes.io/docs/reference/using-api/api-concepts/#410-gone-responses says.
    """
    deadline = time.monotonic() + seconds
    version, objects = "", dict[str, dict[str, Any]]()
    while True:
        if not version:
            objects, version = _list(api, path, selector, fields)
        yield objects
        left = deadline - time.monotonic()
        if left <= 0:
            return
        began = time.monotonic()
        try:
            breath = max(1, min(_BREATH, int(left)))
            for event in api.watch(path, version, breath, selector=selector, fields=fields):
                version = _apply(objects, event) or version
                if event["type"] != "BOOKMARK":
                    yield objects
                if time.monotonic() >= deadline:
                    return
        except ApiError as problem:
            if problem.status not in (410, 429, 500, 502, 503, 504):
                raise
            version = ""
        # A server that ends every watch at once must not be asked in a tight loop.
        time.sleep(max(0.0, _FEWEST_SECONDS - (time.monotonic() - began)))


def _list(api: Api, path: str, selector: str, fields: str) -> tuple[dict[str, dict[str, Any]], str]:
    query = {"labelSelector": selector, "fieldSelector": fields}
    answer = api.get(path, "", **{key: value for key, value in query.items() if value})
    objects = {one["metadata"]["name"]: one for one in answer.get("items") or ()}
    return objects, answer.get("metadata", {}).get("resourceVersion", "")


def _apply(objects: dict[str, dict[str, Any]], event: dict[str, Any]) -> str:
    """Keeps ``objects`` up to date; the version to go on from."""
    changed = event.get("object") or {}
    metadata = changed.get("metadata") or {}
    if event["type"] == "DELETED":
        objects.pop(metadata.get("name", ""), None)
    elif event["type"] in ("ADDED", "MODIFIED"):
        # Lists leave kind out of their items; so that both look alike, it is not relied upon.
        objects[metadata["name"]] = changed
    return str(metadata.get("resourceVersion", ""))
