"""Against a real API server (kube-apiserver and etcd on loopback): what Kubernetes itself refuses.

Left out where the two programs are not at hand; ``inv lab.up --kubernetes`` brings them.
"""

from __future__ import annotations

import base64
import copy
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moorage.archive import AgentArchive
from moorage.cluster.agents import rollout
from moorage.cluster.agents.documents import Cluster, Wanted
from moorage.cluster.agents.documents import documents as agent_documents
from moorage.cluster.api import manifests, ours, paths
from moorage.cluster.api.client import Api
from moorage.cluster.api.refusals import ApiError
from moorage.cluster.diagnosis import examine
from moorage.cluster.login import access, accounts, removal, secrets, strangers
from moorage.cluster.login import namespaces as spaces
from moorage.cluster.login.login import Given
from moorage.cluster.login.namespaces import Choice
from moorage.cluster.workload import deploy
from moorage.errors import Refused
from moorage.registry import Credentials
from moorage.settings import ROOT, KubernetesSettings, Settings
from moorage.ui import UI
from tests.k8s import apiserver
from tests.k8s.apiserver import ApiServer

SETTINGS = Settings()
LOGIN = Credentials("moorage", "words")
UI_ = UI(as_json=True)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    found = apiserver.programs()
    if found is None:
        pytest.skip("no kube-apiserver and etcd here: inv lab.up --kubernetes brings them")
    with apiserver.running(tmp_path_factory.mktemp("apiserver"), *found) as running:
        yield running


@pytest.fixture(scope="module")
def api(server: ApiServer) -> Api:
    return access.connect(SETTINGS, kubeconfig=str(server.kubeconfig))


@pytest.fixture(scope="module")
def reader(server: ApiServer) -> Api:
    return access.connect(SETTINGS, kubeconfig=str(server.kubeconfig), context="reader")


_count = iter(range(1000))


@pytest.fixture
def space(api: Api) -> str:
    return make_namespace(api)


def make_namespace(api: Api, **labels: str) -> str:
    name = f"test-{next(_count)}"
    metadata = {"name": name, "labels": labels}
    document = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
    api.apply(paths.one("Namespace", name), document, "make a namespace")
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "default", "namespace": name},
    }
    api.apply(paths.of(account), account, "make a ServiceAccount")
    return name


def place(space: str) -> secrets.Place:
    return secrets.Place(space, "my-registry")


def put(api: Api, *names: str, **options: Any) -> list[secrets.SecretOutcome]:
    dry_run = options.pop("dry_run", False)
    wanted = secrets.wish(SETTINGS, Given(options.pop("login", LOGIN)), **options)
    return secrets.apply(api, UI_, [place(name) for name in names], wanted, dry_run=dry_run)


def find(api: Api, kind: str, name: str, space: str) -> dict[str, Any]:
    found = api.find(paths.one(kind, name, space))
    assert found is not None
    return found


# -- the Secret -----------------------------------------------------------------------------------


def test_a_second_run_changes_nothing_not_even_a_version(api: Api, space: str) -> None:
    assert put(api, space)[0].status == secrets.CREATED
    before = find(api, "Secret", "my-registry", space)
    assert put(api, space)[0].status == secrets.UNCHANGED
    assert find(api, "Secret", "my-registry", space) == before


