"""What the rotation of a CA says: what it will do, what it does, and where it stands. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from moorage.fleet.report import announcement
from moorage.output import Line, Parts, Table
from moorage.rotation import course

if TYPE_CHECKING:
    from moorage.rotation.course import Member, RotationStep, State

_DEEDS = {
    course.MAKE: "make a new CA, handed out beside the old one from now on",
    course.HAND_OUT: "hand out both CAs",
    course.PULL: "have everybody pull under the new CA",
    course.SERVE: "serve a certificate of the new CA; no connection is closed",
    course.NARROW: "hand out the new CA alone from now on",
    course.TAKE: "take the old CA away",
    course.WITHDRAW: "hand out the old CA alone again",
    course.GIVE_BACK: "take the new CA away",
    course.FINISH: "end the rotation",
}
_HOLDS = {course.OLD: "the old CA", course.BOTH: "both", course.NEW: "the new CA"}
_LISTED = 20  # members; of more, their numbers


def plan(registry: str, state: State, steps: Sequence[RotationStep]) -> list[str]:
    """What a run will do, a sentence fragment each: one that begins, in the words of the whole, any
    other by what is left (:func:`moorage.rotation.course.to_come`)."""
    if state.new or state.phase != course.BOTH:
        return [step(one) for one in steps]
    names = [one.name for one in state.members]
    who = announcement.named(names) if names else "nobody: no node was named"
    return [
        f"make a new CA of {registry} and hand it out beside the old one to {who}",
        "have each of them pull under the new CA, which the front shows to them alone",
        "serve a certificate of the new CA once they all have; no connection is closed",
        "take the old CA away once nobody needs it; no runtime is restarted",
    ]


def step(one: RotationStep) -> str:
    """A deed that begins."""
    whom = f": {announcement.named(one.members)}" if one.members else ""
    return f"{_DEEDS[one.deed]}{whom}"


def standing(state: State, at_work: str = "") -> Parts:
    """The table of members, or of their numbers if they are many, and what keeps it back.

    ``at_work``: the command that is at work in this folder now; the table is of this instant then.
    """
    yield from _numbers(state) if len(state.members) > _LISTED else _members(state)
    yield Line(f"Phase: {state.phase}.")
    blocking = course.blockers(state)
    if at_work:
        yield Line(f"At work in this folder now: {at_work}.")
    elif blocking:
        names = announcement.named([one.name for one in blocking])
        yield Line(f"It waits for {names}. inv certs.rotate-ca --resume goes on with it;")
        yield Line(f"--without={blocking[0].name} does not wait for that one.")


def _members(state: State) -> Iterator[Table]:
    rows = [_row(one, state) for one in state.members]
    yield Table(("who", "holds", "pulled under the new CA", "why not"), rows)


def _row(one: Member, state: State) -> list[str]:
    away = "absent: " if one.absent else ""
    free = " (not waited for)" if one.name in state.without else ""
    return [one.name, _HOLDS[one.holds], "yes" if one.proved else "no", f"{away}{one.why}{free}"]


def _numbers(state: State) -> Iterator[Line | Table]:
    counted = Counter((one.holds, one.proved, one.absent) for one in state.members)
    rows = [
        [str(number), _HOLDS[holds], "yes" if proved else "no", "absent" if absent else ""]
        for (holds, proved, absent), number in counted.items()
    ]
    yield Table(("how many", "hold", "pulled under the new CA", ""), rows)
    for one in course.blockers(state):
        yield Line(f"{one.name}: {one.why or 'not visited yet'}")
