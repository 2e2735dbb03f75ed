"""Which login leaves this machine: before a real front and registry, and a stand-in for a cluster.

The stand-in is tests/k8s/standin.py; what it was sent is judged, not what it knows of Kubernetes.
"""

from __future__ import annotations

import base64
import inspect
import itertools
import json
import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from aiohttp import web

from agent.wire import verbs
from lab.kubernetes import authority, kubeconfig, lifecycle
from moorage import files
from moorage.cluster.agents import documents as made_of
from moorage.cluster.agents import rotation, states
from moorage.cluster.api import ours, paths, told
from moorage.cluster.api.client import Api
from moorage.cluster.diagnosis import examine
from moorage.cluster.login import access, admins, login, pull_secret, secrets
from moorage.cluster.login.secrets import Place
from moorage.cluster.workload import telling
from moorage.errors import MoorageError, Refused
from moorage.fleet.rollout import plans
from moorage.fleet.rollout.operation import Operation, Wish, proof
from moorage.output import Warn
from moorage.pki import registry as pki
from moorage.registry import Credentials, handed, service, spec
from moorage.registry.front.roles import User
from moorage.registry.logins import users
from moorage.registry.logins.credentials import credentials, ensure, keep
from moorage.rotation import course, kept
from moorage.rotation.course import Member, State
from moorage.settings import Settings
from moorage.tasks.command import Run
from moorage.tasks.k8s import removal as removal_task
from moorage.tasks.k8s.secret import secret
from moorage.tasks.registry import users as users_tasks
from moorage.ui import UI
from moorage.walk import doctor, down
from moorage.walk.doctor import Finding
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
    (running.settings.state / "registry" / "handed.json").unlink(missing_ok=True)
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
) -> list[secrets.SecretOutcome]:
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


# -- admin logins in Secrets -----------------------------------------------------------------


def lists_what_it_has(server: Standin) -> None:
    """Makes the stand-in list the Secrets that were written, and heed our selector."""

    def heard(request: web.Request) -> web.StreamResponse | None:
        found = [one for key, one in server.objects.items() if "/secrets/" in key]
        for one in found:
            one["metadata"]["uid"] = one["metadata"]["namespace"]
        if request.query.get("labelSelector"):
            found = [one for one in found if ours.labels_of(one).get(ours.PART) == "secret"]
        kind = request.query.get("fieldSelector", "").removeprefix("type=")
        found = [one for one in found if kind in ("", one["type"])]
        server.lists["/api/v1/secrets"] = found
        for kind in ("pods", "serviceaccounts", "namespaces/web/serviceaccounts"):
            server.lists[f"/api/v1/{kind}"] = []
        server.lists["/api/v1/namespaces/web/secrets"] = [
            one for one in found if one["metadata"]["namespace"] == "web"
        ]
        return None

    server.trouble = heard


def give(
    server: Standin, settings: Settings, namespace: str, who: Credentials, **labels: str
) -> None:
    made = pull_secret.document("my-registry", namespace, settings.registry_name, who, labels)
    made["metadata"]["uid"] = "u"
    server.objects[path(namespace)] = made


def test_each_secret_with_an_admin_login_is_named_with_what_cures_it(
    api: Api, server: Standin, front: Loopback
) -> None:
    settings = front.settings
    lists_what_it_has(server)
    own = credentials(settings)
    give(server, settings, "web", own, **ours.labels(settings, "secret"))
    give(server, settings, "theirs", own)
    give(server, settings, "old", Credentials(own.user, "a password before"))
    users.add(settings, User("chief", "push"))
    chief = Credentials("chief", users.change_password(settings, "chief"))
    give(server, settings, "pusher", chief)
    users.add(settings, User("chief", "admin"))
    give(server, settings, "chief", chief)
    put(api, settings, "fine")
    found = {one.namespace: one for one in admins.holders(api, settings)}
    assert {name: one.user for name, one in found.items()} == {
        "web": own.user, "theirs": own.user, "pusher": "chief", "chief": "chief"
    }  # fmt: skip
    assert found["web"].cure == api.where.typed("inv k8s.secret --renew")
    assert "--namespace=theirs --name=my-registry --replace" in found["theirs"].cure
    assert [one.namespace for one in admins.holders(api, settings, "web")] == ["web"]


