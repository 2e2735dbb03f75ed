"""Two registries on one node by the real engine: its notes, its status, and its way back."""

from __future__ import annotations

import itertools
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from agent.engine.carrying import carry_out
from agent.journal import transaction
from agent.journal.desired import plans
from agent.journal.ledger import Store
from agent.wire.verbs import named
from tests.agent.conftest import Box
from tests.agent.test_runtimes import K3S, lay_out
from tests.agent.test_transaction import at, in_a_child, kill

PARTS: dict[str, Any] = {"parts": ["hosts", "k3s"], "verify": None}
ONE: dict[str, Any] = {**PARTS, "registry": {"address": "10.0.0.1"}}
ANEW: dict[str, Any] = {**PARTS, "registry": {"address": "10.0.0.7", "names": ["c.registry.io"]}}
TWO: dict[str, Any] = {
    **PARTS, "registry": {"host": "two.registry.io", "port": 5000, "address": "10.0.0.2"},
}  # fmt: skip
THREE: dict[str, Any] = {
    **PARTS, "registry": {"host": "three.registry.io", "address": "10.0.0.3"},
}  # fmt: skip
BESIDE: dict[str, Any] = {**PARTS, "registry": {"port": 5000}}


@pytest.fixture
def node(box: Box) -> Box:
    return lay_out(box, "k3s")


def carried(node: Box, verb: str, plan: dict[str, Any], **options: Any) -> dict[str, Any]:
    """An operation as the agent's command carries it out, with what the node is held to."""
    document = node.plan(**{**plan, **({"options": options} if options else {})})
    return node.run(carry_out(node.engine(), Store(str(node.root)), named(verb), document))


def held(node: Box) -> list[str]:
    return [one.registry.name for one in plans(Store(str(node.root)))]


def states(node: Box) -> dict[str, set[str]]:
    """Registry -> how its files are."""
    events = node.run(node.engine().status())["events"]
    told = next(event for event in events if event["event"] == "status")
    return {one["registry"]: {file["state"] for file in one["files"]} for one in told["trusted"]}


def test_each_is_told_as_left_whatever_is_done_for_the_other(node: Box) -> None:
    files, folders = node.files(), node.folders()
    first, two = {"my.registry.io": {"as-left"}}, {"two.registry.io:5000": {"as-left"}}
    both = {**first, **two}
    for verb, plan, told in (
        ("apply", ONE, first), ("apply", TWO, both), ("apply", ANEW, both), ("undo", ONE, both),
        ("untrust", ONE, two), ("apply", ONE, both), ("undo", ONE, two),
    ):  # fmt: skip
        assert carried(node, verb, plan)["status"] == "changed"
        assert states(node) == told
        assert carried(node, "diff", TWO)["status"] == ("differs" if told == first else "unchanged")
    assert carried(node, "undo", TWO)["status"] == "changed"
    assert (node.files(), node.folders()) == (files, folders)


def test_a_node_is_held_to_the_plan_of_each(node: Box) -> None:
    carried(node, "apply", ONE)
    carried(node, "apply", TWO)
    carried(node, "apply", ANEW)
    assert held(node) == ["my.registry.io", "two.registry.io:5000"]
    carried(node, "undo", ONE, run="r1")
    assert held(node) == ["two.registry.io:5000"]
    carried(node, "apply", ONE)  # which finds everything as it shall be, and is kept all the same
    assert carried(node, "undo", ONE, run="r1")["status"] == "unchanged"
    assert held(node) == ["my.registry.io", "two.registry.io:5000"]
    assert carried(node, "undo", THREE)["status"] == "unchanged"
    assert carried(node, "untrust", TWO)["status"] == "changed"
    assert held(node) == ["my.registry.io"]


@pytest.mark.parametrize("operation", ["untrust", "undo"])
def test_an_undo_with_nothing_to_take_back_leaves_what_the_node_is_held_to(
    node: Box, operation: str
) -> None:
    node.write("/etc/hosts", b"10.0.0.1 my.registry.io\n")
    plan = {**ONE, "parts": ["hosts"]}
    assert carried(node, "apply", plan)["status"] == "unchanged"
    assert carried(node, operation, plan)["status"] == "unchanged"
    assert held(node) == (["my.registry.io"] if operation == "undo" else [])


