"""Which login leaves this machine: before a real front and registry, and a stand-in for a cluster.

The stand-in is tests/k8s/standin.py; what it was sent is judged, not what it knows of Kubernetes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from agent.wire import verbs
from moorage.cluster.api import ours, paths
from moorage.cluster.api.client import Api
from moorage.cluster.login import access, login, pull_secret, secrets
from moorage.cluster.login.secrets import Place
from moorage.errors import Refused
from moorage.fleet.rollout import plans
from moorage.fleet.rollout.operation import Operation, Wish, proof
from moorage.pki import registry as pki
from moorage.registry import Credentials, handed, spec, users
from moorage.registry.credentials import credentials, ensure, keep
from moorage.registry.front.roles import User
from moorage.settings import Settings
from moorage.ui import UI
from tests.k8s import standin
from tests.k8s.standin import Standin
from tests.loopback import Loopback, loopback
from tests.unit.elsewhere import project, registry_project

QUIET = UI(as_json=True)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = project(tmp_path)
    ensure(made)
    pki.issue(made)
    return made


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    with loopback(registry_project(tmp_path_factory.mktemp("handed"))) as made:
        yield made


@pytest.fixture
def front(running: Loopback, monkeypatch: pytest.MonkeyPatch) -> Loopback:
    """With no login but the operator's. In a container the front has its files elsewhere."""
    monkeypatch.setattr(spec, "ETC", running.etc)
    users.write(running.settings, [])
    running.apply()
    return running


@pytest.fixture
def server() -> Standin:
    return Standin()


@pytest.fixture
def api(server: Standin, front: Loopback, tmp_path: Path) -> Iterator[Api]:
    with standin.serving(server) as url:
        config = standin.kubeconfig(tmp_path, url)
        yield access.connect(front.settings, kubeconfig=str(config))


def path(namespace: str) -> str:
    return paths.one("Secret", "my-registry", namespace)


def put(
    api: Api, settings: Settings, *namespaces: str, apart: bool = False, dry_run: bool = False
) -> list[secrets.Outcome]:
    wanted = secrets.wish(settings, login.read(settings, "", per_namespace=apart))
    places = [Place(one, "my-registry") for one in namespaces]
    return secrets.apply(api, QUIET, places, wanted, dry_run=dry_run)


def held(server: Standin, front: Loopback, namespace: str) -> Credentials:
    """What the Secret there has for our registry."""
    (found,) = set(pull_secret.logins(server.objects[path(namespace)]).values())
    return Credentials(found.user, found.password)


# -- nodes -----------------------------------------------------------------------------------


def test_no_login_for_nodes_is_told_with_its_cure_and_none_is_made(settings: Settings) -> None:
    with pytest.raises(Refused) as refused:
        proof(settings, None)
    assert (refused.value.code, refused.value.cure) == ("no-credentials", "inv registry.up")
    assert users.read(settings) == ()


@pytest.mark.parametrize("task", [one.task for one in verbs.VERBS if one.pull])
def test_a_plan_has_the_nodes_login_and_never_the_operators(settings: Settings, task: str) -> None:
    of_nodes = users.for_purpose(settings, users.NODES)
    operation = Operation.of(settings, verbs.asked(task), Wish())
    sent = plans.wire(operation.plan(settings, "10.0.0.1")).decode()
    assert operation.pull is not None
    assert (operation.pull.username, operation.pull.password) == (
        "moorage-nodes",
        of_nodes.password,
    )
    assert of_nodes.password in sent
    assert credentials(settings).password not in sent


def test_a_login_that_may_do_more_than_pull_is_not_handed_out(settings: Settings) -> None:
    users.for_purpose(settings, users.NODES)
    users.write(settings, [replace(one, role="admin") for one in users.read(settings)])
    with pytest.raises(Refused):
        handed.to_nodes(settings)


def test_somebody_elses_registry_has_one_login_for_all(tmp_path: Path) -> None:
    settings = project(tmp_path)
    settings = replace(settings, registry=replace(settings.registry, external=True))
    assert handed.to_nodes(settings) is None
    keep(settings, Credentials("robot", "words"))
    assert handed.to_nodes(settings) == Credentials("robot", "words")
    assert login.read(settings, "") == login.Given(Credentials("robot", "words"))
    with pytest.raises(Refused) as refused:
        login.read(settings, "", per_namespace=True)
    assert refused.value.code == "registry-external"
    assert not (tmp_path / ".moorage" / "registry" / "users.json").exists()


def test_the_nodes_login_pulls_and_neither_pushes_nor_deletes(front: Loopback) -> None:
    who = handed.made(front.settings, [users.NODES])[users.NODES]
    digest = "sha256:" + "0" * 64
    assert front.ask("GET", "/v2/", who)[0] == 200
    assert front.ask("POST", "/v2/app/blobs/uploads/", who)[0] == 403
    assert front.ask("DELETE", f"/v2/app/manifests/{digest}", who)[0] == 403


