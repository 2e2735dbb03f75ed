"""Nodes are trusted while the login that they pull with gets other passwords, at a real front.

The nodes are stood in for: each pulls by the login of the plan that it was sent, some time later.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.wire.faults import Fault
from agent.wire.plan import Plan
from agent.wire.report import CHANGED, FAILED, HostResult
from moorage.archive import AgentArchive
from moorage.cluster.agents import rotation
from moorage.fleet.rollout import on_host
from moorage.fleet.rollout.fleet import Fleet
from moorage.fleet.rollout.operation import Wish
from moorage.fleet.rollout.rollout import HostLine
from moorage.fleet.ssh.routes import Route
from moorage.registry import handed, spec
from moorage.registry.logins import users
from moorage.registry.logins.credentials import Credentials
from moorage.ui import UI
from tests.loopback import Loopback, loopback
from tests.unit.elsewhere import registry_project


@pytest.fixture
def front(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Loopback]:
    with loopback(registry_project(tmp_path_factory.mktemp("r"))) as made:
        monkeypatch.setattr(spec, "ETC", made.etc)
        handed.made(made.settings, [users.NODES])
        yield made


class Nodes:
    """Stand-ins. ``meanwhile``: what happens between the plan and the pull, by the host's name."""

    def __init__(self, front: Loopback) -> None:
        self.front = front
        self.visits: list[str] = []

    def meanwhile(self, name: str) -> None:
        time.sleep(random.Random(name).random() * 0.4)  # noqa: S311

    def work(self, means: on_host.HostMeans, route: Route, line: HostLine) -> HostResult:
        verify = Plan.parse(means.plan("192.0.2.1").body).verify
        assert verify is not None
        self.visits.append(route.name)
        self.meanwhile(route.name)
        login = Credentials(verify.username or "", verify.password or "")
        if self.front.ask("GET", "/v2/", login)[0] == 200:
            return HostResult(route.name, CHANGED, verified=True)
        fault = Fault("login-refused", "401", "its login", "inv nodes.trust")
        return HostResult(route.name, FAILED, verified=False, error=fault)


@pytest.fixture
def nodes(front: Loopback, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Nodes:
    made = Nodes(front)
    monkeypatch.setattr(on_host, "_by_ssh", made.work)
    archive = AgentArchive(tmp_path / "agent.pyz", "0" * 64)
    for kind in ("errand_archive", "quick_archive"):
        monkeypatch.setattr(f"moorage.archive.{kind}", lambda _: archive)
    return made


def rotate(front: Loopback) -> None:
    names = rotation.due(front.settings)
    done = rotation.rotate(front.settings, UI(as_json=True), None, names, 5)
    assert [one.why for one in done] == [""]


def test_a_trust_beside_a_rotation_of_the_login_meets_no_401(
    front: Loopback, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends between the plan of one node and its pull, and amid those of others."""
    names = [f"n{number}" for number in range(40)]
    due, slow = threading.Event(), nodes.meanwhile

    def rotating() -> None:
        assert due.wait(60)
        rotate(front)

    other = threading.Thread(target=rotating)

    def meanwhile(name: str) -> None:
        slow(name)
        if name == "n20":
            due.set()
            other.join()

    monkeypatch.setattr(nodes, "meanwhile", meanwhile)
    other.start()
    report = Fleet(front.settings, UI(as_json=True)).run("trust", names, Wish())
    assert [one.host for one in report.hosts if not one.ok] == []
    assert nodes.visits.count("n20") == 2  # it was sent the password before, and gone to again


def test_a_login_that_is_refused_and_still_the_newest_is_not_tried_again(
    front: Loopback, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "meanwhile", lambda _: None)
    monkeypatch.setattr(front, "ask", lambda *_: (401, {}, b""))
    report = Fleet(front.settings, UI(as_json=True)).run("trust", ["a"], Wish())
    assert [one.error and one.error.code for one in report.hosts] == ["login-refused"]
    assert nodes.visits == ["a"]
