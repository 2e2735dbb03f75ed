"""What the page does once that is agreed to: who may, what is asked, logged, and shown."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import pytest

from moorage.cluster.api.where import Where
from moorage.cluster.diagnosis import diagnosis, examine, owners
from moorage.cluster.diagnosis.examine import Report
from moorage.cluster.diagnosis.known import Known
from moorage.cluster.symptoms import causes
from moorage.cluster.workload import cures
from moorage.errors import MoorageError, Refused
from moorage.fleet.inventory import Target
from moorage.fleet.rollout.fleet import Fleet
from moorage.lock import project_lock
from moorage.settings import Settings
from moorage.tasks import on_nodes
from moorage.tasks.command import Run
from moorage.ui import UI
from moorage.web import sources
from moorage.web.access import FORM, form_fields
from moorage.web.actions import Actions, Voice, key
from tests.adopted import adopted_by_address
from tests.unit.cluster.diagnosis.test_diagnosis import REGISTRY, one
from tests.unit.elsewhere import project
from tests.unit.web.test_page import EVIL, Served, serving, wait_for

NODE = Target("node1", "127.0.0.1")


@contextmanager
def acting(settings: Settings, *hosts: Target, api: Any = None) -> Iterator[tuple[Served, Actions]]:
    """A page with its actions, and a browser that is in."""
    with serving(len(hosts)) as made:
        actions = Actions(settings, hosts, lambda s: made.server.story.put("actions", s), api=api)
        made.server.story.put("actions", actions.section())
        made.server.offer(actions)
        made.log_in()
        yield made, actions
        wait_for(lambda: not actions.under_way)


def token(made: Served, path: str) -> str:
    return str(re.findall(r'name="token" value="([0-9a-f]{64})"', made.shown(path))[0])


def agree(made: Served, kind: str, of: str, **headers: str) -> tuple[int, str]:
    """What a browser sends when the form's button is pressed, but for ``headers``."""
    given = headers.pop("body", None)
    body = given or urlencode({"of": of, "token": token(made, f"/{kind}?{urlencode({'of': of})}")})
    usual = {"Origin": made.server.place.url, "Content_Type": FORM, "body": body}
    status, _, text = made.ask(f"/{kind}", "POST", **{**usual, **headers})
    return status, text


def logs(settings: Settings) -> dict[str, str]:
    return {path.name: path.read_text() for path in (settings.state / "log").glob("*")}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return project(tmp_path)


@pytest.fixture
def proven(monkeypatch: pytest.MonkeyPatch) -> list[list[Target]]:
    """A stand-in for the fleet: each verification proves at once, and is noted."""
    from agent.wire.report import HostResult
    from moorage.fleet.report import FleetReport

    seen: list[list[Target]] = []

    def run(_: Fleet, task: str, hosts: Any) -> FleetReport:
        assert task == "verify"
        seen.append(list(hosts))
        return FleetReport((HostResult("node1", "unchanged", verified=True, pull_seconds=1.24),))

    monkeypatch.setattr(Fleet, "run", run)
    return seen


# -- read only, unless asked -----------------------------------------------------------------------


def test_without_actions_there_is_no_form_and_no_way() -> None:
    with serving(1) as made:
        made.log_in()
        assert "<form" not in made.shown()
        assert "form-action 'none'" in str(made.ask("/")[1]["Content-Security-Policy"])
        for path, method in itertools.product(("/verify?of=n", "/fix?of=x"), ("GET", "POST")):
            assert made.ask(path, method)[0] == 404


# -- who may ---------------------------------------------------------------------------------------


def test_a_node_is_verified_after_a_question(
    settings: Settings, proven: list[list[Target]]
) -> None:
    with acting(settings, NODE) as (made, _):
        assert '<option value="node1">' in made.shown()
        asked = made.shown("/verify?of=node1")
        assert "prove that node1 trusts the registry" in asked
        assert "inv nodes.verify --hosts=node1</code>" in asked
        assert not proven  # a question does nothing
        assert agree(made, "verify", "node1")[0] == 303
        wait_for(lambda: "proven by a pull in 1.2 s" in made.shown())
        assert proven == [[NODE]]


