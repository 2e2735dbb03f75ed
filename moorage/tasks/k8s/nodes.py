"""The cluster's nodes: what they trust, and the agents that keep it so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moorage.tasks.command import Run, command
from moorage.tasks.k8s.on_cluster import CLUSTER, check_timeout, cluster_of, told
from moorage.tasks.k8s.removal import left, removed, take_away

if TYPE_CHECKING:
    from moorage.cluster.agents import Rolled
    from moorage.cluster.api.client import Api


@command(help={**CLUSTER, "selector": "only nodes with these labels, as role=edge"})
def nodes(run: Run, selector: str = "", context: str = "", kubeconfig: str = "") -> dict[str, Any]:
    """List the cluster's nodes, and which of them trust the registry, by what proof.

    Example: inv k8s.nodes --selector=node-role.kubernetes.io/edge
    Example: inv k8s.nodes --context=production --json
    """
    from moorage.cluster.diagnosis import nodes as inventory

    with cluster_of(run, kubeconfig, context) as api:
        proofs = inventory.prove(api, run.settings, selector)
        words = {True: "yes", False: "no", None: "unknown"}
        run.ui.table(
            ["node", "address", "runtime", "kubelet", "ready", "trusts", "proven by"],
            [
                [
                    one.node.name,
                    one.node.address,
                    one.node.runtime,
                    one.node.kubelet,
                    "yes" if one.node.ready else "no",
                    words[one.trusts],
                    one.words,
                ]
                for one in proofs
            ],
        )
        missing = [one.node.name for one in proofs if not one.trusts]
        if missing:
            line = "inv nodes.trust --from-cluster, or inv k8s.deploy --workload=daemonset"
            run.ui.show(f"Next: {api.where.typed(line)}")
        return {
            "ok": True,
            "cluster": told(api),
            "registry": run.settings.registry_name,
            "nodes": [one.to_json() for one in proofs],
        }


@command(
    lock=True,
    help={
        **CLUSTER,
        "grade": "auto (the least that does, node by node), files, or full",
        "agent_image": "an image with Python 3.9 or later (else kubernetes.agent_image)",
        "max_unavailable": "how many nodes at once get a new version, as 3 or 10%",
        "timeout": "seconds to wait for every node",
        "remove": "remove the agents; the trust stays",
        "untrust": "with --remove: have them remove the trust first",
        "dry_run": "print every change as a diff and change nothing",
    },
)
def agents(
    run: Run,
    grade: str = "auto",
    agent_image: str = "",
    max_unavailable: str = "10%",
    timeout: int = 180,
    remove: bool = False,
    untrust: bool = False,
    dry_run: bool = False,
    context: str = "",
    kubeconfig: str = "",
    yes: bool = False,
) -> dict[str, Any]:
    """Keep the trust on every node by a DaemonSet, also on nodes that join later.

    Example: inv k8s.agents --agent-image=python:3.13-slim
    Example: inv k8s.agents --remove --untrust
    """
    from moorage.cluster import agents as agency
    from moorage.cluster.api import ours

    del yes
    check_timeout(timeout, "k8s.agents")
    _check_agents(grade, max_unavailable, remove, untrust)
    if agent_image:
        ours.check_image(agent_image)
    wanted = agency.Wanted(grade, agent_image, max_unavailable, float(timeout))
    with cluster_of(run, kubeconfig, context) as api:
        if remove:
            return _agents_removed(run, api, untrust, dry_run, float(timeout))
        if not dry_run:
            run.ui.confirm(
                [
                    f"run an agent on every node of {api.where.context}, in the namespace"
                    f" {run.settings.kubernetes.agents_namespace}, with {_MOUNTED[grade]} mounted"
                ]
            )
        rolled = agency.roll_out(api, run.settings, run.ui, wanted, dry_run=dry_run)
        return _agents_told(run, api, rolled, dry_run)


_MOUNTED = {
    "auto": "the node's trust folders, or its whole tree where that is needed,",
    "files": "the node's trust folders",
    "full": "the node's whole tree",
}


def _check_agents(grade: str, max_unavailable: str, remove: bool, untrust: bool) -> None:
    import re

    from moorage.cluster.agents import GRADES
    from moorage.errors import Refused

    wrong = ""
    if grade not in GRADES:
        wrong = f"--grade {grade!r} is not one of {', '.join(GRADES)}"
    elif not re.fullmatch(r"[1-9]\d{0,3}|([1-9]\d?|100)%", max_unavailable):
        wrong = f"--max-unavailable {max_unavailable!r} is neither a number nor a share like 10%"
    elif untrust and not remove:
        wrong = "--untrust goes with --remove; inv nodes.untrust does it over SSH"
    if wrong:
        raise Refused("wrong-use", wrong, cure="inv --help k8s.agents")


def _agents_told(run: Run, api: Api, rolled: Rolled, dry_run: bool) -> dict[str, Any]:
    from moorage.cluster.workload import telling

    ui = run.ui
    if not dry_run:
        ui.table(
            ["node", "runtime", "grade", "status", "pull proven", "why"],
            [
                [
                    one.node.name,
                    one.node.runtime,
                    one.grade,
                    one.status or "no word yet",
                    "yes" if one.proven else "no",
                    one.error or one.why,
                ]
                for one in rolled.states
            ],
        )
    if rolled.report is not None:
        ui.present(telling.diagnosis(rolled.report))
    # A node that has the image and asks the registry all the same is helped by no preload.
    if rolled.report is not None and any(
        one.container in ("trust", "agent")
        for group in rolled.report.groups
        if group.code != "always-verify"
        for one in group.stuck
    ):
        ui.show("")
        ui.show("The agents' own image cannot be pulled: name another with --agent-image, or load")
        line = "inv nodes.preload IMAGE --from-cluster"
        ui.show(f"it into the nodes beforehand: {api.where.typed(line)}")
    changed = any(action != "unchanged" for action in rolled.objects.values())
    if not changed:
        ui.show("Nothing changed." if not dry_run else "Nothing to do: everything is in place.")
    return {
        "ok": rolled.ok,
        "dry_run": dry_run,
        "changed": changed and not dry_run,
        "cluster": told(api),
        "nodes": [one.to_json() for one in rolled.states],
        "objects": rolled.objects,
        "diagnosis": rolled.report.to_json() if rolled.report else None,
    }


def _agents_removed(
    run: Run, api: Api, untrust: bool, dry_run: bool, timeout: float
) -> dict[str, Any]:
    from moorage.cluster import agents as agency
    from moorage.cluster.login import removal
    from moorage.errors import MoorageError

    settings, ui = run.settings, run.ui
    found = removal.find(api, settings, part="agents")
    actions = [thing.action for thing in found.things]
    marked = agency.marked_nodes(api)
    if marked:
        actions.append(f"take our annotations off {', '.join(marked)}")
    if untrust and actions:
        actions.insert(0, "take the trust in the registry away from every node")
    if dry_run or not actions:
        ui.foretell(actions)
        if not actions:
            ui.show("There are no agents.")
        return {"ok": True, "dry_run": dry_run, "cluster": told(api), "actions": actions}
    ui.confirm(actions)
    if untrust:
        still = agency.take_trust_away(api, settings, ui, timeout)
        if still:
            names = ", ".join(one.node.name for one in still)
            raise MoorageError(
                "still-trusting",
                f"these nodes still have the trust: {names}",
                cause=still[0].error or "their agents have not answered in time",
                cure="look at their pods, then run the same command again; the agents are kept",
            )
    outcomes = take_away(run, api, removal.find(api, settings, part="agents"))
    agency.forget_nodes(api)
    left_over = left(run, outcomes)
    ui.show("The agents are gone." if not left_over else f"{left_over} objects are left.")
    return removed(api, outcomes)
