"""The TLS registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from invoke.collection import Collection

from moorage.tasks.command import Run, command

if TYPE_CHECKING:
    from moorage.registry import RegistryStatus


@command(lock=True)
def up(run: Run, yes: bool = False) -> dict[str, Any]:
    """Stand the registry up, with certificates and login, and make this machine trust it.

    Example: inv registry.up --yes
    Example: inv registry.up --json
    """
    from moorage.docker import engine
    from moorage.walk import phase
    from moorage.walk import up as walk_up

    del yes  # the voice knows it already
    walk = phase.Walk(run.settings, run.ui)
    phases = walk_up.PHASES[:4]  # engine, certificates, registry, this machine
    actions = phase.pending(walk, phases)
    if any(action.asks for action in actions):
        run.ui.confirm([action.text for action in actions])
    phase.go(walk, phases)
    from moorage import registry

    status = registry.status(run.settings, engine.connect(run.settings))
    _show(run, status)
    if not walk.changed:
        run.ui.show("Nothing changed: the registry stood already.")
    machine = walk.this_machine
    return {
        "ok": status.healthy,
        **status.to_json(),
        "changed": walk.changed,
        "this_machine": machine.to_json() if machine else None,
    }


@command(lock=True, help={"purge": "also delete its data, its login and its image"})
def down(run: Run, purge: bool = False, yes: bool = False) -> dict[str, Any]:
    """Take the registry down; its data and login stay unless purged.

    Example: inv registry.down
    Example: inv registry.down --purge --yes
    """
    from moorage import registry
    from moorage.docker import engine

    del yes
    settings, ui = run.settings, run.ui
    client = engine.connect(settings)
    if purge:
        ui.confirm([f"delete every image pushed to the registry ({settings.registry_data})"])
    changed = registry.down(settings, client, ui, purge=purge)
    ui.show("The registry is down." if changed else "Unchanged: there was no registry.")
    if settings.registry_data.exists():
        ui.show(f"  kept: {settings.registry_data} (inv registry.down --purge deletes it)")
    return {"ok": True, "changed": changed}


@command(help={"show_password": "print the login's password as well"})
def status(run: Run, show_password: bool = False) -> dict[str, Any]:
    """Say whether the registry runs and answers; exit code 1 if not.

    Example: inv registry.status --show-password
    Example: inv registry.status --json
    """
    from moorage import registry
    from moorage.docker import engine

    found = registry.status(run.settings, engine.connect(run.settings))
    password = registry.credentials(run.settings).password if show_password else ""
    _show(run, found, password)
    secret = {"password": password} if show_password else {}
    return {"ok": found.healthy, **found.to_json(), "certificate": _served(run), **secret}


def _served(run: Run) -> dict[str, Any]:
    """When the certificate ends that is served now."""
    import datetime

    from moorage.registry import served

    now = datetime.datetime.now(datetime.UTC)
    end = served.served_end(run.settings)
    run.ui.show(f"  the certificate that is served {end.words(now)}")
    return end.to_json(now)


@command(help={"follow": "go on until stopped", "tail": "how many of the last lines"})
def logs(run: Run, follow: bool = False, tail: int = 100) -> dict[str, Any]:
    """Show the registry's own log.

    Example: inv registry.logs --follow --tail 20
    Example: inv registry.logs --tail=200
    """
    from moorage import registry
    from moorage.docker import engine
    from moorage.errors import Refused

    if tail < 0:
        raise Refused(
            "wrong-use", f"invalid --tail={tail}: it is not a number of lines", cure="--tail 20"
        )
    count = 0
    client = engine.connect(run.settings)
    try:
        for line in registry.logs(run.settings, client, follow=follow, tail=tail):
            run.ui.stream(line)
            count += 1
    except KeyboardInterrupt:
        if not follow:  # which ends by nothing else
            raise
    return {"ok": True, "lines": count}


@command(
    lock=True,
    help={
        "grace": "take no blob that was pushed less long ago; longer than any push lasts",
        "keep": "how long registry.restore-blobs can bring back what was taken; 0s: not at all",
        "dry_run": "say what would come free and change nothing",
    },
)
def collect(
    run: Run, grace: str = "1h", keep: str = "24h", dry_run: bool = False
) -> dict[str, Any]:
    """Free the bytes that no image needs, while pushes and pulls go on.

    What is taken is kept aside first, and deleted by a collection a day later.

    Example: inv registry.collect --dry-run
    Example: inv registry.collect --grace=6h --json
    """
    from moorage.catalogue.policy import seconds
    from moorage.registry.storage import collecting
    from moorage.registry.storage.opened import for_collection

    policy = collecting.Policy(seconds("--grace", grace), keep=seconds("--keep", keep))
    layout = for_collection(run.settings)
    if dry_run:
        planned = collecting.planned(layout, policy)
        size = sum(planned.values())
        run.ui.show(f"{len(planned)} blobs would be taken: {size:,} bytes")
        return {"ok": True, "changed": False, "blobs": len(planned), "bytes": size}
    with run.ui.progress("collecting what no image needs"):
        done = collecting.collect(layout, policy)
    run.ui.show(f"{done.aside} blobs were set aside: {done.aside_bytes:,} bytes")
    run.ui.show(f"  came free: {done.freed_bytes:,} bytes that were set aside earlier than {keep}")
    if done.aside:
        run.ui.show("  inv registry.restore-blobs brings them back; a later collect deletes them")
    if done.returned:
        run.ui.show(f"  put back, for a push needs them: {len(done.returned)} blobs")
    return {
        "ok": True,
        "changed": bool(done.aside or done.freed_bytes or done.returned),
        "blobs": done.aside,
        "bytes": done.aside_bytes,
        "freed_bytes": done.freed_bytes,
        "returned": sorted(done.returned),
    }


@command(lock=True)
def restore_blobs(run: Run) -> dict[str, Any]:
    """Bring back what collections of the last day set aside.

    Example: inv registry.restore-blobs
    Example: inv registry.restore-blobs --json
    """
    from moorage.registry.storage import collecting
    from moorage.registry.storage.opened import opened

    found = sorted(collecting.restore(opened(run.settings)))
    run.ui.show(f"brought back: {len(found)} blobs" if found else "Unchanged: nothing is aside.")
    return {"ok": True, "changed": bool(found), "blobs": found}


@command()
def verify(run: Run) -> dict[str, Any]:
    """Read every blob against its digest, and name each that is wrong; exit code 1 if any is.

    Example: inv registry.verify
    Example: inv registry.verify --json
    """
    from moorage.registry.storage import verifying
    from moorage.registry.storage.opened import opened

    with run.ui.progress("reading every blob") as update:
        found = verifying.verify(opened(run.settings), lambda done: update(done=done))
    rows = [
        [one.digest, one.found or "not there", ", ".join(one.images) or "no image"]
        for one in found.wrong
    ]
    if rows:
        run.ui.table(("wrong blob", "its content is", "breaks"), rows)
        run.ui.show("  push these images again, or: inv registry.restore")
    run.ui.show(f"{found.blobs} blobs read, {found.size:,} bytes: {len(rows)} wrong")
    return {
        "ok": not rows,
        "blobs": found.blobs,
        "bytes": found.size,
        "wrong": [{**vars(one), "images": list(one.images)} for one in found.wrong],
    }


def _show(run: Run, found: RegistryStatus, password: str = "") -> None:
    said = "answers" if found.healthy else f"not well: {found.problem}"
    rows = [
        ["registry", found.url],
        ["state", said],
        ["container", f"{found.container} ({found.image})" if found.image else found.container],
        ["login", found.user],
    ]
    if password:
        rows.append(["password", password])
    if found.since:
        rows.append(["since", f"{found.since[:19]} UTC"])
    run.ui.table(("", ""), rows)


namespace = Collection("registry", up, down, status, logs, collect, restore_blobs, verify)
