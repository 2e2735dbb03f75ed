"""Keys and certificates."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from invoke.collection import Collection

from moorage.tasks.command import Run, command
from moorage.tasks.on_nodes import Nodes, on_nodes

if TYPE_CHECKING:
    from moorage.rotation.course import State


@command(
    lock=True,
    help={
        "new_ca": "replace the CA; the old one stays as a dated copy",
        "at_once": "with --new-ca: even if nodes trust the old one, and then cannot pull",
    },
    own_registry="inv certs.issue",
)
def issue(run: Run, new_ca: bool = False, at_once: bool = False) -> object:
    """Issue the CA and the registry's certificate; what is still good is kept.

    Nodes that trust the present CA follow to another one by certs.rotate-ca, and go on pulling.
    Example: inv certs.issue
    Example: inv certs.issue --new-ca
    """
    from moorage.pki import registry as pki
    from moorage.rotation import rotation

    if new_ca:
        rotation.refuse_under_way(run.settings)
        rotation.refuse_if_trusted(run.settings, at_once=at_once)
    issued = pki.issue(run.settings, new_ca=new_ca)
    run.ui.present(issued.notes)
    if not issued.changed:
        run.ui.say("unchanged: the certificates are still good")
    document = _shown(run)
    return {"ok": True, "changed": issued.changed, "made": list(issued.made), **document}


@command(lock=True)
def renew(run: Run) -> object:
    """Renew the registry's certificate and serve it; no connection is closed.

    A certificate that Moorage did not make is served as it lies in certs/.

    Example: inv certs.renew
    Example: inv certs.renew --json
    """
    from moorage.registry import renewal
    from moorage.upkeep import outcomes

    with outcomes.noted(run.settings, run.ui, "renew"):
        renewed = renewal.renew(run.settings, run.ui)
    run.ui.show(f"Served since now: {renewed.fingerprint}, until {renewed.not_after:%Y-%m-%d}.")
    document = _shown(run)
    return {"ok": True, "changed": renewed.changed, "served": renewed.fingerprint, **document}


@on_nodes(
    lock=True,
    only_reads="status",
    own_registry="inv certs.rotate-ca",
    help={
        "status": "show how far it has come, and whom it waits for; at once, while it runs too",
        "resume": "go on with it, and visit again who was absent or failed",
        "abort": "until the switch: remove the new CA again",
        "context": "the clusters whose agents follow, a,b; with --from-cluster that of the nodes",
        "kubeconfig": "where these contexts are",
        "without": "do not wait for these members (as --status names them), a,b",
        "dry_run": "say what would be done, and to whom; with --resume and --abort too",
    },
)
def rotate_ca(
    run: Run,
    nodes: Nodes,
    status: bool = False,
    resume: bool = False,
    abort: bool = False,
    without: str = "",
    dry_run: bool = False,
) -> dict[str, Any]:
    """Have every node trust a new CA, prove it by pulls, serve it, and drop the old one.

    Nodes are those of nodes.trust, each with an agent that stays, this machine and the cluster.
    No pull fails meanwhile, and no runtime is restarted.
    Example: inv certs.rotate-ca --dry-run
    Example: inv certs.rotate-ca --resume --without=node3
    """
    from moorage.fleet.report import agreement
    from moorage.rotation import course, rotation, telling
    from moorage.rotation.members import Means

    # `resume` is an option of every change in waves too, and is told by them.
    resume = resume or nodes.waves.resume
    _refuse_two_wishes(status, resume, abort)
    settings, ui = run.settings, run.ui
    if status:
        return _rotation_shown(run)
    cluster = nodes.cluster
    if not cluster.wanted:  # then the cluster that is named is that of the agents alone
        nodes = replace(nodes, cluster=replace(cluster, kubeconfig="", context=""))
    means = Means(settings, ui, nodes.fleet(), cluster.kubeconfig, cluster.context)
    names = [word.strip() for word in without.split(",") if word.strip()]
    if resume or abort:
        rotation.under_way(settings)
        come = nodes.chosen() if nodes.hosts or nodes.inventory or cluster.wanted else ()
        state = rotation.resumed(means, come, names)
        state = rotation.give_up(state) if abort else state
    else:
        state = rotation.begin(means, nodes.any_chosen(), names)
    steps = course.to_come(state)
    actions = telling.plan(settings.registry_name, state, steps)
    if dry_run:
        ui.foretell(actions)
        told = [{"deed": one.deed, "members": list(one.members)} for one in steps]
        return {**rotation.to_json(settings, state), "ok": True, "dry_run": True, "steps": told}
    if ui.interactive and not abort and not agreement.given(settings, yes=ui.yes):
        ui.confirm(actions, question="Change these nodes?")
    return _rotation_told(run, rotation.go(means, state))


def _refuse_two_wishes(*wishes: bool) -> None:
    from moorage.errors import Refused

    if sum(wishes) > 1:
        raise Refused(
            "wrong-use",
            "--status, --resume and --abort exclude one another",
            cause="each asks for a different thing",
            cure="leave all but one of them out",
        )


def _rotation_shown(run: Run) -> dict[str, Any]:
    """How far it has come, and who is at work in this folder now."""
    from moorage.lock import holder
    from moorage.rotation import rotation, telling

    state, at_work = rotation.under_way(run.settings), holder(run.settings.state)
    run.ui.present(telling.standing(state, at_work))
    document = rotation.to_json(run.settings, state)
    return {"ok": True, **document, "at_work": at_work or None}


def _rotation_told(run: Run, state: State) -> dict[str, Any]:
    """Its document; one that waits for somebody ends the run with 1, for it is not done."""
    from moorage.rotation import course, rotation, telling

    run.ui.present(telling.standing(state))
    document = rotation.to_json(run.settings, state)
    return {"ok": state.phase == course.DONE, **document}


@command()
def show(run: Run) -> object:
    """Show what the certificates say: names, end, fingerprints.

    Example: inv certs.show --json
    Example: inv certs.show
    """
    return {"ok": True, **_shown(run)}


def _shown(run: Run) -> dict[str, object]:
    from moorage.pki import registry as pki
    from moorage.rotation import kept

    shown = pki.show(run.settings)
    folder = run.settings.certs_dir
    rows: list[list[str]] = []
    document: dict[str, object] = {
        "registry": None,
        "chain": [pki.to_json(one, folder / "registry.crt") for one in shown.chain],
        "made_here": shown.made_here,
        "further_cas": [pki.to_json(one, run.settings.ca_file) for one in shown.further],
    }
    for name, facts, file in (
        ("ca", shown.ca, run.settings.ca_file),
        ("registry", shown.registry, folder / "registry.crt"),
    ):
        if facts is None:
            continue
        said = pki.to_json(facts, file)
        document[name] = said
        rows += [
            [name, "file", said["path"]],
            ["", "subject", facts.subject],
            ["", "names", ", ".join(facts.names) or "-"],
            ["", "key", facts.key],
            ["", "ends", f"{facts.not_after:%Y-%m-%d %H:%M} UTC, in {said['days_left']} days"],
            ["", "SHA-256", facts.fingerprint],
        ]
    if shown.registry is not None:
        issuer = shown.registry.issuer
        rows.append(["", "made by", "Moorage" if shown.made_here else f"another: {issuer}"])
    rows += [["", "then", facts.subject] for facts in shown.chain]
    rows += [["further CA", "subject", one.subject] for one in shown.further]
    if (state := kept.read(run.settings)) is not None:
        rows.append(["rotation", "phase", f"{state.phase}; inv certs.rotate-ca --status"])
    run.ui.table(("certificate", "", ""), rows)
    document["ends"] = _ends(run)
    return document


def _ends(run: Run) -> list[dict[str, object]]:
    """A table of when each certificate ends, with what the registry serves now."""
    import datetime

    from moorage.registry import served

    now = datetime.datetime.now(datetime.UTC)
    found = served.all_ends(run.settings)
    run.ui.table(("", "", "where"), [[one.what, one.words(now), one.where] for one in found])
    return [one.to_json(now) for one in found]


namespace = Collection("certs", issue, renew, rotate_ca, show)
