"""Waves: every host in exactly one, the canary alone in the first, and a stop in time."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.errors import Refused
from moorage.fleet.report.waves import Policy, schedule


def sizes(policy: Policy, hosts: int) -> list[int]:
    return [wave.end - wave.start for wave in schedule(policy, hosts).waves]


def test_a_few_hosts_are_one_wave_and_no_failure_stops_the_others() -> None:
    few = schedule(Policy(), 8)
    assert sizes(Policy(), 8) == [8]
    assert few.verdict(few.waves[0], 7, 7) == ""


def test_many_hosts_begin_with_a_canary_and_grow() -> None:
    many = schedule(Policy(), 301)
    assert sizes(Policy(), 301) == [1, 30, 120, 150]
    assert [wave.title for wave in many.waves] == [
        "canary",
        "wave 2 of 4",
        "wave 3 of 4",
        "wave 4 of 4",
    ]


def test_a_failed_canary_stops_and_so_do_too_many_failures() -> None:
    many = schedule(Policy(), 100)
    assert many.verdict(many.waves[0], 1, 1) == "the canary failed"
    assert many.verdict(many.waves[1], 9, 10) == ""
    assert many.verdict(many.waves[1], 10, 11) == "11 hosts failed, 10 may"


@pytest.mark.parametrize(
    ("policy", "hosts", "expected"),
    [
        (Policy(canary=0, waves="100%"), 20, [20]),
        (Policy(canary=2, waves="5,50%,100%"), 22, [2, 5, 5, 10]),
        (Policy(waves="50%,100%"), 4, [2, 2]),
        (Policy(canary=3), 3, [3]),
        (Policy(waves="1%,2%,100%"), 12, [1, 1, 10]),
        (Policy(max_failures="0"), 4, [4]),
    ],
)
def test_the_user_may_say_how(policy: Policy, hosts: int, expected: list[int]) -> None:
    assert sizes(policy, hosts) == expected


@pytest.mark.parametrize(
    "policy",
    [
        Policy(waves="10%,50%"),
        Policy(waves="50%,10%,100%"),
        Policy(waves="10%,10%,100%"),
        Policy(waves="0%,100%"),
        Policy(waves="120%,100%"),
        Policy(waves="a,100%"),
        Policy(waves="50%,3,100%"),
        Policy(waves=""),
        Policy(canary=-1),
        Policy(canary=99),
        Policy(max_failures="many"),
        Policy(max_failures="101%"),
    ],
)
def test_words_that_make_no_rollout_are_refused(policy: Policy) -> None:
    with pytest.raises(Refused) as refusal:
        schedule(policy, 20)
    assert refusal.value.code == "bad-waves"
    assert refusal.value.cure


@given(
    st.integers(1, 5000),
    st.none() | st.integers(0, 20),
    st.none() | st.lists(st.integers(1, 99), max_size=4, unique=True).map(sorted),
)
def test_every_host_is_in_exactly_one_wave(
    hosts: int, canary: int | None, shares: list[int] | None
) -> None:
    waves = None if shares is None else ",".join(f"{share}%" for share in [*shares, 100])
    canary = None if canary is None else min(canary, hosts)
    found = schedule(Policy(canary, waves), hosts).waves
    assert found[0].start == 0
    assert found[-1].end == hosts
    for one, other in itertools.pairwise(found):
        assert one.end == other.start
        assert one.start < one.end
