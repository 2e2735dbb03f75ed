"""Puts the login into namespaces: looked at everywhere first, then written everywhere.

A refusal met while looking (somebody else's Secret, a missing right, a quota: the server itself is
asked by a dry run) ends it before the first write.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from moorage.cluster.api import many, ours, paths
from moorage.cluster.api.refusals import ApiError, beforehand
from moorage.cluster.login import accounts, pull_secret
from moorage.errors import MoorageError, Refused
from moorage.output import Diff, Note, Parts

if TYPE_CHECKING:
    from moorage.cluster.api.client import Api
    from moorage.cluster.login.login import Logins
    from moorage.registry import Credentials
    from moorage.settings import Settings
    from moorage.ui import UI

CREATED, UPDATED, REPLACED, UNCHANGED, GONE, FAILED = (
    "created", "updated", "replaced", "unchanged", "gone", "failed"
)  # fmt: skip

# What is found -> what is done about it; "": refused unless --replace, then what is after the bar.
_STEPS = {
    pull_secret.ABSENT: CREATED,
    pull_secret.SAME: UNCHANGED,
    pull_secret.STALE: UPDATED,
    pull_secret.FOREIGN: f"|{UPDATED}",
    pull_secret.FROZEN: f"|{REPLACED}",
    pull_secret.OTHER_TYPE: f"|{REPLACED}",
}
_WHY_NOT = {
    pull_secret.FOREIGN: "Moorage did not make it (no label moorage.dev/part)",
    pull_secret.FROZEN: "it is marked immutable, so its login cannot be changed",
    pull_secret.OTHER_TYPE: f"it is of another type than {pull_secret.TYPE}",
}


@dataclass(frozen=True)
class Place:
    """Where a Secret goes."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class SecretWish:
    """What is wanted everywhere. ``accounts``: the ServiceAccounts to attach it to; ``standing``:
    only where one stands, for it may go, with its namespace perhaps, while others are written."""

    server: str
    logins: Logins
    labels: dict[str, str]
    accounts: tuple[str, ...] = ()
    replace: bool = False
    standing: bool = False


@dataclass(frozen=True)
class SecretOutcome:
    """What became of one place; ``attached``: the ServiceAccounts that were changed."""

    place: Place
    status: str
    attached: tuple[str, ...] = ()
    error: MoorageError | None = None

    @property
    def changed(self) -> bool:
        return self.status in (CREATED, UPDATED, REPLACED) or bool(self.attached)

    def to_json(self) -> dict[str, Any]:
        return {
            "namespace": self.place.namespace,
            "secret": self.place.name,
            "status": self.status,
            "attached": list(self.attached),
            "error": self.error.to_json() if self.error else None,
        }


@dataclass(frozen=True)
class _FoundSecret:
    """One place as it is, and the step to take; ``wanted`` holds the login, so no repr."""

    place: Place
    step: str
    attach: tuple[str, ...] = ()
    live: dict[str, Any] | None = field(default=None, repr=False)
    wanted: dict[str, Any] = field(default_factory=dict, repr=False)
    error: MoorageError | None = None
    purpose: str = ""


def wish(
    settings: Settings,
    logins: Logins,
    *,
    attach: Sequence[str] = (),
    replace: bool = False,
    standing: bool = False,
) -> SecretWish:
    """The wish for the settings' registry."""
    labels = ours.labels(settings, "secret")
    return SecretWish(settings.registry_name, logins, labels, tuple(attach), replace, standing)


def every_one_of_ours(api: Api, settings: Settings) -> list[Place]:
    """Where Secrets of ours for this registry are, in all namespaces."""
    label = ours.registry_label(settings.registry_name)
    selector = f"{ours.MANAGED_BY}=moorage,{ours.PART}=secret,{ours.REGISTRY}={label}"
    found = api.items(paths.all_of("Secret"), "list our Secrets", selector=selector)
    return [Place(one["metadata"]["namespace"], one["metadata"]["name"]) for one in found]


def apply(
    api: Api, ui: UI, places: Sequence[Place], wanted: SecretWish, *, dry_run: bool = False
) -> list[SecretOutcome]:
    """Brings every place into the wished state, or with ``dry_run`` shows what would change.

    Raises Refused, with nothing changed, where one of them cannot be; what fails after that is in
    its outcome, and the others go on.
    """
    with ui.progress(f"look at {_spaces(len(places))}") as update:
        found = many.each(
            places, lambda place: _look(api, place, wanted), parallel=api.parallel, update=update
        )
    _refuse_all_or_none(found)
    if dry_run:
        for one in found:
            ui.present(_foretold(one))
        return [SecretOutcome(one.place, one.step, one.attach) for one in found]
    there = _with_logins(api, [one for one in found if one.step != GONE], wanted)
    work = [one for one in there if one.step != UNCHANGED or one.attach]
    done: dict[Place, SecretOutcome] = {}
    if work:
        with ui.progress(f"write {_spaces(len(work))}") as update:
            outcomes = many.each(
                work, lambda one: _write(api, one, wanted), parallel=api.parallel, update=update
            )
        done = {outcome.place: outcome for outcome in outcomes}
    stays = {one.place: GONE if one.step == GONE else UNCHANGED for one in found}
    return [done.get(place) or SecretOutcome(place, status) for place, status in stays.items()]


