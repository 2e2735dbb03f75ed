"""The parts of the upkeep as a table: what looks whether one is due, and what it does then."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from moorage.errors import Refused
from moorage.output import Note
from moorage.upkeep import outcomes

if TYPE_CHECKING:
    from moorage.catalogue.policy import RetentionPolicy
    from moorage.catalogue.pruning import PrunePlan
    from moorage.registry.storage import collecting
    from moorage.registry.storage.layout import Layout
    from moorage.settings import Settings
    from moorage.ui import UI

# A timer that runs daily comes a little early now and then.
BACKUP_SECONDS = 20 * 3600.0


class PartDone(NamedTuple):
    """What a part did, in words and in figures for ``--json``."""

    words: str
    figures: Mapping[str, Any]


@dataclass(frozen=True)
class Due:
    """What a look found. ``words``: what is due, or why nothing is; ``work`` does it, None: nothing
    is due. ``asked``: False if the part is not wanted, or not yet, so that nothing was looked at.
    ``notes``: whom it asked.
    """

    words: str
    work: Callable[[UI], PartDone] | None = None
    asked: bool = True
    figures: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()


Look = Callable[["Settings"], Due]


def renewal(settings: Settings) -> Due:
    """Whether the registry needs another certificate, or serves another than its file has."""
    from moorage.pki import ends
    from moorage.pki import registry as pki
    from moorage.registry import served

    work = partial(_renew, settings)
    shown = pki.show(settings).registry
    if pending := pki.pending(settings):
        return Due("; ".join(action.text for action in pending), work)
    if shown is None:
        raise AssertionError("deciding has to issue what is not there")
    end = ends.end(served.LEAF, "", shown)
    words = end.words(datetime.datetime.now(datetime.UTC))
    try:
        differs = served.certificate(settings).fingerprint != shown.fingerprint
    except OSError as problem:
        return Due(f"it {words}; the registry does not answer: {problem.strerror or problem}")
    if differs:
        return Due("certs/registry.crt is another certificate than the registry serves", work)
    return Due(f"it {words}")


def pruning(settings: Settings) -> Due:
    """Whether the policy of the settings lets any image go."""
    from moorage.catalogue import pruning as catalogue
    from moorage.catalogue import usage
    from moorage.cluster.diagnosis.facts import Silent
    from moorage.fleet.rollout.fleet import Fleet

    policy = policy_of(settings)
    if policy is None:
        return Due("no policy is set (upkeep.keep, older_than, untagged)", asked=False)
    try:
        api = usage.cluster(settings)
        notes = () if api is None else (Note(f"cluster: {api.where}"),)
        plan = catalogue.plan(
            settings, api, Fleet(settings, Silent()), policy,
            everything=False, without_nodes=settings.upkeep.without_nodes,
        )  # fmt: skip
    except Refused as problem:
        return _nothing_yet(problem)
    going = [one.name for one in plan.going]
    if not going:
        return Due("the policy removes no image", notes=notes)
    words = f"{len(going)} tags and manifests to remove by the policy"
    return Due(words, partial(_prune, settings, plan), figures={"images": going}, notes=notes)


def collection(settings: Settings) -> Due:
    """Whether blobs can be set aside, or were set aside a day ago."""
    from moorage.catalogue.policy import seconds
    from moorage.registry.storage import collecting, setting_aside
    from moorage.registry.storage.opened import for_collection

    try:
        layout = for_collection(settings)
    except Refused as problem:
        return _nothing_yet(problem)
    policy = collecting.CollectionPolicy(grace=seconds("upkeep.grace", settings.upkeep.grace))
    found = collecting.planned(layout, policy)
    size, aside = sum(found.values()), len(setting_aside.batches(layout))
    if not found and not aside:
        return Due("every blob is needed")
    parts = [f"{len(found)} blobs ({size:,} bytes) are needed by nothing"] if found else []
    parts += [f"{aside} earlier collections are still aside"] if aside else []
    figures = {"blobs": len(found), "bytes": size, "aside": aside}
    return Due(" and ".join(parts), lambda _ui: _collect(layout, policy), figures=figures)


def backup(settings: Settings) -> Due:
    """Whether the last good backup is old enough."""
    place = settings.upkeep.backup
    if not place:
        return Due("no place is set (upkeep.backup)", asked=False)
    last, now = outcomes.read(settings).parts.get("backup", outcomes.PartOutcome()), time.time()
    at = f"{datetime.datetime.fromtimestamp(last.succeeded, datetime.UTC):%Y-%m-%d %H:%M} UTC"
    if not last.code and now - BACKUP_SECONDS < last.succeeded <= now:
        return Due(f"the last good one is of {at}", asked=False)
    since = f"the last good one is of {at}" if last.succeeded else "there was none yet"
    return Due(since, partial(_back_up, settings), figures={"at": place})


PARTS: Mapping[str, Look] = {
    "renew": renewal,
    "prune": pruning,
    "collect": collection,
    "backup": backup,
}


def policy_of(settings: Settings) -> RetentionPolicy | None:
    """The prune policy of the settings; None if there is none. Raises Refused."""
    from moorage.catalogue.policy import RetentionPolicy, seconds

    wanted = settings.upkeep
    older = seconds("upkeep.older_than", wanted.older_than) if wanted.older_than else None
    policy = RetentionPolicy(wanted.keep or None, older, wanted.untagged, wanted.protect)
    return policy if policy.of_tags or policy.untagged else None


# -- doing it -------------------------------------------------------------------------------------


def _renew(settings: Settings, ui: UI) -> PartDone:
    from moorage.registry import renewal as renewing

    done = renewing.renew(settings, ui, another=False)
    words = f"another certificate is served, until {done.not_after:%Y-%m-%d}"
    return PartDone(words, {"served": done.fingerprint, "until": done.not_after.isoformat()})


def _prune(settings: Settings, plan: PrunePlan, ui: UI) -> PartDone:
    from moorage import registry
    from moorage.catalogue import pruning as catalogue

    with ui.progress("deleting images") as update:
        gone = catalogue.carry_out(settings, registry.credentials(settings), plan, update)
    words = f"{len(gone)} tags and manifests were deleted"
    return PartDone(words, {"images": [one.name for one in gone]})


def _collect(layout: Layout, policy: collecting.CollectionPolicy) -> PartDone:
    from moorage.registry.storage import collecting

    done = collecting.collect(layout, policy)
    words = (
        f"{done.aside} blobs were set aside ({done.aside_bytes:,} bytes), "
        f"and {done.freed_bytes:,} bytes of earlier ones came free"
    )
    figures = {"blobs": done.aside, "bytes": done.aside_bytes, "freed_bytes": done.freed_bytes}
    return PartDone(words, {**figures, "returned": sorted(done.returned)})


def _back_up(settings: Settings, ui: UI) -> PartDone:
    from moorage.backup import container, restic, taking

    file = settings.root / settings.upkeep.passphrase_file
    at = restic.place(settings.upkeep.backup, restic.read_passphrase(file))
    done = taking.back_up(settings, ui.progress, at, partial(container.serving, settings))
    if problem := taking.incomplete(done):
        raise problem
    words = f"backed up and proved: {done.tags} tags, {done.size:,} bytes of images"
    return PartDone(words, {"at": at.at, "snapshot": done.snapshot, "tags": done.tags})


def _nothing_yet(problem: Refused) -> Due:
    """A registry that nobody has pushed to needs no upkeep; raises what else was refused."""
    if problem.code != "no-storage":
        raise problem
    return Due("no image was pushed yet")
