"""Asks the cluster why pods cannot pull: pods, then only what their complaints make needed.

Lists come in pages and are dropped at once: of 5,000 pods, those that are stuck stay in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from moorage.cluster import diagnosis, facts, namespaces, ours, paths
from moorage.cluster.diagnosis import NOT_ALLOWED, Group, Known, Secret
from moorage.cluster.refusals import ApiError
from moorage.cluster.stuck import Complaint, Stuck, complaints, containers
from moorage.errors import MoorageError, Refused

if TYPE_CHECKING:
    from moorage.cluster.api import Api
    from moorage.registry import Credentials
    from moorage.settings import Settings
    from moorage.ui import UI

_ALIVE = "status.phase!=Succeeded,status.phase!=Failed"
# Above so many namespaces one list of all events is less to ask for.
_MANY = 12


@dataclass(frozen=True)
class Report:
    """What was found. ``notes``: what could not be asked, and why.

    ``waiting``: after a cure, what has not its images yet and makes no complaint.
    """

    groups: tuple[Group, ...]
    pods_seen: int
    notes: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()

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
        }


@dataclass
class _Notes:
    """What may not be read is said once, and the rest goes on."""

    said: list[str] = field(default_factory=list)

    def add(self, problem: MoorageError, without: str) -> None:
        line = f"{problem.message}: {without}"
        if line not in self.said:
            self.said.append(line)


def examine(api: Api, settings: Settings, ui: UI, *, namespace: str = "", pod: str = "") -> Report:
    """Every pod that cannot pull, in ``namespace`` or in all, or ``pod`` alone, by cause.

    Raises Refused where there is no such pod; ApiError where pods may not be listed.
    """
    found: list[Stuck] = []
    seen = 0
    with ui.progress("look at pods") as update:
        for document in _pods(api, namespace, pod):
            seen += 1
            found.extend(containers(document))
            if seen % 100 == 0:
                update(text=f"look at pods: {seen}")
    if not seen and namespace:
        # An empty namespace is well; a misspelt one must not look so.
        namespaces.choose(api, namespaces.Choice(namespace))
    return explain(api, settings, found, seen)


def explain(api: Api, settings: Settings, found: Sequence[Stuck], seen: int) -> Report:
    """The causes of what is stuck."""
    if not found:
        return Report((), seen)
    notes = _Notes()
    stuck = _with_words(api, found, notes)
    groups = diagnosis.diagnose(stuck, _known(api, settings, stuck, notes))
    return typed(api, Report(tuple(groups), seen, tuple(notes.said)))


def typed(api: Api, report: Report) -> Report:
    """The report with cures that reach this very cluster. Pure."""
    groups = (replace(group, cure=api.where.typed(group.cure)) for group in report.groups)
    return replace(report, groups=tuple(groups))


def _pods(api: Api, namespace: str, pod: str) -> Iterable[dict[str, Any]]:
    if not pod:
        yield from api.items(paths.all_of("Pod", namespace), "list pods", fields=_ALIVE)
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
            notes.add(problem, "why these pods failed may be missing below")
    known = {key: complaint.words for key, complaint in said.items()}
    return [
        one if one.words else replace(one, words=known.get((one.uid, one.container), ""))
        for one in stuck
    ]


def _known(api: Api, settings: Settings, stuck: Sequence[Stuck], notes: _Notes) -> Known:
    login = _login(settings)
    unsure = [one for one in stuck if diagnosis.wants_secrets(one)]
    registry = settings.registry_name
    repositories = {
        diagnosis.repository(one.image) for one in stuck if diagnosis.wants_tags(one, registry)
    }
    trusting, runtimes = _nodes(api, settings, {one.node for one in stuck}, notes)
    accused = {one.node for one in stuck if diagnosis.wants_facts(one, registry)}
    trusting |= facts.trusting(api, settings, accused - set(trusting))
    return Known(
        registry=registry,
        image=settings.image_reference,
        login=login,
        login_works=_login_works(settings, login) if unsure else None,
        secrets=_secrets(api, unsure, notes),
        in_namespace=_secrets_for(api, registry, unsure, notes),
        tags={
            name: tags
            for name in sorted(repositories)
            if (tags := _tags(settings, name, login, notes)) is not _UNKNOWN
        },
        trusting=trusting,
        runtimes=runtimes,
    )


def _login(settings: Settings) -> Credentials | None:
    from moorage.registry import credentials

    try:
        return credentials(settings)
    except MoorageError:
        return None


def _login_works(settings: Settings, login: Credentials | None) -> bool | None:
    from moorage.registry import client

    if login is None:
        return None
    try:
        status = client.ask(settings, "/v2/", login=login).status
    except MoorageError:
        return None
    return {200: True, 401: False}.get(status)


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
    """The repository's tags; None where there is no such one; _UNKNOWN where nobody says."""
    from moorage.registry import client

    if login is None:
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
    api: Api, settings: Settings, names: set[str], notes: _Notes
) -> tuple[dict[str, str], dict[str, str]]:
    """What the cluster's agents say of these nodes, and their runtimes."""
    from moorage.cluster.nodes import from_document

    trusting, runtimes = {}, {}
    for name in sorted(names - {""}):
        try:
            document = api.find(paths.one("Node", name), "read nodes")
        except ApiError as problem:
            notes.add(problem, "what runtime these nodes have is unknown")
            break
        if document is None:
            continue
        node = from_document(document)
        runtimes[name] = node.runtime
        if settings.registry_name in node.trusted:
            trusting[name] = (
                f"an agent put the trust there ({node.trusted[settings.registry_name]})"
            )
    return trusting, runtimes
