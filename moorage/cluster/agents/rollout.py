"""Brings an agent onto every node, and each node to the least grade that does."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from moorage.cluster.agents import documents as made_of
from moorage.cluster.agents.documents import AUTO, FILES, FULL, GRADE_LABEL, Cluster, Wanted
from moorage.cluster.agents.plan import make_plan
from moorage.cluster.agents.states import FAILED, NEEDS_FULL, AgentState, states
from moorage.cluster.api import manifests, ours, paths
from moorage.cluster.api.refusals import nothing_changed_yet
from moorage.cluster.api.told import PLAN
from moorage.cluster.diagnosis import examine
from moorage.cluster.diagnosis.nodes import ClusterNode, from_document
from moorage.cluster.login import login, secrets
from moorage.cluster.symptoms.stages import READY, stage
from moorage.cluster.symptoms.stuck import candidates
from moorage.errors import Refused
from moorage.output import Diff, Note, Update

if TYPE_CHECKING:
    from moorage.cluster.api.client import Api
    from moorage.cluster.diagnosis.examine import Report
    from moorage.settings import Settings
    from moorage.ui import UI

UNCHANGED = "unchanged"
_POLL = 1.0
# So long a pod that cannot pull its own image is waited for, before it is looked at.
_IMAGE_PATIENCE = 8.0
# So long a failure may go away by itself: agents try again.
_FAILURE_PATIENCE = 20.0
_NAMESPACE_PATIENCE = 120.0


@dataclass(frozen=True)
class Rolled:
    """How it went. ``objects``: what was made, by words -> created, updated or unchanged."""

    states: tuple[AgentState, ...]
    objects: dict[str, str] = field(default_factory=dict)
    report: Report | None = None

    @property
    def ok(self) -> bool:
        return self.report is None and all(one.ok for one in self.states)


def roll_out(
    api: Api, settings: Settings, ui: UI, wanted: Wanted, *, dry_run: bool = False
) -> Rolled:
    """Brings an agent onto every node and waits until each has proven its trust."""
    from moorage import archive
    from moorage.registry import handed
    from moorage.registry.logins import users

    refuse_a_second(api, settings)
    logins = login.needed(settings)
    wanted = replace(wanted, secret=logins is not None)
    documents = [from_document(one) for one in api.items(paths.all_of("Node"), "list nodes")]
    nodes = [node for node in documents if node.platform.startswith("linux")]
    plan = make_plan(settings, nodes)
    built = archive.agent_archive(settings.state)

    def everything() -> list[dict[str, Any]]:
        return made_of.documents(settings, wanted, plan, built, _cluster(api, nodes))

    namespace = made_of.namespace_document(settings)
    if dry_run:
        made = everything()
        planned = plan_of(api, [namespace, *made])
        ui.present(one.diff for one in planned if one.action != UNCHANGED)
        others = _of_other_grades(api, settings, made)
        for words in others:
            ui.note(f"would remove {words}: it is of another grade")
        return Rolled((), _told(planned) | dict.fromkeys(others, "removed"))
    if _is_going(api, settings.kubernetes.agents_namespace):
        ui.note(f"waiting until the namespace {settings.kubernetes.agents_namespace} is gone")
    done, notes = _make_namespace(api, settings, namespace)
    ui.present(notes)
    place = secrets.Place(settings.kubernetes.agents_namespace, settings.kubernetes.secret)
    if logins is not None:
        secrets.apply(api, ui, [place], secrets.wish(settings, logins))
    if not settings.registry.external:
        handed.note(settings, [users.name_for(users.NODES)], api.where.server)
    made = everything()
    done |= apply(api, made)
    others = _of_other_grades(api, settings, made)
    for words in others:
        ui.note(f"remove {words}: it is of another grade")
    done |= _drop(api, others)
    with ui.progress("wait for the agents") as update:
        found, report = _wait(api, settings, wanted, plan, update)
    if wanted.grade == AUTO and (promoted := promote(api, found)):
        ui.present(promoted)
        done |= apply(api, everything())
        with ui.progress("wait for the agents") as update:
            found, report = _wait(api, settings, wanted, plan, update)
    _forget_old_archives(api, settings, done)
    return Rolled(tuple(found), done, report)


def refuse_a_second(api: Api, settings: Settings) -> None:
    """Raises Refused (``agents-elsewhere``) if agents of another namespace are on the nodes.

    Rights on Nodes, and what is noted on each Node, are the cluster's: there is one set of agents.
    """
    binding = paths.one("ClusterRoleBinding", "moorage-agent")
    live = api.find(binding, "read whose the agents are")
    if live is None or not ours.is_ours(live):  # somebody else's is refused for itself
        return
    own = settings.kubernetes.agents_namespace
    spaces = {str(one.get("namespace", own)) for one in live.get("subjects") or ()} - {own}
    for space in sorted(spaces):
        if api.find(paths.one("Secret", PLAN, space), "read the agents' plan") is None:
            continue  # they are gone, and this was left
        raise Refused(
            "agents-elsewhere",
            f"nothing was changed: agents in the namespace {space} keep this cluster's trust",
            cause="one set of agents is on a cluster's nodes, and another profile, or another "
            "kubernetes.agents_namespace, has brought it",
            cure="inv nodes.trust --from-cluster has the nodes trust this registry beside it; to "
            "change whose the agents are, first inv k8s.agents --remove with the settings of those",
        )


def _of_other_grades(
    api: Api, settings: Settings, made: Sequence[dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """The DaemonSets of an earlier run's grade, by their words.

    They have to go: there is one agent per node, with the least rights.
    """
    named = {one["metadata"]["name"] for one in made if one["kind"] == "DaemonSet"}
    path = paths.all_of("DaemonSet", settings.kubernetes.agents_namespace)
    selector = f"{ours.MANAGED_BY}=moorage,{ours.PART}=agents"
    documents = [
        {**one, "apiVersion": "apps/v1", "kind": "DaemonSet"}
        for one in api.items(path, "list DaemonSets", selector=selector)
        if one["metadata"]["name"] not in named
    ]
    return {paths.words(document): document for document in documents}


def _drop(api: Api, others: dict[str, dict[str, Any]]) -> dict[str, str]:
    for words, document in others.items():
        api.delete(paths.of(document), f"delete {words}")
    return dict.fromkeys(others, "removed")


def promote(api: Api, found: Sequence[AgentState]) -> list[Note]:
    """Gives the grade full to nodes whose agent needs it; a note on each."""
    lacking = [one for one in found if one.status == NEEDS_FULL and not one.labelled]
    for one in lacking:
        label = {"metadata": {"labels": {GRADE_LABEL: FULL}}}
        api.merge(paths.one("Node", one.node.name), label, f"label node {one.node.name}")
    return [Note(f"{one.node.name}: grade full, since {one.error}") for one in lacking]


def _cluster(api: Api, nodes: Sequence[ClusterNode]) -> Cluster:
    return Cluster(
        frozenset(node.runtime.partition(" ")[0] for node in nodes),
        any(
            ours.labels_of(document).get(GRADE_LABEL) == FULL
            for document in api.items(paths.all_of("Node"), "list nodes")
        ),
        _has_policies(api),
    )


def _has_policies(api: Api) -> bool:
    """Whether the API server knows admission policies, and tokens name their node: from 1.30."""
    found = api.find("/apis/admissionregistration.k8s.io/v1", "read what the API server knows")
    kinds = {one.get("kind") for one in (found or {}).get("resources") or ()}
    version = api.get("/version", "read the version")
    minor = int("".join(filter(str.isdigit, str(version.get("minor", "0")))) or 0)
    return "ValidatingAdmissionPolicy" in kinds and (version.get("major"), minor) >= ("1", 30)


class Planned(NamedTuple):
    """One object: what it shall be, what is there, and what that makes of it."""

    document: dict[str, Any]
    live: dict[str, Any] | None
    action: str

    @property
    def words(self) -> str:
        return paths.words(self.document)

    @property
    def diff(self) -> Diff:
        return Diff(self.words, _shown(self.live, self.document), _shown(self.document))


def apply(api: Api, made: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Applies the documents where they differ; what was done, by the object's words.

    Raises Refused, with nothing changed, where one of them is somebody else's.
    """
    planned = plan_of(api, made)
    for document, _, action in planned:
        if action != UNCHANGED:
            api.apply(paths.of(document), document, f"write {paths.words(document)}", force=True)
    return _told(planned)


