"""What is written into a cluster: Secrets, agents, manifests against every version's schema."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from agent.daemonset.loop import PlanWish
from moorage.archive import AgentArchive
from moorage.cluster.agents import documents as made_of
from moorage.cluster.agents import rollout
from moorage.cluster.agents.documents import Wanted
from moorage.cluster.agents.states import AgentState, digest
from moorage.cluster.api import manifests, ours, refusals, told
from moorage.cluster.diagnosis.nodes import ClusterNode
from moorage.cluster.login import accounts, login, pull_secret
from moorage.configuration.parsing import parse
from moorage.errors import Refused
from moorage.registry import Credentials
from moorage.settings import ROOT, Settings

SETTINGS = Settings()
LOGIN = Credentials("moorage", "s3cret:words")
LABELS = ours.labels(SETTINGS, "secret")


def made(server: str = "my.registry.io") -> dict[str, Any]:
    return pull_secret.document("my-registry", "web", server, LOGIN, LABELS)


def live(**changes: Any) -> dict[str, Any]:
    document = made()
    document["metadata"]["uid"] = "u"
    return {**document, **changes}


# -- the Secret -----------------------------------------------------------------------------------


def test_the_secret_is_the_one_that_kubectl_makes(tmp_path: Path) -> None:
    import shutil

    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("there is no kubectl here")
    done = subprocess.run(
        [kubectl, "create", "secret", "docker-registry", "my-registry", "--dry-run=client",
         "-o", "json", "--docker-server=my.registry.io", "--docker-username=moorage",
         "--docker-password=s3cret:words"],
        capture_output=True, check=False, env={"HOME": str(tmp_path)},
    )  # fmt: skip
    if done.returncode:
        pytest.skip("this kubectl wants a cluster for that")
    theirs = json.loads(done.stdout)
    assert pull_secret.logins(theirs).items() <= pull_secret.logins(made()).items()
    assert theirs["type"] == made()["type"]


@pytest.mark.parametrize(
    ("found", "state"),
    [
        (None, pull_secret.ABSENT),
        (live(), pull_secret.SAME),
        (live(data=made("other.io")["data"]), pull_secret.STALE),
        (live(data=made("other.io")["data"], immutable=True), pull_secret.FROZEN),
        (live(immutable=True), pull_secret.SAME),
        (live(type="Opaque"), pull_secret.OTHER_TYPE),
        (live(metadata={"name": "my-registry", "namespace": "web"}), pull_secret.FOREIGN),
        (
            live(metadata={"labels": {ours.MANAGED_BY: "moorage"}}),
            pull_secret.FOREIGN,
        ),
    ],
)
def test_what_is_found_is_told_apart(found: dict[str, Any] | None, state: str) -> None:
    assert pull_secret.state(found, made()) == state


def of_the_build_before(**more: Any) -> dict[str, Any]:
    """A Secret of ours that knows one spelling."""
    secret = live(**more)
    content = json.loads(base64.b64decode(secret["data"][pull_secret.KEY]))
    del content["auths"]["my.registry.io:443"]
    data = base64.b64encode(json.dumps(content).encode()).decode()
    return {**secret, "data": {pull_secret.KEY: data}}


def test_a_secret_with_one_spelling_is_given_the_other_unless_it_is_for_good() -> None:
    assert pull_secret.state(of_the_build_before(), made()) == pull_secret.STALE
    assert pull_secret.state(of_the_build_before(immutable=True), made()) == pull_secret.SAME


def test_a_diff_hides_passwords_and_says_that_one_has_changed() -> None:
    old = live()
    new = pull_secret.document(
        "my-registry", "web", "my.registry.io", Credentials("moorage", "new-words"), LABELS
    )
    before, after = pull_secret.hidden(old, new), pull_secret.hidden(new, old)
    assert before != after
    for text in (before, after):
        assert text is not None
        assert "words" not in text
        assert base64.b64encode(b"moorage:s3cret:words").decode() not in text


@pytest.mark.parametrize(
    "data", [None, "", "e30=", "bm90IGpzb24=", "W10=", "eyJhdXRocyI6NX0=", "!"]
)
def test_a_secret_that_holds_nothing_usable_has_no_login(data: str | None) -> None:
    secret = {"type": pull_secret.TYPE, "data": {pull_secret.KEY: data}}
    assert pull_secret.logins(secret) == {}


@pytest.mark.parametrize(
    "content",
    [b"", b"user", b"user:", b":words", b"user:a\nuser:b", b"\xff:x", b"u:" + b"x" * 5000],
)
def test_a_login_that_is_none_is_refused_without_its_words(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "login"
    path.write_bytes(content)
    with pytest.raises(Refused) as refusal:
        login.read(SETTINGS, str(path))
    assert refusal.value.code == "bad-credentials"
    assert "words" not in refusal.value.message + refusal.value.cause


def test_a_login_may_have_colons_in_its_password(tmp_path: Path) -> None:
    path = tmp_path / "login"
    path.write_text("moorage:a:b\n")
    assert login.read(SETTINGS, str(path)) == login.Given(Credentials("moorage", "a:b"))


# -- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "python",
        "python:3.13-slim",
        "library/python",
        "my.registry.io/serve_hostname:0.0.1",
        "localhost:5000/a/b-c__d",
        "[fd00::1]:5000/a",
        f"a.io/b:1@sha256:{'0' * 64}",
    ],
)
def test_an_image_s_name_is_taken(name: str) -> None:
    assert ours.check_image(name) == name


@pytest.mark.parametrize(
    "name",
    ["bad image!", "a.io/Upper:1", "a.io/b:", "a.io/b\n", "https://a.io/b", "ä", "a" * 501, "a@b"],
)
def test_what_can_be_no_image_s_name_is_refused(name: str) -> None:
    with pytest.raises(Refused) as refusal:
        ours.check_image(name)
    assert refusal.value.code == "bad-image"


# -- ServiceAccounts ------------------------------------------------------------------------------


def account(secrets: list[str], marked: str = "") -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": "default", "resourceVersion": "7"}
    if marked:
        metadata["annotations"] = {ours.ATTACHED: marked}
    return {"metadata": metadata, "imagePullSecrets": [{"name": name} for name in secrets]}


def test_attaching_adds_and_drops_nothing() -> None:
    patch = accounts.with_secret(account(["theirs"]), "my-registry")
    assert patch is not None
    assert patch["imagePullSecrets"] == [{"name": "theirs"}, {"name": "my-registry"}]
    assert patch["metadata"]["resourceVersion"] == "7"


def test_what_is_attached_already_is_left_alone() -> None:
    assert accounts.with_secret(account(["my-registry"]), "my-registry") is None


def test_only_what_we_attached_is_taken_back() -> None:
    assert accounts.without_secret(account(["my-registry"]), "my-registry") is None
    patch = accounts.without_secret(
        account(["theirs", "my-registry"], "my-registry"), "my-registry"
    )
    assert patch is not None
    assert patch["imagePullSecrets"] == [{"name": "theirs"}]
    assert patch["metadata"]["annotations"] == {ours.ATTACHED: None}


# -- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "message", "code", "said"),
    [
        (
            403,
            'secrets is forbidden: User "eve" cannot create resource "secrets" in API group "" in'
            ' the namespace "web"',
            "rbac-denied",
            "--verb=create --resource=secrets -n web",
        ),
        (
            403,
            'secrets is forbidden: User "system:anonymous" cannot get resource "secrets" in API'
            ' group "" in the namespace "web"',
            "no-credentials",
            "give the user in the kubeconfig a certificate",
        ),
        (
            403,
            'nodes is forbidden: User "system:serviceaccount:ci:bot" cannot list resource "nodes"'
            ' in API group "" at the cluster scope',
            "rbac-denied",
            "--serviceaccount=ci:bot",
        ),
        (
            403,
            'secrets "my-registry" is forbidden: exceeded quota: few, requested: secrets=1, used:'
            " secrets=1, limited: secrets=1",
            "quota-exceeded",
            "kubectl describe quota few",
        ),
        (
            403,
            'pods "a" is forbidden: failed quota: compute: must specify limits.memory',
            "quota-needs-resources",
            "--workload deployment",
        ),
        (
            403,
            'pods "a" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true',
            "pod-security",
            "--workload deployment",
        ),
        (
            403,
            'secrets "a" is forbidden: unable to create new content in namespace web because it is'
            " being terminated",
            "namespace-terminating",
            "wait until it is gone",
        ),
        (400, 'admission webhook "x.y" denied the request: no', "admission-denied", "x.y"),
        (
            422,
            "secrets \"a\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied"
            " request: no",
            "admission-denied",
            "validatingadmissionpolicy p",
        ),
        (
            409,
            'Apply failed with 1 conflict: conflict with "kubectl-edit" using v1: .data',
            "field-conflict",
            "--replace",
        ),
        (404, 'namespaces "web" not found', "no-namespace", "kubectl create namespace web"),
        (401, "Unauthorized", "unauthorized", "renew them"),
        (500, "etcdserver: request timed out", "no-etcd", "etcd"),
        (418, "{teapot}", "api-failed", "run it again"),
    ],
)
def test_a_refusal_says_which_rule_and_what_to_type(
    status: int, message: str, code: str, said: str
) -> None:
    problem = refusals.explain(status, {"message": message}, "write Secret web/my-registry")
    assert problem.code == code
    assert said in problem.cure
    assert problem.cause
    assert problem.message.startswith("write Secret web/my-registry")


# -- manifests ------------------------------------------------------------------------------------

MANIFESTS = sorted((ROOT / "k8s").rglob("*.yaml"))
VERSIONS = [f"1.{minor}" for minor in range(28, 38)]
# The newest version that the schemas know is the last of VERSIONS, so that a newer one is noticed.
KINDS_SINCE = {"ValidatingAdmissionPolicy": 30, "ValidatingAdmissionPolicyBinding": 30}


def documents(path: Path) -> list[dict[str, Any]]:
    found = yaml.safe_load_all(path.read_text())
    return [one for one in found if one["kind"] != "Kustomization"]


def test_the_newest_schema_is_among_those_that_are_checked() -> None:
    newest = kubernetes_validate.latest_version()
    assert newest.startswith(VERSIONS[-1]), f"add {newest} to VERSIONS"


@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_fits_the_schema(version: str) -> None:
    for path in MANIFESTS:
        for document in documents(path):
            since = KINDS_SINCE.get(document["kind"], 0)
            if int(version.split(".")[1]) >= since:
                kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_made_of_them_fits_the_schema(version: str, tmp_path: Path) -> None:
    archive = tmp_path / "agent.pyz"
    archive.write_bytes(b"zip")
    cluster = made_of.Cluster(frozenset(("containerd",)), True, int(version[2:]) >= 30)
    found = made_of.documents(
        SETTINGS, made_of.Wanted(), b"{}", AgentArchive(archive, "0" * 64), cluster
    )
    to = manifests.Fit("web", "name", "a.io/b:1", "s", ours.labels(SETTINGS, "workload"), None, "n")
    for folder in manifests.WORKLOADS.values():
        found += manifests.fit(manifests.read(ROOT / "k8s" / folder), to)
    for document in [*found, made(), made_of.namespace_document(SETTINGS)]:
        kubernetes_validate.validate(document, version, strict=True)


def test_kubectl_takes_the_folders_as_they_are() -> None:
    """What a kustomization names is there, and is all there is."""
    for path in (ROOT / "k8s").rglob("kustomization.yaml"):
        named = yaml.safe_load(path.read_text())["resources"]
        beside = {one.name for one in path.parent.glob("*.yaml")} - {"kustomization.yaml"}
        assert set(named) == beside


def test_the_fitted_workload_has_nothing_of_the_tutorial_s_names_left() -> None:
    to = manifests.Fit("web", "other", "a.io/b:1", "s", {}, 3)
    for folder in manifests.WORKLOADS.values():
        text = json.dumps(manifests.fit(manifests.read(ROOT / "k8s" / folder), to))
        for name in (manifests.NAME, manifests.SECRET, manifests.IMAGE):
            assert f'"{name}"' not in text


def test_what_a_server_adds_is_no_difference() -> None:
    document = {"kind": "Pod", "metadata": {"name": "a"}, "spec": {"x": 1}}
    with_more = {
        **document,
        "metadata": {"name": "a", "resourceVersion": "9", "managedFields": []},
        "status": {"phase": "Running"},
    }
    assert manifests.same(document, with_more)
    assert not manifests.same(document, {**document, "spec": {"x": 2}})


# -- agents ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "labelled", "said", "counts"),
    [
        ("auto", False, "files", True),
        ("auto", True, "files", False),
        ("auto", True, "full", True),
        ("auto", False, "full", False),
        ("full", False, "files", False),
        ("full", False, "full", True),
        ("files", True, "full", False),
    ],
)
def test_the_word_of_an_agent_of_another_grade_is_old(
    wanted: str, labelled: bool, said: str, counts: bool
) -> None:
    node = ClusterNode("n1", "10.0.0.1", "n1", "containerd 1.7.24", "v1.30.0", "linux/amd64", True)
    one = AgentState(node, said, "trusted", proven=True, labelled=labelled)
    assert rollout._of_grade(one, Wanted(wanted)).ok is counts


def test_a_grade_that_was_asked_for_is_no_need_of_the_node_s() -> None:
    node = ClusterNode("n1", "10.0.0.1", "n1", "containerd 1.7.24", "v1.30.0", "linux/amd64", True)
    one = AgentState(node, "full", "trusted", proven=True, why="config.toml had to be edited")
    assert rollout._of_grade(one, Wanted("full")).why == "--grade=full asks for it"
    labelled = replace(one, labelled=True)
    assert rollout._of_grade(labelled, Wanted("auto")).why == one.why


def daemonset(grade: str, runtimes: frozenset[str] = frozenset(("containerd",))) -> dict[str, Any]:
    document = manifests.documents(ROOT / "k8s" / "agents" / f"{grade}.yaml")[0]
    wanted = made_of.Wanted(image="python:3.9")
    return made_of._fitted(document, SETTINGS, "moorage-agent-1", wanted, runtimes)


def test_the_grade_files_has_no_right_and_no_folder_but_those_of_trust() -> None:
    pod = daemonset("files")["spec"]["template"]["spec"]
    assert not any(pod.get(key) for key in ("hostPID", "hostIPC", "hostNetwork"))
    paths = {one["hostPath"]["path"] for one in pod["volumes"] if "hostPath" in one}
    assert paths == {
        "/etc/containerd",
        "/etc/containerd/certs.d",
        "/etc/hosts",
        "/var/lib/moorage",
    }
    for container in (*pod["initContainers"], *pod["containers"]):
        context = container["securityContext"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        mounts = {one["name"]: one for one in container.get("volumeMounts", ())}
        assert set(mounts) == {"proof"} or mounts["config"]["readOnly"] is True


def test_the_grade_full_is_not_privileged() -> None:
    pod = daemonset("full")["spec"]["template"]["spec"]
    context = pod["containers"][0]["securityContext"]
    assert not context.get("privileged")
    assert "SYS_ADMIN" not in context["capabilities"]["add"]


def test_the_proof_is_pulled_from_the_registry_every_time_between_trust_and_agent() -> None:
    pod = daemonset("files")["spec"]["template"]["spec"]
    trust, proof = pod["initContainers"]
    assert trust["name"] == "trust"
    assert (proof["image"], proof["imagePullPolicy"]) == (SETTINGS.image_reference, "Always")
    assert trust["image"] == pod["containers"][0]["image"] == "python:3.9"


def test_folders_of_a_runtime_that_no_node_has_are_not_made() -> None:
    both = daemonset("files", frozenset(("containerd", "docker")))["spec"]["template"]["spec"]
    names = {one["name"] for one in both["volumes"]}
    assert {"docker", "containerd"} <= names


def test_operator_and_agent_name_a_plan_alike() -> None:
    for action in ("apply", "untrust"):
        assert digest(b"{}", action) == PlanWish.of(b"{}", action).digest


def test_rights_are_the_least() -> None:
    rules = {
        document["kind"]: document["rules"]
        for document in documents(ROOT / "k8s" / "agents" / "rbac.yaml")
        if "rules" in document
    }
    assert rules["Role"][0]["resourceNames"] == [told.PLAN]
    assert rules["ClusterRole"] == [
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "patch"]}
    ]


# -- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("namespaces", []),
        ("namespaces", ["Upper"]),
        ("secret", "a.b"),
        ("secret", ""),
        ("pod", "a_b"),
        ("agents_namespace", "x" * 64),
    ],
)
def test_a_wrong_setting_is_refused(key: str, value: Any) -> None:
    with pytest.raises(Refused):
        parse({"kubernetes": {key: value}})


def test_a_registry_with_a_port_fits_a_label() -> None:
    labels = ours.labels(parse({"registry": {"port": 5443}}), "secret")
    assert labels[ours.REGISTRY] == "my.registry.io_5443"


def test_every_port_says_its_protocol() -> None:
    # Before 1.21, server-side apply takes a list's items by it, and fills in no default.
    def ports(value: Any) -> Iterator[dict[str, Any]]:
        children = value.values() if isinstance(value, dict) else value
        if isinstance(value, dict):
            yield from value.get("ports") or ()
        if isinstance(value, (dict, list)):
            for child in children:
                yield from ports(child)

    found = [
        (path.name, one)
        for path in sorted((ROOT / "k8s").rglob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text())
        for one in ports(document)
    ]
    assert len(found) >= 5
    assert [one for one in found if "protocol" not in one[1]] == []