@pytest.mark.parametrize("order", [*itertools.permutations([ONE, TWO, THREE])][:3])
def test_three_go_in_any_order(node: Box, order: tuple[dict[str, Any], ...]) -> None:
    node.write("/etc/hosts", b"127.0.0.1\tlocalhost")
    files, folders = node.files(), node.folders()
    for plan in (ONE, TWO, THREE):
        node.apply(**plan)
    left = list(order)
    while left:
        assert node.untrust(**left.pop())["status"] == "changed"
        for plan in left:
            assert node.apply(**plan)["status"] == "unchanged"
        assert set().union(*states(node).values()) <= {"as-left"}
    assert (node.files(), node.folders()) == (files, folders)


def test_of_two_on_one_host_each_has_a_line(node: Box) -> None:
    before = node.read("/etc/hosts") or b""
    node.apply(**ONE)
    beside = {**BESIDE, "registry": {**BESIDE["registry"], "address": "10.0.0.1"}}
    node.apply(**beside)
    ours = b"10.0.0.1\tmy.registry.io # moorage\n"
    named_line = b"10.0.0.1\tmy.registry.io # moorage my.registry.io:5000\n"
    assert node.read("/etc/hosts") == before + ours + named_line
    node.untrust(**ONE)
    assert node.read("/etc/hosts") == before + named_line
    assert node.apply(**beside)["status"] == "unchanged"
    node.untrust(**beside)
    assert node.read("/etc/hosts") == before


@pytest.mark.parametrize("replace", [False, True])
def test_two_on_one_host_at_two_addresses_are_refused(node: Box, replace: bool) -> None:
    node.apply(**ONE)
    files = node.files()
    elsewhere = {**BESIDE, "registry": {**BESIDE["registry"], "address": "10.0.0.9"}}
    result = node.apply(**elsewhere, options={"replace": replace})
    assert (result["code"], node.files()) == ("hosts-conflict", files)
    assert "another registry" in result["error"]["cause"]
    assert "--replace" not in result["error"]["cure"]


def test_a_second_mirror_of_one_registry_is_refused_and_the_first_stays(box: Box) -> None:
    node = box.with_containerd()
    mirrors = {"parts": ["containerd"], "mirrors": [{"of": "docker.io"}], "verify": None}
    node.apply(**{**ONE, **mirrors})
    files = node.files()
    result = node.apply(**{**TWO, **mirrors})
    assert (result["code"], result["changes"], node.files()) == ("mirror-foreign", [], files)
    assert states(node) == {"my.registry.io": {"as-left"}}


@pytest.mark.parametrize("operation", ["apply", "untrust", "undo"])
def test_killed_at_any_step_both_are_as_before_or_as_after(
    node: Box, operation: str, tmp_path: Path
) -> None:
    start = node.files()
    plan = ANEW if operation == "apply" else ONE
    for one in (ONE, TWO, ANEW) if operation == "undo" else (ONE, TWO):
        node.apply(**one)
    old = node.files()
    shutil.copytree(node.root, tmp_path / "old")
    names: list[str] = []
    transaction.on_step = names.append
    assert carried(node, operation, plan)["status"] == "changed"
    transaction.on_step = lambda name: None
    new = node.files()
    for number in range(0, len(names), 4):
        shutil.rmtree(node.root)
        shutil.copytree(tmp_path / "old", node.root)

        def run(number: int = number) -> None:
            transaction.on_step = at(number, kill)
            carried(node, operation, plan)

        assert in_a_child(run) == signal.SIGKILL
        node.run(node.engine().recover())
        assert node.files() in (old, new), names[number]
        assert states(node)["two.registry.io:5000"] == {"as-left"}, names[number]
        assert node.apply(**TWO)["status"] == "unchanged", names[number]
    for one in (ONE, TWO):
        node.untrust(**one)
    assert node.files() == start
    assert node.read(K3S) is None
