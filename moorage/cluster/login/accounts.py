"""ServiceAccounts whose pods get our Secret without naming it; what else they name stays.

``imagePullSecrets`` is one atomic list to the API server, so server-side apply would own all of it.
Hence: read, add, write with the version that was read, and again where somebody was faster.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from moorage.cluster.api import paths
from moorage.cluster.api.ours import ATTACHED
from moorage.cluster.api.refusals import ApiError

if TYPE_CHECKING:
    from moorage.cluster.api.client import Api

# A new namespace gets its ServiceAccount `default` a moment later, from a controller.
_PATIENCE = 10.0
_TRIES = 5


def with_secret(account: dict[str, Any], secret: str) -> dict[str, Any] | None:
    """The merge patch that adds ``secret``; None if it is there. Pure."""
    named = _named(account)
    if secret in named:
        return None
    marked = sorted({*_marked(account), secret})
    return _patch(account, [*named, secret], ",".join(marked))


def without_secret(account: dict[str, Any], secret: str) -> dict[str, Any] | None:
    """The merge patch that takes back what :func:`with_secret` added; None if nothing is. Pure.

    A Secret that somebody else named there stays.
    """
    marked = _marked(account)
    if secret not in marked:
        return None
    left = ",".join(sorted(marked - {secret})) or None
    return _patch(account, [name for name in _named(account) if name != secret], left)


def attach(
    api: Api, namespace: str, names: Sequence[str], secret: str, *, dry: bool = False
) -> list[str]:
    """Adds ``secret`` to these ServiceAccounts (``*``: to all there are); returns those changed."""
    if "*" in names:
        listed = api.items(paths.all_of("ServiceAccount", namespace), "list ServiceAccounts")
        names = [account["metadata"]["name"] for account in listed]
    return [name for name in names if _change(api, namespace, name, secret, with_secret, dry)]


def detach(
    api: Api, namespace: str, names: Sequence[str], secret: str, *, dry: bool = False
) -> list[str]:
    """The reverse; ServiceAccounts that are gone count as unchanged."""
    changed = []
    for name in names:
        try:
            if _change(api, namespace, name, secret, without_secret, dry):
                changed.append(name)
        except ApiError as problem:
            if problem.status != 404:
                raise
    return changed


def _change(
    api: Api,
    namespace: str,
    name: str,
    secret: str,
    decide: Callable[[dict[str, Any], str], dict[str, Any] | None],
    dry: bool,
) -> bool:
    path = paths.one("ServiceAccount", name, namespace)
    what = f"change ServiceAccount {namespace}/{name}"
    for tried in range(1, _TRIES + 1):
        account = _wait_for(api, path, name, namespace) if decide is with_secret else api.get(path)
        patch = decide(account, secret)
        if patch is None:
            return False
        try:
            api.merge(path, patch, what, dry=dry)
        except ApiError as problem:
            if problem.status != 409 or tried == _TRIES:
                raise
            continue
        return True
    return False


def _wait_for(api: Api, path: str, name: str, namespace: str) -> dict[str, Any]:
    deadline = time.monotonic() + (_PATIENCE if name == "default" else 0)
    while True:
        account = api.find(path, f"read ServiceAccount {namespace}/{name}")
        if account is not None:
            return account
        if time.monotonic() >= deadline:
            raise ApiError(
                "no-service-account",
                f"there is no ServiceAccount {namespace}/{name}",
                status=404,
                cause="it was never made, or deleted since",
                cure=f"kubectl create serviceaccount {name} -n {namespace}, or name another one",
            )
        time.sleep(0.3)


def _patch(account: dict[str, Any], names: list[str], marked: str | None) -> dict[str, Any]:
    return {
        "metadata": {
            "resourceVersion": account["metadata"]["resourceVersion"],
            "annotations": {ATTACHED: marked},
        },
        "imagePullSecrets": [{"name": name} for name in names] or None,
    }


def _named(account: dict[str, Any]) -> list[str]:
    return [one["name"] for one in account.get("imagePullSecrets") or () if one.get("name")]


def _marked(account: dict[str, Any]) -> set[str]:
    text = (account.get("metadata", {}).get("annotations") or {}).get(ATTACHED, "")
    return {name for name in text.split(",") if name}