def _told(planned: Sequence[Planned]) -> dict[str, str]:
    return {one.words: one.action for one in planned}


def plan_of(api: Api, made: Sequence[dict[str, Any]]) -> list[Planned]:
    """What applying the documents would do. Raises Refused if one is somebody else's."""
    planned: list[Planned] = []
    with nothing_changed_yet():
        for document in made:
            words, path = paths.words(document), paths.of(document)
            live = api.find(path, f"read {words}")
            if live is not None and not ours.is_ours(live):
                raise Refused(
                    "not-ours",
                    f"nothing was changed: {words} is not ours",
                    cause="somebody else made it (it lacks the label moorage.dev/part)",
                    cure="choose another kubernetes.agents_namespace, or remove it",
                )
            action = "created" if live is None else "updated"
            if live is not None and _is_there(api, path, document, live):
                action = UNCHANGED
            planned.append(Planned(document, live, action))
    return planned


def _is_there(api: Api, path: str, document: dict[str, Any], live: dict[str, Any]) -> bool:
    if document["kind"] in ("Secret", "ConfigMap"):  # no need to send half a MiB to compare it
        keys = ("data", "binaryData")
        return all(live.get(key) == document.get(key) for key in keys)
    after = api.apply(path, document, f"write {paths.words(document)}", force=True, dry=True)
    return manifests.same(live, after)


def _shown(document: dict[str, Any] | None, like: dict[str, Any] | None = None) -> str | None:
    """For a diff: the login in the plan and the archive's bytes are not shown."""
    if document is None:
        return None
    hidden = dict(document)
    for key in ("data", "binaryData"):
        if key in hidden:
            hidden[key] = dict.fromkeys(hidden[key], "(not shown)")
    return manifests.shown(hidden, like)