def test_a_dry_run_changes_nothing_and_shows_no_password(
    api: Api, space: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert put(api, space, dry_run=True)[0].status == secrets.CREATED
    assert api.find(paths.one("Secret", "my-registry", space)) is None
    said = capsys.readouterr()
    assert "my.registry.io: moorage (hidden)" in said.err
    assert "words" not in said.out + said.err


def test_others_fields_stay(api: Api, space: str) -> None:
    put(api, space)
    path = paths.one("Secret", "my-registry", space)
    change = {"metadata": {"annotations": {"a": "b"}, "labels": {"theirs": "yes"}}}
    api._ask("PATCH", path, "change", query={"fieldManager": "colleague"}, body=change,
             kind="application/merge-patch+json")  # fmt: skip
    outcome = put(api, space, login=Credentials("moorage", "new"))[0]
    assert outcome.status == secrets.UPDATED
    live = find(api, "Secret", "my-registry", space)
    assert live["metadata"]["annotations"] == {"a": "b"}
    assert live["metadata"]["labels"]["theirs"] == "yes"


def test_our_field_that_somebody_changed_is_a_conflict_until_replaced(api: Api, space: str) -> None:
    put(api, space)
    path = paths.one("Secret", "my-registry", space)
    auths = {"auths": {"other.example": {"username": "u", "password": "p"}}}
    text = base64.b64encode(json.dumps(auths).encode()).decode()
    change = {"data": {".dockerconfigjson": text}}
    api._ask("PATCH", path, "change", query={"fieldManager": "colleague"}, body=change,
             kind="application/merge-patch+json")  # fmt: skip
    with pytest.raises(Refused) as refusal:
        put(api, space)
    assert refusal.value.code == "field-conflict"
    assert "colleague" in refusal.value.cause
    assert put(api, space, replace=True)[0].status == secrets.UPDATED


@pytest.mark.parametrize("kind", ["Opaque", "kubernetes.io/dockerconfigjson"])
def test_a_secret_not_ours_is_refused_and_nothing_half_done(
    api: Api, space: str, kind: str
) -> None:
    other = make_namespace(api)
    key = ".dockerconfigjson" if kind.startswith("kube") else "a"
    document = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "my-registry", "namespace": other},
        "type": kind,
        "stringData": {key: "{}"},
    }
    api.apply(paths.of(document), document, "make a Secret")
    with pytest.raises(Refused) as refusal:
        put(api, space, other)
    assert "--replace" in refusal.value.cure
    assert api.find(paths.one("Secret", "my-registry", space)) is None
    outcomes = put(api, space, other, replace=True)
    assert outcomes[1].status in (secrets.UPDATED, secrets.REPLACED)
    assert find(api, "Secret", "my-registry", other)["type"] == "kubernetes.io/dockerconfigjson"


def test_an_immutable_one_is_replaced_only_when_asked(api: Api, space: str) -> None:
    put(api, space)
    api.merge(paths.one("Secret", "my-registry", space), {"immutable": True}, "freeze")
    assert put(api, space)[0].status == secrets.UNCHANGED
    with pytest.raises(Refused) as refusal:
        put(api, space, login=Credentials("moorage", "new"))
    assert refusal.value.code == "secret-frozen"
    outcome = put(api, space, login=Credentials("moorage", "new"), replace=True)[0]
    assert outcome.status == secrets.REPLACED


def test_all_of_ours_are_found_wherever_they_are(api: Api, space: str) -> None:
    other = make_namespace(api)
    put(api, space, other)
    found = secrets.every_one_of_ours(api, SETTINGS)
    assert {place(space), place(other)} <= set(found)


def test_a_quota_is_named_before_anything_is_written(api: Api, space: str) -> None:
    full = make_namespace(api)
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "no-secrets", "namespace": full},
        "spec": {"hard": {"secrets": "0"}},
    }
    url = f"/api/v1/namespaces/{full}/resourcequotas/no-secrets"
    live = api.apply(url, quota, "make a quota")
    # No controller counts here: the status is written by hand.
    status = {"hard": {"secrets": "0"}, "used": {"secrets": "0"}}
    version = live["metadata"]["resourceVersion"]
    body = {"metadata": {"resourceVersion": version}, "status": status}
    api._ask("PATCH", f"{url}/status", "count", body=body, kind="application/merge-patch+json")
    with pytest.raises(Refused) as refusal:
        put(api, space, full)
    assert refusal.value.code == "quota-exceeded"
    assert "no-secrets" in refusal.value.message
    assert api.find(paths.one("Secret", "my-registry", space)) is None


def test_without_rights_the_verb_and_the_resource_are_named(reader: Api, space: str) -> None:
    with pytest.raises(Refused) as refusal:
        put(reader, space)
    assert refusal.value.code == "rbac-denied"
    assert "reader" in refusal.value.cause
    assert f"--verb=get --resource=secrets -n {space}" in refusal.value.cure


def test_a_missing_right_to_write_is_met_before_the_first_write(
    api: Api, server: ApiServer, space: str
) -> None:
    other = make_namespace(api)
    allow(api, space, ["get", "create", "patch"])
    allow(api, other, ["get"])
    limited = access.connect(SETTINGS, kubeconfig=str(server.kubeconfig), context="reader")

    def refused() -> Refused:
        with pytest.raises(Refused) as refusal:
            put(limited, space, other)
        return refusal.value

    problem = refused()
    assert problem.code == "rbac-denied"
    assert "patch" in problem.message or "create" in problem.message
    assert api.find(paths.one("Secret", "my-registry", space)) is None


