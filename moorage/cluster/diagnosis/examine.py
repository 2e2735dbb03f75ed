"""Asks the cluster why pods cannot pull: pods, then only what their complaints make needed.

Lists come in pages and are dropped at once: of 5,000 pods, those that are stuck stay in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from moorage.cluster.api import ours, paths
from moorage.cluster.api.refusals import ApiError
from moorage.cluster.diagnosis import diagnosis, facts, logins
from moorage.cluster.diagnosis.diagnosis import Group
from moorage.cluster.diagnosis.known import NOT_ALLOWED, Known, NodeImages, Secret
from moorage.cluster.login import admins, namespaces
from moorage.cluster.login.pull_secret import Login
from moorage.cluster.symptoms import keyring
from moorage.cluster.symptoms.stuck import (
    Complaint,
    Stuck,
    candidates,
    complaints,
    heard,
    without_sandbox,
)
from moorage.errors import MoorageError, Refused
from moorage.output import Update, unheard

if TYPE_CHECKING:
    from moorage.cluster.api.client import Api
    from moorage.cluster.login.admins import Holder
    from moorage.registry import Credentials
    from moorage.settings import Settings

# Above so many namespaces one list of all events is less to ask for.
_MANY = 12


@dataclass(frozen=True)
class Report:
    """What was found. ``notes``: what could not be asked, and why.

    ``waiting``: after a cure, what has not its images yet and makes no complaint. ``admins``:
    Secrets with a login that may delete.
    """

    groups: tuple[Group, ...]
    pods_seen: int
    notes: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    admins: tuple[Holder, ...] = ()

    @property
    def stuck(self) -> tuple[Stuck, ...]:
        return tuple(one for group in self.groups for one in group.stuck)

    def to_json(self) -> dict[str, Any]:
        return {
            "pods_seen": self.pods_seen,
            "pods_stuck": len({one.name for one in self.stuck}),
            "causes": [group.to_json() for group in self.groups],
            "notes": list(self.notes),
            "waiting": list(self.waiting),
            "admin_logins": [one.to_json() for one in self.admins],
        }


@dataclass
class _Notes:
    """What may not be read is said once, and the rest goes on."""

    said: list[str] = field(default_factory=list)

    def add(self, problem: MoorageError, without: str) -> None:
        line = f"{problem.message}: {without}"
        if line not in self.said:
            self.said.append(line)


def examine(
    api: Api,
    settings: Settings,
    *,
    namespace: str = "",
    pod: str = "",
    update: Update = unheard,
) -> Report:
    """Every pod that cannot pull, in ``namespace`` or in all, or ``pod`` alone, by cause.

    Raises Refused if there is no such pod; ApiError where pods may not be listed.
    """
    found: list[Stuck] = []
    seen = 0
    for document in _pods(api, namespace, pod):
        seen += 1
        found.extend(candidates(document))
        if seen % 100 == 0:
            update(text=f"look at pods: {seen}")
    if not seen and namespace:
        # An empty namespace is well; a misspelt one must not look so.
        namespaces.choose(api, namespaces.Choice(namespace))
    report = explain(api, settings, found, seen)
    return _with_admins(api, settings, report, namespace)


def _with_admins(api: Api, settings: Settings, report: Report, namespace: str) -> Report:
    """Said beside the causes: such a login keeps no pod from pulling."""
    try:
        return replace(report, admins=admins.holders(api, settings, namespace))
    except MoorageError as problem:
        note = f"{problem.message}: whether Secrets hold an admin login is unknown"
        return replace(report, notes=(*report.notes, note))


def explain(api: Api, settings: Settings, found: Sequence[Stuck], seen: int) -> Report:
    """The causes of what is stuck; of a pod that waits for its sandbox only if its image is why."""
    if not found:
        return Report((), seen)
    notes = _Notes()
    stuck = _with_words(api, found, notes)
    if not stuck:
        return Report((), seen, tuple(notes.said))
    groups = diagnosis.diagnose(stuck, _known(api, settings, stuck, notes))
    return typed(api, Report(tuple(groups), seen, tuple(notes.said)))


def typed(api: Api, report: Report) -> Report:
    """The report with cures that reach this very cluster. Pure."""
    groups = (replace(group, cure=api.where.typed(group.cure)) for group in report.groups)
    return replace(report, groups=tuple(groups))


def _pods(api: Api, namespace: str, pod: str) -> Iterable[dict[str, Any]]:
    if not pod:
        yield from api.items(paths.all_of("Pod", namespace), "list pods", fields=paths.ALIVE)
        return
    found = api.find(paths.one("Pod", pod, namespace), f"read pod {namespace}/{pod}")
    if found is None:
        raise Refused(
            "no-pod",
            f"there is no pod {namespace}/{pod}",
            cause="it was never made, or deleted since",
            cure=f"look at those there are: kubectl get pods -n {namespace}",
        )
    yield found


def _with_words(api: Api, stuck: Sequence[Stuck], notes: _Notes) -> list[Stuck]:
    """A waiting kubelet does not say why any more: the last event does."""
    silent = {one.namespace for one in stuck if not one.words}
    if not silent:
        return list(stuck)
    said: dict[tuple[str, str], Complaint] = {}
    for namespace in sorted(silent) if len(silent) <= _MANY else [""]:
        try:
            events = api.items(
                paths.all_of("Event", namespace),
                "list events",
                fields="involvedObject.kind=Pod,type=Warning",
            )
            said |= complaints(events)
        except ApiError as problem:
            waiting = all(one.of_sandbox for one in stuck)
            without = "whether images of pod sandboxes are missing is unknown"
            notes.add(problem, without if waiting else "why these pods failed may be missing below")
    words = {key: complaint.words for key, complaint in said.items()}
    told = (_told(one, heard(one, words)) for one in stuck)
    return [one for one in told if one is not None]


def _told(one: Stuck, words: str) -> Stuck | None:
    """With its words; None for a pod that waits for its sandbox and not for an image."""
    if one.of_sandbox and not one.words:
        return without_sandbox(one, words)
    return one if one.words else replace(one, words=words)


def _known(api: Api, settings: Settings, stuck: Sequence[Stuck], notes: _Notes) -> Known:
    login = logins.own(settings)
    unsure = [one for one in stuck if diagnosis.wants_secrets(one)]
    registry = settings.registry_name
    repositories = {
        diagnosis.repository(one.image) for one in stuck if diagnosis.wants_tags(one, registry)
    }
    trusting, runtimes, nodes = _nodes(api, settings, stuck, notes)
    secrets = _secrets(api, unsure, notes)
    works = logins.takes(settings, login) if unsure else None
    accepted = logins.accepted(settings, unsure, secrets, login, works=works)
    kept = {Login(login.user, login.password)} if login is not None and works else set()
    accused = {one.node for one in stuck if diagnosis.wants_facts(one, registry)}
    trusting |= facts.trusting(api, settings, accused - set(trusting))
    return Known(
        registry=registry,
        image=settings.image_reference,
        login=login,
        login_works=works,
        users=frozenset(one.name for one in logins.users(settings)),
        secrets=secrets,
        in_namespace=_secrets_for(api, registry, unsure, notes),
        tags={
            name: tags
            for name in sorted(repositories)
            if (tags := _tags(settings, name, login, notes)) is not _UNKNOWN
        },
        trusting=trusting,
        runtimes=runtimes,
        accepted=accepted,
        pulls=logins.pulls(settings, unsure, secrets, accepted | kept),
        nodes=nodes,
        external=settings.registry.external,
        presents=bool(settings.registry.client_cert),
        unvouched=_unvouched(settings, stuck),
    )


def _unvouched(settings: Settings, stuck: Sequence[Stuck]) -> str:
    """Why the CA that is kept here does not vouch for somebody else's registry; "" if it does.

    Asked only if pods say the like: that registry's CA may be another by now.
    """
    from moorage.registry import client

    accused = (one for one in stuck if diagnosis.wants_facts(one, settings.registry_name))
    if not settings.registry.external or not any(accused):
        return ""
    try:
        client.ask(settings, "/v2/", login=None)
    except MoorageError as problem:
        return problem.cause if problem.code == "registry-certificate" else ""
    return ""


def _secrets(api: Api, unsure: Sequence[Stuck], notes: _Notes) -> dict[tuple[str, str], Secret]:
    wanted = sorted({(one.namespace, name) for one in unsure for name in one.secrets})
    found: dict[tuple[str, str], Secret] = {}
    for namespace, name in wanted:
        try:
            found[namespace, name] = api.find(paths.one("Secret", name, namespace), "read Secrets")
        except ApiError as problem:
            if problem.status != 403:
                raise
            found[namespace, name] = NOT_ALLOWED
            notes.add(problem, "whether they hold the right login is unknown")
    return found


def _secrets_for(
    api: Api, registry: str, unsure: Sequence[Stuck], notes: _Notes
) -> dict[str, tuple[str, ...]]:
    """Pull Secrets for our registry: where the stuck pods are, and ours anywhere."""
    if not unsure:
        return {}
    listed: dict[str, dict[str, Any]] = {}
    places = sorted({one.namespace for one in unsure})
    asked = [(place, "") for place in places] if len(places) <= _MANY else [("", "")]
    asked.append(("", f"{ours.PART}=secret"))
    for namespace, selector in asked:
        path = paths.all_of("Secret", namespace)
        try:
            for one in api.items(path, "list Secrets", fields=_PULLS, selector=selector):
                listed[one["metadata"]["uid"]] = one
        except ApiError as problem:
            if problem.status != 403:
                raise
            notes.add(problem, "whether a Secret is in another namespace is unknown")
    return diagnosis.secrets_for(registry, listed.values())


_PULLS = "type=kubernetes.io/dockerconfigjson"
_UNKNOWN = ("?",)


def _tags(
    settings: Settings, repository: str, login: Credentials | None, notes: _Notes
) -> tuple[str, ...] | None:
    """The repository's tags; None if there is no such one; _UNKNOWN where nobody says."""
    from moorage.registry import client

    if login is None and not settings.registry.external:
        return _UNKNOWN
    try:
        answer = client.ask(settings, f"/v2/{repository}/tags/list", login=login)
    except MoorageError as problem:
        notes.add(problem, "whether tag or repository is missing is unknown")
        return _UNKNOWN
    if answer.status == 404:
        return None
    if answer.status != 200:
        return _UNKNOWN
    try:
        # A repository whose tags were all deleted answers null.
        return tuple(str(tag) for tag in json.loads(answer.body).get("tags") or ())
    except (ValueError, AttributeError):
        return _UNKNOWN


