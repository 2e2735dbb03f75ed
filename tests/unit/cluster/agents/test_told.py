"""What a cluster's agents are told and answer: whose plan it is, and how long they are waited for.

A list stands in for the API server's Nodes.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from moorage.cluster.agents import states
from moorage.cluster.api import told
from moorage.cluster.api.told import APPLY, UNTRUST, Order

PLAN = Order(b"{}", APPLY)


def secret(registry: object, **more: str) -> dict[str, Any]:
    data = {told.PLAN_KEY: json.dumps({"registry": registry}), **more}
    return {"data": {key: base64.b64encode(text.encode()).decode() for key, text in data.items()}}


@pytest.mark.parametrize(
    ("registry", "named"),
    [
        ({"host": "r.example", "port": 443}, "r.example"),
        ({"host": "r.example"}, "r.example"),
        ({"host": "r.example", "port": 5000}, "r.example:5000"),
    ],
)
def test_a_plan_is_of_the_registry_that_it_names(registry: object, named: str) -> None:
    document = secret(registry, action=UNTRUST)
    found = told.of_registry(document, named)
    assert found == (base64.b64decode(document["data"][told.PLAN_KEY]), UNTRUST)
    for other in ("r.example:5001", "s.example", "r.example.org", ""):
        assert told.of_registry(document, other) is None


def test_a_plan_without_a_word_is_applied_as_the_agent_reads_it() -> None:
    found = told.of_registry(secret({"host": "r"}), "r")
    assert found is not None and found.action == APPLY
    assert told.of_registry(None, "r") is None


@pytest.mark.parametrize("document", [{"data": None}, {}, {"data": {told.PLAN_KEY: "bm8="}}])
def test_what_is_no_plan_is_nobodys(document: dict[str, Any]) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        told.of_registry(document, "r")


@dataclass
class Nodes:
    """Stands in for an API server: each look at the Nodes finds the next words of two agents."""

    words: list[tuple[str, str]]
    told: Order = PLAN
    looks: int = 0
    seen: list[tuple[int, int]] = field(default_factory=list)

    def items(self, *_words: object, **_options: object) -> Iterator[dict[str, Any]]:
        now = self.words[min(self.looks, len(self.words) - 1)]
        self.looks += 1
        for name, status in zip(("n1", "n2"), now, strict=True):
            said = {"plan": states.digest(*self.told), "status": status, "proven": True}
            metadata = {"name": name, "annotations": {states.STATUS: json.dumps(said)}}
            yield {"metadata": metadata, "status": {"nodeInfo": {"operatingSystem": "linux"}}}

    def update(self, *, done: int, total: int) -> None:
        self.seen.append((done, total))

    def wait(self, plan: Order = PLAN, seconds: float = 60, **how: Any) -> list[str]:
        heard = states.wait(self, plan, seconds, self.update, **how)  # type: ignore[arg-type]
        return [one.node.name for one in heard.left]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "_POLL", 0.0)


def test_agents_are_waited_for_until_each_has_proven_its_trust() -> None:
    nodes = Nodes([("", ""), ("trusted", ""), ("trusted", "trusted")])
    assert nodes.wait() == []
    assert nodes.seen == [(0, 2), (1, 2), (2, 2)]


def test_those_that_are_late_are_named() -> None:
    nodes = Nodes([("trusted", "")])
    assert nodes.wait(seconds=0) == ["n2"]


def test_what_agents_said_of_another_plan_or_another_word_does_not_count() -> None:
    assert Nodes([("trusted", "trusted")]).wait(Order(b"[]", APPLY), 0) == ["n1", "n2"]
    assert Nodes([("trusted", "trusted")]).wait(Order(b"{}", UNTRUST), 0) == ["n1", "n2"]


def test_a_wait_that_is_in_vain_ends_at_once() -> None:
    nodes = Nodes([("", ""), ("", "failed")])
    left = nodes.wait(is_vain=lambda left: any(one.status == states.FAILED for one in left))
    assert (left, nodes.looks) == (["n1", "n2"], 2)


def test_who_waits_says_what_is_done() -> None:
    nodes = Nodes([("trusted", "untrusted"), ("untrusted", "untrusted")])
    assert nodes.wait(is_done=lambda one: one.status == "untrusted") == []
    assert nodes.looks == 2