def allow(api: Api, space: str, verbs: list[str]) -> None:
    """Lets the user reader do that with Secrets there."""
    group = "rbac.authorization.k8s.io"
    metadata = {"name": "reader", "namespace": space}
    role = {
        "apiVersion": f"{group}/v1",
        "kind": "Role",
        "metadata": metadata,
        "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": verbs}],
    }
    binding = {
        "apiVersion": f"{group}/v1",
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": group, "kind": "Role", "name": "reader"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": "reader"}],
    }
    for document in (role, binding):
        api.apply(paths.of(document), document, "allow")


# -- namespaces -----------------------------------------------------------------------------------


def test_a_missing_namespace_gets_the_command_that_makes_it(api: Api, space: str) -> None:
    with pytest.raises(Refused) as refusal:
        spaces.choose(api, Choice(names=f"{space},nowhere"))
    assert refusal.value.cure == "kubectl create namespace nowhere"


def test_a_namespace_that_is_being_deleted_is_refused_by_name_and_passed_over_else(
    api: Api,
) -> None:
    # No controller finishes a deletion here, so it stays in that state.
    leaving = make_namespace(api, group="leaving")
    staying = make_namespace(api, group="leaving")
    api.delete(paths.one("Namespace", leaving), "delete it")
    with pytest.raises(Refused) as refusal:
        spaces.choose(api, Choice(names=leaving))
    assert refusal.value.code == "namespace-terminating"
    chosen = spaces.choose(api, Choice(selector="group=leaving"))
    assert (chosen.names, chosen.leaving) == ((staying,), (leaving,))
    with pytest.raises(Refused) as refusal:
        put(api, leaving)
    assert refusal.value.code == "namespace-terminating"


def test_a_selector_that_fits_none_or_is_none_is_refused(api: Api) -> None:
    with pytest.raises(Refused, match="no namespace"):
        spaces.choose(api, Choice(selector="no=such"))
    for selector in ("===", "a in (", "a=b c", "ä=b", "a,,b"):
        with pytest.raises(Refused) as refusal:
            spaces.choose(api, Choice(selector=selector))
        assert refusal.value.code == "bad-selector", selector
        with pytest.raises(ApiError) as problem:
            list(api.items("/api/v1/nodes", selector=selector))
        assert problem.value.exit_code == 2


def test_two_ways_to_say_which_are_refused(api: Api) -> None:
    with pytest.raises(Refused, match="cannot go together"):
        spaces.choose(api, Choice(names="a", all=True))


@pytest.mark.parametrize("names", ["a,,b", "A", "a b", "a,-"])
def test_names_that_are_none_are_refused(api: Api, names: str) -> None:
    with pytest.raises(Refused):
        spaces.choose(api, Choice(names=names))


# -- ServiceAccounts ------------------------------------------------------------------------------


def test_attach_and_detach_leave_what_others_named(api: Api, space: str) -> None:
    path = paths.one("ServiceAccount", "default", space)
    api.merge(path, {"imagePullSecrets": [{"name": "theirs"}]}, "name one")
    assert put(api, space, attach=("default",))[0].attached == ("default",)
    assert put(api, space, attach=("default",))[0].attached == ()
    named = [one["name"] for one in api.get(path)["imagePullSecrets"]]
    assert named == ["theirs", "my-registry"]
    assert accounts.detach(api, space, ["default"], "my-registry") == ["default"]
    assert [one["name"] for one in api.get(path)["imagePullSecrets"]] == ["theirs"]


def test_a_missing_service_account_is_met_before_the_first_write(api: Api, space: str) -> None:
    with pytest.raises(Refused) as refusal:
        put(api, space, attach=("nobody",))
    assert refusal.value.code == "no-service-account"
    assert api.find(paths.one("Secret", "my-registry", space)) is None


# -- workloads ------------------------------------------------------------------------------------


def workload(space: str, kind: str = "pod", **changes: Any) -> deploy.Workload:
    labels = ours.labels(SETTINGS, "workload")
    fitted = {
        "image": SETTINGS.image_reference,
        "secret": "my-registry",
        "labels": labels,
        **changes,
    }
    return deploy.Workload(kind, manifests.Fit(space, "private-reg", **fitted))