def _make_namespace(
    api: Api, settings: Settings, document: dict[str, Any]
) -> tuple[dict[str, str], list[Note]]:
    name = settings.kubernetes.agents_namespace
    live = _settled_namespace(api, name)
    if live is not None and not ours.is_ours(live):
        return {}, [Note(f"the namespace {name} is not ours: it is used as it is")]
    return apply(api, [document]), []


def _is_going(api: Api, name: str) -> bool:
    live = api.find(paths.one("Namespace", name), f"read namespace {name}")
    return live is not None and bool(live["metadata"].get("deletionTimestamp"))


def _settled_namespace(api: Api, name: str) -> dict[str, Any] | None:
    """The namespace, or None; one that is being deleted, by an earlier --remove, is waited for."""
    deadline = time.monotonic() + _NAMESPACE_PATIENCE
    while True:
        live = api.find(paths.one("Namespace", name), f"read namespace {name}")
        if live is None or not live["metadata"].get("deletionTimestamp"):
            return live
        if time.monotonic() > deadline:
            raise Refused(
                "namespace-terminating",
                f"the namespace {name} is being deleted",
                cause="something in it cannot be deleted",
                cure=f"see what holds it: kubectl describe namespace {name}",
            )
        time.sleep(_POLL)


def _wait(
    api: Api, settings: Settings, wanted: Wanted, plan: bytes, update: Update
) -> tuple[list[AgentState], Report | None]:
    deadline = time.monotonic() + wanted.timeout
    began = time.monotonic()
    while True:
        found = [_of_grade(one, wanted) for one in states(api, plan)]
        update(done=len([one for one in found if one.ok]), total=len(found) or 1)
        spent = time.monotonic() - began
        patient = spent < _FAILURE_PATIENCE
        if all(_is_settled(one, wanted, patient=patient) for one in found):
            return found, None
        late = time.monotonic() > deadline
        if late or spent > _IMAGE_PATIENCE:
            report = _stuck_agents(api, settings)
            if report is not None and (late or not all(g.passing for g in report.groups)):
                # Where only needs-full is missing, the proof cannot be pulled yet, of course.
                lacking = {one.node.name for one in found if one.status == NEEDS_FULL}
                if late or any(set(group.nodes) - lacking for group in report.groups):
                    return found, report
        if late:
            return _with_troubles(api, settings, found), None
        time.sleep(_POLL)


def _of_grade(one: AgentState, wanted: Wanted) -> AgentState:
    """What it says, if its agent is of the grade that is wanted: another one's word is old."""
    grade = wanted.grade
    if grade == AUTO:
        grade = FULL if one.labelled else FILES
    if one.grade not in ("", grade):
        return AgentState(one.node, labelled=one.labelled)
    if wanted.grade == FULL and one.why:
        return replace(one, why="--grade=full asks for it")
    return one


def _is_settled(one: AgentState, wanted: Wanted, *, patient: bool) -> bool:
    """Whether no better word is to be expected of this agent."""
    if one.status == NEEDS_FULL:
        # A labelled node's word is from before its new agent, unless that one is not wanted.
        return not one.labelled or wanted.grade == FILES
    return one.ok or (one.status == FAILED and not patient)


def _with_troubles(api: Api, settings: Settings, found: Sequence[AgentState]) -> list[AgentState]:
    """What their pods report of those agents that have said nothing themselves."""
    troubles: dict[str, str] = {}
    for pod in _pods(api, settings):
        said = stage(pod)
        word = said.trouble or said.waits or (said.name if said.name != READY else "")
        troubles[(pod.get("spec") or {}).get("nodeName", "")] = f"its pod: {word}" if word else ""
    return [
        one
        if one.status
        else replace(one, error=troubles.get(one.node.name, "it has no pod of ours"))
        for one in found
    ]


def _pods(api: Api, settings: Settings) -> list[dict[str, Any]]:
    path = paths.all_of("Pod", settings.kubernetes.agents_namespace)
    return list(api.items(path, "list pods", selector="app.kubernetes.io/name=moorage-agent"))


def _stuck_agents(api: Api, settings: Settings) -> Report | None:
    pods = _pods(api, settings)
    stuck = [one for pod in pods for one in candidates(pod)]
    report = examine.explain(api, settings, stuck, len(pods))
    return report if report.groups else None


def _forget_old_archives(api: Api, settings: Settings, done: dict[str, str]) -> None:
    """ConfigMaps of versions that no DaemonSet names any more."""
    namespace = settings.kubernetes.agents_namespace
    named = {words.rpartition("/")[2] for words in done if words.startswith("ConfigMap ")}
    selector = f"{ours.MANAGED_BY}=moorage,{ours.PART}=agents"
    for one in list(api.items(paths.all_of("ConfigMap", namespace), selector=selector)):
        if one["metadata"]["name"] not in named:
            api.delete(paths.of({**one, "kind": "ConfigMap"}), "delete an old archive")
