"""The registry's upkeep: what is due, done; and done daily by a timer."""

from __future__ import annotations

from typing import Any

from invoke.collection import Collection

from moorage.tasks.command import Run, command


@command(
    lock=True,
    default=True,
    help={"dry_run": "say what is due and change nothing"},
    own_registry="inv upkeep",
)
def run(run: Run, dry_run: bool = False) -> dict[str, Any]:
    """Do what is due: renew the certificate, prune by the policy, collect, back up.

    Typed as inv upkeep. A part that fails does not stop the others; exit code 1 if one did. The
    policy, the place of the backups and node_exporter's file are settings (upkeep).

    Example: inv upkeep
    Example: inv upkeep --dry-run
    """
    from moorage import upkeep as domain

    results = domain.keep_up(run.settings, run.ui, dry_run=dry_run)
    failed = [one for one in results if one.state == domain.FAILED]
    run.ui.table(("part", "", "what"), [[one.part, one.state, one.words] for one in results])
    for one in failed:
        if one.error is not None:
            run.ui.error(one.error)
    return {
        "ok": not failed,
        "changed": any(one.state == domain.DONE for one in results),
        "dry_run": dry_run,
        "parts": {one.part: one.to_json() for one in results},
    }


@command(
    lock=True,
    help={"dry_run": "say what would be written and change nothing"},
    own_registry="inv upkeep.install",
)
def install(run: Run, dry_run: bool = False, yes: bool = False) -> dict[str, Any]:
    """Have inv upkeep run daily: by a systemd timer, or by cron without systemd.

    It runs as the user who types this, at the time that upkeep.at names.

    Example: inv upkeep.install --yes
    Example: inv upkeep.install --dry-run
    """
    from moorage.upkeep import installing

    del yes
    actions = installing.announced(run.settings)
    if dry_run:
        run.ui.foretell(actions)
        return {"ok": True, "changed": False, "dry_run": True, "actions": actions}
    run.ui.confirm(actions)
    done = installing.install(run.settings)
    said = "runs" if done.changed else "Unchanged: it runs"
    run.ui.show(f"{said} daily at {run.settings.upkeep.at}, by {done.by}: {done.where}")
    return {"ok": True, **vars(done), "at": run.settings.upkeep.at}


@command(lock=True, own_registry="inv upkeep.remove")
def remove(run: Run) -> dict[str, Any]:
    """Take the timer of upkeep.install away again.

    Example: inv upkeep.remove
    Example: inv upkeep.remove --json
    """
    from moorage.upkeep import installing

    changed = installing.remove(run.settings)
    run.ui.show("The timer is gone." if changed else "Unchanged: there is no timer.")
    return {"ok": True, "changed": changed}


namespace = Collection("upkeep", run, install, remove)
