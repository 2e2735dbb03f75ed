"""Where the page's sections come from: the registry, its images, rollouts, the cluster.

Each is asked by what the terminal asks it with, and no secret is among what it returns.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from moorage.errors import MoorageError
from moorage.output import size
from moorage.output.said import Coded, Said, joined, said
from moorage.settings import REPOSITORY
from moorage.web.story import Section, from_groups, from_rows, trouble

if TYPE_CHECKING:
    from moorage.catalogue.listing import Repository
    from moorage.cluster.api.client import Api
    from moorage.registry.storage.layout import Layout
    from moorage.settings import Settings
    from moorage.web.actions import Actions

Source = Callable[[], Section]
MOST_REPOSITORIES = 200
MOST_TAGS = 20
_GIB = 1 << 30


def registry(settings: Settings) -> Section:
    """The registry: whether it answers, since when, until when its certificate holds, its disk."""
    from moorage import registry as registries
    from moorage.docker import engine

    if settings.registry.external:
        found = registries.external_status(settings)
    else:
        found = registries.status(settings, engine.connect(settings))
    state = said("answers")
    if not found.healthy:
        state = said("not well: {problem}", problem=found.problem)
    by = ("run by", said("somebody else")) if found.external else ("container", found.container)
    rows: list[tuple[str, str]] = [("address", found.url), ("state", state), by]
    rows += [("since", f"{found.since[:19]} UTC")] if found.since else []
    rows += [] if found.external else _front(settings)
    return from_rows(("", ""), [*rows, *_certificate(settings), *_disk(settings)])


def _front(settings: Settings) -> list[tuple[str, str]]:
    from moorage.registry import service
    from moorage.registry.front import traffic

    try:
        seen = traffic.requests(service.run(settings))
    except MoorageError as problem:
        return [("front", Coded(f"{problem.message}: {problem.cure}", problem.code))]
    words = said(
        "{all} since its start, {refused} refused, {failed} failed",
        all=seen.all, refused=seen.refused, failed=seen.failed,
    )  # fmt: skip
    return [("front", said("answers")), ("requests", words)]


def _certificate(settings: Settings) -> list[tuple[str, str]]:
    from moorage.pki import registry as pki

    try:
        shown = pki.show(settings).registry
    except MoorageError as problem:
        return [("certificate", Coded(problem.message, problem.code))]
    if shown is None:
        return []
    days = int((shown.not_after.timestamp() - time.time()) // 86400)
    ends = f"{shown.not_after:%Y-%m-%d}"
    return [("certificate", said("ends {day}, in {days} days", day=ends, days=days))]


def _disk(settings: Settings) -> list[tuple[str, str]]:
    if not settings.registry_data.exists():
        return []
    use = shutil.disk_usage(settings.registry_data)
    free, total = f"{use.free / _GIB:.1f}", f"{use.total / _GIB:.1f}"
    return [("disk", said("{free} of {total} GiB free", free=free, total=total))]


def images(settings: Settings) -> Section:
    """The registry's repositories: tags, sizes, ages, and what a collection would free."""
    return _listing(settings) if settings.registry.external else _stored(settings)


def _stored(settings: Settings) -> Section:
    """Of our own registry, from its folder."""
    from moorage.catalogue import listing
    from moorage.registry.storage.opened import opened

    layout = opened(settings)
    sizes = {blob.digest: blob.size for blob in layout.blobs()}
    held = listing.repositories(layout)
    rows = [_row(one, sizes) for one in held[:MOST_REPOSITORIES]]
    more = "there are more" if len(held) > MOST_REPOSITORIES else ""
    shown = from_rows(("repository", "tags", "size", "last push"), rows, more or _none(rows))
    total = ("together", _blobs(sizes.values()))
    try:
        freed = _freed(layout)
    except MoorageError as problem:
        return replace(shown, facts=(total,), troubles=(trouble("", problem),))
    return replace(shown, facts=(total, ("a collection would free", freed)))


def _row(held: Repository, sizes: Mapping[str, int]) -> tuple[str, str, str, str]:
    """A repository; what several of its images share counts once."""
    tags = sorted(held.tags, key=lambda tag: -held.tags[tag].pushed)
    words = ", ".join(tags[:MOST_TAGS])
    if len(tags) > MOST_TAGS:
        words = said("{tags} and {count} more", tags=words, count=len(tags) - MOST_TAGS)
    parts = {part for one in held.manifests.values() for part in one.manifest.parts}
    taken = sum(sizes.get(digest, 0) for digest in parts | held.manifests.keys())
    pushed = max((one.pushed for one in held.manifests.values()), default=0.0)
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(pushed)) if pushed else "-"
    return (held.name, words or "-", size(taken), when)


