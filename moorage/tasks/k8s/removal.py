"""What is ours in the cluster, taken away again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from moorage.tasks.command import Run, command
from moorage.tasks.k8s.on_cluster import CLUSTER, cluster_of, told

if TYPE_CHECKING:
    from moorage.cluster.api.client import Api
    from moorage.cluster.login.removal import Found
    from moorage.cluster.login.removal import RemovalOutcome as Removed


@command(
    lock=True,
    help={
        **CLUSTER,
        "namespace": "only in these namespaces, a,b,c (else everywhere)",
        "dry_run": "say what would be removed and change nothing",
    },
)
def rm(
    run: Run,
    namespace: str = "",
    dry_run: bool = False,
    context: str = "",
    kubeconfig: str = "",
    yes: bool = False,
) -> dict[str, Any]:
    """Remove all that is ours from the cluster, found by label, and nothing else.

    Example: inv k8s.rm --dry-run
    Example: inv k8s.rm --namespace=web,shop --yes
    """
    from moorage.cluster import agents
    from moorage.cluster.login import namespaces, removal

    del yes
    ui = run.ui
    chosen = namespaces.split(namespace, "--namespace")
    with cluster_of(run, kubeconfig, context) as api:
        found = removal.find(api, run.settings, chosen)
        for problem in found.unseen:
            ui.warn(f"{problem.message}: what is ours among them stays")
        for other in found.others:
            ui.note(f"left alone: what belongs to the registry {other}")
        actions = [thing.action for thing in found.things]
        if dry_run or not actions:
            ui.foretell(actions)
            if not actions:
                if chosen:  # a misspelt one must not look clean
                    namespaces.choose(api, namespaces.Choice(namespace))
                ui.show("Nothing of ours is there.")
                if not dry_run:
                    _forget(run, api, found, chosen)
            return {"ok": True, "dry_run": dry_run, "cluster": told(api), "actions": actions}
        ui.confirm(actions)
        outcomes = take_away(run, api, found)
        if any(thing.kind == "DaemonSet" for thing in found.things) and not chosen:
            agents.forget_nodes(api)
        kept = left(run, outcomes)
        words = f"Removed {len(outcomes) - kept} of {len(outcomes)}"
        ui.show(f"{words}; see above why the others were not." if kept else f"{words}.")
        if not kept:
            _forget(run, api, found, chosen)
        return removed(api, outcomes)


def _forget(run: Run, api: Api, found: Found, chosen: Sequence[str]) -> None:
    """A cluster that was looked through whole holds no login any more, and no agents; no rotation
    waits for it."""
    from moorage.cluster.api.refusals import ApiError
    from moorage.cluster.login import admins
    from moorage.registry import handed
    from moorage.rotation import rotation

    if found.unseen or chosen:
        return
    try:
        holds = any(admins.logins_held(api, run.settings))
    except ApiError as problem:
        cure = f"inv users.rotate --without={api.where.server} lets it go"
        run.ui.warn(f"{problem.message}; a rotation still waits for this cluster: {cure}")
        return
    if not holds:
        handed.forget(run.settings, api.where.server)
        rotation.let_cluster_go(run.settings, api.where.server)


def take_away(run: Run, api: Api, found: Found) -> list[Removed]:
    """Removes what was found, and shows how far it is."""
    from moorage.cluster.login import removal

    with run.ui.progress(f"remove {len(found.things)} objects") as update:
        return removal.remove(api, found, update)


def left(run: Run, outcomes: Sequence[Removed]) -> int:
    """How many of them are left; each is named, with the reason."""
    from moorage.cluster.login import removal

    run.ui.present(removal.failures(outcomes))
    return sum(not one.is_away for one in outcomes)


def removed(api: Api, outcomes: Sequence[Removed]) -> dict[str, Any]:
    """The document of a removal."""
    return {
        "ok": not any(one.error for one in outcomes),
        "dry_run": False,
        "cluster": told(api),
        "objects": [one.to_json() for one in outcomes],
    }