def _nodes(
    api: Api, settings: Settings, stuck: Sequence[Stuck], notes: _Notes
) -> tuple[dict[str, str], dict[str, str], dict[str, NodeImages]]:
    """What the cluster's agents say of these nodes, their runtimes, and their images."""
    from moorage.cluster.diagnosis.nodes import from_document

    trusting, runtimes, images = {}, {}, {}
    for name in sorted({one.node for one in stuck} - {""}):
        try:
            document = api.find(paths.one("Node", name), "read nodes")
        except ApiError as problem:
            notes.add(problem, "what runtime these nodes have is unknown")
            break
        if document is None:
            continue
        node = from_document(document)
        runtimes[name] = node.runtime
        images[name] = _images(api, document, [one for one in stuck if one.node == name], notes)
        if settings.registry_name in node.trusted:
            trusting[name] = (
                f"an agent put the trust there ({node.trusted[settings.registry_name]})"
            )
    return trusting, runtimes, images


# A kubelet names so many of its images, the largest, unless nodeStatusMaxImages says otherwise.
_IMAGES_NAMED = 50


def _images(api: Api, node: dict[str, Any], stuck: Sequence[Stuck], notes: _Notes) -> NodeImages:
    status = node.get("status") or {}
    listed = status.get("images") or ()
    names = frozenset(
        keyring.in_full(str(name)) for image in listed for name in image.get("names") or ()
    )
    kubelet = str((status.get("nodeInfo") or {}).get("kubeletVersion", ""))
    found = NodeImages(names, len(listed) < _IMAGES_NAMED, kubelet)
    if not any(diagnosis.wants_verification(one, found) for one in stuck):
        return found
    return replace(found, verification=_verification(api, node["metadata"]["name"], notes))


def _verification(api: Api, node: str, notes: _Notes) -> str:
    """The kubelet's imagePullCredentialsVerificationPolicy; "" if it cannot be asked."""
    try:
        path = f"{paths.one('Node', node)}/proxy/configz"
        document = api.get(path, f"read the configuration of the kubelet of {node}")
    except ApiError as problem:
        notes.add(problem, "whether it verifies images that it has is unknown")
        return ""
    configuration = document.get("kubeletconfig") or {}
    return str(configuration.get("imagePullCredentialsVerificationPolicy") or "")