def write(api: Api, steps: list[deploy.DeployStep]) -> None:
    for step in steps:
        api.apply(paths.of(step.document), step.document, "write", force=True)


@pytest.mark.parametrize("kind", ["pod", "deployment", "daemonset"])
def test_a_workload_that_stands_is_unchanged(api: Api, space: str, kind: str) -> None:
    steps = deploy.plan(api, SETTINGS, workload(space, kind))
    assert {step.action for step in steps} == {deploy.CREATED}
    write(api, steps)
    again = deploy.plan(api, SETTINGS, workload(space, kind))
    assert {step.action for step in again} == {deploy.UNCHANGED}


def test_what_can_be_changed_in_place_is_and_else_it_is_made_anew(api: Api, space: str) -> None:
    write(api, deploy.plan(api, SETTINGS, workload(space)))
    mark = {**ours.labels(SETTINGS, "workload"), "team": "web"}
    assert deploy.plan(api, SETTINGS, workload(space, labels=mark))[0].action == deploy.UPDATED
    node = deploy.plan(api, SETTINGS, workload(space, node="n1"))
    assert node[0].action == deploy.REPLACED


def test_another_image_makes_a_pod_anew_for_the_old_one_is_ready_already(
    api: Api, space: str
) -> None:
    write(api, deploy.plan(api, SETTINGS, workload(space)))
    step = deploy.plan(api, SETTINGS, workload(space, image="my.registry.io/other:1"))[0]
    assert (step.action, step.why) == (deploy.REPLACED, "its image is another")
    write(api, deploy.plan(api, SETTINGS, workload(space, "deployment")))
    rolled = deploy.plan(api, SETTINGS, workload(space, "deployment", image="a.io/other:1"))
    assert rolled[0].action == deploy.UPDATED


def test_a_pod_of_somebody_else_is_refused(api: Api, space: str) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "private-reg", "namespace": space},
        "spec": {"containers": [{"name": "a", "image": "a.io/b:1"}]},
    }
    api.apply(paths.of(pod), pod, "make a pod")
    with pytest.raises(Refused) as refusal:
        deploy.plan(api, SETTINGS, workload(space))
    assert refusal.value.code == "not-ours"


def test_a_dry_run_says_every_field(
    api: Api, space: str, capsys: pytest.CaptureFixture[str]
) -> None:
    UI_.present(deploy.foretold(deploy.plan(api, SETTINGS, workload(space))))
    assert "image: my.registry.io/serve_hostname:0.0.1" in capsys.readouterr().err


# -- diagnosis ------------------------------------------------------------------------------------


def stuck_pod(api: Api, space: str, name: str, words: str, **spec: Any) -> None:
    """A pod as a kubelet would report it; there is no kubelet here."""
    image = spec.pop("image", "my.registry.io/app:1")
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": space},
        "spec": {"containers": [{"name": "app", "image": image}], "nodeName": "n1", **spec},
    }
    live = api.apply(paths.of(pod), pod, "make a pod")
    waiting = {"reason": "ErrImagePull", "message": words}
    status = {
        "metadata": {"resourceVersion": live["metadata"]["resourceVersion"]},
        "status": {
            "phase": "Pending",
            "containerStatuses": [
                {
                    "name": "app",
                    "image": image,
                    "imageID": "",
                    "ready": False,
                    "restartCount": 0,
                    "state": {"waiting": waiting},
                }
            ],
        },
    }
    path = f"{paths.of(pod)}/status"
    api._ask("PATCH", path, "report", body=status, kind="application/merge-patch+json")


def test_stuck_pods_are_found_and_grouped(api: Api, space: str) -> None:
    stuck_pod(api, space, "one", "x509: certificate signed by unknown authority")
    stuck_pod(api, space, "two", "x509: certificate signed by unknown authority")
    stuck_pod(api, space, "three", "unexpected status code: 401 Unauthorized")
    report = examine.examine(api, SETTINGS, namespace=space)
    assert [group.code for group in report.groups] == ["x509-unknown-authority", "secret-missing"]
    assert report.pods_seen == 3
    named = examine.examine(api, SETTINGS, namespace=space, pod="three")
    assert [group.code for group in named.groups] == ["secret-missing"]


def test_a_pod_that_is_not_there_is_refused(api: Api, space: str) -> None:
    with pytest.raises(Refused) as refusal:
        examine.examine(api, SETTINGS, namespace=space, pod="nobody")
    assert refusal.value.code == "no-pod"


