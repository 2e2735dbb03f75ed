"""The TLS registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from invoke.collection import Collection

from moorage.tasks.command import Run, command
from moorage.tasks.registry import caches

if TYPE_CHECKING:
    from moorage.registry import RegistryStatus


@command(lock=True, own_registry="inv registry.up")
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
    actions = phase.pending(walk, walk_up.REGISTRY_PHASES)
    if any(action.asks for action in actions):
        run.ui.confirm([action.text for action in actions])
    phase.go(walk, walk_up.REGISTRY_PHASES)
    from moorage import registry

    status = registry.status(run.settings, engine.connect(run.settings))
    _show(run, status)
    if not walk.changed:
        run.ui.show("Nothing changed: the registry was already up.")
    machine = walk.this_machine
    return {
        "ok": status.healthy,
        **status.to_json(),
        "changed": walk.changed,
        "this_machine": machine.to_json() if machine else None,
    }


@command(
    lock=True,
    help={"purge": "also delete its data, its login and its image"},
    own_registry="inv registry.down",
)
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

    cached: list[dict[str, Any]] = []
    if run.settings.registry.external:
        found = registry.external_status(run.settings)
    else:
        client = engine.connect(run.settings)
        found = registry.status(run.settings, client)
    password = registry.credentials(run.settings).password if show_password else ""
    _show(run, found, password)
    if not found.external:
        cached = caches.told(run, client)
    secret = {"password": password} if show_password else {}
    return {"ok": found.healthy, **found.to_json(), **_ends(run), "caches": cached, **secret}


def _ends(run: Run) -> dict[str, Any]:
    """When the certificate ends that is served now, and each other that ends soon."""
    import datetime

    from moorage.registry import served
    from moorage.registry.logins import external

    now = datetime.datetime.now(datetime.UTC)
    end, *found = served.served_end(run.settings), *served.kept_ends(run.settings)
    run.ui.show(f"  the certificate that is served {end.words(now)}")
    for one in found:
        if one.state(now) != "fine":
            cure = external.cure(run.settings, "", served.RENEWED_BY[one.what])
            run.ui.warn(f"the {one.what} {one.words(now)}; {cure}")
    return {"certificate": end.to_json(now), "ends": [one.to_json(now) for one in (end, *found)]}


@command(
    help={
        "follow": "go on until stopped",
        "tail": "how many of the last lines",
        "front": "of the front: who pushed, deleted, or was refused",
    },
    own_registry="inv registry.logs",
)
def logs(run: Run, follow: bool = False, tail: int = 100, front: bool = False) -> dict[str, Any]:
    """Show the registry's own log, or the front's.

    Example: inv registry.logs --follow --tail 20
    Example: inv registry.logs --front --tail=200
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
        for line in registry.logs(run.settings, client, follow=follow, tail=tail, front=front):
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
        "keep_aside": "how long registry.restore-blobs can bring it back; 0s: not at all",
        "dry_run": "say what would come free and change nothing",
    },
    own_registry="inv registry.collect",
)
def collect(
    run: Run, grace: str = "1h", keep_aside: str = "24h", dry_run: bool = False
) -> dict[str, Any]:
    """Free the bytes that no image needs, while pushes and pulls go on.

    What is taken is kept aside first, and deleted by a collection a day later.

    Example: inv registry.collect --dry-run
    Example: inv registry.collect --grace=6h --json
    """
    from moorage.catalogue.policy import seconds
    from moorage.registry.storage import collecting
    from moorage.registry.storage.opened import for_collection
    from moorage.upkeep import outcomes

    policy = collecting.CollectionPolicy(
        seconds("--grace", grace), keep=seconds("--keep-aside", keep_aside)
    )
    layout = for_collection(run.settings)
    if dry_run:
        planned = collecting.planned(layout, policy)
        size = sum(planned.values())
        run.ui.show(f"{len(planned)} blobs would be taken: {size:,} bytes")
        return {"ok": True, "changed": False, "blobs": len(planned), "bytes": size}
    with (
        outcomes.noted(run.settings, run.ui, "collect"),
        run.ui.progress("collecting what no image needs"),
    ):
        done = collecting.collect(layout, policy)
    run.ui.show(f"{done.aside} blobs were set aside: {done.aside_bytes:,} bytes")
    run.ui.show(
        f"  came free: {done.freed_bytes:,} bytes that were set aside longer than {keep_aside} ago"
    )
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