BAD: dict[str, dict[str, str]] = {
    "another site": {"Origin": "http://evil.example"},
    "a page without an origin": {"Origin": "null"},
    "no word of where it comes from": {"Origin": ""},
    "the same name by TLS": {"Origin": "https://127.0.0.1:{port}"},
    "another port": {"Origin": "http://127.0.0.1:1"},
    "another name of this machine": {"Origin": "http://localhost:{port}"},
    "what the browser calls another site": {"Sec_Fetch_Site": "cross-site"},
    "another site of the same machine": {"Sec_Fetch_Site": "same-site"},
    "JSON": {"Content_Type": "application/json"},
    "text, as forms of other sites may send it": {"Content_Type": "text/plain"},
    "no token": {"body": "of=node1&token="},
    "a wrong token": {"body": f"of=node1&token={'0' * 64}"},
    "no field of that name": {"body": "of=node1"},
    "a field twice": {"body": "of=node1&of=node2"},
    "a third field": {"body": "of=node1&token=x&more=1"},
    "no form": {"body": "{}"},
    "no text": {"body": "%ff=%fe&token=x"},
    "a form that is too large": {"body": f"of={'n' * 5000}&token=x"},
}


@pytest.mark.parametrize("how", BAD)
def test_a_form_that_is_not_ours_does_nothing(
    settings: Settings, proven: list[list[Target]], how: str
) -> None:
    with acting(settings, NODE) as (made, actions):
        changed = {k: v.replace("{port}", str(made.server.place.port)) for k, v in BAD[how].items()}
        status, _ = agree(made, "verify", "node1", **changed)
        assert status in (400, 403, 413, 415)
        assert not actions.section().rows
    assert not proven
    assert not logs(settings)


def test_the_form_of_one_session_is_of_no_use_to_another(settings: Settings) -> None:
    with acting(settings, NODE) as (made, actions):
        access = made.server.access
        other = access.form_token("another session")
        status, _ = agree(made, "verify", "node1", body=f"of=node1&token={other}")
        assert status == 403
        made.cookie = ""
        status, _, text = made.ask("/verify?of=node1")
        assert status == 403
        assert "token" not in text
        assert not actions.section().rows


def test_a_form_is_two_fields_and_nothing_else() -> None:
    assert form_fields(b"of=a+b&token=t") == ("a b", "t")
    for body in (b"", b"of=a", b"of=a&of=b", b"of=a&token=t&x=1", b"of=a;token=t", b"\xff"):
        assert form_fields(body) is None


@pytest.mark.parametrize("name", ["node2", "", "node1 ", EVIL, "--hosts=x", "../node1"])
def test_only_nodes_of_the_page_can_be_verified(
    settings: Settings, proven: list[list[Target]], name: str
) -> None:
    with acting(settings, NODE) as (made, _):
        status, _, text = made.ask(f"/verify?{urlencode({'of': name})}")
        assert (status, "shows no node of this name" in text) == (409, True)
        body = urlencode({"of": name, "token": token(made, "/verify?of=node1")})
        assert agree(made, "verify", name, body=body)[0] in (400, 409)
    assert not proven


