"""Two nodes behind one address, told apart by SSH ports: each is asked by its own agent alone.

The agent is real. A stand-in for the SSH session leads to an agent, and tells what one asks for.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agent.wire.report import CHANGED, FAILED, UNREACHABLE, HostResult
from moorage.catalogue import usage
from moorage.errors import MoorageError, Refused
from moorage.fleet.inventory import Target
from moorage.fleet.report import FleetReport
from moorage.fleet.residents import notes, residence
from moorage.fleet.residents.invitation import Invitation
from moorage.fleet.residents.residence import Residents
from moorage.fleet.rollout.fleet import Fleet
from moorage.fleet.ssh import routing
from moorage.fleet.ssh.routes import Route
from moorage.pki.authority import Authority
from moorage.pki.roster import Resident, Roster
from moorage.program import completion
from moorage.settings import NodesSettings, Settings
from moorage.ui import UI
from tests.adopted import IDENTITY, Folder
from tests.ports import free_port
from tests.unit.elsewhere import project

HOST, AGENT_PORT = "10.0.0.1", 7443
OTHER = "2" * 32


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    config = tmp_path / "ssh_config"
    config.write_text("Host node1\n  HostName 10.0.0.1\n  Port 2201\n")
    made = project(tmp_path, nodes=NodesSettings(ssh_config=str(config)))
    Authority.open(made)
    return made


def known(settings: Settings, host: str, ssh_port: int, *, usual: bool = False) -> Resident:
    made = Resident(IDENTITY, AGENT_PORT, "1", 2_000_000_000, HOST, ssh_port, usual)
    Roster(settings).put(host, made)
    return made


def way(settings: Settings, host: str | Target) -> tuple[bool, int]:
    """Whether it is the way to an agent that was met, and its port."""
    [route] = routing.to(settings, [host], by_agents=True)
    return route.remembered, route.port


# -- which way -----------------------------------------------------------------------------------


def test_an_agent_is_remembered_for_the_port_alone_that_it_was_adopted_by(
    settings: Settings,
) -> None:
    known(settings, HOST, 2201)
    assert way(settings, f"{HOST}:2201") == (True, AGENT_PORT)
    assert way(settings, f"{HOST}:2202") == (False, 2202)
    assert way(settings, HOST) == (False, 22)
    assert way(settings, Target("a", HOST, ssh_args=("Port=2202",))) == (False, 2202)
    both = routing.to(settings, [f"{HOST}:2201", f"{HOST}:2202"], by_agents=True)
    assert [one.remembered for one in both] == [True, False]


def test_the_ssh_configuration_may_give_the_port(settings: Settings) -> None:
    known(settings, "node1", 2201, usual=True)
    assert way(settings, "node1") == (True, AGENT_PORT)
    assert way(settings, "node1:2201") == (True, AGENT_PORT)
    assert way(settings, "node1:22") == (False, 22)
    known(settings, "node1", 2201)  # by node1:2201: what node1 alone means has to be read
    assert way(settings, "node1") == (False, 2201)
    [route] = routing.ways(settings, [Target("node1", "node1")])
    assert Residents(settings).of(route) is not None


def test_a_name_alone_is_remembered_without_a_look_at_the_configuration(settings: Settings) -> None:
    known(settings, "node1", 2201, usual=True)
    Path(settings.nodes.ssh_config).write_text("Match nonsense\n")
    assert way(settings, "node1") == (True, AGENT_PORT)


def test_an_agent_of_an_earlier_build_is_asked_as_before_but_by_one_node_of_a_run(
    settings: Settings,
) -> None:
    known(settings, HOST, 0)
    assert way(settings, f"{HOST}:2202") == (True, AGENT_PORT)
    both = routing.to(settings, [f"{HOST}:2201", f"{HOST}:2202"], by_agents=True)
    assert [(one.remembered, one.port) for one in both] == [(False, 2201), (False, 2202)]
    assert [Residents(settings, routes=both).of(one) for one in both] == [None, None]
    assert Residents(settings, routes=both[:1]).of(both[0]) is not None


def test_a_roster_of_before_is_read_and_a_spoilt_one_is_refused(settings: Settings) -> None:
    known(settings, HOST, 0)
    file = settings.certs_dir / "fleet" / "nodes.json"
    document = json.loads(file.read_text())
    for name in ("ssh_port", "usual_port", "jump"):
        del document["nodes"][HOST][name]
    file.write_text(json.dumps(document))
    assert Roster(settings).residents()[HOST] == Resident(
        IDENTITY, AGENT_PORT, "1", 2_000_000_000, HOST
    )
    for change in (
        {"ssh_port": "22"},
        {"port": True},
        {"address": None},
        {"usual_port": 1},
        {"jump": 1},
    ):
        spoilt = {**document, "nodes": {HOST: document["nodes"][HOST] | change}}
        file.write_text(json.dumps(spoilt))
        with pytest.raises(Refused) as refused:
            Roster(settings).residents()
        assert refused.value.code == "roster-unreadable"


# -- visits, with a real agent -------------------------------------------------------------------


def noted(folder: Folder, **changed: Any) -> None:
    roster = Roster(folder.settings)
    roster.put("127.0.0.1", replace(roster.residents()["127.0.0.1"], **changed))


def status(folder: Folder, *targets: Target) -> FleetReport:
    nodes = replace(folder.settings.nodes, retries=0)
    settings = replace(folder.settings, nodes=nodes)
    return Fleet(settings, UI(as_json=True)).run("status", targets)


def test_the_agent_behind_one_port_answers_for_no_other(folder: Folder) -> None:
    one, two = (Target(name, "127.0.0.1", port=free_port()) for name in ("one", "two"))
    for address in ("127.0.0.1", ""):
        noted(folder, ssh_port=one.port, address=address)
        assert "resident" in status(folder, one).states["one"]
        assert status(folder, two).hosts[0].status == UNREACHABLE
        report = status(folder, one, two)
        assert [host.status == UNREACHABLE for host in report.hosts] == [False, True]
        noted(folder, ssh_port=0, address=address)
        report = status(folder, one, two)
        assert [host.status for host in report.hosts] == [UNREACHABLE] * 2


def test_where_another_agent_answers_of_two_behind_one_address_ssh_is_the_way(
    folder: Folder,
) -> None:
    """Under names of their own both have the same address, and one port leads to one alone."""
    (folder.path / "ssh_config").write_text("Host node2\n  HostName 127.0.0.1\n  Port 1\n")
    second = Resident(OTHER, folder.port, "1", 2_000_000_000, "127.0.0.1", 1, usual_port=True)
    Roster(folder.settings).put("node2", second)
    fault = status(folder, Target("node2", "node2")).hosts[0].error
    assert fault is not None
    assert fault.code == "not-our-agent"  # nothing else is known that could answer there
    noted(folder, address="127.0.0.1", ssh_port=folder.port)
    fault = status(folder, Target("node2", "node2")).hosts[0].error
    assert fault is not None
    assert fault.code == "refused"  # no sshd is there; it was the way
    both = status(folder, folder.target, Target("node2", "node2"))
    assert [host.status == UNREACHABLE for host in both.hosts] == [False, True]


def test_a_session_says_which_port_an_agent_of_an_earlier_build_is_behind(folder: Folder) -> None:
    residents = Residents(folder.settings)
    residents.reached(folder.route)
    found = Roster(folder.settings).residents()["127.0.0.1"]
    assert (found.ssh_port, found.usual_port, found.address) == (folder.port, False, "127.0.0.1")


# -- adoption ------------------------------------------------------------------------------------


class Transport:
    """Stands in for an SSH session's: its channels lead to this port here."""

    def __init__(self, port: int) -> None:
        self.port = port

    def open_channel(self, *_words: object, **_options: object) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 5)