def test_an_empty_namespace_is_well_and_a_misspelt_one_is_refused(api: Api, space: str) -> None:
    assert examine.examine(api, SETTINGS, namespace=space).groups == ()
    with pytest.raises(Refused) as refusal:
        examine.examine(api, SETTINGS, namespace=f"{space}-nowhere")
    assert refusal.value.code == "no-namespace"


def test_what_may_not_be_read_is_noted_and_the_rest_goes_on(
    api: Api, server: ApiServer, space: str
) -> None:
    stuck_pod(api, space, "one", "401 Unauthorized", imagePullSecrets=[{"name": "s"}])
    group = "rbac.authorization.k8s.io"
    metadata = {"name": "pods", "namespace": space}
    role = {
        "apiVersion": f"{group}/v1",
        "kind": "Role",
        "metadata": metadata,
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}],
    }
    binding = {
        "apiVersion": f"{group}/v1",
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": group, "kind": "Role", "name": "pods"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": "reader"}],
    }
    for document in (role, binding):
        api.apply(paths.of(document), document, "allow")
    limited = access.connect(SETTINGS, kubeconfig=str(server.kubeconfig), context="reader")
    report = examine.examine(limited, SETTINGS, namespace=space)
    assert [one.code for one in report.groups] == ["login-refused"]
    assert any("secrets" in note for note in report.notes)


# -- removal --------------------------------------------------------------------------------------


def test_rm_finds_ours_and_nothing_else(api: Api, space: str) -> None:
    put(api, space, attach=("default",))
    write(api, deploy.plan(api, SETTINGS, workload(space, "deployment")))
    foreign = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": "theirs",
            "namespace": space,
            "labels": {ours.MANAGED_BY: "moorage"},  # a word anybody may use
        },
    }
    api.apply(paths.of(foreign), foreign, "make a Secret")
    found = removal.find(api, SETTINGS, (space,))
    assert sorted(one.action for one in found.things) == [
        f"delete Deployment {space}/private-reg",
        f"delete Secret {space}/my-registry",
        f"delete Service {space}/private-reg",
        f"take my-registry out of ServiceAccount {space}/default",
    ]
    outcomes = removal.remove(api, found)
    assert {one.status for one in outcomes} == {"removed"}
    assert removal.find(api, SETTINGS, (space,)).things == ()
    assert find(api, "Secret", "theirs", space)


def test_what_belongs_to_another_registry_is_left_alone(api: Api, space: str) -> None:
    put(api, space)
    label = {"metadata": {"labels": {ours.REGISTRY: "other.registry.io"}}}
    api.merge(paths.one("Secret", "my-registry", space), label, "relabel")
    found = removal.find(api, SETTINGS, (space,))
    assert (found.things, found.others) == ((), ("other.registry.io",))


def test_another_grade_leaves_no_agents_of_the_one_before(api: Api, space: str) -> None:
    settings = Settings(kubernetes=KubernetesSettings(agents_namespace=space))
    archive = AgentArchive(ROOT / "run", "0" * 64)
    cluster = Cluster(frozenset({"containerd"}), full=False, policies=False)

    def made(grade: str) -> list[dict[str, Any]]:
        found = agent_documents(settings, Wanted(grade), b"{}", archive, cluster)
        return [one for one in found if one["kind"] == "DaemonSet"]

    def standing() -> set[str]:
        listed = api.items(paths.all_of("DaemonSet", space))
        return {one["metadata"]["name"] for one in listed}

    foreign = {**copy.deepcopy(made("files")[0]), "metadata": {"name": "theirs"}}
    foreign["metadata"]["namespace"] = space
    api.apply(paths.of(foreign), foreign, "make a DaemonSet")
    rollout.apply(api, made("files"))
    full = made("full")
    rollout.apply(api, full)
    other = f"DaemonSet {space}/moorage-agent-files"
    others = rollout._of_other_grades(api, settings, full)
    assert set(others) == {other}
    assert standing() == {"moorage-agent-files", "moorage-agent-full", "theirs"}
    assert rollout._drop(api, others) == {other: "removed"}
    assert standing() == {"moorage-agent-full", "theirs"}
    assert rollout._of_other_grades(api, settings, full) == {}