@command(lock=True, own_registry="inv registry.restore-blobs")
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


@command(own_registry="inv registry.verify")
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


@command(
    lock=True,
    positional=["to"],
    help={
        "to": "a folder, sftp:USER@HOST:FOLDER or s3:HOST/BUCKET (keys as AWS_* variables)",
        "passphrase_file": "a file whose first line is the passphrase; else it is asked",
    },
    own_registry="inv registry.backup",
)
def backup(run: Run, to: str, passphrase_file: str = "") -> dict[str, Any]:
    """Back the registry up by restic: images, logins, CAs, roster, settings; proved by pulls.

    It is called good after a registry of its own has served every tag from what restic gave back.

    Example: inv registry.backup /mnt/backup --passphrase-file=/root/passphrase
    Example: inv registry.backup sftp:me@nas:/backup --json
    """
    from functools import partial

    from moorage.backup import container, restic, taking
    from moorage.upkeep import outcomes

    at = restic.place(to, _passphrase(run, passphrase_file))
    serve = partial(container.serving, run.settings)
    with outcomes.noted(run.settings, run.ui, "backup") as note:
        done = taking.back_up(run.settings, run.ui.progress, at, serve)
        note.problem = taking.incomplete(done)
    for name in done.left_out:
        run.ui.warn(f"left out, for it is not whole: {name}")
    run.ui.show(f"backed up and proved: {done.tags} tags, {done.size:,} bytes of images")
    run.ui.show(f"  snapshot {done.snapshot[:8]} at {at.at}")
    return {"ok": not done.left_out, "at": at.at, **vars(done), "left_out": list(done.left_out)}


@command(
    lock=True,
    positional=["source"],
    help={
        "source": "where registry.backup put it",
        "passphrase_file": "a file whose first line is the passphrase; else it is asked",
        "snapshot": "this one; else the newest that was proved",
    },
    own_registry="inv registry.restore",
)
def restore(
    run: Run, source: str, passphrase_file: str = "", snapshot: str = "", yes: bool = False
) -> dict[str, Any]:
    """Put a backup in place on a machine that has no registry; no node has to be trusted again.

    Example: inv registry.restore /mnt/backup --yes
    Example: inv registry.restore sftp:me@nas:/backup --snapshot=1a2b3c4d
    """
    from moorage.backup import giving_back, restic

    del yes
    at = restic.place(source, _passphrase(run, passphrase_file))
    run.ui.confirm([f"put the backup at {at.at} in place, its invoke.yaml too"])
    done = giving_back.restore(run.settings, run.ui.progress, at, snapshot)
    run.ui.show(f"restored: {done.tags} tags, their logins, CAs, roster and settings")
    run.ui.show("  inv registry.up serves them")
    return {"ok": True, "changed": True, "at": at.at, **vars(done)}


def _passphrase(run: Run, file: str) -> str:
    """From a file, the terminal or stdin. Raises Refused (``no-password``)."""
    from moorage.backup import restic
    from moorage.files import user_path

    if not file:
        return run.ui.ask_secret("passphrase of the backup")
    return restic.read_passphrase(user_path(file))


@command(
    lock=True,
    help={
        "fetch": "show the certificates that it presents, ask, and store the one to trust",
        "fingerprint": "with --fetch: the SHA-256 that its owner told you; then nothing is asked",
    },
)
def ca(run: Run, fetch: bool = False, fingerprint: str = "", yes: bool = False) -> dict[str, Any]:
    """Show the CA that nodes trust the registry by; fetch that of one that is somebody else's.

    Example: inv registry.ca --fetch
    Example: inv registry.ca --json
    """
    from moorage.errors import Refused
    from moorage.pki import registry as pki

    del yes
    settings = run.settings
    if fingerprint and not fetch:
        raise Refused("wrong-use", "--fingerprint goes with --fetch", cure="add --fetch")
    changed = _fetch_ca(run, fingerprint) if fetch else False
    facts = pki.show(settings).ca
    said = pki.to_json(facts, settings.ca_file)
    run.ui.table(
        ("CA", ""),
        [
            ["file", said["path"]],
            ["subject", facts.subject],
            ["ends", f"{facts.not_after:%Y-%m-%d %H:%M} UTC, in {said['days_left']} days"],
            ["SHA-256", facts.fingerprint],
        ],
    )
    return {"ok": True, "changed": changed, "ca": said}