def test_the_operators_name_is_never_used_for_a_purpose(front: Loopback) -> None:
    renamed = replace(front.settings.registry, user="moorage-secrets")
    settings = replace(front.settings, registry=renamed)
    with pytest.raises(Refused) as refused:
        handed.made(settings, [users.SECRETS])
    assert refused.value.code == "last-admin"


# -- Secrets ---------------------------------------------------------------------------------


def test_a_secret_has_a_login_that_pulls_alone_and_is_in_force(
    api: Api, server: Standin, front: Loopback
) -> None:
    outcomes = put(api, front.settings, "web", "shop")
    assert {one.status for one in outcomes} == {secrets.CREATED}
    who = held(server, front, "web")
    assert who == held(server, front, "shop")
    assert who.user == "moorage-secrets"
    assert front.ask("GET", "/v2/", who)[0] == 200
    assert front.ask("POST", "/v2/app/blobs/uploads/", who)[0] == 403


def test_the_operators_password_is_never_sent_to_a_cluster(
    api: Api, server: Standin, front: Loopback
) -> None:
    own = credentials(front.settings).password
    documents: list[dict[str, object]] = []

    def heard(_: web.Request) -> web.StreamResponse | None:
        documents.extend(server.objects.values())
        return None

    server.trouble = heard
    put(api, front.settings, "web")
    put(api, front.settings, "web", apart=True)
    documents.extend(server.objects.values())
    found = [one.password for held in documents for one in pull_secret.logins(held).values()]
    assert found
    assert own not in found


def test_each_namespace_may_have_its_own_and_keeps_it(
    api: Api, server: Standin, front: Loopback
) -> None:
    put(api, front.settings, "web", "shop", apart=True)
    web_, shop = held(server, front, "web"), held(server, front, "shop")
    assert (web_.user, shop.user) == ("moorage-secret-web", "moorage-secret-shop")
    assert web_.password != shop.password
    # A run without the option leaves them as they are, beside one that has the shared login.
    outcomes = put(api, front.settings, "web", "other")
    assert [one.status for one in outcomes] == [secrets.UNCHANGED, secrets.CREATED]
    assert held(server, front, "web") == web_
    assert held(server, front, "other").user == "moorage-secrets"
    users.remove(front.settings, web_.user)
    front.apply()
    assert [front.ask("GET", "/v2/", one)[0] for one in (web_, shop)] == [401, 200]


def test_a_dry_run_makes_no_login(
    api: Api, server: Standin, front: Loopback, capsys: pytest.CaptureFixture[str]
) -> None:
    assert put(api, front.settings, "web", apart=True, dry_run=True)[0].status == secrets.CREATED
    assert users.read(front.settings) == ()
    assert path("web") not in server.objects
    assert "moorage-secret-web (hidden)" in capsys.readouterr().err


def test_a_refusal_makes_no_login(api: Api, server: Standin, front: Loopback) -> None:
    server.objects[path("web")] = {"metadata": {"uid": "u"}, "type": pull_secret.TYPE}
    with pytest.raises(Refused) as refused:
        put(api, front.settings, "shop", "web")
    assert refused.value.code == "secret-foreign"
    assert users.read(front.settings) == ()


def test_a_login_that_was_kept_and_is_not_in_force_is_put_in_force(
    api: Api, server: Standin, front: Loopback
) -> None:
    kept = users.for_purpose(front.settings, users.SECRETS)  # as if killed after it
    assert front.ask("GET", "/v2/", kept)[0] == 401
    put(api, front.settings, "web")
    assert held(server, front, "web") == kept
    assert front.ask("GET", "/v2/", kept)[0] == 200


def test_the_operators_login_in_a_secret_of_an_earlier_build_is_replaced(
    api: Api, server: Standin, front: Loopback
) -> None:
    settings = front.settings
    labels = ours.labels(settings, "secret")
    document = pull_secret.document(
        "my-registry", "web", settings.registry_name, credentials(settings), labels
    )
    document["metadata"]["uid"] = "u"
    server.objects[path("web")] = document
    assert put(api, settings, "web")[0].status == secrets.UPDATED
    assert held(server, front, "web").user == "moorage-secrets"


def test_without_a_front_no_login_is_made_for_secrets(settings: Settings) -> None:
    with pytest.raises(Refused) as refused:
        handed.made(settings, [users.SECRETS])
    assert (refused.value.code, refused.value.cure) == ("no-credentials", "inv registry.up")
    assert users.read(settings) == ()


def test_a_login_of_a_user_is_not_taken_for_one_of_ours(front: Loopback) -> None:
    users.add(front.settings, User("reader", "pull", purpose=users.SECRETS))
    made = handed.made(front.settings, [users.SECRETS])[users.SECRETS]
    assert made.user == "moorage-secrets"
