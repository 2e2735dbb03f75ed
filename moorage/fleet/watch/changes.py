"""What has changed on a node from one look to the next, in a few words each. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from moorage.fleet.state.host import Ours, Standing
from moorage.output.ages import DAY


@dataclass(frozen=True)
class NodeChange:
    """``kind`` is for programs: out-of-reach, back, drifted, put-back, stopped, failing, settled,
    interrupted, trusts, applied, pulled, waits, restarted, agent, renewed."""

    kind: str
    message: str


def changes(
    before: Standing | None, after: Standing, own: Ours, answered: Standing | None = None
) -> tuple[NodeChange, ...]:
    """From ``before`` to ``after``; ``answered`` is the last that was no fault.

    ``before`` is None at the first look: then only what is not as it should be is told. What has
    happened while a node was out of reach is told when it is back.
    """
    if after.fault is not None:
        if before is not None and before.fault == after.fault:
            return ()
        return (NodeChange("out-of-reach", f"out of reach: {after.fault.message}"),)
    lost = before is not None and before.fault is not None
    back = (NodeChange("back", "answers again"),) if lost else ()
    was = (answered if lost else before) or _right(after)
    return (*back, *_drift(was, after), *_operations(was, after), *_agent(was, after, own))


def settled(now: Standing, answered: Standing | None) -> Standing:
    """``now``, whose files no status judges while an agent is at work on the node, with what had
    drifted when it last answered (``answered``)."""
    if not now.busy or now.fault is not None or answered is None:
        return now
    return replace(now, drifted=answered.drifted)


def _right(after: Standing) -> Standing:
    """The node as it would be if nothing were wrong with it, and nothing had happened."""
    calm = None if after.resident is None else replace(after.resident, drift="watching", error="")
    return replace(after, drifted=(), interrupted="", waiting=(), resident=calm)


def _drift(before: Standing, after: Standing) -> Iterator[NodeChange]:
    healed = _healed(after)
    if healed > _healed(before) or (0 < healed < _healed(before)):
        assert after.resident is not None  # noqa: S101 - it has healed something
        files = ", ".join(after.resident.last_files)
        yield NodeChange("put-back", f"drifted: {files} put back ({healed})")
    for path, state in after.drifted:
        if (path, state) not in before.drifted:
            yield NodeChange("drifted", f"drifted: {path} {state}")
    was, now = _state(before), _state(after)
    if now != was and now == "stopped":
        yield NodeChange("stopped", "stopped putting back: it is undone again and again")
    elif now == "failing" and (was != "failing" or _error(before) != _error(after)):
        yield NodeChange("failing", f"cannot put back: {_error(after)}")
    if after.interrupted and after.interrupted != before.interrupted:
        yield NodeChange("interrupted", f"an {after.interrupted} was cut off: inv nodes.recover")
    if after.good and not before.good:
        yield NodeChange("settled", "in order again")


def _operations(before: Standing, after: Standing) -> Iterator[NodeChange]:
    if after.trusts != before.trusts:
        yield NodeChange("trusts", f"trusts {', '.join(after.trusts) or 'no registry of ours'}")
    if after.applied != before.applied and after.applied is not None:
        yield NodeChange("applied", f"applied at {_clock(after.applied)}")
    if after.pulled != before.pulled and after.pull_seconds is not None:
        yield NodeChange("pulled", f"pulled in {after.pull_seconds:.1f} s")
    for unit in after.waiting:
        if unit not in before.waiting:
            yield NodeChange("waits", f"a restart of {unit} waits")
    for unit in before.waiting:
        if unit not in after.waiting:
            yield NodeChange("restarted", f"{unit} has been restarted")


def _agent(before: Standing, after: Standing, own: Ours) -> Iterator[NodeChange]:
    was, now = before.resident, after.resident
    if was is None and now is not None:
        yield NodeChange("agent", f"an agent stays here now ({after.agent_words(own)})")
    elif was is not None and now is None:
        yield NodeChange("agent", "no resident agent answers: it is asked over SSH")
    elif was is not None and now is not None:
        if was.digest != now.digest:
            yield NodeChange("agent", f"another agent runs: {after.agent_words(own)}")
        if was.ends != now.ends:
            days = (now.ends - time.time()) / DAY
            yield NodeChange("renewed", f"the agent's certificate was renewed: {days:.0f} d")


def _healed(one: Standing) -> int:
    return 0 if one.resident is None else one.resident.healed


def _state(one: Standing) -> str:
    return "" if one.resident is None else one.resident.drift


def _error(one: Standing) -> str:
    return "" if one.resident is None else one.resident.error


def _clock(when: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(when))
