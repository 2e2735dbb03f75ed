"""The rotation of a CA, decided: killed at every instruction, no node is ever cut off."""

from __future__ import annotations

import datetime
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moorage.errors import Refused
from moorage.fleet.inventory import Target
from moorage.fleet.report.trusting import HostStanding
from moorage.pki.succession import Heir
from moorage.rotation import addresses, course, joining, kept, rotation
from moorage.rotation.course import Member, MemberOutcome, State
from tests.unit.elsewhere import project

WAY = json.dumps(asdict(Target("a", "a")))
BEGAN = "2026-11-28T12:00:00+00:00"


class Killed(BaseException):
    """As SIGKILL: nothing is cleaned up."""


@dataclass
class World:
    """A stand-in for front, files and nodes: what each holds. ``lives``: instructions until death.

    A node that is in ``away`` is not reached, one in ``broken`` takes nothing, one in ``mute``
    takes what it is given and does not pull.
    """

    trust: dict[str, frozenset[str]]
    bridged: bool = False
    away: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    mute: set[str] = field(default_factory=set)
    lives: float = float("inf")
    handed: frozenset[str] = frozenset({"old"})
    served: str = "old"
    vouches: bool = False
    proved: set[str] = field(default_factory=set)
    disk: State | None = None
    failed: list[str] = field(default_factory=list)
    # A node "late" is trusted after so many instructions; -1 for none.
    late: int = -1
    done: int = 0

    def act(self, change: Callable[[], object]) -> None:
        """One instruction; everybody pulls after it."""
        if self.lives <= 0:
            raise Killed
        self.lives -= 1
        change()
        self.done += 1
        if self.done == self.late:
            self.trust["late"] = self.handed
        self.failed += [name for name in self.trust if not self.pulls(name)]

    def pulls(self, name: str) -> bool:
        held = self.trust[name]
        return self.served in held or (self.vouches and "old" in held)

    def keep(self, state: State) -> None:
        self.act(lambda: setattr(self, "disk", state))

    def make(self) -> Heir:
        self.act(lambda: setattr(self, "handed", frozenset({"old", "new"})))
        return Heir("N", self.bridged)

    def serve(self) -> None:
        self.act(lambda: setattr(self, "vouches", self.bridged))
        self.act(lambda: setattr(self, "served", "new"))

    def narrow(self) -> None:
        self.act(lambda: setattr(self, "handed", frozenset({"new"})))
        self.act(lambda: setattr(self, "vouches", False))

    def withdraw(self) -> None:
        self.act(lambda: setattr(self, "handed", frozenset({"old"})))

    def look(self, state: State) -> State:
        """Whoever was trusted meanwhile, by what was handed out at that moment."""
        return joining.joined(state, [Member(name) for name in self.trust])

    def visit(self, deed: str, members: Sequence[Member]) -> Mapping[str, MemberOutcome]:
        told = {}
        for one in members:
            if one.name in self.away | self.broken:
                told[one.name] = MemberOutcome(False, one.name in self.away, "no")
                continue
            self.act(lambda name=one.name: self.trust.update({name: self.handed}))  # type: ignore[misc]
            if deed == course.PULL and one.name in self.mute:
                told[one.name] = MemberOutcome(False, why="no")
                continue
            if deed == course.PULL:
                assert "new" in self.trust[one.name]
                self.act(lambda name=one.name: self.proved.add(name))  # type: ignore[misc]
            told[one.name] = MemberOutcome(True)
        return told

    def run(self, state: State) -> State:
        return rotation.carry_on(state, self, self.keep)


def world(names: Sequence[str] = ("a", "b"), **how: object) -> World:
    return World({name: frozenset({"old"}) for name in names}, **how)  # type: ignore[arg-type]


def begun(names: Sequence[str] = ("a", "b")) -> State:
    return State(members=tuple(map(Member, names)))


def steps_of(made: World, state: State) -> int:
    """The instructions of a run that nothing ends."""
    counted = replace(made, trust=dict(made.trust), proved=set(), failed=[], lives=10**6, late=-1)
    counted.run(state)
    return 10**6 - int(counted.lives)


def test_a_rotation_ends_with_the_new_ca_alone_and_nobody_was_cut_off() -> None:
    here = world()
    assert here.run(begun()).phase == course.DONE
    assert (here.served, here.handed) == ("new", frozenset({"new"}))
    assert set(here.trust.values()) == {frozenset({"new"})}
    assert (here.proved, here.failed) == ({"a", "b"}, [])


