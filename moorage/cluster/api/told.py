"""What a cluster's agents are told: the Secret that each of them watches. Pure but for reading it.

It stands below the agents' own room, for the logins look into it too.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from moorage.cluster.api import paths

if TYPE_CHECKING:
    from moorage.cluster.api.client import Api
    from moorage.settings import Settings

PLAN, PLAN_KEY, ACTION_KEY = "moorage-plan", "plan.json", "action"
APPLY, UNTRUST = "apply", "untrust"


class Order(NamedTuple):
    """The plan, as JSON, and what to do with it: ``APPLY``, ``UNTRUST`` or a word to come."""

    plan: bytes
    action: str


def find(api: Api, settings: Settings) -> dict[str, Any] | None:
    """The Secret; None if there are no agents."""
    path = paths.one("Secret", PLAN, settings.kubernetes.agents_namespace)
    return api.find(path, "read the agents' plan")


def of_registry(secret: Mapping[str, Any] | None, registry: str) -> Order | None:
    """What the agents are told about ``registry``, as image names spell it; None if their plan is
    another registry's, another checkout's perhaps. Pure.

    Raises ValueError, KeyError or TypeError if the Secret has no plan that can be read.
    """
    if secret is None:
        return None
    plan = base64.b64decode(secret["data"][PLAN_KEY])
    named = json.loads(plan)["registry"]
    host, port = named["host"], named.get("port", 443)
    if (str(host) if port == 443 else f"{host}:{port}") != registry:
        return None
    action = secret["data"].get(ACTION_KEY)
    return Order(plan, APPLY if action is None else base64.b64decode(action).decode())