def test_one_thing_at_a_time(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()

    def slow(*_: Any) -> Any:
        gate.wait(20)
        raise Refused("x", "it was let go")

    monkeypatch.setattr(Fleet, "run", slow)
    with acting(settings, NODE) as (made, _):
        assert agree(made, "verify", "node1")[0] == 303
        status, text = agree(made, "verify", "node1")
        gate.set()
        assert (status, "is under way" in text) == (409, True)
        wait_for(lambda: "it was let go" in made.shown())


# -- what is logged, what is shown -----------------------------------------------------------------


def test_each_has_a_log_as_a_command_has_that_says_who_asked(
    settings: Settings, proven: list[list[Target]]
) -> None:
    with acting(settings, NODE) as (made, actions):
        session = made.cookie.partition("=")[2]
        agree(made, "verify", "node1")
        wait_for(lambda: not actions.under_way)
    ((name, text),) = logs(settings).items()
    assert "nodes.verify" in name
    first, begun, *_, ended = text.splitlines()
    assert first.startswith("inv nodes.verify --hosts=node1 # asked for on the page by ")
    assert "begun for" in begun
    assert "ended: proven" in ended
    assert made.server.access.short(session) in first
    assert session not in text


def test_a_real_agent_is_asked_and_its_words_are_shown(tmp_path: Path) -> None:
    """The registry of its plan is not there: the proof fails, and the page says what the command
    says."""
    with adopted_by_address(tmp_path) as folder:
        folder.apply()
        nodes = replace(folder.settings.nodes, retries=0)
        settings = project(tmp_path, nodes=nodes, certs=folder.settings.certs)
        try:
            (wanted,) = Fleet(settings, UI(as_json=True)).run("verify", [folder.target]).hosts
            words = wanted.error.message if wanted.error else ""
        except MoorageError as problem:
            words = problem.message
        assert words
        with acting(settings, folder.target) as (made, actions):
            assert agree(made, "verify", "node1")[0] == 303
            wait_for(lambda: not actions.under_way)
            (trouble,) = actions.section().troubles
            assert trouble.fault.message == words


def test_a_log_of_an_action_leaves_the_page_s_own_open(
    settings: Settings, proven: list[list[Target]], tmp_path: Path
) -> None:
    import logging

    from moorage.logs import command_log

    outer = command_log.begin(tmp_path / "outer", "web", "inv web", say=print, level=0)
    try:
        with acting(settings, NODE) as (made, actions):
            agree(made, "verify", "node1")
            wait_for(lambda: not actions.under_way)
        logging.getLogger("moorage.web").info("the page goes on")
        assert outer.path is not None
        assert "the page goes on" in outer.path.read_text()
    finally:
        command_log.end(outer)
    assert "the page goes on" not in "".join(logs(settings).values())


# -- a cause of stuck pods -------------------------------------------------------------------------


def report(*nodes: str) -> Report:
    """Two causes: nodes that do not trust, and a repository that is not there."""
    pods = [one(node=node, pod=f"web-{node}", uid=node) for node in nodes]
    other = one(pod="old", uid="old", words="x509: certificate has expired or is not yet valid")
    found = diagnosis.diagnose([*pods, other], Known(REGISTRY))
    return Report(tuple(found), len(pods) + 1)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A stand-in for a cluster: what is examined, cured and waited for is noted."""
    seen = SimpleNamespace(
        where=Where("https://a.lan:6443", "a"), report=report("n1", "n2"), fixed=[],
        after=Report((), 2),
    )  # fmt: skip

    def fix(_here: cures.Here, wanted: Report) -> list[cures.CureOutcome]:
        seen.fixed.append([(group.fix, group.nodes) for group in wanted.groups])
        return [cures.CureOutcome(wanted.groups[0].fix, (), True, "2 nodes trust the registry")]

    monkeypatch.setattr(examine, "examine", lambda *_, **__: seen.report)
    monkeypatch.setattr(owners, "with_last_tries", lambda _, found: found)
    monkeypatch.setattr(cures, "fix", fix)
    monkeypatch.setattr(cures, "revive", lambda *_: [])
    monkeypatch.setattr(cures, "wait", lambda *_: seen.after)
    return seen


def trust(found: Report) -> str:
    return next(key(group) for group in found.groups if group.fix == causes.TRUST)


def test_one_cause_is_fixed_after_a_question_and_no_other(settings: Settings, cluster: Any) -> None:
    with acting(settings, NODE, api=cluster) as (made, actions):
        section = sources.pods(cluster, settings, actions)
        fixes = [one.fix for one in section.troubles if one.fix]
        assert trust(cluster.report) in fixes
        asked = made.shown(f"/fix?of={trust(cluster.report)}")
        assert "make n1, n2 trust the registry, over SSH" in asked
        assert not cluster.fixed
        assert agree(made, "fix", trust(cluster.report))[0] == 303
        wait_for(lambda: "2 nodes trust the registry; the pods run" in made.shown())
    assert cluster.fixed == [[(causes.TRUST, ("n1", "n2"))]]


def test_what_has_changed_since_the_question_is_not_done(settings: Settings, cluster: Any) -> None:
    with acting(settings, NODE, api=cluster) as (made, actions):
        sources.pods(cluster, settings, actions)
        wanted = trust(cluster.report)
        body = urlencode({"of": wanted, "token": token(made, f"/fix?of={wanted}")})
        cluster.report = report("n1", "n2", "n3")  # n3 was never agreed to
        assert agree(made, "fix", wanted, body=body)[0] == 303
        wait_for(lambda: "this cause is gone, or is another by now" in made.shown())
        sources.pods(cluster, settings, actions)
        assert agree(made, "fix", wanted, body=body)[0] == 409
    assert not cluster.fixed


def test_what_comes_up_beside_is_left_alone(settings: Settings, cluster: Any) -> None:
    """The pods land on a third node, which does not trust either: that was not agreed to."""
    cluster.after = report("n3")
    with acting(settings, NODE, api=cluster) as (made, actions):
        sources.pods(cluster, settings, actions)
        agree(made, "fix", trust(cluster.report))
        wait_for(lambda: "something else has come up, and was left alone" in made.shown())
    assert len(cluster.fixed) == 1


def test_a_command_at_work_in_this_folder_is_waited_for(settings: Settings, cluster: Any) -> None:
    with acting(settings, NODE, api=cluster) as (made, actions):
        sources.pods(cluster, settings, actions)
        with project_lock(settings.state, "inv up"):
            agree(made, "fix", trust(cluster.report))
            wait_for(lambda: not actions.under_way)
        assert "inv up (process" in actions.section().troubles[0].fault.message
    assert not cluster.fixed


@pytest.mark.parametrize("wanted", ["", "0" * 24, EVIL])
def test_a_cause_that_the_page_does_not_show_is_refused(
    settings: Settings, cluster: Any, wanted: str
) -> None:
    for api in (cluster, None):
        with acting(settings, NODE, api=api) as (made, _):
            assert made.ask(f"/fix?{urlencode({'of': wanted})}")[0] == 409


def test_a_cause_without_a_cure_of_ours_is_not_offered(settings: Settings, cluster: Any) -> None:
    words = "no space left on device"
    cluster.report = Report(tuple(diagnosis.diagnose([one(words=words)], Known(REGISTRY))), 1)
    assert not cluster.report.groups[0].fix
    with acting(settings, api=cluster) as (made, actions):
        (trouble,) = sources.pods(cluster, settings, actions).troubles
        assert not trouble.fix
        assert made.ask(f"/fix?of={key(cluster.report.groups[0])}")[0] == 409


def test_a_question_of_an_action_is_never_agreed_by_itself() -> None:
    with pytest.raises(Refused) as told:
        Voice().confirm(["delete the registry"])
    assert told.value.code == "not-confirmed"


def test_a_kubeconfig_names_the_cluster_of_the_pods_wherever_the_nodes_come_from(
    settings: Settings,
) -> None:
    named = on_nodes.ClusterChoice(False, "", "/etc/kubernetes/admin.conf", "b")
    once = on_nodes.Waves(None, None, None, False)
    nodes = on_nodes.Nodes(
        Run(settings, UI()), "node1", "", "", "", named, False, False, "", "web", once
    )
    with pytest.raises(Refused, match="go with --from-cluster"):
        nodes.chosen()
    assert [host.name for host in nodes.beside_pods().chosen()] == ["node1"]
    asked = replace(nodes, cluster=replace(named, wanted=True))
    assert asked.beside_pods() is asked  # they come from that cluster
    selected = replace(nodes, cluster=replace(named, selector="a=b"))
    with pytest.raises(Refused, match="go with --from-cluster"):
        selected.beside_pods().chosen()