@pytest.mark.parametrize("bridged", [False, True])
def test_a_death_at_any_instruction_is_gone_on_from(bridged: bool) -> None:
    for lives in range(steps_of(world(bridged=bridged), begun())):
        here = world(bridged=bridged, lives=lives)
        with pytest.raises(Killed):
            here.run(begun())
        here.lives = float("inf")
        if here.disk is None:
            continue  # nothing was begun
        assert here.run(here.disk).phase == course.DONE, lives
        assert set(here.trust.values()) == {frozenset({"new"})}, lives
        assert (here.proved, here.failed) == ({"a", "b"}, []), lives


@pytest.mark.parametrize("back", [False, True])
def test_what_is_to_come_is_what_a_run_from_any_instruction_does(back: bool) -> None:
    """Of one that goes on, and of one that goes back."""
    compared = set()
    for lives in range(1, steps_of(world(), begun())):
        here = world(lives=lives)
        with pytest.raises(Killed):
            here.run(begun())
        here.lives = float("inf")
        state = here.disk or begun()
        if back and not state.may_abort:
            continue
        state = course.aborted(state) if back else state
        did: list[course.RotationStep] = []
        rotation.carry_on(state, here, here.keep, did.append)
        assert course.to_come(state) == tuple(did), (lives, state)
        compared.add(tuple(did))
    assert len(compared) > (1 if back else 4)


@pytest.mark.parametrize("bridged", [False, True])
def test_a_node_that_is_trusted_meanwhile_follows_too(bridged: bool) -> None:
    """At any instruction, beside a death at any other: it is never cut off, and ends as others."""
    total, followed = steps_of(world(bridged=bridged), begun()), 0
    for late, lives in itertools.product(range(1, total), (3, 7, 12, 99)):
        here = world(bridged=bridged, late=late, lives=lives)
        try:
            state = here.run(begun())
        except Killed:
            here.lives = float("inf")
            state = here.run(here.disk or begun())
        assert (state.phase, here.failed) == (course.DONE, [])
        # After the last look there is the new CA alone, and it is given that.
        assert here.trust["late"] == frozenset({"new"}), (late, lives)
        followed += "late" in {one.name for one in state.members}
    assert followed > total


def test_an_untrusted_node_is_not_gone_to_and_an_undone_one_has_the_old_ca() -> None:
    began = "2026-11-28T12:00:00+00:00"
    noon = datetime.datetime.fromisoformat(began).timestamp()
    members = tuple(Member(name, holds=course.BOTH, proved=True) for name in "abcd")
    state = State(course.PROVE, "N", members=members, began=began)
    target = Target("x", "x")
    after = joining.left(state, {
        "a": HostStanding(target, 0, "untrust", noon + 5),
        "b": HostStanding(target, 1, "undo", noon + 5),
        "c": HostStanding(target, 1, "trust", noon + 5),
        "d": HostStanding(target, 0, "untrust", noon - 5),
    })  # fmt: skip
    assert [(one.name, one.holds, one.proved) for one in after.members] == [
        ("b", course.OLD, False), ("c", course.BOTH, True), ("d", course.BOTH, True),
    ]  # fmt: skip
    assert joining.left(after, {}) == after


def test_sixty_four_nodes_killed_over_and_over() -> None:
    """Every run dies after 9 instructions more than the one before; each goes on from the disk."""
    names = [f"n{number:02}" for number in range(64)]
    here, state, deaths = world(names), begun(names), 0
    while True:
        here.lives = 9 + deaths * 9
        try:
            assert here.run(here.disk or state).phase == course.DONE
            break
        except Killed:
            deaths += 1
    assert deaths >= 10
    assert (here.failed, len(here.proved)) == ([], 64)
    assert set(here.trust.values()) == {frozenset({"new"})}


def test_aborted_at_any_instruction_before_the_switch_the_old_ca_is_left_alone() -> None:
    total, aborted = steps_of(world(), begun()), 0
    for lives, second in itertools.product(range(1, total), (0, 1, 2, 3, 99)):
        here = world(lives=lives)
        with pytest.raises(Killed):
            here.run(begun())
        assert here.disk is not None
        if not here.disk.may_abort:
            with pytest.raises(Refused) as refused:
                rotation.give_up(here.disk)
            assert refused.value.code == "rotation-switched"
            continue
        aborted += 1
        here.lives = second
        try:
            here.run(rotation.give_up(here.disk))
        except Killed:
            here.lives = 99
            state = here.run(rotation.give_up(here.disk))
            assert course.blockers(state) == ()
        assert here.served == "old"
        assert here.handed == frozenset({"old"})
        assert set(here.trust.values()) == {frozenset({"old"})}, (lives, second)
        assert here.failed == []
    assert aborted > 10