class Visit:
    """On a node whose agent has this id, and answers at ``port`` there."""

    def __init__(self, settings: Settings, word: str | Target, identity: str, port: int) -> None:
        [self.route] = routing.to(settings, [word])
        self.identity = identity
        self.session: Any = type("Session", (), {"transport": Transport(port)})()
        self.told: list[dict[str, Any]] = []
        self.done: list[str] = []

    def tell(self, event: dict[str, Any]) -> None:
        self.told.append(event)

    def errand(self, words: tuple[str, ...], reply: Callable[[Any], bytes | None]) -> HostResult:
        self.done.append(words[0])
        answer = reply(request(self.identity))
        assert answer is not None
        return HostResult(self.route.name, FAILED if answer == b"\n" else CHANGED)


def request(identity: str) -> dict[str, Any]:
    """An agent's wish to stay, with a key of its own."""
    key = ec.generate_private_key(ec.SECP256R1())
    asked = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    made = asked.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    return {"event": "request", "id": identity, "request": made.decode(), "time": time.time()}


def adopt(settings: Settings, visit: Any, **more: Any) -> HostResult:
    return residence.adopt(settings, visit, port=AGENT_PORT, loopback=False, **more)


def invited(settings: Settings, visit: Visit, first: Route | None = None) -> bytes | None:
    """The answer to the wish at the end of a trust."""
    invitation = Invitation(
        Authority.open(settings), Roster(settings), visit.route, visit.session, AGENT_PORT,
        visit.tell, lambda _: "", first,
    )  # fmt: skip
    answer = invitation.reply(request(visit.identity))
    if answer != b"\n":
        invitation.hear({"event": "stays", "error": None})
    return answer


