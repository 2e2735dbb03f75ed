"""Secrets that still hold a login which may delete: each by name, with what cures it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from moorage.cluster.api import ours, paths, told
from moorage.cluster.login import pull_secret
from moorage.cluster.symptoms import keyring

if TYPE_CHECKING:
    from moorage.cluster.api.client import Api
    from moorage.settings import Settings

RENEW = "inv k8s.secret --renew"
_TYPES = (pull_secret.TYPE, "kubernetes.io/dockercfg")


@dataclass(frozen=True)
class Holder:
    """A Secret, the admin login in it, and what ends that."""

    namespace: str
    secret: str
    user: str
    cure: str

    @property
    def words(self) -> str:
        return (
            f"Secret {self.namespace}/{self.secret} holds {self.user}, a login that may push and"
            " delete everything"
        )

    def to_json(self) -> dict[str, str]:
        return asdict(self)


def holders(api: Api, settings: Settings, namespace: str = "") -> tuple[Holder, ...]:
    """Secrets with an admin login of our registry, in ``namespace`` or in all.

    None are looked for if somebody else runs the registry, whose roles are not known here, or if
    it was never up. Raises ApiError if Secrets may not be listed, Refused if the logins here cannot
    be read.
    """
    from moorage.registry.logins import users

    if settings.registry.external or not users.has_operator(settings):
        return ()
    return tuple(
        Holder(one["metadata"]["namespace"], one["metadata"]["name"], user, api.where.typed(cure))
        for one in _listed(api, settings, namespace)
        for user in _admins(settings, _logins(one, settings.registry_name))
        for cure in [_cure(one)]
    )


def logins_held(api: Api, settings: Settings) -> Iterator[tuple[str, pull_secret.Login]]:
    """Every login for our registry in a Secret of the cluster, and which one, as ``web/name``."""
    for one in _listed(api, settings, ""):
        place = f"{one['metadata']['namespace']}/{one['metadata']['name']}"
        yield from ((place, login) for login in _logins(one, settings.registry_name))


def _listed(api: Api, settings: Settings, namespace: str) -> Iterator[Mapping[str, Any]]:
    for kind in _TYPES:
        path = paths.all_of("Secret", namespace)
        yield from api.items(path, "list Secrets", fields=f"type={kind}")
    if namespace in ("", settings.kubernetes.agents_namespace):
        plan = told.find(api, settings)
        if plan is not None:
            yield plan


def _logins(secret: Mapping[str, Any], registry: str) -> Iterable[pull_secret.Login]:
    """Those for our registry in a pull Secret, or in the agents' plan. Pure."""
    if secret["metadata"]["name"] == told.PLAN and secret.get("type") not in _TYPES:
        return _in_plan(secret, registry)
    found = pull_secret.logins(secret)
    return {found[key] for key in keyring.serving(found, f"{registry}/x")}


def _in_plan(secret: Mapping[str, Any], registry: str) -> Iterable[pull_secret.Login]:
    try:
        found = told.of_registry(secret, registry)
        if found is None:
            return ()
        verify = json.loads(found.plan)["verify"]
        return {pull_secret.Login(str(verify["username"]), str(verify["password"]))}
    except (ValueError, TypeError, KeyError):
        return ()


def _admins(settings: Settings, logins: Iterable[pull_secret.Login]) -> list[str]:
    from moorage.registry.logins import users

    known = {one.name: one for one in users.everybody(settings) if one.role == "admin"}
    return sorted(
        login.user
        for login in logins
        if login.user in known and users.is_right(settings, known[login.user], login.password)
    )


def _cure(secret: Mapping[str, Any]) -> str:
    """Pure."""
    namespace, name = secret["metadata"]["namespace"], secret["metadata"]["name"]
    if secret.get("type") not in _TYPES:
        return "inv k8s.agents"
    if ours.is_ours(secret) and ours.labels_of(secret).get(ours.PART) == "secret":
        return RENEW
    return f"inv k8s.secret --namespace={namespace} --name={name} --replace"