def test_a_node_that_is_away_blocks_the_switch_if_it_could_not_pull_after_it() -> None:
    here = world(away={"b"})
    state = here.run(begun())
    assert (state.phase, [one.name for one in course.blockers(state)]) == (course.PROVE, ["b"])
    assert (here.served, here.proved) == ("old", {"a"})
    here.away = set()
    assert here.run(state).phase == course.DONE
    assert here.failed == []


def test_a_node_that_is_away_blocks_the_drop_alone_if_the_old_ca_vouches_for_the_new() -> None:
    here = world(bridged=True, away={"b"})
    state = here.run(begun())
    assert (state.phase, [one.name for one in course.blockers(state)]) == (course.DROP, ["b"])
    assert (here.served, here.handed) == ("new", frozenset({"old", "new"}))
    assert here.trust["b"] == frozenset({"old"})
    assert here.failed == []
    here.away = set()
    assert here.run(state).phase == course.DONE
    assert (here.proved, here.failed) == ({"a", "b"}, [])


@pytest.mark.parametrize("how", ["broken", "mute"])
def test_a_node_that_was_reached_and_has_not_pulled_blocks_the_switch(how: str) -> None:
    here = world(bridged=True)
    setattr(here, how, {"b"})
    state = here.run(begun())
    assert (state.phase, here.served) == (course.PROVE, "old")
    assert [one.why for one in course.blockers(state)] == ["no"]


@pytest.mark.parametrize("bridged", [False, True])
def test_a_node_that_is_let_go_is_not_waited_for(bridged: bool) -> None:
    here = world(bridged=bridged, away={"b"})
    state = rotation.let_go(here.run(begun()), ["b"])
    assert here.run(state).phase == course.DONE
    assert here.trust["a"] == frozenset({"new"})
    assert set(here.failed) <= {"b"}


def test_a_member_that_nobody_knows_cannot_be_let_go() -> None:
    with pytest.raises(Refused) as refused:
        rotation.let_go(begun(), ["c"])
    assert (refused.value.code, "a, b" in refused.value.cause) == ("no-such-member", True)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_dies_and_whoever_is_away_no_pull_fails(data: st.DataObject) -> None:
    names = ["a", "b", "c"]
    here = world(names, bridged=data.draw(st.booleans()))
    state = begun(names)
    for _ in range(data.draw(st.integers(1, 12))):
        here.away = data.draw(st.sets(st.sampled_from(names)))
        here.broken = data.draw(st.sets(st.sampled_from(names))) - here.away
        here.lives = data.draw(st.integers(0, 25))
        try:
            here.run(here.disk or state)
        except Killed:
            continue
    here.away, here.broken, here.lives = set(), set(), float("inf")
    assert here.run(here.disk or state).phase == course.DONE
    assert here.failed == []
    assert set(here.trust.values()) == {frozenset({"new"})}
    assert here.proved == set(names)


# -- kept ----------------------------------------------------------------------------------------


def test_a_rotation_under_way_is_not_begun_twice(tmp_path: Path) -> None:
    here = project(tmp_path)
    kept.write(here, State(members=(Member("a", way=WAY),)))
    with pytest.raises(Refused) as refused:
        rotation.refuse_under_way(here)
    assert (refused.value.code, "--resume" in refused.value.cure) == ("rotation-under-way", True)


def test_this_machines_addresses_are_read_from_the_kernels_tables() -> None:
    four = (
        "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n"
        "        |-- 10.0.0.0\n           /24 link UNICAST\n        |-- 10.0.0.7\n"
        "           /32 host LOCAL\n        |-- 10.0.0.255\n           /32 link BROADCAST\n"
    )
    six = (
        "fd000000000000000000000000000002 02 40 00 80     eth0\n"
        "fe800000000000000042acfffe110002 02 40 20 80     eth0\n"
    )
    assert addresses.four(four) == ["10.0.0.7"]
    assert addresses.six(six) == ["fd00::2"]
    assert addresses.four(Path("/proc/net/fib_trie").read_text()).count("127.0.0.1") == 1
    assert addresses.four("") == []


def test_who_is_found_twice_comes_once() -> None:
    """Two runs of nodes.trust that both go to node9, and --hosts=node9 beside them."""
    node9, port = Target("node9", "node9"), Target("node9:23", "node9", port=23)
    hosts = (node9, node9, replace(node9, name="root@node9", user="root"), port)
    found = [Member(one.name, way=json.dumps(asdict(one))) for one in hosts]
    assert [one.name for one in joining.joined(State(), found).members] == ["node9", "node9:23"]