def test_what_is_named_is_cured_by_the_command_that_is_named(
    api: Api,
    server: Standin,
    front: Loopback,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = front.settings
    lists_what_it_has(server)
    give(server, settings, "web", credentials(settings), **ours.labels(settings, "secret"))
    report = examine.examine(api, settings)
    (said,) = [one for one in telling.diagnosis(report) if isinstance(one, Warn)]
    assert "Secret web/my-registry" in said.text
    assert report.to_json()["admin_logins"][0]["secret"] == "my-registry"
    (finding,) = _findings(settings, tmp_path, monkeypatch)
    assert (finding.state, "web/my-registry" in finding.found) == ("wrong", True)
    assert said.text.endswith(api.where.typed(finding.cure))
    typed = shlex.split(finding.cure)
    assert typed[:2] == ["inv", "k8s.secret"]
    run_task(secret, settings, typed[2:])
    assert held(server, front, "web").user == "moorage-secrets"
    assert examine.examine(api, settings).admins == ()
    assert _findings(settings, tmp_path, monkeypatch)[0].state == "fine"


def _findings(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "standin.kubeconfig"))
    return doctor._secrets(settings)


def run_task(task: Any, settings: Settings, words: list[str]) -> Any:
    """A task as Invoke calls it, with options as they are typed, and these settings."""
    options = {}
    for word in words:
        name, _, value = word.removeprefix("--").partition("=")
        options[name.replace("-", "_")] = value or True
    ui = UI(yes=True) if options.get("yes") else QUIET
    return inspect.unwrap(task.body)(Run(settings, ui), **options)


