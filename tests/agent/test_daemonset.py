"""What the agent in a pod tells of its Node. The API server is a stand-in: one Node."""

from __future__ import annotations

import json
from typing import Any, cast

from agent.daemonset.api import NodeApi
from agent.daemonset.loop import TRUSTED, Loop, LoopOutcome, PlanWish
from agent.daemonset.surroundings import Surroundings

HERE = Surroundings("n1", "files", "moorage-system", "moorage-plan", "192.0.2.1", 443)


class _Node:
    """A stand-in for the API server: it has our Node and notes what it is told."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []

    def node(self) -> dict[str, Any]:
        return {"metadata": {"resourceVersion": "1"}, "spec": {}}

    def patch_node(self, change: dict[str, Any]) -> dict[str, Any]:
        self.told.append(change["metadata"]["annotations"])
        return {}


def test_a_node_that_was_put_right_has_a_newer_proof_than_what_failed_before() -> None:
    node = _Node()
    loop = Loop(HERE, cast(NodeApi, node))
    wish = PlanWish.of(b"{}", "apply")
    for status in ("changed", "unchanged", "unchanged"):
        loop._tell(wish, LoopOutcome(status), proven=True)
    assert len(node.told) == 1
    loop._tell(wish, LoopOutcome("changed"), proven=True)
    assert len(node.told) == 2
    assert json.loads(node.told[1][TRUSTED])