def test_an_adoption_notes_the_port_that_ssh_took(settings: Settings) -> None:
    for word, host, port, usual in (
        (f"{HOST}:2201", HOST, 2201, False), ("node1", "node1", 2201, True),
        ("10.0.0.9", "10.0.0.9", 22, True), ("10.0.0.8:22", "10.0.0.8", 22, False),
    ):  # fmt: skip
        for again in (adopt, invited):
            assert again(settings, Visit(settings, word, "", free_port())) is not None
            found = Roster(settings).residents()[host]
            assert (found.ssh_port, found.usual_port) == (port, usual)


def test_the_agent_of_a_second_node_behind_one_address_takes_nobodys_place(
    settings: Settings,
) -> None:
    before = known(settings, HOST, 2201)
    visit = Visit(settings, f"{HOST}:2202", OTHER, free_port())
    with pytest.raises(Refused) as refused:
        adopt(settings, visit)
    problem = refused.value
    assert (problem.code, problem.fault.host) == ("another-nodes", f"{HOST}:2202")
    assert f"{HOST} is the name of the node behind its SSH port 2201" in problem.message
    assert f"inv nodes.forget --hosts={HOST}:2201 first" in problem.cure
    assert invited(settings, visit) == b"\n"
    assert "the agent does not stay here: 10.0.0.1 is the name of" in visit.told[-1]["message"]
    assert Roster(settings).residents() == {HOST: before}
    assert adopt(settings, Visit(settings, f"{HOST}:2201", OTHER, free_port())).ok


def test_of_two_that_are_adopted_in_one_run_the_first_stays(settings: Settings) -> None:
    words = [f"{HOST}:2201", f"{HOST}:2202"]
    routes = routing.to(settings, words)
    residents = Residents(settings, adopting=True, routes=routes)
    firsts = [residents.first(route) for route in routes]
    assert [first.port for first in firsts] == [2201, 2201]
    second = Visit(settings, words[1], OTHER, free_port())
    with pytest.raises(Refused) as refused:  # whichever of them comes first in time
        adopt(settings, second, first=firsts[1])
    assert refused.value.code == "another-nodes"
    assert invited(settings, second, firsts[1]) == b"\n"
    assert invited(settings, Visit(settings, words[0], IDENTITY, 1), firsts[0]) != b"\n"
    assert Roster(settings).residents()[HOST].ssh_port == 2201


