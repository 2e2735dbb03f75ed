"""The way to an API server that is busy, slow, huge, forgetful or gone."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from moorage.cluster.api import client as api
from moorage.cluster.api import paths
from moorage.cluster.api.client import Api
from moorage.cluster.api.following import follow
from moorage.cluster.api.refusals import ApiError
from moorage.cluster.login import access, namespaces, secrets
from moorage.cluster.login.login import Given
from moorage.errors import MoorageError, Refused
from moorage.program import START
from moorage.registry import Credentials
from moorage.settings import ROOT, LabSettings, Settings
from moorage.ui import UI
from tests.k8s import standin
from tests.k8s.standin import Standin, failure
from tests.ports import free_port
from tests.unit.elsewhere import project

SETTINGS = Settings()


@pytest.fixture
def server() -> Standin:
    return Standin()


@pytest.fixture
def connected(server: Standin, tmp_path: Path) -> Iterator[Api]:
    with standin.serving(server) as url:
        config = standin.kubeconfig(tmp_path, url)
        yield access.connect(SETTINGS, kubeconfig=str(config))


def test_a_list_is_asked_for_in_pages(server: Standin, connected: Api) -> None:
    server.lists["/api/v1/pods"] = standin.many_pods(600, 0)
    assert len(list(connected.items("/api/v1/pods"))) == 600
    assert server.asked["GET /api/v1/pods"] == 3


def test_a_list_whose_history_is_gone_begins_anew_and_gives_nothing_twice(
    server: Standin, connected: Api
) -> None:
    server.lists["/api/v1/pods"] = standin.many_pods(600, 0)
    server.expired = {"500"}

    def trouble(request: web.Request) -> None:
        if server.asked["GET /api/v1/pods"] == 4:
            server.expired = set()

    server.trouble = trouble
    names = [pod["metadata"]["name"] for pod in connected.items("/api/v1/pods")]
    assert len(names) == len(set(names)) == 600


def test_a_list_goes_on_by_the_token_that_the_server_offers(
    server: Standin, connected: Api
) -> None:
    server.lists["/api/v1/pods"] = standin.many_pods(600, 0)
    server.expired, server.go_on = {"250"}, "251"
    names = [pod["metadata"]["name"] for pod in connected.items("/api/v1/pods")]
    assert len(names) == len(set(names)) == 599  # one was deleted in between, as it were
    assert server.asked["GET /api/v1/pods"] == 4


def test_a_list_that_is_always_too_old_is_given_up(server: Standin, connected: Api) -> None:
    server.lists["/api/v1/pods"] = standin.many_pods(600, 0)
    server.expired = {"250"}
    with pytest.raises(ApiError) as problem:
        list(connected.items("/api/v1/pods"))
    assert problem.value.code == "gone"


def test_a_page_that_is_too_large_is_asked_for_in_smaller_ones(
    server: Standin, connected: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "MAX_ANSWER", 1 << 20)
    server.lists["/api/v1/pods"] = standin.many_pods(300, 0, padding=10_000)
    assert len(list(connected.items("/api/v1/pods"))) == 300


def test_one_object_that_is_endless_is_given_up(
    server: Standin, connected: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "MAX_ANSWER", 1 << 20)
    server.objects["/api/v1/nodes/a"] = {"x": "y" * (2 << 20)}
    with pytest.raises(ApiError) as problem:
        connected.get("/api/v1/nodes/a")
    assert problem.value.code == "answer-too-large"


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(server: Standin, connected: Api, status: int) -> None:
    left = [2]

    def trouble(_: web.Request) -> web.StreamResponse | None:
        left[0] -= 1
        return failure(status, "Busy", "later") if left[0] >= 0 else None

    server.objects["/api/v1/nodes/a"] = {"metadata": {"name": "a"}}
    server.trouble = trouble
    assert connected.get("/api/v1/nodes/a")["metadata"]["name"] == "a"
    assert server.asked["GET /api/v1/nodes/a"] == 3


def test_retry_after_is_waited_for_by_everybody(server: Standin, connected: Api) -> None:
    left = [1]

    def trouble(_: web.Request) -> web.StreamResponse | None:
        left[0] -= 1
        later = {"Retry-After": "1"}
        return failure(429, "TooManyRequests", "later", later) if left[0] >= 0 else None

    server.objects["/api/v1/nodes/a"] = {"metadata": {"name": "a"}}
    server.trouble = trouble
    began = time.monotonic()
    connected.get("/api/v1/nodes/a")
    assert time.monotonic() - began >= 1


def test_a_server_that_stays_busy_is_told_as_that(
    server: Standin, connected: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "TRIES", 2)
    server.trouble = lambda _: failure(429, "TooManyRequests", "later")
    with pytest.raises(ApiError) as problem:
        connected.get("/api/v1/nodes/a")
    assert problem.value.code == "too-many-requests"


def test_a_refusal_is_not_tried_again(server: Standin, connected: Api) -> None:
    server.trouble = lambda _: failure(403, "Forbidden", "no")
    with pytest.raises(ApiError):
        connected.get("/api/v1/nodes/a")
    assert server.asked["GET /api/v1/nodes/a"] == 1


def test_a_webhook_that_fails_is_not_hammered(server: Standin, connected: Api) -> None:
    words = 'Internal error occurred: failed calling webhook "a.b": Post: context deadline exceeded'
    server.trouble = lambda _: failure(500, "InternalError", words)
    with pytest.raises(ApiError) as problem:
        connected.apply("/api/v1/nodes/a", {"metadata": {}}, "write it")
    assert problem.value.code == "webhook-failed"
    assert server.asked["PATCH /api/v1/nodes/a"] == 1


def test_a_connection_that_breaks_is_made_again(server: Standin, connected: Api) -> None:
    left = [2]

    def trouble(request: web.Request) -> web.StreamResponse | None:
        left[0] -= 1
        if left[0] >= 0 and request.transport is not None:
            request.transport.close()
        return None

    server.objects["/api/v1/nodes/a"] = {"metadata": {"name": "a"}}
    server.trouble = trouble
    assert connected.get("/api/v1/nodes/a")["metadata"]["name"] == "a"


def test_what_is_no_kubernetes_is_told_as_that(server: Standin, connected: Api) -> None:
    server.trouble = lambda _: web.Response(text="<html>a login page</html>")
    with pytest.raises(ApiError) as problem:
        connected.get("/api/v1/nodes/a")
    assert problem.value.code == "not-kubernetes"


def test_nothing_that_listens_is_said_at_once(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    began = time.monotonic()
    with pytest.raises(ApiError) as problem:
        access.connect(SETTINGS, kubeconfig=str(standin.kubeconfig(tmp_path, url)))
    assert problem.value.code == "unreachable"
    assert problem.value.cause == "nothing listens there"
    assert time.monotonic() - began < 3


def test_a_name_that_does_not_resolve_is_said(tmp_path: Path) -> None:
    config = standin.kubeconfig(tmp_path, "https://cluster.invalid:6443")
    with pytest.raises(MoorageError) as problem:
        access.connect(SETTINGS, kubeconfig=str(config))
    assert problem.value.cause == "its name does not resolve"


def test_tls_where_plain_http_is_spoken_is_said(server: Standin, tmp_path: Path) -> None:
    with standin.serving(server) as url:
        config = standin.kubeconfig(tmp_path, url.replace("http://", "https://"))
        with pytest.raises(MoorageError) as problem:
            access.connect(SETTINGS, kubeconfig=str(config))
    assert problem.value.code == "not-tls"


# -- watches --------------------------------------------------------------------------------------


def _named(name: str, version: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": version}}


def test_a_watch_that_is_too_old_begins_anew_with_a_list(server: Standin, connected: Api) -> None:
    path = "/api/v1/namespaces/a/pods"
    server.lists[path] = [_named("one", "1")]
    gone = {"type": "ERROR", "object": {"code": 410, "reason": "Expired", "message": "too old"}}
    server.watches = [[gone], [{"type": "ADDED", "object": _named("two", "8")}]]
    states = [sorted(state) for state in follow(connected, path, seconds=1.5)]
    assert ["one"] in states
    assert ["one", "two"] in states
    assert server.asked[f"GET {path}"] >= 4  # list, watch, list again, watch


def test_a_watch_goes_on_from_where_it_was(server: Standin, connected: Api) -> None:
    path = "/api/v1/namespaces/a/pods"
    server.lists[path] = [_named("one", "1")]
    server.watches = [
        [
            {"type": "MODIFIED", "object": {**_named("one", "9"), "status": {"phase": "Running"}}},
            {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "10"}}},
            {"type": "DELETED", "object": _named("one", "11")},
        ]
    ]
    versions: list[str] = []

    def trouble(request: web.Request) -> None:
        if request.query.get("watch"):
            versions.append(request.query["resourceVersion"])

    server.trouble = trouble
    states = [
        {name: dict(one) for name, one in s.items()} for s in follow(connected, path, seconds=1)
    ]
    assert any(state.get("one", {}).get("status") for state in states)
    assert states[-1] == {}
    assert versions[:2] == ["7", "11"]


def test_a_server_that_ends_every_watch_is_not_asked_in_a_tight_loop(
    server: Standin, connected: Api
) -> None:
    path = "/api/v1/namespaces/a/pods"
    server.lists[path] = []
    list(follow(connected, path, seconds=1))
    assert server.asked[f"GET {path}"] < 10


# -- speed ----------------------------------------------------------------------------------------


def test_what_does_not_need_kubernetes_does_not_load_it() -> None:
    inv = str(START)
    for words in (["--list"], ["--help", "k8s.secret"]):
        done = subprocess.run(
            [sys.executable, "-X", "importtime", inv, *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
        assert "moorage.tasks.k8s" in loaded
        assert not {name for name in loaded if name.partition(".")[0] == "kubernetes"}


def test_hundreds_of_namespaces_are_all_written_side_by_side(
    server: Standin, connected: Api
) -> None:
    # How fast is measured by nox -s bench.
    server.delay = 0.02
    names = [f"ns-{number}" for number in range(60)]
    places = [secrets.Place(name, "my-registry") for name in names]
    wanted = secrets.wish(SETTINGS, Given(Credentials("moorage", "words")))
    outcomes = secrets.apply(connected, UI(as_json=True), places, wanted)
    assert [one.place for one in outcomes] == places
    assert {one.status for one in outcomes} == {secrets.CREATED}
    assert server.most_at_once > 4


# -- which cluster --------------------------------------------------------------------------------


def test_no_kubeconfig_is_refused_with_the_way_to_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("moorage.settings.ROOT", tmp_path)
    with pytest.raises(Refused) as refusal:
        access.connect(SETTINGS)
    assert refusal.value.code == "no-kubeconfig"
    assert "lab.up --kubernetes" in refusal.value.cure


def test_a_named_kubeconfig_that_is_missing_names_who_named_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nowhere"))
    with pytest.raises(Refused) as refusal:
        access.connect(SETTINGS)
    assert "$KUBECONFIG" in refusal.value.cause


def test_an_unknown_context_lists_those_there_are(tmp_path: Path) -> None:
    config = standin.kubeconfig(tmp_path, "http://127.0.0.1:1")
    with pytest.raises(Refused) as refusal:
        access.connect(SETTINGS, kubeconfig=str(config), context="nobody")
    assert refusal.value.code == "unknown-context"
    assert "standin" in refusal.value.cause


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "a: [",
        "clusters: 5\ncontexts: 7",
        "\x00",
        "token: secret-word: x",
        "contexts: [5]",
    ],
)
def test_a_kubeconfig_that_is_none_is_refused_without_its_words(tmp_path: Path, text: str) -> None:
    config = tmp_path / "config"
    config.write_text(text)
    with pytest.raises(Refused) as refusal:
        access.connect(SETTINGS, kubeconfig=str(config))
    problem = refusal.value
    assert problem.code in ("bad-kubeconfig", "unknown-context")
    assert "secret-word" not in problem.message + problem.cause


def test_a_credential_plugin_that_fails_is_said(tmp_path: Path) -> None:
    import yaml

    config = standin.kubeconfig(tmp_path, "http://127.0.0.1:1")
    document = yaml.safe_load(config.read_text())
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": "no-such-plugin"}
    document["users"][0]["user"] = {"exec": plugin}
    config.write_text(yaml.safe_dump(document))
    with pytest.raises(Refused) as refusal:
        access.connect(SETTINGS, kubeconfig=str(config))
    assert refusal.value.code == "no-credentials"
    assert "no-such-plugin" in refusal.value.cure


@pytest.mark.parametrize(
    ("words", "kubectl", "flags"),
    [
        ({}, "kubectl", ""),
        ({"context": "standin"}, "kubectl --context=standin", " --context=standin"),
        (
            {"kubeconfig": "{config}", "context": "standin"},
            "kubectl --kubeconfig={config} --context=standin",
            " --kubeconfig={config} --context=standin",
        ),
    ],
)
def test_what_is_to_be_typed_reaches_the_same_cluster(
    server: Standin,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: dict[str, Any],
    kubectl: str,
    flags: str,
) -> None:
    with standin.serving(server) as url:
        config = str(standin.kubeconfig(tmp_path, url))
        monkeypatch.setenv("KUBECONFIG", config)
        given = {key: text.format(config=config) for key, text in words.items()}
        where = access.connect(SETTINGS, **given).where
    said = "look: kubectl get nodes; or inv k8s.diagnose --fix; inv nodes.trust --hosts=a"
    kubectl, flags = kubectl.format(config=config), flags.format(config=config)
    wanted = f"look: {kubectl} get nodes; or inv k8s.diagnose{flags} --fix;"
    assert where.typed(said) == f"{wanted} inv nodes.trust --hosts=a"
    assert where.typed(where.typed(said)) == where.typed(said)
    assert where.typed("inv nodes.preload IMAGE --from-cluster").endswith(f"cluster{flags}")


def test_the_lab_s_cluster_is_asked_by_a_kubectl_that_is_here(
    server: Standin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = project(tmp_path, lab=LabSettings(kubernetes_binaries=str(tmp_path)))
    (tmp_path / "kubectl").touch()
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("PATH", "")
    lab = access.lab_kubeconfig(settings)
    lab.parent.mkdir(parents=True)
    with standin.serving(server) as url:
        standin.kubeconfig(tmp_path, url).rename(lab)
        where = access.connect(settings).where
    assert where.typed("kubectl get nodes") == f"{tmp_path}/kubectl --kubeconfig={lab} get nodes"
    assert where.flags == ""


def test_an_error_s_cure_is_typed_for_its_cluster(connected: Api, tmp_path: Path) -> None:
    with pytest.raises(Refused) as refusal, access.typed_for(connected):
        namespaces.choose(connected, namespaces.Choice("nowhere"))
    config = tmp_path / "standin.kubeconfig"
    assert refusal.value.cure == f"kubectl --kubeconfig={config} create namespace nowhere"


def test_what_is_listed_has_a_path_for_each_kind() -> None:
    pod = {"kind": "Pod", "metadata": {"name": "a", "namespace": "b"}}
    assert paths.of(pod) == "/api/v1/namespaces/b/pods/a"
    assert paths.of({"kind": "Node", "metadata": {"name": "n"}}) == "/api/v1/nodes/n"
