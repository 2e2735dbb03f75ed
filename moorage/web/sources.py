"""Where the page's sections come from: the registry, its images, rollouts, the cluster.

Each is asked by what the terminal asks it with, and no secret is among what it returns.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from moorage.errors import MoorageError
from moorage.settings import REPOSITORY
from moorage.web.story import Section, from_groups, from_rows

if TYPE_CHECKING:
    from moorage.cluster.api.client import Api
    from moorage.settings import Settings
    from moorage.web.actions import Actions

Source = Callable[[], Section]
MOST_REPOSITORIES = 200
_GIB = 1 << 30


def registry(settings: Settings) -> Section:
    """The registry: whether it answers, since when, until when its certificate holds, its disk."""
    from moorage import registry as registries
    from moorage.docker import engine

    if settings.registry.external:
        found = registries.external_status(settings)
    else:
        found = registries.status(settings, engine.connect(settings))
    said = "answers" if found.healthy else f"not well: {found.problem}"
    by = ("run by", "somebody else") if found.external else ("container", found.container)
    rows = [("address", found.url), ("state", said), by]
    rows += [("since", f"{found.since[:19]} UTC")] if found.since else []
    return from_rows(("", ""), [*rows, *_certificate(settings), *_disk(settings)])


def _certificate(settings: Settings) -> list[tuple[str, str]]:
    from moorage.pki import registry as pki

    try:
        shown = pki.show(settings).registry
    except MoorageError as problem:
        return [("certificate", problem.message)]
    if shown is None:
        return []
    days = int((shown.not_after.timestamp() - time.time()) // 86400)
    return [("certificate", f"ends {shown.not_after:%Y-%m-%d}, in {days} days")]


def _disk(settings: Settings) -> list[tuple[str, str]]:
    if not settings.registry_data.exists():
        return []
    use = shutil.disk_usage(settings.registry_data)
    return [("disk", f"{use.free / _GIB:.1f} of {use.total / _GIB:.1f} GiB free")]


def images(settings: Settings) -> Section:
    """The registry's repositories and their tags, 200 repositories at most."""
    from moorage import registry as registries
    from moorage.registry import client

    login = registries.if_any(settings)
    catalog = client.ask(settings, f"/v2/_catalog?n={MOST_REPOSITORIES}", login=login)
    names = _listed(catalog.body, "repositories")
    rows = []
    for name in names:
        if not REPOSITORY.fullmatch(name):  # one that cannot be asked for keeps no other back
            rows.append((name, "not a name of a repository"))
            continue
        answer = client.ask(settings, f"/v2/{name}/tags/list", login=login)
        rows.append((name, ", ".join(sorted(_listed(answer.body, "tags")))))
    more = "there are more" if len(names) == MOST_REPOSITORIES else ""
    return from_rows(("repository", "tags"), rows, more or ("" if rows else "no images yet"))


def _listed(body: bytes, name: str) -> list[str]:
    try:
        found = json.loads(body).get(name) or ()
        return [str(one) for one in found]
    except (ValueError, AttributeError, TypeError):
        return []


def rollouts(settings: Settings) -> Section:
    """The rollouts of this folder, newest first; one without an end is under way, or was killed."""
    from moorage.fleet.report import logbook

    rows = []
    for one in logbook.past(logbook.folder(settings)):
        done = sum(one.counts.values())
        counts = ", ".join(f"{count} {status}" for status, count in sorted(one.counts.items()))
        if one.ended is None:
            state = f"{done} of {one.hosts}: under way, or killed"
        else:
            state = one.ended or "ended"
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.began))
        rows.append((when, one.command, str(one.hosts), counts, state))
    note = "" if rows else "no rollout was begun in this folder"
    return from_rows(("began", "what", "nodes", "results", "state"), rows, note)


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
