"""What the agents say of their nodes: one annotation a Node. Pure but for listing Nodes, and
waiting for a word."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from moorage.cluster.agents.documents import FILES, FULL, GRADE_LABEL
from moorage.cluster.api import ours, paths
from moorage.cluster.api.told import APPLY, Order
from moorage.cluster.diagnosis.nodes import TRUSTED, ClusterNode, from_document

if TYPE_CHECKING:
    from moorage.cluster.api.client import Api
    from moorage.output import Update

# What agent/daemonset writes onto its Node, and two of its words.
STATUS = "moorage.dev/agent"
NEEDS_FULL, FAILED = "needs-full", "failed"
_POLL = 1.0


@dataclass(frozen=True)
class AgentState:
    """What a node's agent last said; "" if it has said nothing of this plan.

    ``labelled``: the node has been given the grade full.
    """

    node: ClusterNode
    grade: str = ""
    status: str = ""
    proven: bool = False
    why: str = ""
    error: str = ""
    cure: str = ""
    labelled: bool = False

    @property
    def ok(self) -> bool:
        return self.status == "trusted" and self.proven

    def to_json(self) -> dict[str, Any]:
        return {
            "node": self.node.name,
            "runtime": self.node.runtime,
            "grade": self.grade,
            "status": self.status or "no word",
            "proven": self.proven,
            "why": self.why,
            "error": self.error,
            "cure": self.cure,
        }


def digest(plan: bytes, action: str = APPLY) -> str:
    """How agents name what they were told (agent/daemonset/loop.py, Wish)."""
    return hashlib.sha256(plan + b"\0" + action.encode()).hexdigest()[:16]


def states(api: Api, plan: bytes, action: str = APPLY) -> list[AgentState]:
    """What every Linux node's agent says of this plan."""
    wanted = digest(plan, action)
    found = []
    for document in api.items(paths.all_of("Node"), "list nodes"):
        node = from_document(document)
        if node.platform.startswith("linux"):
            annotations = document["metadata"].get("annotations") or {}
            labelled = ours.labels_of(document).get(GRADE_LABEL) == FULL
            state = _state(node, annotations.get(STATUS, ""), wanted)
            found.append(replace(state, labelled=labelled))
    return found


class Heard(NamedTuple):
    """What all agents say, and those of them that are not done."""

    found: Sequence[AgentState]
    left: Sequence[AgentState]


def _goes_on(_left: Sequence[AgentState]) -> bool:
    return False


def wait(
    api: Api,
    told: Order,
    seconds: float,
    update: Update,
    *,
    is_done: Callable[[AgentState], bool] = lambda one: one.ok,
    is_vain: Callable[[Sequence[AgentState]], bool] = _goes_on,
) -> Heard:
    """Waits until all agents have done what they were told; what they say then, or after
    ``seconds``.

    ``is_vain``: whether those that are left end the wait; asked once per look, if some are.
    """
    deadline = time.monotonic() + seconds
    while True:
        found = states(api, told.plan, told.action)
        left = [one for one in found if not is_done(one)]
        update(done=len(found) - len(left), total=len(found) or 1)
        if not left or time.monotonic() > deadline or is_vain(left):
            return Heard(found, left)
        time.sleep(_POLL)


def _state(node: ClusterNode, annotation: str, wanted: str) -> AgentState:
    """Pure."""
    try:
        said = json.loads(annotation or "{}")
    except ValueError:
        said = {}
    if not isinstance(said, dict) or said.get("plan") != wanted:
        return AgentState(node)
    error = said.get("error") or {}
    why = {
        FILES: "its runtime reads a config_path: writing the trust folders does",
        FULL: "config.toml had to be edited and the runtime restarted",
    }.get(said.get("grade", ""), "")
    return AgentState(
        node,
        said.get("grade", ""),
        said.get("status", ""),
        bool(said.get("proven")),
        why if not error else "",
        error.get("message", ""),
        error.get("cure", ""),
    )


def marked_nodes(api: Api) -> list[str]:
    """Nodes with an annotation or a label of ours."""
    return [
        one["metadata"]["name"]
        for one in api.items(paths.all_of("Node"), "list nodes")
        if {STATUS, TRUSTED} & set(one["metadata"].get("annotations") or {})
        or GRADE_LABEL in ours.labels_of(one)
    ]