def stands(api: Api, place: Place, wanted: SecretWish) -> bool:
    """Whether a place is as wished already. Raises ApiError or Refused where it cannot become so.

    Changes and shows nothing.
    """
    found = _look(api, place, wanted)
    if found.error is not None:
        raise found.error
    return found.step == UNCHANGED and not found.attach


def _look(api: Api, place: Place, wanted: SecretWish) -> _FoundSecret:
    """One place as it is; the server has agreed to the step by a dry run."""
    path = paths.one("Secret", place.name, place.namespace)
    try:
        live = api.find(path, f"read Secret {place}")
        if live is None and wanted.standing:
            return _FoundSecret(place, GONE)
        held = {login.user for login in pull_secret.logins(live or {}).values()}
        purpose = wanted.logins.purpose(place.namespace, held)
        document = _document(place, wanted, wanted.logins.planned(purpose))
        state = pull_secret.state(live, document)
        plain, _, replacing = _STEPS[state].partition("|")
        step = plain or (replacing if wanted.replace else "")
        if not step:
            return _FoundSecret(
                place, "", live=live, wanted=document, error=_not_ours(place, state)
            )
        if step in (CREATED, UPDATED):
            api.apply(path, document, f"write Secret {place}", force=wanted.replace, dry=True)
        elif step == REPLACED:
            api.delete(path, f"delete Secret {place}", dry=True)
        attach = accounts.attach(api, place.namespace, wanted.accounts, place.name, dry=True)
    except ApiError as problem:
        if _went(api, place, wanted):
            return _FoundSecret(place, GONE)
        return _FoundSecret(place, "", error=problem)
    return _FoundSecret(place, step, tuple(attach), live, document, purpose=purpose)


def _went(api: Api, place: Place, wanted: SecretWish) -> bool:
    """Whether a Secret went meanwhile that was to be changed only if it stands."""
    if not wanted.standing:
        return False
    try:
        return api.find(paths.one("Secret", place.name, place.namespace), "read it") is None
    except ApiError:
        return False


def _with_logins(api: Api, found: Sequence[_FoundSecret], wanted: SecretWish) -> list[_FoundSecret]:
    """Nothing refuses any more: the logins that were only planned are made."""
    logins = wanted.logins.made([one.purpose for one in found], api.where.server)
    return [replace(one, wanted=_document(one.place, wanted, logins[one.purpose])) for one in found]


def _document(place: Place, wanted: SecretWish, login: Credentials) -> dict[str, Any]:
    return pull_secret.document(place.name, place.namespace, wanted.server, login, wanted.labels)


def _write(api: Api, found: _FoundSecret, wanted: SecretWish) -> SecretOutcome:
    place = found.place
    path = paths.one("Secret", place.name, place.namespace)
    what = f"write Secret {place}"
    attached: list[str] = []
    we_took_it = False
    try:
        if found.step == REPLACED and found.live is not None:
            uid = found.live["metadata"]["uid"]
            we_took_it = api.delete(path, f"delete Secret {place}", uid=uid)
        if found.step != UNCHANGED:
            api.apply(path, _only_that(found, wanted), what, force=wanted.replace)
        attached = accounts.attach(api, place.namespace, found.attach, place.name)
    except ApiError as problem:
        if not we_took_it and _went(api, place, wanted):
            return SecretOutcome(place, GONE)
        return SecretOutcome(place, FAILED, tuple(attached), problem)
    return SecretOutcome(place, found.step, tuple(attached))


def _only_that(found: _FoundSecret, wanted: SecretWish) -> dict[str, Any]:
    """The document; with the uid, a newer API server makes none if that very Secret is gone."""
    if not wanted.standing or found.live is None or found.step != UPDATED:
        return found.wanted
    metadata = {**found.wanted["metadata"], "uid": found.live["metadata"]["uid"]}
    return {**found.wanted, "metadata": metadata}


def _spaces(count: int) -> str:
    return "one namespace" if count == 1 else f"{count} namespaces"


def _refuse_all_or_none(found: Sequence[_FoundSecret]) -> None:
    errors = [one.error for one in found if one.error is not None]
    for error in errors:
        if isinstance(error, ApiError):
            alike = sum(other.code == error.code for other in errors) - 1
            raise beforehand(error, alike)
    if errors:
        first = errors[0]
        places = [str(one.place) for one in found if one.error is not None]
        more = "" if len(errors) == 1 else f"; so with {', '.join(places[1:6])}"
        more += f" and {len(errors) - 6} more" if len(errors) > 6 else ""
        raise Refused.of(replace(first.fault, message=first.message + more))


def _not_ours(place: Place, state: str) -> Refused:
    return Refused(
        f"secret-{state}",
        f"nothing was changed: Secret {place} is not ours to change",
        cause=_WHY_NOT[state],
        cure="--replace puts ours in its place, or give ours another name with --name",
    )


def _foretold(found: _FoundSecret) -> Parts:
    path = f"Secret {found.place}"
    if found.step not in (UNCHANGED, GONE):
        before = pull_secret.hidden(found.live, found.wanted)
        yield Diff(path, before, pull_secret.hidden(found.wanted, found.live))
    for name in found.attach:
        yield Note(f"would add {found.place.name} to ServiceAccount {found.place.namespace}/{name}")