def test_the_same_agent_behind_another_port_of_its_node_is_known_by_its_answer(
    folder: Folder,
) -> None:
    """A node may ask for any id: what counts is who answers in the session."""
    settings, word = folder.settings, f"127.0.0.1:{free_port()}"
    for deed in (adopt, invited):
        noted(folder, ssh_port=folder.port)
        liar = Visit(settings, word, IDENTITY, free_port())
        if deed is invited:
            assert invited(settings, liar) == b"\n"
            assert "does not stay" in liar.told[-1]["message"]
        else:
            with pytest.raises(Refused, match="is the name of the node behind"):
                adopt(settings, liar)
        assert Roster(settings).residents()["127.0.0.1"].ssh_port == folder.port
        visit = Visit(settings, word, IDENTITY, folder.port)
        assert deed(settings, visit) is not None
        found = Roster(settings).residents()["127.0.0.1"]
        assert (found.id, found.ssh_port) == (IDENTITY, visit.route.port)
    noted(folder, ssh_port=22, usual_port=True)
    invited(settings, Visit(settings, word, IDENTITY, folder.port))
    assert Roster(settings).residents()["127.0.0.1"].ssh_port == 22  # the name alone leads there


# -- who asks them all ---------------------------------------------------------------------------


def test_both_nodes_are_asked_what_images_they_use(settings: Settings) -> None:
    known(settings, HOST, 2201)
    for named, found in (
        ((), [f"{HOST}:2201"]),
        ((f"{HOST}:2202",), [f"{HOST}:2202", f"{HOST}:2201"]),
        ((f"{HOST}:2201", f"{HOST}:2202"), [f"{HOST}:2201", f"{HOST}:2202"]),
    ):
        hosts = replace(settings, nodes=replace(settings.nodes, hosts=named))
        assert [one.name for one in usage._nodes(hosts)] == found
    assert routing.to(settings, usage._nodes(settings))[0].port == 2201


def test_a_host_is_completed_with_the_port_that_leads_to_its_agent(settings: Settings) -> None:
    known(settings, HOST, 2201)
    known(settings, "fd00::3", 23)
    known(settings, "node1", 2201, usual=True)
    known(settings, "old", 0)
    assert completion._hosts(settings) == [f"{HOST}:2201", "[fd00::3]:23", "node1", "old"]


# -- taken away ----------------------------------------------------------------------------------


def test_what_is_done_about_one_node_leaves_the_agent_of_the_other(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = known(settings, HOST, 2201)
    fleet = Fleet(settings, UI(as_json=True))
    assert fleet.forget([f"{HOST}:2202", HOST], offline=True) == {
        f"{HOST}:2202": "no-agent", HOST: "no-agent",
    }  # fmt: skip
    visit: Any = Visit(settings, f"{HOST}:2202", OTHER, 1)
    monkeypatch.setattr(Visit, "errand", lambda *_: HostResult("x", CHANGED))
    assert residence.release(settings, visit).ok
    upgraded = residence.upgrade(Residents(settings), visit)
    assert upgraded.error is not None
    assert upgraded.error.code == "no-agent"
    assert Roster(settings).residents() == {HOST: before}
    results = [HostResult(f"{HOST}:{port}", CHANGED) for port in (2201, 2202)]
    hosts = [one.host for one in results]
    assert f"stays on {HOST}:2201;" in notes.reminder(settings, hosts, results)
    assert f"would stay on {HOST}:2202," in notes.foretold(settings, hosts, results)
    [first] = routing.to(settings, [f"{HOST}:2201"])
    assert residence.release(settings, replace_route(visit, first)).ok
    assert Roster(settings).residents() == {}
    known(settings, HOST, 2201)
    assert fleet.forget([f"{HOST}:2201"], offline=True) == {f"{HOST}:2201": "left-alone"}


def replace_route(visit: Any, route: Route) -> Any:
    visit.route = route
    return visit


def test_a_configuration_that_cannot_be_used_keeps_no_agent_from_being_forgotten(
    settings: Settings,
) -> None:
    known(settings, "node1", 2201, usual=True)
    Path(settings.nodes.ssh_config).write_text("Match nonsense\n")
    fleet = Fleet(settings, UI(as_json=True))
    with pytest.raises(MoorageError):
        routing.to(settings, ["node1"])
    assert fleet.forget(["node1"], offline=True) == {"node1": "left-alone"}
