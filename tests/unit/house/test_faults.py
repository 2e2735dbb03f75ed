"""A fault is one thing: told and raised by both sides, and copied by hand by neither."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.wire.faults import AgentError, Failure, Fault, TrustError
from agent.wire.report import FAILED, HostResult, ResultEvent, event_to_json
from moorage.errors import MoorageError, Refused

ROOT = Path(__file__).parents[3]
FULL = Fault("a-code", "it failed", "why", "do this", "node1", "/etc/x")
BARE = Fault("a-code", "it failed", "why", "do this")


@pytest.mark.parametrize("kind", [AgentError, TrustError, MoorageError, Refused])
def test_either_side_raises_a_fault_as_it_is(kind: type[Failure]) -> None:
    raised = kind.of(FULL)
    assert (type(raised), raised.fault, str(raised)) == (kind, FULL, "it failed")
    assert kind.of(BARE, host="node2").fault == replace(BARE, host="node2")
    assert kind.of(FULL, host="node2").host == "node1", "the nearest to the failure knows best"


def test_where_is_told_if_it_is_known_and_else_not_at_all() -> None:
    bare = {"code": "a-code", "message": "it failed", "cause": "why", "cure": "do this"}
    assert BARE.to_json() == bare
    assert MoorageError.of(FULL).to_json() == {**bare, "host": "node1", "path": "/etc/x"}
    event = event_to_json(ResultEvent(HostResult("node1", FAILED, error=BARE)))
    assert event["error"] == bare, "an operator's side of an earlier release takes no other key"


def test_a_result_with_a_place_in_it_comes_back_as_it_was() -> None:
    result = HostResult("node1", FAILED, error=FULL)
    assert HostResult.from_json(result.to_json()) == result


def test_another_cure_leaves_the_rest() -> None:
    problem = Refused.of(FULL)
    problem.with_cure("do that")
    assert (problem.cure, problem.cause, problem.path) == ("do that", "why", "/etc/x")


def copied_by_hand(source: str) -> Iterator[int]:
    """The lines where a fault's cause and cure are handed on one by one."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            words = [*node.args, *(one.value for one in node.keywords)]
            of = {
                name: {ast.unparse(one.value) for one in words
                       if isinstance(one, ast.Attribute) and one.attr == name}
                for name in ("cause", "cure", "code")
            }  # fmt: skip
            if of["cause"] & of["cure"] & of["code"]:
                yield node.lineno


def test_no_fault_is_copied_by_hand() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for top in ("agent", "moorage", "lab")
        for path in sorted((ROOT / top).rglob("*.py"))
        for line in copied_by_hand(path.read_text())
    ]
    assert [place.split(":")[0] for place in found] == ["agent/wire/faults.py"], found


def test_a_copy_by_hand_is_seen() -> None:
    assert list(copied_by_hand("X(p.code, f'{p}', cause=p.cause, cure=p.cure)"))
    assert not list(copied_by_hand("X(p.code, p.message, cause=p.cause, cure='else')"))
