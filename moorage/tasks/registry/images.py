"""The images in the registry: seen, deleted, pruned."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from invoke.collection import Collection

from moorage.output import size
from moorage.output.ages import age
from moorage.tasks.command import Run, command

if TYPE_CHECKING:
    from moorage.catalogue.retention import TagVerdict

# Beyond so many rows a table is lines: Rich takes a second for 5,000 rows.
_TABLE_ROWS = 500


@command(
    name="list",
    positional=["repository"],
    help={"repository": "one repository, such as serve_hostname; else all of them"},
    own_registry="inv images.list",
)
def list_(run: Run, repository: str = "") -> dict[str, Any]:
    """List the images in the registry: tags, digests, platforms, sizes, ages.

    Example: inv images.list
    Example: inv images.list serve_hostname --json
    """
    from moorage.catalogue import listing
    from moorage.registry.storage.opened import opened

    layout = opened(run.settings)
    images: list[dict[str, Any]] = []
    untagged = 0
    for held in listing.repositories(layout, repository):
        tagged = {link.digest for link in held.tags.values()}
        children = {c for one in held.manifests.values() for c in one.manifest.children}
        untagged += len(held.manifests.keys() - tagged - children)
        images += (
            {
                "repository": held.name,
                "tag": tag,
                "digest": link.digest,
                "platforms": list(listing.platforms(layout, held, link.digest)),
                "size": held.size(link.digest),
                "pushed": link.pushed,
            }
            for tag, link in held.tags.items()
        )
    now = time.time()
    rows = [
        [
            f"{one['repository']}:{one['tag']}", one["digest"][7:19],
            ", ".join(one["platforms"]) or "-", size(one["size"]), age(now - one["pushed"]),
        ]
        for one in images
    ]  # fmt: skip
    _rows(run, ("image", "digest", "platforms", "size", "age"), rows)
    if untagged:
        run.ui.show(f"{untagged} untagged manifests beside: inv images.prune --untagged --dry-run")
    return {"ok": True, "images": images, "untagged": untagged}


@command(
    lock=True,
    positional=["reference"],
    help={
        "reference": "REPOSITORY:TAG, or REPOSITORY@sha256:... with every tag of it",
        "dry_run": "say what would go and change nothing",
    },
    own_registry="inv images.delete",
)
def delete(run: Run, reference: str, dry_run: bool = False, yes: bool = False) -> dict[str, Any]:
    """Delete one image from the registry; what other tags and images need of it stays.

    Example: inv images.delete serve_hostname:0.0.1 --dry-run
    Example: inv images.delete serve_hostname:0.0.1 --yes
    """
    from moorage import registry
    from moorage.catalogue import deletion, listing
    from moorage.registry.storage.opened import opened

    del yes
    name, tag, digest = listing.reference(run.settings, reference)
    (held,) = listing.repositories(opened(run.settings), name)
    steps, warnings = deletion.of_reference(held, tag, digest)
    for warning in warnings:
        run.ui.warn(warning)
    told = [f"{one.repository}{':' + one.tag if one.tag else '@' + one.digest}" for one in steps]
    if dry_run:
        run.ui.foretell([f"delete {one}" for one in told])
    else:
        run.ui.confirm([f"delete {one} from the registry" for one in told])
        login = registry.credentials(run.settings)
        for step in steps:
            deletion.carry_out(run.settings, login, step)
        run.ui.show(f"deleted: {', '.join(told)}")
        run.ui.show("  inv registry.collect frees its bytes")
    return {"ok": True, "changed": not dry_run, "deleted": told, "warnings": warnings}


@command(
    lock=True,
    help={
        "keep": "how many of the newest tags of each repository stay",
        "older_than": "only what was pushed longer ago may go: 30d, 12h",
        "untagged": "manifests without a tag go, too, once they are a day old",
        "protect": "patterns of repositories, tags or REPOSITORY:TAG that stay, by commas",
        "all": "even if a repository is left without any image",
        "without_nodes": "what nodes outside of a cluster run may go",
        "dry_run": "show what goes, what stays and why, and change nothing",
    },
    own_registry="inv images.prune",
)
def prune(
    run: Run,
    keep: str = "",
    older_than: str = "",
    untagged: bool = False,
    protect: str = "",
    all: bool = False,
    without_nodes: bool = False,
    dry_run: bool = False,
    yes: bool = False,
) -> dict[str, Any]:
    """Delete old images by a policy; nothing that a pod, a rollback or a node uses.

    Example: inv images.prune --keep=10 --older-than=30d --dry-run
    Example: inv images.prune --keep=10 --untagged --protect='release-*' --yes
    """
    from moorage import registry
    from moorage.catalogue import policy, pruning, usage
    from moorage.fleet.rollout.fleet import Fleet
    from moorage.upkeep import outcomes

    del yes
    wanted = policy.parse(keep, older_than, protect, untagged=untagged)
    api = usage.cluster(run.settings)
    if api is not None:
        run.ui.note(f"cluster: {api.where}")
    fleet = Fleet(run.settings, run.ui)
    plan = pruning.plan(
        run.settings, api, fleet, wanted, everything=all, without_nodes=without_nodes
    )
    done = []
    _verdicts(run, plan.verdicts if dry_run else tuple(plan.going))
    for word in plan.said_by:
        run.ui.note(f"asked what is in use: {word}")
    if not plan.going:
        run.ui.show("Nothing goes.")
    elif not dry_run:
        run.ui.confirm([f"delete {len(plan.going)} tags and manifests from the registry"])
        login = registry.credentials(run.settings)
        with (
            outcomes.noted(run.settings, run.ui, "prune"),
            run.ui.progress("deleting images") as update,
        ):
            done = pruning.carry_out(run.settings, login, plan, update)
        run.ui.show(f"{len(done)} deleted; inv registry.collect frees their bytes")
    return {
        "ok": True,
        "changed": bool(done),
        "asked": list(plan.said_by),
        "deleted": [one.name for one in done],
        "verdicts": [vars(one) for one in plan.verdicts],
    }


def _verdicts(run: Run, verdicts: tuple[TagVerdict, ...]) -> None:
    now = time.time()
    rows = [
        [
            "goes" if one.goes else "stays",
            f"{one.repository}:{one.tag}" if one.tag else f"{one.repository}@{one.digest[7:19]}",
            age(now - one.pushed), size(one.size), one.why,
        ]
        for one in sorted(verdicts, key=lambda one: (not one.goes, one.repository, -one.pushed))
    ]  # fmt: skip
    _rows(run, ("", "image", "age", "size", "why"), rows)


def _rows(run: Run, columns: tuple[str, ...], rows: list[list[str]]) -> None:
    if len(rows) <= _TABLE_ROWS:
        run.ui.table(columns, rows)
    elif not run.ui.as_json:
        widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
        lines = ([c.ljust(w) for c, w in zip(row, widths, strict=True)] for row in rows)
        run.ui.page("\n".join("  ".join(line).rstrip() for line in lines))


namespace = Collection("images", list_, delete, prune)
