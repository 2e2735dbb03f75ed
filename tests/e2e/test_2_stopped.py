"""Stopped anywhere in the middle, `inv up` and `inv down` work again."""

from __future__ import annotations

import signal

import pytest

from tests.e2e.machine import Machine, good, ours, start, stop_at

# After the line that names a phase, and a while into it: ten places in all.
PLACES = (
    ("[1/8]", 0.0),
    ("[2/8]", 0.0),
    ("[3/8]", 0.0),
    ("[3/8]", 0.5),
    ("[4/8]", 0.1),
    ("[5/8]", 0.2),
    ("[6/8]", 0.5),
    ("[6/8]", 2.0),
    ("[7/8]", 0.5),
    ("[7/8]", 1.5),
)


@pytest.mark.parametrize(("words", "delay"), PLACES)
def test_up_after_a_kill_ends_well(words: str, delay: float, machine: Machine) -> None:
    stop_at(start("up", "--yes"), words, delay, signal.SIGKILL)
    answer = good("up", "--yes")
    assert all(host["verified"] for host in answer.hosts.values())
    assert good("up", "--yes").document["changed"] is False
    good("down")
    assert Machine.look() == machine


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_down_after_a_polite_stop_leaves_nothing(number: int, machine: Machine) -> None:
    stop_at(start("up", "--yes"), "[7/8]", 0.5, number)
    good("down")
    assert Machine.look() == machine


@pytest.mark.parametrize("delay", [0.0, 1.0])
def test_down_after_a_killed_down_leaves_nothing(delay: float, machine: Machine) -> None:
    good("up", "--yes", INVOKE_LAB_NODES="1.7")
    stop_at(start("down"), "[2/5]", delay, signal.SIGKILL)
    good("down")
    assert Machine.look() == machine
    assert good("up", "--yes", INVOKE_LAB_NODES="1.7").hosts["lab1"]["verified"] is True
    good("down")
    assert ours() == []
