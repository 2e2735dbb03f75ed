"""How long the agent waits before it puts back again, and when it gives in."""

from __future__ import annotations

from agent.server.drift import FIGHTS, SLOWEST_RETRY, WINDOW, Patience


def test_the_first_are_put_back_at_once_and_then_ever_later() -> None:
    patience, pauses = Patience(), []
    for number in range(FIGHTS):
        pauses.append(patience.pause(float(number)))
        patience.heal(float(number))
    assert pauses == [0.0, 0.0, 4.0, 8.0, 16.0]
    assert patience.pause(float(FIGHTS)) is None


def test_what_was_put_back_long_ago_is_no_fight() -> None:
    patience = Patience()
    for number in range(FIGHTS):
        patience.heal(number * (WINDOW / 2))
        assert patience.pause(number * (WINDOW / 2)) is not None


def test_failures_are_tried_again_ever_later_and_forgotten_with_a_success() -> None:
    patience, pauses = Patience(), []
    for _ in range(10):
        patience.failed += 1
        pauses.append(patience.pause(0.0))
    assert pauses[:3] == [5.0, 10.0, 20.0]
    assert pauses[-1] == SLOWEST_RETRY
    patience.heal(0.0)
    assert patience.pause(0.0) == 0.0