def test_a_namespace_of_ours_with_something_of_others_is_kept(api: Api, space: str) -> None:
    labels = ours.labels(SETTINGS, "agents")
    api.merge(paths.one("Namespace", space), {"metadata": {"labels": labels}}, "label")
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "theirs", "namespace": space},
    }
    api.apply(paths.of(config), config, "make a ConfigMap")
    found = removal.find(api, SETTINGS, part="agents")
    mine = [one for one in found.things if one.name == space]
    outcomes = removal.remove(api, removal.Found(tuple(mine)))
    assert [(one.status, one.why) for one in outcomes] == [
        ("kept", "it holds what is not ours: ConfigMap theirs")
    ]


def put_config(api: Api, space: str, name: str, kind: str = "ConfigMap", **metadata: Any) -> None:
    """What somebody else writes into a namespace."""
    document = {
        "apiVersion": "v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": space, **metadata},
        **({"data": {"ca.crt": "words"}} if kind == "ConfigMap" else {}),
    }
    api.apply(paths.of(document), document, "write what is not ours")


def test_what_is_written_into_every_namespace_keeps_none(api: Api, space: str) -> None:
    for name in ("kube-root-ca.crt", "openshift-service-ca.crt", "istio-ca-root-cert"):
        put_config(api, space, name)
    put_config(api, space, "roots", labels={"trust.cert-manager.io/bundle": "roots"})
    reflected = {"reflector.v1.k8s.emberstack.com/auto-reflects": "True"}
    put_config(api, space, "synced", annotations=reflected)
    account = {"kubernetes.io/service-account.name": "default"}
    put_config(api, space, "default-dockercfg-x7k2p", "Secret", annotations=account)
    assert strangers.within(api, space) == []


def test_what_no_list_knows_and_every_namespace_holds_keeps_none(api: Api, space: str) -> None:
    """A mesh of tomorrow; a copy that differs is somebody's, and so is one of here alone."""
    listed = [
        one["metadata"]["name"]
        for one in api.items(paths.all_of("Namespace"))
        if not one["metadata"].get("deletionTimestamp")
    ]
    try:
        for other in listed:
            put_config(api, other, "mesh-root")
        put_config(api, space, "theirs")
        assert strangers.within(api, space) == ["ConfigMap theirs"]
        change = {"data": {"ca.crt": "other words"}}
        api.merge(paths.one("ConfigMap", "mesh-root", space), change, "change it")
        assert "ConfigMap mesh-root" in strangers.within(api, space)
    finally:
        for other in listed:
            api.delete(paths.one("ConfigMap", "mesh-root", other), "delete it")


@pytest.mark.parametrize("kind", ["PersistentVolumeClaim", "StatefulSet"])
def test_what_else_somebody_has_there_is_seen(api: Api, space: str, kind: str) -> None:
    """A claim holds data while no pod runs."""
    template = {
        "metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "a", "image": "a.io/b:1"}]},
    }
    selector = {"matchLabels": {"a": "b"}}
    resources = {"requests": {"storage": "1Gi"}}
    group, spec = {
        "PersistentVolumeClaim": ("v1", {"accessModes": ["ReadWriteOnce"], "resources": resources}),
        "StatefulSet": (
            "apps/v1",
            {"replicas": 0, "serviceName": "a", "selector": selector, "template": template},
        ),
    }[kind]
    metadata = {"name": "theirs", "namespace": space}
    document = {"apiVersion": group, "kind": kind, "metadata": metadata, "spec": spec}
    api.apply(paths.of(document), document, "make it")
    assert strangers.within(api, space) == [f"{kind} theirs"]


