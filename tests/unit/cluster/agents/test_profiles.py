"""One set of agents is on a cluster's nodes: a second profile's is refused before a change.

A stand-in for the API server: objects by their paths, each of which can only be read.
"""

from __future__ import annotations

from typing import Any

import pytest

from moorage.cluster.agents import documents as made_of
from moorage.cluster.agents import rollout
from moorage.cluster.api import manifests, ours, paths
from moorage.configuration.parsing import parse
from moorage.errors import Refused
from moorage.settings import ROOT

FIRST, SECOND = parse({}), parse({}, profile="eu")
BINDING = paths.one("ClusterRoleBinding", "moorage-agent")


class Api:
    def __init__(self, found: dict[str, Any]) -> None:
        self._found = found

    def find(self, path: str, _doing: str) -> Any:
        return self._found.get(path)


def brought() -> dict[str, Any]:
    """What the first profile's agents are known by."""
    read = manifests.documents(ROOT / "k8s" / "agents" / "rbac.yaml")
    binding = next(one for one in read if one["kind"] == "ClusterRoleBinding")
    binding["metadata"]["labels"] = ours.labels(FIRST, "agents")
    plan = made_of.plan_secret(FIRST, b"{}")
    return {BINDING: binding, paths.of(plan): plan}


def test_a_second_profiles_agents_are_refused_before_anything_is_made() -> None:
    api: Any = Api(brought())
    with pytest.raises(Refused) as caught:
        rollout.roll_out(api, SECOND, None, None)  # type: ignore[arg-type]
    assert caught.value.code == "agents-elsewhere"
    assert "the namespace moorage-system keep" in caught.value.message
    rollout.refuse_a_second(api, FIRST)


def test_rights_that_were_left_by_agents_that_are_gone_refuse_nobody() -> None:
    left = brought()
    (plan,) = set(left) - {BINDING}
    del left[plan]
    api: Any = Api(left)
    rollout.refuse_a_second(api, SECOND)
    somebodys: Any = Api({**brought(), BINDING: {"metadata": {}, "subjects": []}})
    rollout.refuse_a_second(somebodys, SECOND)
