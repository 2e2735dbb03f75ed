"""The file of a rotation: what is kept is read again, and whatever else it says is refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moorage.errors import Refused
from moorage.fleet.inventory import Target
from moorage.fleet.inventory.targets import parse
from moorage.rotation import course, joining, kept, members, rotation, telling
from moorage.rotation.course import Member, State
from tests.unit.elsewhere import project

BEGAN = "2026-11-28T12:00:00+00:00"


def way(word: str, **more: Any) -> str:
    return json.dumps(asdict(replace(parse(word), **more)))


STATE = State(
    course.DROP, "N", True, False,
    (
        Member("a", way=way("root@a:22", ssh_args=("ProxyJump=b",), ssh_config="/tmp/\udce4")),
        Member("[fd00::3]:23", holds=course.BOTH, way=way("[fd00::3]:23"), why="no\nroute"),
        Member(members.HERE, course.MACHINE, proved=True),
        Member("cluster/x", course.CLUSTER, way="https://x:6443", touched=True),
    ),
    frozenset(("a", "b")), BEGAN,
)  # fmt: skip


def test_what_is_kept_is_read_again_and_a_rotation_that_is_done_leaves_nothing(
    tmp_path: Path,
) -> None:
    here = project(tmp_path)
    assert kept.read(here) is None
    for state in (STATE, State(), State(course.ABORT, began=BEGAN)):
        kept.write(here, state)
        assert kept.read(here) == state
    assert kept.path(here).stat().st_mode & 0o777 == 0o600
    kept.write(here, replace(STATE, phase=course.DONE))
    assert not kept.path(here).exists()
    with pytest.raises(Refused) as refused:
        rotation.under_way(here)
    assert refused.value.code == "no-rotation"


def document() -> dict[str, Any]:
    made = {"version": 1, **asdict(STATE), "without": sorted(STATE.without)}
    return dict(json.loads(json.dumps(made)))


def refusal(folder: Path, content: object) -> str:
    """The code of the refusal of this content, "" for none."""
    here = project(folder)
    here.state.mkdir(exist_ok=True)
    kept.path(here).write_text(content if isinstance(content, str) else json.dumps(content))
    try:
        kept.read(here)
    except Refused as problem:
        assert str(kept.path(here)) in problem.message
        assert problem.cause
        return problem.code
    return ""


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"version": 2}', '{"version": 1, "members": 3}', "null", '"x"', "1",
     "[" * 100_000, '{"a":' * 100_000, "NaN", '{"version": 1e999}'],
)  # fmt: skip
def test_a_state_that_is_none_is_refused_in_a_sentence(tmp_path: Path, text: str) -> None:
    assert refusal(tmp_path, text) == "rotation-unreadable"


@pytest.mark.parametrize(
    "change",
    [
        {"began": "yesterday"}, {"began": 3}, {"phase": "x"}, {"phase": "done"}, {"phase": ""},
        {"bridged": 1}, {"new": ""}, {"new": None}, {"without": "ab"}, {"without": [3]},
        {"narrowed": "no"}, {"more": 1}, {"members": {}}, {"version": 2},
        {"began": "0001-01-01"},
    ],
)  # fmt: skip
def test_a_word_of_a_state_that_means_nothing_is_refused(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    assert refusal(tmp_path, document()) == ""
    assert refusal(tmp_path, document() | change) == "rotation-unreadable"


@pytest.mark.parametrize(
    "change",
    [
        {"way": ""}, {"way": "x"}, {"way": "3"}, {"way": "{}"}, {"way": 3}, {"way": None},
        {"holds": "x"}, {"kind": "x"}, {"kind": None}, {"name": ""}, {"name": "\ud800"},
        {"name": ["a"]}, {"proved": 0}, {"absent": "no"}, {"touched": None}, {"why": 3}, {"x": 1},
    ],
)  # fmt: skip
def test_a_word_of_a_member_that_means_nothing_is_refused(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    changed = document()
    changed["members"][0] |= change
    assert refusal(tmp_path, changed) == "rotation-unreadable"


@pytest.mark.parametrize(
    "change",
    [
        {"host": 3}, {"host": ""}, {"host": "\ud800"}, {"name": "\udce4"}, {"user": "\udce4"},
        {"host": "-oProxyCommand=x"}, {"host": "a\0"}, {"host": "a b"},
        {"name": 3}, {"name": ""}, {"user": "-l"}, {"user": None}, {"port": "22"}, {"port": True},
        {"port": -1}, {"port": 65536}, {"port": 22.0}, {"ssh_args": "Port=1"}, {"ssh_args": [1]},
        {"ssh_args": 1}, {"ssh_args": ["a\0"]}, {"ssh_config": 1}, {"x": 1},
    ],
)  # fmt: skip
def test_a_way_that_leads_nowhere_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    changed = document()
    changed["members"][0]["way"] = json.dumps({**asdict(Target("a", "a")), **change})
    assert refusal(tmp_path, changed) == "rotation-unreadable"


WORDS = (*course.PHASES, course.OLD, course.NEW, course.NODE, BEGAN, "\ud800", way("a"))
ONE = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
ANY = st.recursive(
    ONE | st.sampled_from(WORDS),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=5,
)


def places(node: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield above
    if isinstance(node, dict | list):
        for key, one in node.items() if isinstance(node, dict) else enumerate(node):
            yield from places(one, (*above, key))


def put(into: Any, place: tuple[Any, ...], value: object) -> Any:
    if not place:
        return value
    into[place[0]] = put(into[place[0]], place[1:], value)
    return into


def with_ways_open() -> dict[str, Any]:
    made = document()
    for one in made["members"]:
        if one["kind"] == course.NODE:
            one["way"] = json.loads(one["way"])
    return made


OPEN = with_ways_open()


@settings(
    max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.sampled_from(list(places(OPEN))), value=ANY, closed=st.booleans())
def test_any_json_in_any_place_is_read_or_refused(
    tmp_path: Path, place: tuple[Any, ...], value: object, closed: bool
) -> None:
    """And what is read can be worked with."""
    changed = put(copy.deepcopy(OPEN), place, value)
    if closed:
        those = changed.get("members") if isinstance(changed, dict) else ()
        for one in those if isinstance(those, list) else ():
            if isinstance(one, dict) and isinstance(one.get("way"), dict | list):
                one["way"] = json.dumps(one["way"])
    if refusal(tmp_path, json.dumps(changed)):
        return
    state = kept.read(project(tmp_path))
    assert state is not None
    assert list(telling.standing(state))
    course.to_come(state)
    joined = joining.joined(joining.left(state, {}), [Member("new", way=way("new"))])
    for one in joined.members:
        f"{one.name}{one.why}".encode()
        if one.kind == course.NODE:
            assert members.target(one).host.encode()
    kept.write(project(tmp_path), state)
    assert kept.read(project(tmp_path)) == state