def test_what_is_still_there_after_its_deletion_is_not_called_removed(
    api: Api, space: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No controller empties a namespace here, so none ever goes."""
    monkeypatch.setattr(removal, "_GONE_SECONDS", 0.0)
    labels = ours.labels(SETTINGS, "agents")
    api.merge(paths.one("Namespace", space), {"metadata": {"labels": labels}}, "label")
    found = removal.find(api, SETTINGS, part="agents")
    mine = [one for one in found.things if one.name == space]
    (outcome,) = removal.remove(api, removal.Found(tuple(mine)))
    assert (outcome.status, outcome.is_away) == ("leaving", False)
    assert "still there" in outcome.why


def test_an_object_that_was_made_anew_since_is_not_deleted(api: Api, space: str) -> None:
    put(api, space)
    path = paths.one("Secret", "my-registry", space)
    with pytest.raises(ApiError) as problem:
        api.delete(path, "delete it", uid="another-uid")
    assert problem.value.status == 409
    assert api.find(path) is not None


# -- the agents' own rights -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def agent(api: Api, server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Api:
    """A connection with the token of an agent's pod on node n1, held to our policy."""
    if not rollout._has_policies(api):
        pytest.skip("admission policies that know an agent's node are there from 1.30 on")
    settings = Settings(kubernetes=KubernetesSettings(agents_namespace=make_namespace(api)))
    space = settings.kubernetes.agents_namespace
    cluster = Cluster(frozenset({"containerd"}), full=False, policies=True)
    archive = AgentArchive(ROOT / "run", "0" * 64)
    wanted = agent_documents(settings, Wanted(), b"{}", archive, cluster)
    kept = [one for one in wanted if one["kind"] not in ("ConfigMap", "DaemonSet", "Secret")]
    rollout.apply(api, kept)
    for name in ("n1", "n2"):
        taint = {"key": "moorage.dev/untrusted", "effect": "NoSchedule"}
        theirs = {"key": "theirs", "value": "a", "effect": "NoSchedule"}
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": name,
                "annotations": {"theirs": "a"},
                "labels": {"theirs": "a"},
                "finalizers": ["example.com/theirs"],
            },
            "spec": {"taints": [taint, theirs]},
        }
        api.apply(paths.of(node), node, "make a node")
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "agent", "namespace": space},
        "spec": {
            "serviceAccountName": "moorage-agent",
            "nodeName": "n1",
            "containers": [{"name": "a", "image": "a.io/b:1"}],
        },
    }
    live = api.apply(paths.of(pod), pod, "make a pod")
    bound = {"kind": "Pod", "apiVersion": "v1", "name": "agent", "uid": live["metadata"]["uid"]}
    asked = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"boundObjectRef": bound},
    }
    path = f"{paths.one('ServiceAccount', 'moorage-agent', space)}/token"
    token = api._ask("POST", path, "get a token", body=asked)["status"]["token"]
    document = apiserver.kubeconfig(server)
    document["users"] = [{"name": "admin", "user": {"token": token}}]
    file = tmp_path_factory.mktemp("agent") / "kubeconfig"
    file.write_text(json.dumps(document))
    found = access.connect(SETTINGS, kubeconfig=str(file))
    _wait_for_policy(found)
    return found


