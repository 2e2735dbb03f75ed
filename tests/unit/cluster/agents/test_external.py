"""Agents and the demo's pod for a registry of somebody else's that gives its images to everybody.

A stand-in for the API server: nothing is in it yet.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.daemonset import passed
from moorage.cluster.agents import documents as made_of
from moorage.cluster.agents import rollout
from moorage.cluster.agents.documents import Wanted
from moorage.cluster.api import manifests
from moorage.cluster.api.client import Api
from moorage.cluster.login import access, login
from moorage.errors import Refused
from moorage.pki import certificates
from moorage.pki import registry as pki
from moorage.registry.logins.credentials import Credentials, keep
from moorage.settings import ROOT, ImageSettings, RegistrySettings, Settings
from moorage.ui import UI
from tests.agent.authority import Authority
from tests.k8s import standin
from tests.k8s.standin import Standin
from tests.unit.elsewhere import project

LOGIN = Credentials("robot$ci", "words")


@pytest.fixture
def theirs(tmp_path: Path) -> Settings:
    chosen = RegistrySettings(host="theirs.example", external=True, address="10.0.0.9")
    found = project(tmp_path, registry=chosen, image=ImageSettings(name="team/app", tag="1"))
    pki.keep_external_ca(found, certificates.load_certificates(Authority().pem.encode())[0])
    (tmp_path / "k8s").symlink_to(ROOT / "k8s")
    return found


@pytest.fixture
def server() -> Standin:
    status = {"nodeInfo": {"operatingSystem": "linux", "containerRuntimeVersion": "containerd://2"}}
    sets = "/apis/apps/v1/namespaces/moorage-system/daemonsets"
    nodes = [{"metadata": {"name": "n1"}, "status": status}]
    return Standin(lists={"/api/v1/nodes": nodes, sets: []})


@pytest.fixture
def api(theirs: Settings, server: Standin, tmp_path: Path) -> Iterator[Api]:
    with standin.serving(server) as url:
        yield access.connect(theirs, kubeconfig=str(standin.kubeconfig(tmp_path, url)))


def pulled_with(monkeypatch: pytest.MonkeyPatch, api: Api, settings: Settings) -> list[Any]:
    """The imagePullSecrets of the agents that would be brought."""
    return [one.get("imagePullSecrets") for one in pods(monkeypatch, api, settings)]


def pods(monkeypatch: pytest.MonkeyPatch, api: Api, settings: Settings) -> list[Any]:
    """The agents' pods, as they would be brought."""
    made: list[dict[str, Any]] = []

    def kept(*given: Any) -> list[dict[str, Any]]:
        made[:] = documents(*given)
        return made

    documents = made_of.documents
    monkeypatch.setattr(made_of, "documents", kept)
    rollout.roll_out(api, settings, UI(as_json=True), Wanted(), dry_run=True)
    return [one["spec"]["template"]["spec"] for one in made if one["kind"] == "DaemonSet"]


def test_agents_need_no_login_where_the_registry_gives_without_one(
    monkeypatch: pytest.MonkeyPatch, api: Api, theirs: Settings
) -> None:
    assert pulled_with(monkeypatch, api, theirs) == [None]
    keep(theirs, LOGIN)
    assert pulled_with(monkeypatch, api, theirs) == [[{"name": "my-registry"}]]


def test_a_pod_names_no_secret_where_none_is_needed(theirs: Settings) -> None:
    to = manifests.Fit("web", "app", theirs.image_reference, "", {})
    for folder in manifests.WORKLOADS.values():
        for one in manifests.fit(manifests.read(ROOT / "k8s" / folder), to):
            pod = (
                one["spec"] if one["kind"] == "Pod" else one["spec"].get("template", {}).get("spec")
            )
            assert pod is None or "imagePullSecrets" not in pod


def test_a_secret_that_is_asked_for_needs_a_login_and_a_registry_of_ours_has_one(
    theirs: Settings,
) -> None:
    assert login.needed(theirs) is None
    with pytest.raises(Refused) as refused:
        login.read(theirs, "")
    assert refused.value.code == "no-credentials"
    own = project(theirs.root, registry=replace(theirs.registry, external=False))
    assert isinstance(login.needed(own), login.Own)
    keep(theirs, LOGIN)
    assert login.needed(theirs) == login.Given(LOGIN)


def test_the_proof_asks_nothing_of_an_image_of_somebody_else_s(
    monkeypatch: pytest.MonkeyPatch, api: Api, theirs: Settings
) -> None:
    """Neither a Python nor a shell: the program is put there by the container before it."""
    (pod,) = pods(monkeypatch, api, theirs)
    trust, proof = pod["initContainers"]
    (folder,) = (one for one in trust["volumeMounts"] if one["name"] == "proof")
    assert proof["command"] == [f"{passed.FOLDER}/{passed.NAME}"]
    assert folder["mountPath"] == passed.FOLDER
    assert proof["volumeMounts"] == [{**folder, "readOnly": True}]
    assert {"name": "proof", "emptyDir": {}} in pod["volumes"]
