"""What the agents say of their nodes: one annotation a Node. Pure but for listing Nodes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from moorage.cluster.agents.documents import APPLY, FILES, FULL, GRADE_LABEL
from moorage.cluster.api import ours, paths
from moorage.cluster.diagnosis.nodes import TRUSTED, ClusterNode, from_document

if TYPE_CHECKING:
    from moorage.cluster.api.client import Api

# What agent/daemonset writes onto its Node, and two of its words.
STATUS = "moorage.dev/agent"
NEEDS_FULL, FAILED = "needs-full", "failed"


@dataclass(frozen=True)
class AgentState:
    """What a node's agent last said; "" where it has said nothing of this plan.

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