def _wait_for_policy(agent: Api) -> None:
    """A policy takes effect a moment after it was written."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            change = {"metadata": {"labels": {"probe": str(time.monotonic_ns())}}}
            agent.merge(paths.one("Node", "n1"), change, "probe")
        except ApiError as problem:
            if "moorage-agent-own-node" in problem.message + problem.cause:
                return
        time.sleep(0.5)
    raise AssertionError("the policy has no effect")


OURS = {"annotations": {"moorage.dev/agent": "{}", "moorage.dev/trusted": "{}"}}
THEIRS = {"key": "theirs", "value": "a", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    "change",
    [
        {"metadata": {"annotations": {"theirs": "b"}}},
        {"metadata": {"annotations": {"theirs": None}}},
        {"metadata": {"annotations": {"node.alpha.kubernetes.io/ttl": "9"}}},
        {"metadata": {"annotations": {"moorage.dev/agent-grade": "full"}}},
        {"metadata": {"labels": {"theirs": "b"}}},
        {"metadata": {"labels": {"moorage.dev/agent-grade": "full"}}},
        {"metadata": {"labels": None}},
        {"metadata": {"finalizers": ["example.com/held"]}},
        {"metadata": {"finalizers": None}},
        {
            "metadata": {
                "ownerReferences": [
                    {"apiVersion": "v1", "kind": "Namespace", "name": "default", "uid": "1"}
                ]
            }
        },
        {"spec": {"unschedulable": True}},
        {"spec": {"providerID": "other://n1"}},
        {"spec": {"podCIDR": "192.0.2.0/24", "podCIDRs": ["192.0.2.0/24"]}},
        {"spec": {"taints": None}},
        {"spec": {"taints": [THEIRS, {"key": "new", "effect": "NoExecute"}]}},
        {"spec": {"taints": [{**THEIRS, "value": "b"}]}},
    ],
    ids=str,
)
def test_an_agent_may_not_change_what_is_not_ours(agent: Api, change: dict[str, Any]) -> None:
    with pytest.raises(ApiError) as problem:
        agent.merge(paths.one("Node", "n1"), change, "change its node")
    assert problem.value.status in (403, 422)
    assert "moorage-agent-own-node" in problem.value.message + problem.value.cause


def test_an_agent_may_change_no_other_node(agent: Api) -> None:
    with pytest.raises(ApiError) as problem:
        agent.merge(paths.one("Node", "n2"), {"metadata": OURS}, "change another node")
    assert "moorage-agent-own-node" in problem.value.message + problem.value.cause


def test_an_agent_may_say_its_word_and_lift_our_taint(agent: Api, api: Api) -> None:
    path = paths.one("Node", "n1")
    agent.merge(path, {"metadata": OURS}, "annotate")
    before = agent.get(path)
    left = [one for one in before["spec"]["taints"] if one["key"] != "moorage.dev/untrusted"]
    assert THEIRS in left
    assert left != before["spec"]["taints"]
    version = before["metadata"]["resourceVersion"]
    lifted = {"metadata": {"resourceVersion": version}, "spec": {"taints": left}}
    agent.merge(path, lifted, "lift the taint")
    none = {"metadata": {"annotations": dict.fromkeys(OURS["annotations"])}}
    agent.merge(path, none, "take its word back")
    live = api.get(path)
    assert live["spec"]["taints"] == left
    assert live["metadata"]["annotations"] == {"theirs": "a"}


# -- credentials ----------------------------------------------------------------------------------


def test_a_token_that_is_refused_is_said(server: ApiServer, tmp_path: Path) -> None:
    import yaml

    document = yaml.safe_load(server.kubeconfig.read_text())
    document["users"][0]["user"] = {"token": "wrong-words"}
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(ApiError) as problem:
        access.connect(SETTINGS, kubeconfig=str(path))
    assert problem.value.code == "unauthorized"
    assert "wrong-words" not in str(vars(problem.value))


def test_another_cluster_s_ca_is_said(server: ApiServer, tmp_path: Path) -> None:
    import subprocess

    import yaml

    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=other",
         "-keyout", tmp_path / "key", "-out", tmp_path / "ca.crt"],
        check=True, capture_output=True,
    )  # fmt: skip
    document = yaml.safe_load(server.kubeconfig.read_text())
    document["clusters"][0]["cluster"]["certificate-authority"] = str(tmp_path / "ca.crt")
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(ApiError) as problem:
        access.connect(SETTINGS, kubeconfig=str(path))
    assert problem.value.code == "server-certificate"


def test_a_client_certificate_without_its_key_is_said(server: ApiServer, tmp_path: Path) -> None:
    import yaml

    document = yaml.safe_load(server.kubeconfig.read_text())
    document["users"][0]["user"] = {"client-certificate": str(server.ca)}
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(ApiError) as problem:
        access.connect(SETTINGS, kubeconfig=str(path))
    assert problem.value.code == "client-certificate"
    assert "its key, is missing" in problem.value.cause


def test_plain_http_to_an_api_server_is_said(server: ApiServer, tmp_path: Path) -> None:
    import yaml

    document = yaml.safe_load(server.kubeconfig.read_text())
    document["clusters"][0]["cluster"]["server"] = server.url.replace("https:", "http:")
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(ApiError) as problem:
        access.connect(SETTINGS, kubeconfig=str(path))
    assert problem.value.code == "not-tls"


def test_a_client_certificate_that_has_ended_is_said_with_its_date(
    server: ApiServer, tmp_path: Path
) -> None:
    import datetime

    import yaml

    from moorage.pki import certificates

    key = certificates.new_key("ec-p256")
    then = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=30)
    ended = certificates.make_ca(key, common_name="somebody", days=7, now=then)
    (tmp_path / "user.crt").write_bytes(certificates.certificate_pem(ended))
    (tmp_path / "user.key").write_bytes(certificates.key_pem(key))
    document = yaml.safe_load(server.kubeconfig.read_text())
    document["users"][0]["user"] = {
        "client-certificate": str(tmp_path / "user.crt"),
        "client-key": str(tmp_path / "user.key"),
    }
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(Refused) as refusal:
        access.connect(SETTINGS, kubeconfig=str(path))
    assert refusal.value.code == "client-certificate-expired"
    assert f"{ended.not_valid_after_utc:%Y-%m-%d}" in refusal.value.message
    assert "kubeconfig" in refusal.value.cure
