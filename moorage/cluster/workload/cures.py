"""``k8s.diagnose --fix``: runs those cures that are commands of ours, then waits for the pods.

A cure is a row of FIXES. Each is safe to run again, and each says what it will do before it does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from moorage.cluster.diagnosis import examine, owners
from moorage.cluster.diagnosis.examine import Report
from moorage.cluster.symptoms import causes
from moorage.cluster.workload.recovery import BACK_OFF, made_anew, revive, still, wait
from moorage.configuration import parsing
from moorage.errors import MoorageError
from moorage.output.said import joined, said

if TYPE_CHECKING:
    from moorage.cluster.api.client import Api
    from moorage.cluster.diagnosis.diagnosis import Group
    from moorage.settings import Settings
    from moorage.ui import UI

# Runtimes are written in Go, which looks at the hosts file again only after five seconds
# (net/hosts.go, cacheMaxAge): a pull before that would fail as the last one did.
_HOSTS_FILE_AGE = 5.5
_HOSTS_FILE = "/etc/hosts"
# So often pods that were made too early are made once more.
_OVERTAKEN = 3


@dataclass(frozen=True)
class Here:
    """What every cure works with."""

    api: Api
    settings: Settings
    ui: UI


@dataclass(frozen=True)
class CureOutcome:
    """What became of one cure."""

    fix: str
    codes: tuple[str, ...]
    ok: bool
    words: str
    error: MoorageError | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "fix": self.fix,
            "codes": list(self.codes),
            "ok": self.ok,
            "words": self.words,
            "error": self.error.to_json() if self.error else None,
        }


def plan(report: Report) -> list[tuple[str, tuple[Group, ...]]]:
    """The cures of ours that are needed, each once, in the order they build on each other. Pure."""
    wanted: dict[str, list[Group]] = {}
    for group in report.groups:
        if group.fix:
            wanted.setdefault(group.fix, []).append(group)
    return [(fix, tuple(wanted[fix])) for fix in FIXES if fix in wanted]


def places(report: Report) -> set[tuple[str, str]]:
    """What :func:`fix` would do, and where: a cure with a node, a namespace, or "". Pure."""
    found = set[tuple[str, str]]()
    for fix, groups in plan(report):
        where = {causes.TRUST: _nodes, causes.NO_PROXY: _nodes, causes.SECRET: _namespaces}.get(fix)
        found |= {(fix, place) for place in (where(groups) if where else ("",))}
    return found


def announce(settings: Settings, report: Report) -> list[str]:
    """What a ``--fix`` will do, as sentences to agree to. Pure."""
    actions = [FIXES[fix].words(settings, groups) for fix, groups in plan(report)]
    fixable = [one for group in report.groups if group.fix for one in group.stuck]
    anew = sorted({one.name for one in fixable if made_anew(one)})
    if anew:
        pods = ", ".join(anew[:6])
        more = said("{pods} and {count} more", pods=pods, count=len(anew) - 6)
        shown = more if len(anew) > 6 else pods
        actions.append(
            said("delete {pods}, so that they are made again and pull at once", pods=shown)
        )
    return actions


def by_rounds(
    api: Api, settings: Settings, ui: UI, report: Report, seconds: float = BACK_OFF
) -> tuple[list[CureOutcome], Report]:
    """Cures, makes pods anew and waits, until they run or nothing new has come up.

    A pod that is made anew may land where another cure is missing: each round but the first is for
    such, and is asked for by itself. Returns every cure, and what is stuck in the end.
    """
    here = Here(api, settings, ui)
    done: list[CureOutcome] = []
    tried = set[tuple[str, str]]()
    overtaken = 0
    while True:
        tried |= places(report)
        now = fix(here, report)
        done += now
        if not all(one.ok for one in now):
            return done, report
        revived = revive(api, settings, report)
        left = still(report, wait(api, settings, ui.progress, report, revived, seconds))
        report = owners.with_last_tries(api, examine.typed(api, left))
        if places(report) <= tried:
            overtaken += 1
            if overtaken > _OVERTAKEN or not _made_too_early(report):
                return done, report
            continue
        ui.note("something else has come up:")
        ui.confirm(announce(settings, report))


def _made_too_early(report: Report) -> bool:
    """Whether pods were made anew before their ServiceAccount's new Secret had reached the API
    server's cache, which admission fills pods from: they lack what stands in it by now."""
    return any(
        made_anew(one) and not one.secrets
        for group in report.groups
        if group.fix == causes.SECRET
        for one in group.stuck
    )


def fix(here: Here, report: Report) -> list[CureOutcome]:
    """Runs the cures; one that fails keeps only those that come after it from being tried."""
    done: list[CureOutcome] = []
    for name, groups in plan(report):
        codes = tuple(dict.fromkeys(group.code for group in groups))
        try:
            with here.ui.phase(FIXES[name].words(here.settings, groups)):
                words = FIXES[name].run(here, groups)
        except MoorageError as problem:
            done.append(CureOutcome(name, codes, False, problem.message, problem))
            break
        done.append(CureOutcome(name, codes, True, words))
    return done


# -- the cures --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fix:
    """``words``: what it will do, as a fragment of a sentence. ``run``: does it, says how."""

    words: Callable[[Settings, Sequence[Group]], str]
    run: Callable[[Here, Sequence[Group]], str]


def _nodes(groups: Sequence[Group]) -> list[str]:
    return sorted({node for group in groups for node in group.nodes})


def _namespaces(groups: Sequence[Group]) -> list[str]:
    return sorted({name for group in groups for name in group.namespaces})


