"""What is missing or wrong here and on the nodes, each with the command that cures it.

An examination changes nothing. Each check is a function that returns findings; the table
``CHECKS`` at the end is the list of all of them.
"""

from __future__ import annotations

import datetime
import os
import platform
import shlex
import shutil
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from moorage.errors import MoorageError
from moorage.registry.logins import external
from moorage.settings import Settings
from moorage.ui import UI

if TYPE_CHECKING:
    from moorage.fleet.inventory import Target
    from moorage.fleet.rollout.fleet import Fleet
    from moorage.fleet.state.host import Standing
    from moorage.registry.front.roles import User

# A login is short-lived on purpose, and its new end takes one command.
_LOGIN_ENDS_SOON = datetime.timedelta(days=7)


@dataclass(frozen=True)
class Finding:
    """One thing looked at. ``state``: ``fine``, ``wrong``, or ``missing`` (`inv up` brings it)."""

    what: str
    state: str
    found: str
    cure: str = ""

    @property
    def mark(self) -> str:
        return {"fine": "ok", "wrong": "WRONG", "missing": "-"}[self.state]

    def to_json(self) -> dict[str, str]:
        return asdict(self)


def examine(settings: Settings, ui: UI, hosts: str = "") -> list[Finding]:
    """All findings about this machine, then about ``hosts`` (a,b,c; "": the lab's or settings')."""
    from moorage.fleet.rollout.fleet import Fleet

    findings: list[Finding] = []
    for check in EXTERNAL_CHECKS if settings.registry.external else CHECKS:
        findings += _looked(_title(check), partial(check, settings))
    chosen, fleet = _chosen(settings, hosts), Fleet(settings, ui)
    findings += _looked("nodes", partial(_nodes, settings, fleet, chosen))
    if settings.ca_file.exists():
        findings += _looked("node ends", partial(_node_ends, fleet, chosen))
    # A cure that needs a registry of our own is none where somebody else runs it.
    return [replace(one, cure=external.cure(settings, "", one.cure)) for one in findings]


def _looked(title: str, look: Callable[[], list[Finding]]) -> list[Finding]:
    """What ``look`` finds; what keeps it from looking is a finding too."""
    try:
        return look()
    except MoorageError as problem:
        return [Finding(title, "wrong", _sentence(problem), problem.cure or "see the cause")]
    except PermissionError as problem:
        return [_locked(title, problem)]


def _locked(title: str, problem: PermissionError) -> Finding:
    return Finding(title, "wrong", str(problem), "run this as its owner, or as root")


def _title(check: Callable[[Settings], list[Finding]]) -> str:
    return check.__name__.strip("_").replace("_", " ")


def _sentence(problem: MoorageError) -> str:
    return f"{problem.message}: {problem.cause}" if problem.cause else problem.message


def _system(_settings: Settings) -> list[Finding]:
    found = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    if sys.platform != "linux":
        return [Finding("system", "wrong", found, "Moorage runs on Linux only")]
    return [Finding("system", "fine", found)]


def _root(settings: Settings) -> list[Finding]:
    if os.geteuid() == 0:
        return [Finding("root", "fine", "we are root")]
    if shutil.which("sudo"):
        return [Finding("root", "fine", "through sudo, announced beforehand")]
    from moorage.supply import loaded

    cure = "su -c 'apt-get install sudo && usermod -aG sudo YOU', then log in again"
    if loaded.current(settings.root) is not None:  # it is in no bundle
        cure = "become root (su -), and begin in a folder of root's"
    return [Finding("root", "wrong", "we are not root, and there is no sudo", cure)]


def _engine(settings: Settings) -> list[Finding]:
    from moorage.docker import engine

    if engine.answers(settings):
        version = engine.connect(settings).version()["Version"]
        return [Finding("Docker engine", "fine", f"answers, version {version}")]
    actions = engine.pending(settings)
    return [Finding("Docker engine", "missing", "none answers", "inv up")] + [
        Finding("Docker engine", "missing", f"`inv up` would {action.text}") for action in actions
    ]


def _disk(settings: Settings) -> list[Finding]:
    free = shutil.disk_usage(settings.root).free / 2**30
    found = f"{free:.0f} GiB free in {settings.root}"
    if free < 4:
        return [Finding("disk", "wrong", found, "free some room: the lab needs about 4 GiB")]
    return [Finding("disk", "fine", found)]


def _certificates(settings: Settings) -> list[Finding]:
    from moorage.pki import registry as pki

    if not (settings.certs_dir / "ca.crt").exists():
        return [Finding("certificates", "missing", "none issued yet", "inv certs.issue")]
    actions = pki.pending(settings)
    if actions:
        return [
            Finding("certificates", "wrong", f"due: {action.text}", "inv certs.issue")
            for action in actions
        ]
    return [Finding("certificates", "fine", f"good, in {settings.certs_dir}")]


