"""One file for a machine without a network: made, looked into, loaded, dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from invoke.collection import Collection

from moorage.errors import wrong_use
from moorage.tasks.command import Run, command

if TYPE_CHECKING:
    from pathlib import Path

    from moorage.bundle.saving import BundlePart

_DRY = "say what would be done, and do nothing"
_MOST_AT_ONCE = 64


@command(
    lock=True,
    positional=["file"],
    help={
        "file": "the bundle to write",
        "images": "a file with one reference per line; - is standard input",
        "since": "a bundle that the other side has: what it holds is left out",
        "platform": "this one alone, as linux/arm64 (else all of each image)",
        "authfile": "logins of registries, as skopeo login and podman login write them",
        "update": "a tag that leads to another image by now is taken as it is now",
        "at_once": "how many images are fetched at once",
        "dry_run": "say what would go in, and write no bundle",
    },
)
def save(
    run: Run,
    file: str,
    images: str = "",
    since: str = "",
    platform: str = "",
    authfile: str = "",
    update: bool = False,
    at_once: int = 6,
    dry_run: bool = False,
    yes: bool = False,
) -> dict[str, Any]:
    """Write one file with all that a machine without a network needs.

    This repository at its commit, wheels, Debian packages, the images that `inv up` needs, and the
    images asked for. An image that fails keeps no other from being fetched, and nothing is written
    until all are there; the same command goes on from what it has.

    Example: inv bundle.save moorage.tar --images=images.txt
    Example: inv bundle.save update.tar --images=images.txt --since=moorage.tar
    """
    from moorage.bundle import saving
    from moorage.catalogue import lists
    from moorage.docker import engine
    from moorage.images import outcome, skopeo, upstream

    del yes  # the command has read it
    if not 1 <= at_once <= _MOST_AT_ONCE:
        raise wrong_use(f"invalid --at-once={at_once}: 1 to {_MOST_AT_ONCE}", "inv bundle.save")
    wanted = lists.unique(run.settings, lists.of_file(images)) if images else []
    wish = saving.SaveWish(
        _path(file),
        tuple(wanted),
        skopeo.readable(authfile),
        upstream.platform(platform),
        update,
        at_once,
        _path(since) if since else None,
    )
    actions = saving.pending(run.settings, wish)
    if wanted:
        skopeo.ensure(run.ui, run.settings, dry_run=dry_run)
    if dry_run:
        run.ui.foretell(actions)
        parts, outcomes = saving.foretold(run.settings, wish, run.ui.progress)
        _show(run, parts)
        run.ui.present(outcome.told(outcomes))
        said = outcome.document(outcomes)
        rows = [vars(one) for one in parts]
        return {**said, "changed": False, "file": str(wish.file), "parts": rows}
    run.ui.confirm([action.text for action in actions if action.asks])
    engine.ensure(run.settings, run.ui.progress)
    saved = saving.save(run.settings, engine.connect(run.settings), wish, run.ui.progress)
    run.ui.present(outcome.told(saved.outcomes))
    said = outcome.document(saved.outcomes)
    if saved.manifest is None:
        failed = said["failed"]
        run.ui.show(f"{failed} of {len(wanted)} images failed: {file} is not written")
        run.ui.show("  the same command goes on from here; what is whole is kept beside it")
        return {**said, "file": str(wish.file), "id": ""}
    _show(run, saving.summed(saved.manifest))
    size = wish.file.stat().st_size
    less = f", {saved.left_out} of {len(saved.manifest.files)} files left out" if since else ""
    run.ui.show(f"wrote {wish.file}: {_size(size)}{less}")
    run.ui.show(f"  id {saved.id}")
    run.ui.show(f"There: tar -xf {wish.file.name} run && ./run --bundle {wish.file.name} inv up")
    rows = [vars(one) for one in saving.summed(saved.manifest)]
    return {**said, "changed": True, "file": str(wish.file), "id": saved.id, "size": size,
            "left_out": saved.left_out, "parts": rows}  # fmt: skip


@command(
    lock=True,
    positional=["file"],
    help={"file": "a bundle of bundle.save", "dry_run": _DRY},
)
def load(run: Run, file: str, dry_run: bool = False) -> dict[str, Any]:
    """Unpack a bundle, and take packages and images from it before any network is tried.

    Each member is compared with its digest before it is used. `./run --bundle FILE` does this, too.

    Example: inv bundle.load moorage.tar
    Example: inv bundle.load update.tar --dry-run
    """
    from moorage.bundle import checkout, loading

    path = _path(file)
    here = checkout.known_commit(run.settings.root)
    if dry_run:
        _, found = loading.look(run.settings, path)
        if found.changed:
            run.ui.foretell([f"unpack {file} into {found.folder}, and take things from there"])
        else:
            run.ui.show("Nothing to do: it is loaded.")
    else:
        found = loading.load(run.settings, path, run.ui.progress)
        verb = "loaded" if found.changed else "unchanged"
        run.ui.show(f"{verb}: {file}, {len(found.manifest.files)} files in {found.folder}")
        if found.shared:
            run.ui.show(f"  {found.shared} of them from bundles that were loaded before")
        run.ui.show("Next: inv up")
    if here and here != found.manifest.commit:
        run.ui.note(
            f"this checkout is commit {here[:12]}, the bundle {found.manifest.commit[:12]}: images"
            " whose recipe differs are not in it"
        )
    return {
        "ok": True,
        "changed": found.changed and not dry_run,
        "dry_run": dry_run,
        "id": found.id,
        "folder": str(found.folder),
        "unpacked": found.unpacked,
        "shared": found.shared,
    }


@command(positional=["file"], help={"file": "a bundle of bundle.save"})
def show(run: Run, file: str) -> dict[str, Any]:
    """Show what is in a bundle: for which system, of which commit, how much of each kind.

    Example: inv bundle.show moorage.tar
    Example: inv bundle.show moorage.tar --json
    """
    from moorage.bundle import packing, saving

    one = packing.opened(_path(file))
    found = one.manifest
    run.ui.show(f"{file}: Moorage {found.version}, commit {found.commit[:12]}, for {found.system}")
    run.ui.show(f"  id {one.id}")
    if found.since:
        run.ui.show(f"  the difference to the bundle {found.since}")
    parts = saving.summed(found)
    _show(run, parts)
    rows = [[image.reference, image.digest[7:19]] for image in found.images]
    rows += [[image.name, "for the engine"] for image in found.engine]
    run.ui.table(("image", "digest"), rows)
    return {
        "ok": True,
        "id": one.id,
        "version": found.version,
        "commit": found.commit,
        "system": vars(found.system),
        "since": found.since,
        "parts": [vars(part) for part in parts],
        "images": [{"reference": i.reference, "digest": i.digest} for i in found.images],
        "engine": [image.name for image in found.engine],
        "files": [vars(each) for each in found.files],
    }


@command(lock=True, help={"dry_run": _DRY})
def drop(run: Run, dry_run: bool = False) -> dict[str, Any]:
    """Take nothing from the loaded bundle any more, and delete what was unpacked of it.

    Example: inv bundle.drop
    Example: inv bundle.drop --dry-run
    """
    from moorage.bundle import loading
    from moorage.supply import loaded

    found = loaded.current(run.settings.root)
    if dry_run:
        run.ui.foretell([f"delete {found.folder}"] if found else [])
    elif loading.drop(run.settings):
        run.ui.show("dropped; packages and images come from the network again")
    else:
        run.ui.show("No bundle is loaded.")
    return {"ok": True, "changed": found is not None and not dry_run, "dry_run": dry_run}


def _show(run: Run, parts: list[BundlePart]) -> None:
    rows = [
        [one.what, str(one.count), "-" if one.size is None else _size(one.size)] for one in parts
    ]
    run.ui.table(("what", "how many", "size"), rows)


def _path(file: str) -> Path:
    """Raises Refused (``no-home``) for ~nobody."""
    from moorage.files import user_path

    return user_path(file).absolute()


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


namespace = Collection("bundle", save, load, show, drop)
