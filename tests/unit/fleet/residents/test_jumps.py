"""Two nodes of one private address behind two jump hosts, told apart as an inventory names these.

The agent is real. A stand-in for the SSH session leads to it (test_ports.py).
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.wire.report import CHANGED, HostResult
from moorage.catalogue import usage
from moorage.errors import MoorageError, Refused
from moorage.fleet.inventory import Target, ansible
from moorage.fleet.residents import residence
from moorage.fleet.residents.residence import Residents
from moorage.fleet.rollout.fleet import Fleet
from moorage.fleet.ssh import routing
from moorage.pki.authority import Authority
from moorage.pki.roster import NO_JUMP, Resident, Roster
from moorage.rotation import members
from moorage.settings import NodesSettings, Settings
from moorage.ui import UI
from tests.adopted import IDENTITY, Folder
from tests.ports import free_port
from tests.unit.elsewhere import project
from tests.unit.fleet.residents.test_ports import AGENT_PORT, OTHER, Visit, adopt, invited

HOST = "10.0.0.5"
ONE = Target("web1", HOST, ssh_args=("ProxyJump=bastion1",))
TWO = Target("web2", HOST, ssh_args=("IdentityFile=x", "ProxyJump=bastion2"))
BARE = Target(HOST, HOST)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    config = tmp_path / "ssh_config"
    config.write_text("")
    made = project(tmp_path, nodes=NodesSettings(ssh_config=str(config)))
    Authority.open(made)
    return made


def known(settings: Settings, jump: str, address: str = "") -> Resident:
    made = Resident(
        IDENTITY, AGENT_PORT, "1", 2_000_000_000, address, 22, usual_port=True, jump=jump
    )
    Roster(settings).put(HOST, made)
    return made


def visit(settings: Settings, target: Target, identity: str = "", port: int = 0) -> Visit:
    return Visit(settings, target, identity, port or free_port())


def of(settings: Settings, *targets: Target) -> list[bool]:
    """Whether each counts as the node of the agent that is known."""
    routes = routing.to(settings, targets)
    return [Residents(settings, routes=routes).of(route) is not None for route in routes]


def test_the_jump_host_of_an_inventory_is_read(tmp_path: Path) -> None:
    file = tmp_path / "hosts.ini"
    file.write_text(
        f"web1 ansible_host={HOST} ansible_ssh_common_args='-J bastion1'\n"
        f"web2 ansible_host={HOST} ansible_ssh_common_args='-o ProxyCommand=\"ssh -W %h:%p b\"'\n"
        f"web3 ansible_host={HOST} ansible_port=23\n"
    )
    hosts = ansible.read_ini(file.read_text(), str(file)).hosts
    assert [one.jump for one in hosts] == ["ProxyJump=bastion1", "ProxyCommand=ssh -W %h:%p b", ""]


@pytest.mark.parametrize(
    ("option", "jump"),
    [
        ("proxyjump=bastion1", "ProxyJump=bastion1"),
        ("ProxyJump bastion1", "ProxyJump=bastion1"),
        (" ProxyJump = bastion1", "ProxyJump=bastion1"),
        ("PROXYCOMMAND  ssh -W %h:%p b ", "ProxyCommand=ssh -W %h:%p b"),
        ("ProxyUseFdpass=yes", ""),
    ],
)
def test_a_jump_host_is_the_same_in_each_spelling_that_ssh_takes(option: str, jump: str) -> None:
    assert Target("web1", HOST, ssh_args=("Port=22", option)).jump == jump


def test_the_agent_of_a_second_node_behind_another_jump_host_takes_nobodys_place(
    settings: Settings,
) -> None:
    assert adopt(settings, visit(settings, ONE)).ok
    before = Roster(settings).residents()
    assert before[HOST].jump == "ProxyJump=bastion1"
    second = visit(settings, TWO, OTHER)
    with pytest.raises(Refused) as refused:
        adopt(settings, second)
    problem = refused.value
    assert (problem.code, problem.fault.host) == ("another-nodes", "web2")
    assert f"{HOST} is the name of the node that is reached by ProxyJump=bastion1" in str(problem)
    assert "the one that is reached by ProxyJump=bastion2 is another node's" in problem.cause
    assert "(Host, HostName, ProxyJump)" in problem.cure
    assert f"inv nodes.forget --hosts={HOST} first" in problem.cure
    assert invited(settings, second) == b"\n"
    assert "the agent does not stay here: " in second.told[-1]["message"]
    assert Roster(settings).residents() == before
    assert adopt(settings, visit(settings, ONE, OTHER)).ok  # that very node, set up anew


@pytest.mark.parametrize(("first", "second"), [(ONE, BARE), (BARE, ONE)])
def test_one_that_is_reached_without_a_jump_host_is_another_node_too(
    settings: Settings, first: Target, second: Target
) -> None:
    assert adopt(settings, visit(settings, first)).ok
    before = Roster(settings).residents()
    with pytest.raises(Refused) as refused:
        adopt(settings, visit(settings, second, OTHER))
    assert "for which no inventory names a jump host" in f"{refused.value} {refused.value.cause}"
    assert Roster(settings).residents() == before


def test_of_two_that_are_adopted_in_one_run_the_first_stays(settings: Settings) -> None:
    routes = routing.to(settings, [ONE, TWO])
    residents = Residents(settings, adopting=True, routes=routes)
    firsts = [residents.first(route) for route in routes]
    assert [first.target.jump for first in firsts] == ["ProxyJump=bastion1"] * 2
    with pytest.raises(Refused) as refused:  # whichever of them comes first in time
        adopt(settings, visit(settings, TWO, OTHER), first=firsts[1])
    assert refused.value.code == "another-nodes"
    assert adopt(settings, visit(settings, ONE), first=firsts[0]).ok


def test_an_agent_is_that_of_the_node_behind_its_own_jump_host(settings: Settings) -> None:
    known(settings, "ProxyJump=bastion1")
    assert of(settings, ONE, TWO) == [True, False]
    assert (of(settings, TWO), of(settings, BARE)) == ([False], [True])
    known(settings, NO_JUMP)
    assert of(settings, BARE, TWO) == [True, False]
    assert of(settings, ONE) == [True]  # the agent itself says whether it is


def test_a_straight_way_leads_to_no_node_behind_a_jump_host(settings: Settings) -> None:
    for jump in ("", NO_JUMP):
        known(settings, jump, address=HOST)
        found = routing.to(settings, [ONE, BARE], by_agents=True)
        assert [(one.remembered, bool(one.jumps)) for one in found] == [
            (False, True),
            (True, False),
        ]


def test_an_agent_of_an_earlier_build_is_asked_as_before_but_by_one_node_of_a_run(
    settings: Settings,
) -> None:
    known(settings, "")
    assert (of(settings, ONE), of(settings, TWO)) == ([True], [True])
    assert of(settings, ONE, TWO) == [False, False]
    file = settings.certs_dir / "fleet" / "nodes.json"
    document = json.loads(file.read_text())
    del document["nodes"][HOST]["jump"]
    file.write_text(json.dumps(document))
    assert Roster(settings).residents()[HOST].jump == ""
    [route] = routing.to(settings, [ONE])
    Residents(settings, routes=[route]).reached(route)
    assert Roster(settings).residents()[HOST].jump == "ProxyJump=bastion1"


def test_the_same_agent_by_another_way_is_known_by_its_answer(folder: Folder) -> None:
    settings = folder.settings
    host = "127.0.0.1"
    roster = Roster(settings)
    for deed in (adopt, invited):
        roster.put(host, Resident(**{**vars(roster.residents()[host]), "ssh_port": 22,
                                     "jump": "ProxyJump=bastion1"}))  # fmt: skip
        for port, stays in ((free_port(), False), (folder.port, True)):
            way = Target("web1", host, ssh_args=("ProxyJump=bastion9",))
            at = visit(settings, way, IDENTITY, port)
            if stays:
                assert deed(settings, at) is not None
            elif deed is invited:
                assert invited(settings, at) == b"\n"
            else:
                with pytest.raises(Refused, match="is the name of the node"):
                    adopt(settings, at)
            jump = roster.residents()[host].jump
            assert jump == f"ProxyJump=bastion{9 if stays else 1}"


def test_a_host_by_its_name_alone_keeps_what_an_inventory_said(folder: Folder) -> None:
    roster, host = Roster(folder.settings), "127.0.0.1"
    before = Resident(**{**vars(roster.residents()[host]), "ssh_port": 22,
                         "jump": "ProxyJump=bastion1"})  # fmt: skip
    roster.put(host, before)
    assert adopt(folder.settings, visit(folder.settings, Target(host, host), IDENTITY, folder.port))
    assert roster.residents()[host].jump == "ProxyJump=bastion1"


def test_what_is_done_about_one_node_leaves_the_agent_of_the_other(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = known(settings, "ProxyJump=bastion1")
    fleet = Fleet(settings, UI(as_json=True))
    assert fleet.forget([TWO], offline=True) == {"web2": "no-agent"}
    monkeypatch.setattr(Visit, "errand", lambda *_: HostResult("x", CHANGED))
    second: Any = visit(settings, TWO)
    assert residence.release(settings, second).ok
    assert Roster(settings).residents() == {HOST: before}
    first: Any = visit(settings, ONE)
    assert residence.release(settings, first).ok
    assert Roster(settings).residents() == {}
    known(settings, "ProxyJump=bastion1")
    assert fleet.forget([HOST], offline=True) == {HOST: "left-alone"}


def test_who_asks_all_agents_goes_by_the_jump_host(settings: Settings) -> None:
    known(settings, "ProxyJump=bastion1")
    [found] = usage._nodes(settings)
    assert found.jump == "ProxyJump=bastion1"
    [route] = routing.to(settings, [found])
    assert [one.hostname for one in route.jumps] == ["bastion1"]


def test_a_rotation_follows_the_agent_of_the_other_node_as_well(settings: Settings) -> None:
    resident = known(settings, "ProxyJump=bastion1")
    assert not members._is_among(HOST, resident, {HOST: {(0, TWO.jump)}})
    assert members._is_among(HOST, resident, {HOST: {(0, ONE.jump)}})
    assert members._is_among(HOST, resident, {HOST: {(0, "")}})


# -- by a way that names another jump host, or none ----------------------------------------------


def test_of_several_the_one_without_a_jump_host_is_not_that_behind_one(
    settings: Settings,
) -> None:
    known(settings, "ProxyJump=bastion1")
    assert of(settings, ONE, BARE) == [True, False]
    assert of(settings, TWO, BARE) == [False, False]


@pytest.mark.parametrize(("jump", "way"), [(NO_JUMP, ONE), (ONE.jump, BARE)])
def test_another_agent_by_another_way_is_that_of_another_node(
    folder: Folder, jump: str, way: Target
) -> None:
    """It has a name of its own in the SSH configuration."""
    settings, here = folder.settings, replace(way, host="127.0.0.1")
    roster = Roster(settings)
    own = replace(roster.residents()["127.0.0.1"], ssh_port=22, jump=jump)
    roster.put("127.0.0.1", replace(own, id=OTHER))
    roster.put("web1-of-two", own)
    at: Any = visit(settings, here, IDENTITY, folder.port)
    residents = Residents(settings, routes=[at.route])
    assert residents.open(at.route, at.session) is None
    assert residents.open(at.route) is None
    assert residence.upgrade(residents, at).error is not None
    assert at.done == []  # it is no agent of that name
    roster.put("127.0.0.1", replace(own, id=OTHER, jump=here.jump or NO_JUMP))
    with pytest.raises(MoorageError, match="is not the agent that was adopted there"):
        Residents(settings).open(at.route, at.session)


@pytest.mark.parametrize(("jump", "way"), [(NO_JUMP, ONE), (ONE.jump, BARE)])
def test_an_agent_that_is_released_by_another_way_is_known_by_its_answer(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, jump: str, way: Target
) -> None:
    settings, host = folder.settings, "127.0.0.1"
    roster, here = Roster(settings), replace(way, host=host)
    before = replace(roster.residents()[host], ssh_port=22, jump=jump)
    roster.put(host, before)
    monkeypatch.setattr(Visit, "errand", lambda *_: HostResult("x", CHANGED))
    elsewhere: Any = visit(settings, here)
    assert residence.release(settings, elsewhere).ok
    assert roster.residents() == {host: before}
    there: Any = visit(settings, here, port=folder.port)
    assert residence.release(settings, there).ok
    assert roster.residents() == {}


def test_where_an_address_is_another_nodes_now_the_jump_host_is_the_way(folder: Folder) -> None:
    """It was met straight from within its network, and this machine has left that."""
    host, settings = "127.0.0.1", folder.settings
    roster, far = Roster(settings), Target("web1", host, ssh_args=("ProxyJump=localhost:1",))
    own = replace(roster.residents()[host], id=OTHER, ssh_port=22, usual_port=True)
    roster.put(host, replace(own, jump=far.jump, address=host))
    nodes = replace(settings.nodes, retries=0)
    fleet = Fleet(replace(settings, nodes=nodes), UI(as_json=True))
    fault = fleet.run("status", [far]).hosts[0].error
    assert fault is not None
    assert fault.code != "not-our-agent"  # no sshd is there; it was the way
