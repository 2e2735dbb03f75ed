"""What the agent in a pod tells of its Node. The API server is a stand-in: one Node."""

from __future__ import annotations

import json
import platform
import struct
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from agent.daemonset import passed
from agent.daemonset.api import NodeApi
from agent.daemonset.loop import TRUSTED, Loop, LoopOutcome, PlanWish
from agent.daemonset.surroundings import Surroundings
from agent.journal import status as standing
from agent.journal.ledger import Store
from agent.wire.report import Unproven

HERE = Surroundings("n1", "files", "moorage-system", "moorage-plan", "192.0.2.1", 443)


class _Node:
    """A stand-in for the API server: it has our Node and notes what it is told."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []

    def node(self) -> dict[str, Any]:
        return {"metadata": {"resourceVersion": "1"}, "spec": {}}

    def patch_node(self, change: dict[str, Any]) -> dict[str, Any]:
        self.told.append(change["metadata"]["annotations"])
        return {}


def test_a_node_that_was_put_right_has_a_newer_proof_than_what_failed_before() -> None:
    node = _Node()
    loop = Loop(HERE, cast(NodeApi, node))
    wish = PlanWish.of(b"{}", "apply")
    for status in ("changed", "unchanged", "unchanged"):
        loop._tell(wish, LoopOutcome(status), proven=True)
    assert len(node.told) == 1
    loop._tell(wish, LoopOutcome("changed"), proven=True)
    assert len(node.told) == 2
    assert json.loads(node.told[1][TRUSTED])


@pytest.mark.parametrize(
    ("outcome", "left"),
    [
        (LoopOutcome("changed"), {"podman"}),
        (LoopOutcome("unchanged"), {"podman"}),
        (LoopOutcome("failed"), {"containerd", "podman"}),
        (LoopOutcome("needs-full"), {"containerd", "podman"}),
        (LoopOutcome("untrusted"), {"containerd", "podman"}),
    ],
)
def test_the_kubelets_pull_is_a_proof_for_metrics_and_status_too(
    tmp_path: Path, outcome: LoopOutcome, left: set[str]
) -> None:
    """An apply without an image notes what it cannot prove, and does so no more after a proof."""
    store = Store(str(tmp_path))
    Path(store.folder).mkdir(parents=True)
    both = [Unproven(part, "nothing pulls here") for part in ("containerd", "podman")]
    standing.note_unproven(store, "r", both, anew=False)
    loop = Loop(replace(HERE, root=str(tmp_path)), cast(NodeApi, _Node()))
    loop._registry = "r"
    loop._note_the_kubelets_pull(outcome)
    standing.note_unproven(store, "r", both, anew=False)
    assert {one["part"] for one in standing._unproven(store)["r"]} == left


@pytest.mark.parametrize(("machine", "number"), [("x86_64", 62), ("aarch64", 183)])
def test_the_program_of_the_proof_is_whole_in_itself(machine: str, number: int) -> None:
    """One part of an ELF file, which begins where the program does and ends with the file."""
    content = passed.program(machine)
    kind, told, _, begins, parts = struct.unpack_from("<HHIQQ", content, 16)
    assert (content[:4], kind, told, parts) == (b"\x7fELF", 2, number, 64)
    load, flags, offset, place, _, size, memory, _ = struct.unpack_from("<IIQQQQQQ", content, 64)
    assert (load, flags, offset) == (1, 5, 0)
    assert size == memory == len(content)
    assert place + 120 == begins < place + size


def test_the_proof_ends_well_without_anything_of_its_image(tmp_path: Path) -> None:
    """It runs as it is: no interpreter, no library."""
    here = replace(HERE, proof=str(tmp_path))
    loop = Loop(here, cast(NodeApi, _Node()))
    loop._follow = lambda: None  # type: ignore[method-assign]
    loop._carry_out = lambda **_: LoopOutcome("changed")  # type: ignore[method-assign]
    loop.trust()
    program = tmp_path / passed.NAME
    assert program.stat().st_mode & 0o777 == 0o755
    assert subprocess.run([program], check=False, env={}).returncode == 0
    if platform.machine() in ("x86_64", "aarch64"):
        assert b"/bin" not in program.read_bytes()


def test_a_pod_of_an_older_manifest_has_no_folder_for_it(tmp_path: Path) -> None:
    loop = Loop(replace(HERE, proof=str(tmp_path / "none")), cast(NodeApi, _Node()))
    loop._follow = lambda: None  # type: ignore[method-assign]
    loop._carry_out = lambda **_: LoopOutcome("changed")  # type: ignore[method-assign]
    loop.trust()
    assert list(tmp_path.iterdir()) == []