def _certificate_ends(settings: Settings) -> list[Finding]:
    """Each certificate that ends soon, has ended or cannot be asked; else which is the first to."""
    from moorage.pki import ends
    from moorage.registry.served import RENEWED_BY, SERVED, all_ends

    now = datetime.datetime.now(datetime.UTC)
    found = all_ends(settings)
    # A registry that is down is another check's finding.
    due = [one for one in found if one.state(now) != "fine" and (one.at or one.what != SERVED)]
    first = ends.first(found)
    if not due and first is not None:
        return [Finding("certificate ends", "fine", f"first: the {first.what} {first.words(now)}")]
    return [
        Finding(
            "certificate ends", "wrong", f"the {one.what} {one.words(now)}", RENEWED_BY[one.what]
        )
        for one in due
    ]


def _rotation(settings: Settings) -> list[Finding]:
    """A CA that is being rotated; nothing if none is."""
    from moorage.rotation import course, kept

    state = kept.read(settings)
    if state is None:
        return []
    waits = ", ".join(one.name for one in course.blockers(state)) or "nobody"
    found = f"under way since {state.began}, phase {state.phase}, waits for {waits}"
    cure = "inv certs.rotate-ca --resume; --status says more"
    return [Finding("CA rotation", "wrong", found, cure)]


def _registry(settings: Settings) -> list[Finding]:
    from moorage import registry
    from moorage.docker import engine

    if not engine.answers(settings):
        return []
    status = registry.status(settings, engine.connect(settings))
    if not status.running:
        return [Finding("registry", "missing", "not running", "inv registry.up")]
    if not status.healthy:
        return [Finding("registry", "wrong", "runs, but does not answer well", "inv registry.logs")]
    return [Finding("registry", "fine", f"serves https://{settings.registry_name}")]


def _caches(settings: Settings) -> list[Finding]:
    """Each cache of another registry; nothing if there is none."""
    from moorage.caches import standing
    from moorage.docker import engine

    client = engine.connect(settings) if engine.answers(settings) else None
    found = standing.all_of(settings, client) if client is not None else []
    return [
        Finding(
            f"cache of {one.upstream.name}",
            "fine" if one.fine else "wrong" if one.running else "missing",
            one.problem or f"answers at {one.below}, {len(one.held.images)} images",
            one.cure,
        )
        for one in found
    ]


def _upkeep(settings: Settings) -> list[Finding]:
    """The daily upkeep, if a timer of this checkout is to run it."""
    from contextlib import suppress

    from moorage.upkeep import installing

    with suppress(MoorageError):  # who may have no crontab has no timer there
        if since := installing.missed_since(settings):
            at = datetime.datetime.fromtimestamp(since, datetime.UTC)
            found = f"has not come to its end since {at:%Y-%m-%d %H:%M} UTC, and is due daily"
            return [Finding("upkeep", "wrong", found, "inv upkeep, then inv upkeep.install")]
    return []


def _external_ca(settings: Settings) -> list[Finding]:
    import datetime

    from moorage.pki import registry as pki

    facts = pki.show(settings).ca
    found = f"{facts.subject}, in {settings.ca_file}"
    left = facts.days_left(datetime.datetime.now(datetime.UTC))
    if left < settings.certs.renew_before:
        words = f"{found}, ends in {left} days"
        return [Finding("CA", "wrong", words, external.next_ca(settings))]
    return [Finding("CA", "fine", found)]


def _client_pair(settings: Settings) -> list[Finding]:
    """What is shown to a registry that asks its clients for a certificate; nothing if none is."""
    import datetime

    from moorage.pki import certificates
    from moorage.registry.logins import client_pair
    from moorage.registry.served import CLIENT, RENEWED_BY

    named = client_pair.files(settings)
    if named is None:
        return []
    client_pair.read(settings)
    facts = certificates.facts(client_pair.leaf_first(*named)[0])
    left = facts.days_left(datetime.datetime.now(datetime.UTC))
    found = f"{facts.subject}, in {named[0]}"
    if left < settings.certs.renew_before:
        words = f"{found}, ends in {left} days"
        return [Finding(CLIENT, "wrong", words, RENEWED_BY[CLIENT])]
    return [Finding(CLIENT, "fine", found)]


def _external_registry(settings: Settings) -> list[Finding]:
    from moorage.registry import client, if_any

    login = if_any(settings)
    client.check_login(settings, login)
    said = f"takes the login of {login.user}" if login else "answers without a login"
    return [Finding("registry", "fine", f"https://{settings.registry_name} {said}")]


