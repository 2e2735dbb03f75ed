"""Takes the agents away, and the trust before them where that is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from moorage.cluster.agents import documents as made_of
from moorage.cluster.agents.documents import GRADE_LABEL, Wanted
from moorage.cluster.agents.rollout import apply, promote
from moorage.cluster.agents.states import STATUS, AgentState, marked_nodes, wait
from moorage.cluster.api import paths, told
from moorage.cluster.api.told import UNTRUST, Order
from moorage.cluster.diagnosis.nodes import AGENTS_UNTRUST, TRUSTED, ClusterNode
from moorage.errors import Refused

if TYPE_CHECKING:
    from moorage.cluster.api.client import Api
    from moorage.settings import Settings
    from moorage.ui import UI


def take_trust_away(api: Api, settings: Settings, ui: UI, seconds: float) -> list[AgentState]:
    """Has every agent take the trust away on its node; returns those that did not in time.

    A node whose config.toml was edited, over SSH perhaps, gets the grade full for that.
    """
    namespace = settings.kubernetes.agents_namespace
    live = told.find(api, settings)
    if live is None:
        raise Refused(
            "no-agents",
            f"there are no agents in {namespace}",
            cause="their plan is not there",
            cure="inv k8s.agents brings them; inv nodes.untrust takes trust away over SSH",
        )
    plan = told.plan(live, settings)
    document = made_of.plan_secret(settings, plan, UNTRUST)
    api.apply(paths.of(document), document, "tell the agents", force=True)

    def promoted(left: Sequence[AgentState]) -> bool:
        if notes := promote(api, left):
            ui.present(notes)
            _bring_full(api, settings)
        return False

    with ui.progress("wait for the agents to take the trust away") as update:
        found, left = wait(
            api,
            Order(plan, UNTRUST),
            seconds,
            update,
            is_done=lambda one: one.status == "untrusted",
            is_vain=promoted,
        )
    _note(settings, [one.node for one in found if one not in left])
    return list(left)


def _note(settings: Settings, nodes: Sequence[ClusterNode]) -> None:
    """For ``k8s.nodes``: an older pull proves nothing any more."""
    from agent.wire.report import CHANGED, HostResult
    from moorage.fleet.inventory.targets import Target
    from moorage.fleet.report import logbook

    if nodes:
        logbook.note(
            logbook.folder(settings),
            f"{AGENTS_UNTRUST} {settings.registry_name}",
            [Target(node.name, node.address) for node in nodes],
            [HostResult(node.name, CHANGED) for node in nodes],
        )


def _bring_full(api: Api, settings: Settings) -> None:
    """The DaemonSet of the grade full, with image and archive of the other one."""
    namespace = settings.kubernetes.agents_namespace
    files = api.get(paths.one("DaemonSet", "moorage-agent-files", namespace))
    pod = files["spec"]["template"]["spec"]
    archive = next(one["configMap"]["name"] for one in pod["volumes"] if one["name"] == "agent")
    wanted = Wanted(image=pod["containers"][0]["image"], secret="imagePullSecrets" in pod)
    apply(api, [made_of.full(settings, archive, wanted)])


def forget_nodes(api: Api) -> None:
    """Takes our annotations and label off the Nodes."""
    change: dict[str, Any] = {
        "metadata": {
            "annotations": {STATUS: None, TRUSTED: None},
            "labels": {GRADE_LABEL: None},
        }
    }
    for name in marked_nodes(api):
        api.merge(paths.one("Node", name), change, f"clear node {name}")