def _issue(here: Here, groups: Sequence[Group]) -> str:
    from moorage.pki import registry as pki

    del groups
    issued = pki.issue(here.settings)
    here.ui.present(issued.notes)
    words = said("issued again" if issued.changed else "it was good already")
    return joined("; ", (words, _up(here, ())))


def _up(here: Here, groups: Sequence[Group]) -> str:
    from moorage import registry
    from moorage.docker import engine

    del groups
    status = registry.up(here.settings, engine.connect(here.settings), here.ui)
    return said("the registry was started" if status.changed else "the registry was already up")


def _push(here: Here, groups: Sequence[Group]) -> str:
    from functools import partial

    from moorage.docker import engine
    from moorage.images import demo, skopeo

    del groups
    client = partial(engine.connect, here.settings)
    pushes = skopeo.pending if here.settings.image.platforms else list
    packages = [*demo.pending(here.settings), *demo.push_pending(here.settings), *pushes()]
    if packages:
        here.ui.confirm(list(dict.fromkeys(action.text for action in packages)))
    if not demo.replacing(here.settings):  # an index stays what was built last
        demo.build(here.settings, client, here.ui.progress)
    pushed = demo.push(here.settings, client, here.ui.progress)
    return said("pushed {image}", image=pushed.reference)


def _past_proxy(here: Here, groups: Sequence[Group]) -> str:
    return _trust(replace(here, settings=parsing.with_nodes(here.settings, fix_proxy=True)), groups)


def _trust(here: Here, groups: Sequence[Group]) -> str:
    from moorage.cluster.diagnosis import nodes
    from moorage.fleet.rollout.fleet import Fleet
    from moorage.fleet.rollout.operation import Wish

    wanted = set(_nodes(groups))
    hosts = tuple(
        host
        for node, host in nodes.hosts_by_node(here.settings, nodes.addresses(here.api)).items()
        if node in wanted
    )
    # The pull is proven by the pods themselves, with the login they have.
    report = Fleet(here.settings, here.ui).run("trust", hosts, Wish(verify=False))
    failed = [one for one in report.hosts if not one.ok]
    if failed:
        error = failed[0].error
        raise MoorageError(
            "trust-failed",
            f"{', '.join(one.host for one in failed)} could not be set up",
            cause=error.message if error else failed[0].status,
            cure=(error.cure if error else "") or f"inv nodes.trust --hosts={failed[0].host}",
            host=failed[0].host,
        )
    changed = {change.path for one in report.hosts for change in one.changes}
    if _HOSTS_FILE in changed:
        time.sleep(_HOSTS_FILE_AGE)
    count = len(hosts)
    return (
        said("{count} node trusts the registry", count=count)
        if count == 1
        else said("{count} nodes trust the registry", count=count)
    )


def _secret(here: Here, groups: Sequence[Group]) -> str:
    from moorage.cluster.login import login, secrets

    settings = here.settings
    logins = login.read(settings, "")
    outcomes = []
    for places, accounts in secret_places(settings, groups):
        wish = secrets.wish(settings, logins, attach=accounts)
        outcomes += secrets.apply(here.api, here.ui, places, wish)
    failed = [one for one in outcomes if one.error]
    if failed and failed[0].error is not None:
        raise failed[0].error
    count = len(outcomes)
    return (
        said("{count} Secret holds the login", count=count)
        if count == 1
        else said("{count} Secrets hold the login", count=count)
    )


def secret_places(
    settings: Settings, groups: Sequence[Group]
) -> list[tuple[list[Any], tuple[str, ...]]]:
    """Which Secrets are wanted where, and to which ServiceAccounts they are attached. Pure.

    A pod that names a Secret gets that one; one that names none gets ours by its ServiceAccount.
    """
    from moorage.cluster.login.secrets import Place

    named: set[Place] = set()
    attached: dict[tuple[str, ...], set[Place]] = {}
    for group in groups:
        for one in group.stuck:
            if one.secrets:
                # Of several, ours where it is among them: the others may be for other registries.
                ours_first = settings.kubernetes.secret
                name = ours_first if ours_first in one.secrets else one.secrets[0]
                named.add(Place(one.namespace, name))
            else:
                place = Place(one.namespace, settings.kubernetes.secret)
                attached.setdefault((one.account,), set()).add(place)
    chosen: list[tuple[list[Any], tuple[str, ...]]] = []
    if named:
        chosen.append((sorted(named, key=str), ()))
    return chosen + [(sorted(places, key=str), key) for key, places in sorted(attached.items())]


FIXES: dict[str, Fix] = {
    causes.ISSUE: Fix(
        lambda settings, _: said(
            "issue the certificate of {name} again and restart the registry with it",
            name=settings.registry_name,
        ),
        _issue,
    ),
    causes.UP: Fix(
        lambda settings, _: said("start the registry {name}", name=settings.registry_name), _up
    ),
    causes.PUSH: Fix(
        lambda settings, _: said("build and push {image}", image=settings.image_reference), _push
    ),
    causes.TRUST: Fix(
        lambda _, groups: said(
            "make {nodes} trust the registry, over SSH", nodes=", ".join(_nodes(groups))
        ),
        _trust,
    ),
    causes.NO_PROXY: Fix(
        lambda settings, groups: said(
            "make {nodes} trust the registry, over SSH, and add {host} to NO_PROXY of their"
            " runtimes",
            nodes=", ".join(_nodes(groups)),
            host=settings.registry.host,
        ),
        _past_proxy,
    ),
    causes.SECRET: Fix(
        lambda _, groups: said(
            "put the login into {namespaces}", namespaces=", ".join(_namespaces(groups))
        ),
        _secret,
    ),
}