def _freed(layout: Layout) -> str:
    from moorage.registry.storage import collecting

    found = collecting.planned(layout, collecting.CollectionPolicy())
    if not found:
        return said("nothing")
    return said("{blobs}: inv registry.collect", blobs=_blobs(found.values()))


def _blobs(sizes: Collection[int]) -> str:
    words = "{size} in {count} blob" if len(sizes) == 1 else "{size} in {count} blobs"
    return said(words, size=size(sum(sizes)), count=len(sizes))


def _none(rows: Sequence[object]) -> str:
    return "" if rows else "no images yet"


def _listing(settings: Settings) -> Section:
    """Of somebody else's registry, as it lists them: 200 repositories at most."""
    from moorage import registry as registries
    from moorage.registry import client

    login = registries.if_any(settings)
    catalog = client.ask(settings, f"/v2/_catalog?n={MOST_REPOSITORIES}", login=login)
    names = _listed(catalog.body, "repositories")
    rows: list[tuple[str, str]] = []
    for name in names:
        if not REPOSITORY.fullmatch(name):  # one that cannot be asked for keeps no other back
            rows.append((name, said("not a name of a repository")))
            continue
        answer = client.ask(settings, f"/v2/{name}/tags/list", login=login)
        rows.append((name, ", ".join(sorted(_listed(answer.body, "tags")))))
    more = "there are more" if len(names) == MOST_REPOSITORIES else ""
    return from_rows(("repository", "tags"), rows, more or _none(rows))


def users(settings: Settings) -> Section:
    """Who may do what at our own registry, and until when; no password, and no proof of one."""
    from moorage.registry.logins import users as logins

    told = [one.to_json() for one in logins.everybody(settings)]
    rows = [
        (
            one["name"], one["role"], ", ".join(one["repositories"]),
            (one["expires"] or "")[:10] or said("never"), _purpose(one["purpose"]),
        )
        for one in told
    ]  # fmt: skip
    return from_rows(("login", "role", "repositories", "ends", "made for"), rows)


def _purpose(of: str) -> str:
    kind, _, namespace = of.partition(":")
    return said("secret:{namespace}", namespace=namespace) if namespace else Said(kind)


def _listed(body: bytes, name: str) -> list[str]:
    try:
        found = json.loads(body).get(name) or ()
        return [str(one) for one in found]
    except (ValueError, AttributeError, TypeError):
        return []


def rollouts(settings: Settings) -> Section:
    """The rollouts of this folder, newest first; one without an end is under way, or was killed."""
    from moorage.fleet.report import deeds, logbook

    rows = []
    for one in logbook.past(logbook.folder(settings)):
        done = sum(one.counts.values())
        counts = joined(", ", (_counted(*pair) for pair in sorted(one.counts.items())))
        if one.ended is None:
            state: str = said("{done} of {all}: under way, or killed", done=done, all=one.hosts)
        elif one.ended in ("", deeds.STOPPED, deeds.RESTORED):
            state = Said(one.ended or "ended")
        else:
            state = Coded(one.ended, "not-begun")
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.began))
        verb, _, registry = one.command.partition(" ")
        command = said("{verb} {registry}", verb=Said(verb), registry=registry)
        rows.append((when, command if registry else Said(verb), str(one.hosts), counts, state))
    note = "" if rows else "no rollout was started in this folder"
    return from_rows(("began", "what", "nodes", "results", "state"), rows, note)


def _counted(status: str, count: int) -> str:
    return said("{count} {status}", count=count, status=Said(status))


def pods(api: Api, settings: Settings, actions: Actions | None = None) -> Section:
    """Why pods cannot pull, by cause; with ``actions`` those that the page can fix say so."""
    from moorage.cluster.diagnosis import examine
    from moorage.web.actions import key

    report = examine.examine(api, settings)
    if actions is None:
        return from_groups(report.to_json()["causes"])
    actions.heard(report)
    fixes = [key(one) if one.fix else "" for one in report.groups]
    return from_groups(report.to_json()["causes"], fixes)
