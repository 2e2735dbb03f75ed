"""A prune from the question to the last deletion."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from moorage.catalogue import deletion, listing, retention, usage
from moorage.catalogue.policy import RetentionPolicy
from moorage.catalogue.retention import InUse, TagVerdict
from moorage.errors import Refused
from moorage.output import Update, unheard
from moorage.registry.storage.opened import opened

if TYPE_CHECKING:
    from moorage.cluster.api.client import Api
    from moorage.fleet.rollout.fleet import Fleet
    from moorage.registry.logins.credentials import Credentials
    from moorage.settings import Settings

# Clocks that are set from time to time jump by less.
_CLOCK_SECONDS = 3600.0


@dataclass(frozen=True)
class PrunePlan:
    """What a prune would do, and who was asked what is in use."""

    policy: RetentionPolicy
    in_use: InUse
    said_by: tuple[str, ...]
    verdicts: tuple[TagVerdict, ...]

    @property
    def going(self) -> list[TagVerdict]:
        return [one for one in self.verdicts if one.goes]


def plan(
    settings: Settings,
    api: Api | None,
    fleet: Fleet,
    policy: RetentionPolicy,
    *,
    everything: bool,
    without_nodes: bool,
) -> PrunePlan:
    """Asks ``api``, if there is a cluster, and the nodes of ``fleet`` what is in use, then decides.

    Changes nothing.

    Raises Refused: ``prune-matches-nothing`` for a pattern that protects nothing, ``prune-empties``
    (without ``everything``), ``usage-unknown``, ``clock-off``; MoorageError of whoever does not
    answer.
    """
    layout = opened(settings)
    asked = usage.ask(settings, api, fleet, without_nodes=without_nodes)
    held = listing.repositories(layout)
    _require_matches(policy, held)
    _require_clock(held, time.time())
    verdicts = retention.decide(held, policy, asked.in_use, time.time())
    empty = retention.emptied(verdicts)
    if empty and not everything:
        raise Refused(
            "prune-empties",
            f"this policy would leave no image in {', '.join(empty[:5])}",
            cause="it would remove every tag there",
            cure="keep some: --keep=1, or --protect; --all if that is what you want",
        )
    return PrunePlan(policy, asked.in_use, asked.said_by, verdicts)


def carry_out(
    settings: Settings, login: Credentials, made: PrunePlan, update: Update = unheard
) -> list[TagVerdict]:
    """Deletes what was planned and still goes -> that. Raises MoorageError.

    A repository is read and judged again just before: what was pushed meanwhile counts.
    """
    layout = opened(settings)
    names = sorted({one.repository for one in made.going})
    planned = {(one.name, one.digest) for one in made.going}
    done: list[TagVerdict] = []
    for count, name in enumerate(names, 1):
        held = listing.repositories(layout)
        judged = retention.decide(held, made.policy, made.in_use, time.time())
        now = [one for one in judged if one.repository == name]
        still = [one for one in now if one.goes and (one.name, one.digest) in planned]
        for step in deletion.steps(still, held):
            deletion.carry_out(settings, login, step)
        done += still
        update(done=count, total=len(names))
    return done


def _require_clock(held: Sequence[listing.Repository], now: float) -> None:
    """A push of the future: now this clock is behind, or then it was ahead."""
    pushed = [(link.pushed, f"{one.name}:{tag}") for one in held for tag, link in one.tags.items()]
    last, name = max(pushed, default=(0.0, ""))
    if last > now + _CLOCK_SECONDS:
        at, here = (f"{datetime.fromtimestamp(one, UTC):%Y-%m-%d %H:%M} UTC" for one in (last, now))
        raise Refused(
            "clock-off",
            f"nothing is pruned: {name} was pushed in the future",
            cause=f"its file is of {at}, and now it is {here}: one of the two is wrong, and ages "
            "depend on them",
            cure="timedatectl shows whether this clock is right; if it is, push that image again",
        )


def _require_matches(policy: RetentionPolicy, held: Sequence[listing.Repository]) -> None:
    for pattern in policy.protect:
        alone = RetentionPolicy(protect=(pattern,))
        if not any(alone.protects(one.name, tag) for one in held for tag in one.tags):
            raise Refused(
                "prune-matches-nothing",
                f"--protect {pattern!r} protects nothing",
                cause="no repository, no tag and no REPOSITORY:TAG is like it",
                cure="inv images.list shows the names; '*' stands for any part of one",
            )