def test_doctor_asks_no_cluster_where_none_is_known(
    front: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert doctor._secrets(front.settings) == []


# -- rotation --------------------------------------------------------------------------------


def status(front: Loopback, who: Credentials) -> int:
    return front.ask("GET", "/v2/", who)[0]


def in_secrets(server: Standin) -> list[Credentials]:
    found = [one for key, one in server.objects.items() if "/secrets/" in key]
    logins = [login for one in found for login in pull_secret.logins(one).values()]
    return [Credentials(one.user, one.password) for one in logins]


@pytest.fixture
def holding(api: Api, server: Standin, front: Loopback) -> Api:
    """A cluster with a shared login and one of a namespace."""
    lists_what_it_has(server)
    put(api, front.settings, "web", apart=True)
    put(api, front.settings, "shop", "base")
    handed.made(front.settings, [users.NODES])
    return api


def rotate(api: Api | None, front: Loopback) -> dict[str, str]:
    names = rotation.due(front.settings)
    done = rotation.rotate(front.settings, QUIET, api, names, 5)
    return {one.name: one.why for one in done}


def test_a_rotation_never_meets_a_401_and_ends_the_old_passwords(
    holding: Api, server: Standin, front: Loopback
) -> None:
    before = in_secrets(server)
    seen: list[int] = []
    told = server.trouble

    def heard(request: web.Request) -> web.StreamResponse | None:
        seen.extend(status(front, one) for one in {*in_secrets(server)})
        return told(request)

    server.trouble = heard
    names = {"moorage-nodes", "moorage-secrets", "moorage-secret-web"}
    assert rotate(holding, front) == dict.fromkeys(names, "")
    assert len(seen) > 10
    assert set(seen) == {200}
    assert {status(front, one) for one in {*before}} == {401}
    after = in_secrets(server)
    assert {status(front, one) for one in {*after}} == {200}
    assert [one.user for one in after] == [one.user for one in before]


def test_a_new_password_that_the_registry_does_not_take_leaves_the_old_one_right(
    holding: Api, server: Standin, front: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each Secret's login is tried at the registry: here by a front that is told of nothing."""
    before = in_secrets(server)
    with monkeypatch.context() as patch:
        patch.setattr(service, "put_logins", lambda _: True)
        left = rotate(holding, front)
        assert "holds the password before" in left["moorage-secrets"]
        assert "holds the password before" in left["moorage-secret-web"]
    front.apply()
    assert {status(front, one) for one in {*before, *in_secrets(server)}} == {200}
    assert set(rotate(holding, front).values()) == {""}
    assert {status(front, one) for one in {*before}} == {401}


def dying_at(step: int) -> Callable[..., None]:
    """What writes until its ``step``-th file, and is stopped there."""
    count = itertools.count(1)

    def write(path: Path, content: bytes, **options: Any) -> None:
        if next(count) == step:
            raise KeyboardInterrupt
        files.write_atomically(path, content, **options)

    return write


def test_a_rotation_that_is_killed_anywhere_leaves_no_401_and_goes_on(
    holding: Api, server: Standin, front: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in itertools.count(1):
        before = in_secrets(server)
        with monkeypatch.context() as patch:
            dying = dying_at(step)
            for module in (users, handed, service):
                patch.setattr(module, "write_atomically", dying)
            try:
                rotate(holding, front)
                break
            except KeyboardInterrupt:
                pass
        assert {status(front, one) for one in {*in_secrets(server)}} == {200}
        assert set(rotate(holding, front).values()) == {""}
        assert {status(front, one) for one in {*in_secrets(server)}} == {200}
        assert {status(front, one) for one in {*before}} == {401}
    assert step > 9


def test_a_password_whose_file_is_not_renamed_yet_is_not_handed_out(
    front: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = front.settings
    old = handed.made(settings, [users.NODES])[users.NODES]

    renames = Path.replace

    def killed(path: Path, target: Path) -> Path:
        if path.suffix == ".new":
            raise KeyboardInterrupt
        return renames(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            users.begin_rotation(settings, [old.user])
    assert handed.to_nodes(settings) == old
    assert status(front, old) == 200
    assert rotate(None, front) == {"moorage-nodes": ""}
    assert status(front, old) == 401


def test_a_cluster_that_is_not_there_keeps_the_old_password_right(
    holding: Api, server: Standin, front: Loopback
) -> None:
    settings, elsewhere = front.settings, "https://other.example:6443"
    handed.note(settings, ["moorage-secrets"], elsewhere)
    before = {one.user: one for one in in_secrets(server)}
    told = rotate(holding, front)
    assert elsewhere in told["moorage-secrets"]
    assert told["moorage-secret-web"] == ""
    assert status(front, before["moorage-secrets"]) == 200
    assert status(front, before["moorage-secret-web"]) == 401
    assert rotation.due(settings) == ["moorage-secrets"]  # the same call goes on with it alone
    with pytest.raises(Refused) as refused:
        handed.let_go(settings, "https://misspelt.example")
    assert elsewhere in refused.value.cause
    handed.let_go(settings, elsewhere)
    assert rotate(holding, front) == {"moorage-secrets": ""}
    assert status(front, before["moorage-secrets"]) == 401


@pytest.mark.parametrize("goes", ["before it is read", "before it is written"])
def test_a_secret_that_goes_with_its_namespace_fails_no_renewal(
    holding: Api, server: Standin, front: Loopback, tmp_path: Path, goes: str
) -> None:
    lists, file = server.trouble, tmp_path / "login"
    file.write_text("new:words")

    def heard(request: web.Request) -> web.StreamResponse | None:
        if request.path == path("shop"):
            if goes == "before it is read" or request.method == "PATCH":
                server.objects.pop(path("shop"), None)
            if request.method == "PATCH":
                return standin.failure(403, "Forbidden", "namespace shop is being terminated")
        return lists(request)

    server.trouble = heard
    wanted = secrets.wish(front.settings, login.read(front.settings, str(file)), standing=True)
    places = [Place(one, "my-registry") for one in ("web", "shop", "base")]
    done = secrets.apply(holding, QUIET, places, wanted)
    assert {one.place.namespace: one.status for one in done}["shop"] == secrets.GONE
    assert not any(one.error for one in done)
    assert path("shop") not in server.objects


def test_a_copy_that_is_not_ours_keeps_the_old_password_right(
    holding: Api, server: Standin, front: Loopback
) -> None:
    old = next(one for one in in_secrets(server) if one.user == "moorage-secrets")
    give(server, front.settings, "copy", old)
    assert "Secret copy/my-registry" in rotate(holding, front)["moorage-secrets"]
    assert status(front, old) == 200
    del server.objects[path("copy")]
    assert rotate(holding, front) == {"moorage-secrets": ""}
    assert status(front, old) == 401


def test_without_a_cluster_the_nodes_login_is_rotated_alone(front: Loopback) -> None:
    old = handed.made(front.settings, [users.NODES])[users.NODES]
    assert not rotation.needs_cluster(front.settings, [old.user])
    assert rotate(None, front) == {"moorage-nodes": ""}
    new = handed.to_nodes(front.settings)
    assert new is not None
    assert [status(front, one) for one in (old, new)] == [401, 200]


class StandinAgent:
    """A stand-in for a cluster's agent: it pulls by the plan's login, and says how that went."""

    def __init__(self, server: Standin, front: Loopback, settings: Settings) -> None:
        self.server, self.front, self.works = server, front, True
        self.node: dict[str, Any] = {
            "metadata": {"name": "n1", "annotations": {}},
            "status": {"nodeInfo": {"operatingSystem": "linux", "architecture": "amd64"}},
        }
        server.lists["/api/v1/nodes"] = [self.node]
        self.told = server.trouble
        server.trouble = self.heard
        plan = plans.wire(
            Operation.of(settings, verbs.asked("verify"), Wish()).plan(settings, None)
        )
        document = made_of.plan_secret(settings, plan)
        document["metadata"]["uid"] = "u"
        self.path = paths.of(document)
        server.objects[self.path] = document

    @property
    def plan(self) -> bytes:
        return base64.b64decode(self.server.objects[self.path]["data"][told.PLAN_KEY])

    @property
    def login(self) -> Credentials:
        verify = json.loads(self.plan)["verify"]
        return Credentials(verify["username"], verify["password"])

    def heard(self, request: web.Request) -> web.StreamResponse | None:
        proven = self.works and status(self.front, self.login) == 200
        said = {"plan": states.digest(self.plan), "status": "trusted", "proven": proven}
        self.node["metadata"]["annotations"] = {states.STATUS: json.dumps(said)}
        return self.told(request)


def test_agents_in_a_cluster_get_the_new_password_and_prove_it(
    holding: Api, server: Standin, front: Loopback
) -> None:
    agent = StandinAgent(server, front, front.settings)
    handed.note(front.settings, ["moorage-nodes"], holding.where.server)
    old = agent.login
    agent.works = False
    told = rotation.rotate(front.settings, QUIET, holding, ["moorage-nodes"], 0.1)
    assert "the agents of n1 have not pulled" in told[0].why
    assert [status(front, one) for one in (old, agent.login)] == [200, 200]
    agent.works = True
    assert rotate(holding, front) == {"moorage-nodes": ""}
    assert agent.login == handed.to_nodes(front.settings) != old
    assert [status(front, one) for one in (old, agent.login)] == [401, 200]


def test_a_plan_of_an_earlier_build_is_named_with_what_cures_it(
    holding: Api, server: Standin, front: Loopback
) -> None:
    agent = StandinAgent(server, front, front.settings)
    own = credentials(front.settings)
    plan = json.loads(agent.plan)
    plan["verify"] |= {"username": own.user, "password": own.password}
    document = made_of.plan_secret(front.settings, json.dumps(plan).encode())
    server.objects[agent.path] = document
    (found,) = admins.holders(holding, front.settings)
    assert (found.secret, found.user) == ("moorage-plan", own.user)
    assert found.cure == holding.where.typed("inv k8s.agents")


def test_agents_of_another_registry_keep_their_plan(
    holding: Api, server: Standin, front: Loopback
) -> None:
    agent = StandinAgent(server, front, front.settings)
    plan = json.loads(agent.plan)
    plan["registry"]["host"] = "another.example"
    server.objects[agent.path] = made_of.plan_secret(front.settings, json.dumps(plan).encode())
    before = server.objects[agent.path]
    assert not any(
        where.endswith("/moorage-plan") for where, _ in admins.logins_held(holding, front.settings)
    )
    handed.note(front.settings, ["moorage-nodes"], holding.where.server)
    assert set(rotate(holding, front).values()) == {""}
    assert server.objects[agent.path] == before


def test_the_task_says_what_waits_and_what_another_run_would_do(
    holding: Api,
    front: Loopback,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings, elsewhere = front.settings, "https://other.example:6443"
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "standin.kubeconfig"))
    handed.note(settings, ["moorage-secrets"], elsewhere)
    before = users.read(settings)
    dry = run_task(users_tasks.rotate, settings, ["--dry-run"])
    assert (dry["changed"], len(dry["logins"])) == (False, 3)
    assert users.read(settings) == before
    done = run_task(users_tasks.rotate, settings, [])
    assert {one["name"]: one["status"] for one in done["logins"]} == {
        "moorage-nodes": "rotated",
        "moorage-secret-web": "rotated",
        "moorage-secrets": "waits",
    }
    assert done["ok"] is False
    done = run_task(users_tasks.rotate, settings, [f"--without={elsewhere}"])
    assert done["logins"] == [{"name": "moorage-secrets", "why": "", "status": "rotated"}]


def test_a_cluster_that_nothing_of_ours_is_in_any_more_is_not_waited_for(
    holding: Api,
    server: Standin,
    front: Loopback,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings, here = front.settings, holding.where.server
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "standin.kubeconfig"))
    copied = next(one for one in in_secrets(server) if one.user == "moorage-secrets")
    give(server, settings, "copy", copied)
    rotating = State(members=(Member("cluster/x", course.CLUSTER, way=here),))
    kept.write(settings, rotating)
    run_task(removal_task.rm, settings, ["--namespace=web", "--yes"])
    run_task(removal_task.rm, settings, ["--yes"])
    assert here in handed.holders(settings)["moorage-secrets"]  # somebody's copy has it still
    del server.objects[path("copy")]
    run_task(removal_task.rm, settings, ["--dry-run"])
    assert here in handed.holders(settings)["moorage-secrets"]
    assert kept.read(settings) == rotating
    run_task(removal_task.rm, settings, ["--yes"])
    assert not any(handed.holders(settings).values())
    assert kept.read(settings) == State()  # nor does a rotation of the CA wait for it


def test_a_cluster_whose_plan_may_not_be_read_waits_and_the_removal_stands(
    holding: Api,
    server: Standin,
    front: Loopback,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings, here = front.settings, holding.where.server
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "standin.kubeconfig"))
    plan = paths.one("Secret", told.PLAN, settings.kubernetes.agents_namespace)
    before = server.trouble

    def refusing(request: web.Request) -> web.StreamResponse | None:
        if request.path == plan and request.method == "GET":
            return standin.failure(403, "Forbidden", "no")
        return before(request)

    server.trouble = refusing
    assert run_task(removal_task.rm, settings, ["--yes"])["ok"]
    assert in_secrets(server) == []
    assert here in handed.holders(settings)["moorage-secrets"]
    said = capsys.readouterr()
    assert "Removed" in said.out + said.err
    assert f"inv users.rotate --without={here}" in " ".join(said.err.split())


def test_a_spoilt_plan_of_the_agents_stops_a_rotation_before_it_begins(
    holding: Api, server: Standin, front: Loopback
) -> None:
    place = paths.one("Secret", told.PLAN, front.settings.kubernetes.agents_namespace)
    document = made_of.plan_secret(front.settings, b"{}")
    server.objects[place] = {**document, "data": {told.PLAN_KEY: "no base64"}}
    before, held = users.read(front.settings), in_secrets(server)
    with pytest.raises(Refused) as refused:
        rotate(holding, front)
    assert refused.value.code == "agents-plan-unreadable"
    assert (users.read(front.settings), in_secrets(server)) == (before, held)


def test_the_labs_cluster_takes_what_it_got_with_it(front: Loopback) -> None:
    settings = front.settings
    there = lifecycle.kubeconfig_path(settings)
    there.parent.mkdir(parents=True, exist_ok=True)
    pair = authority.Pair(b"certificate", b"key")
    for server in ("https://10.0.0.7:6443", "https://other.example:6443"):
        handed.note(settings, ["moorage-nodes"], server)
    there.write_text(
        kubeconfig.render(server="https://10.0.0.7:6443", ca=b"", user="admin", pair=pair)
    )
    other = Member("cluster/other", course.CLUSTER, way="https://other.example:6443")
    rotating = Member("cluster/lab", course.CLUSTER, way="https://10.0.0.7:6443")
    kept.write(settings, State(members=(rotating, other)))
    engine = Mock()
    engine.containers.list.return_value = []
    engine.volumes.list.return_value = []
    walk = Mock(settings=settings, client=engine, ui=QUIET)
    assert down._lab_gone(walk)
    assert set(handed.holders(settings)["moorage-nodes"]) == {"https://other.example:6443"}
    assert kept.read(settings) == State(members=(other,))
    assert not down._lab_gone(walk)


def test_a_front_that_is_away_keeps_a_rotation_from_beginning(settings: Settings) -> None:
    users.for_purpose(settings, users.NODES)
    before = users.read(settings)
    with pytest.raises(MoorageError) as failed:
        rotation.rotate(settings, QUIET, None, ["moorage-nodes"], 5)
    assert failed.value.code == "front-silent"
    assert users.read(settings) == before