def _name(settings: Settings) -> list[Finding]:
    host = settings.registry.host
    try:
        addresses = sorted(
            {info[4][0] for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
        )
    except OSError:
        return [Finding("name", "missing", f"{host} is not known on this machine", "inv up")]
    return [Finding("name", "fine", f"{host} is {', '.join(map(str, addresses))}")]


def _trust_here(settings: Settings) -> list[Finding]:
    from moorage.fleet.rollout import this_machine

    if not (settings.certs_dir / "ca.crt").exists():
        return []
    actions = this_machine.pending_this_machine(settings)
    if actions:
        return [
            Finding("this machine", "missing", f"`inv up` would {action.text}", "inv registry.up")
            for action in actions
        ]
    return [Finding("this machine", "fine", "knows the registry, and its Docker trusts it")]


def _logins(settings: Settings) -> list[Finding]:
    """Each login that ends within a week or has ended; nothing if no login has an end."""
    from moorage.registry.logins import users

    now = datetime.datetime.now(datetime.UTC)
    ending = [one for one in users.read(settings) if one.expires]
    found: list[Finding] = []
    for one in sorted(ending, key=lambda one: one.expires):
        at = datetime.datetime.fromtimestamp(one.expires, datetime.UTC)
        words = f"{one.name} {'ended on' if at <= now else 'ends on'} {at:%Y-%m-%d %H:%M} UTC"
        if at > now + _LOGIN_ENDS_SOON:
            return found or [Finding("logins", "fine", f"first: {words}")]
        name = shlex.quote(one.name)
        cure = f"inv users.add {name} --role={one.role}{_repositories(one)} --expires=90d"
        found.append(Finding("logins", "wrong", words, f"{cure}; or inv users.remove {name}"))
    return found


def _repositories(one: User) -> str:
    """The option that leaves a login its repositories."""
    from moorage.registry.front.roles import EVERYTHING

    everything = EVERYTHING in one.repositories
    return "" if everything else f" --repositories={shlex.quote(','.join(one.repositories))}"


def _secrets(settings: Settings) -> list[Finding]:
    """Secrets of the cluster, if one is known here, with a login that may delete."""
    from moorage.cluster.login import access, admins
    from moorage.registry.logins import users

    if not users.has_operator(settings):
        return []
    try:
        api = access.connect(settings)
        holders = admins.holders(api, settings)
    except MoorageError as problem:
        if problem.code == "no-kubeconfig":
            return []
        return [Finding("Secrets", "missing", f"not asked: {problem.message}", problem.cure)]
    if holders:
        return [Finding("Secrets", "wrong", one.words, one.cure) for one in holders]
    return [Finding("Secrets", "fine", f"none in {api.where.context} holds an admin login")]


def _chosen(settings: Settings, hosts: str) -> tuple[Target, ...] | Finding:
    """The nodes that are meant. Raises Refused if ``hosts`` is not understood."""
    from moorage import fleet

    try:
        return fleet.choose_hosts(settings, hosts or None)
    except MoorageError as problem:
        if hosts:
            raise
        cure = problem.cure
        if settings.registry.external and problem.code == "no-hosts":
            cure = "inv nodes.trust --hosts=NAMES, or name them as nodes.hosts in invoke.yaml"
        return Finding("nodes", "missing", problem.message, cure)
    except PermissionError as problem:
        return _locked("nodes", problem)


def _nodes(settings: Settings, fleet: Fleet, chosen: tuple[Target, ...] | Finding) -> list[Finding]:
    if isinstance(chosen, Finding):
        return [chosen]
    if not settings.ca_file.exists():
        cure = "inv registry.ca --fetch" if settings.registry.external else "inv up"
        return [Finding("nodes", "missing", "not asked: there is no CA for them yet", cure)]
    findings = []
    for result in fleet.run("verify", chosen).hosts:
        if result.error is None:
            findings.append(Finding(f"node {result.host}", "fine", "has just pulled the image"))
        else:
            found = f"{result.error.message}: {result.error.cause}"
            findings.append(Finding(f"node {result.host}", "wrong", found, result.error.cure))
    return findings


def _node_ends(fleet: Fleet, chosen: tuple[Target, ...] | Finding) -> list[Finding]:
    """What ends soon on the nodes; asked by itself, for a proof may be refused before any node is
    gone to."""
    from moorage.fleet.state import table

    if isinstance(chosen, Finding):
        return []
    now = datetime.datetime.now(datetime.UTC)
    standings = table.standings(fleet.run("status", chosen))
    return [found for one in standings for found in ends_of_node(one, now)]


def ends_of_node(one: Standing, now: datetime.datetime) -> list[Finding]:
    """What of a node ends soon, has ended or is not known, and a clock that is off. Pure."""
    from moorage.fleet.state.host import AGENT, CA

    what = f"node {one.host}"
    cures = {
        CA: external.NEXT_CA,
        AGENT: f"inv nodes.adopt --hosts={one.host}",
    }
    found = [
        Finding(
            what,
            "wrong",
            f"the {end.what} {end.words(now)}",
            f"inv nodes.status --hosts={one.host}" if end.at is None else cures[end.what],
        )
        for end in one.ends()
        if end.state(now) != "fine"
    ]
    if one.clock_is_off:
        cure = "timedatectl set-ntp true, on whichever of the two is wrong"
        found.append(Finding(what, "wrong", one.clock_words(), cure))
    return found


CHECKS: tuple[Callable[[Settings], list[Finding]], ...] = (
    _system,
    _root,
    _disk,
    _engine,
    _certificates,
    _certificate_ends,
    _rotation,
    _registry,
    _caches,
    _upkeep,
    _name,
    _trust_here,
    _logins,
    _secrets,
)

# This machine runs nothing for a registry of somebody else's, and need not be root.
EXTERNAL_CHECKS: tuple[Callable[[Settings], list[Finding]], ...] = (
    _system,
    _external_ca,
    _client_pair,
    _external_registry,
)