def _fetch_ca(run: Run, fingerprint: str) -> bool:
    """Stores what the user agrees to; returns whether it is another than before. Raises Refused."""
    from moorage.pki import certificates, presented
    from moorage.pki import registry as pki
    from moorage.registry import client, tls
    from moorage.registry.logins import external

    settings, ui = run.settings, run.ui
    external.require_external(settings, "inv registry.ca --fetch")
    place, port = client.place(settings)
    found = presented.look(
        place, settings.registry.host, port, present=lambda made: tls.present(settings, made)
    )
    rows = []
    for number, one in enumerate(found.chain, 1):
        facts = certificates.facts(one)
        ends = f"{facts.not_after:%Y-%m-%d}"
        rows.append([str(number), facts.subject, facts.issuer, ends, facts.fingerprint])
    ui.table(("presented", "subject", "issuer", "ends", "SHA-256"), rows)
    anchor = certificates.facts(found.anchor)
    ui.note(f"to be trusted: {anchor.subject}, {found.kind}")
    if fingerprint:
        presented.require_fingerprint(found, fingerprint)
    else:
        action = f"trust {settings.registry_name} by {anchor.subject}, SHA-256 {anchor.fingerprint}"
        ui.confirm([f"{action}; compare it with what the registry's owner says"])
    return pki.keep_external_ca(settings, found.anchor)


@command(
    lock=True,
    help={
        "credentials": "a file with one line user:password, - for stdin",
        "user": "the user's name; the password is asked for (without a terminal: a line on stdin)",
    },
)
def login(run: Run, credentials: str = "", user: str = "") -> dict[str, Any]:
    """Keep the login for a registry that is somebody else's, once that registry has taken it.

    Example: inv registry.login --credentials=robot.txt
    Example: inv registry.login --credentials=-
    """
    from moorage.errors import Refused
    from moorage.registry import client
    from moorage.registry.logins import external
    from moorage.registry.logins import login as given
    from moorage.registry.logins.credentials import keep, login_file

    settings = run.settings
    external.require_external(settings, "inv registry.login")
    if bool(credentials) == bool(user):
        raise Refused(
            "wrong-use",
            "inv registry.login takes either --credentials or --user",
            cause="a password never goes on a command line",
            cure="inv registry.login --credentials=FILE, with one line user:password",
        )
    if user:
        password = run.ui.ask_secret(f"password of {user}")
        found = given.parsed(f"{user}:{password}".encode(), "the terminal")
    else:
        found = given.read(credentials)
    client.check_login(settings, found)
    changed = keep(settings, found)
    run.ui.show(f"{settings.registry_name} takes the login of {found.user}; it is kept.")
    run.ui.show(f"  {login_file(settings)}")
    return {"ok": True, "changed": changed, "user": found.user}


def _show(run: Run, found: RegistryStatus, password: str = "") -> None:
    said = "answers" if found.healthy else f"not well: {found.problem}"
    container = f"{found.container} ({found.image})" if found.image else found.container
    runs = "somebody else" if found.external else container
    rows = [
        ["registry", found.url],
        ["state", said],
        ["run by" if found.external else "container", runs],
        *([] if found.external else [["front", found.front]]),
        ["login", found.user or "none"],
    ]
    if password:
        rows.append(["password", password])
    if found.since:
        rows.append(["since", f"{found.since[:19]} UTC"])
    run.ui.table(("", ""), rows)


namespace = Collection(
    "registry",
    *(up, down, status, logs, ca, login),
    *(collect, restore_blobs, verify, backup, restore, caches.cache),
)
