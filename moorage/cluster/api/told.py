"""What a cluster's agents are given: the Secret that each of them watches. Pure but for reading it.

It stands below the agents' own room, for the logins look into it too.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from agent.wire.faults import PlanError
from agent.wire.plan import Plan
from moorage.cluster.api import paths
from moorage.errors import Refused

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


def order(api: Api, settings: Settings) -> Order | None:
    """What the agents of this registry are told now; None if there are none, or another's.

    Raises Refused (``agents-plan-unreadable``).
    """
    try:
        found = of_registry(find(api, settings), settings.registry_name)
        if found is not None:
            Plan.parse(found.plan)
    except (ValueError, KeyError, TypeError, AttributeError, PlanError) as problem:
        raise _unreadable(settings, problem) from None
    return found


def plan(secret: Mapping[str, Any], settings: Settings) -> bytes:
    """The plan in it, as JSON, whichever registry it is for. Raises Refused as above."""
    try:
        found = base64.b64decode(secret["data"][PLAN_KEY], validate=True)
        Plan.parse(found)
    except (ValueError, KeyError, TypeError, PlanError) as problem:
        raise _unreadable(settings, problem) from None
    return found


def _unreadable(settings: Settings, problem: Exception) -> Refused:
    where = f"{settings.kubernetes.agents_namespace}/{PLAN}"
    newer = isinstance(problem, PlanError) and problem.code == "plan-too-new"
    cause = str(problem) if isinstance(problem, PlanError) else f"it has no {PLAN_KEY} of ours"
    return Refused(
        "agents-plan-unreadable",
        f"the Secret {where} holds no plan that {'this build' if newer else 'agents'} could follow",
        cause=f"{cause}; {'a newer Moorage' if newer else 'something else'} has written it",
        cure=f"{'use that one; ' if newer else ''}inv k8s.agents writes it again",
    )


def of_registry(secret: Mapping[str, Any] | None, registry: str) -> Order | None:
    """What the agents are told about ``registry``, as image names spell it; None if their plan is
    another registry's, another checkout's perhaps. Pure.

    Raises ValueError, KeyError or TypeError if the Secret has no plan that can be read.
    """
    if secret is None:
        return None
    plan = base64.b64decode(secret["data"][PLAN_KEY], validate=True)
    named = json.loads(plan)["registry"]
    host, port = named["host"], named.get("port", 443)
    if (str(host) if port == 443 else f"{host}:{port}") != registry:
        return None
    action = secret["data"].get(ACTION_KEY)
    return Order(plan, APPLY if action is None else base64.b64decode(action).decode())
