"""The lab's cluster for tests: brought up by `inv lab.up --kubernetes`, asked as a user would.

    with cluster.running() as lab:
        lab.kubectl("get", "nodes")

Where it was up before, it is left up.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.kubernetes import kubeconfig_path
from moorage.settings import Settings
from tests.e2e import machine

NODES = "1.6,1.7"
# As lab.prefix has it, so that two checkouts on one machine can run these at the same time.
PREFIX = os.environ.get("INVOKE_LAB_PREFIX", "lab")
LAB1, LAB2 = f"{PREFIX}1", f"{PREFIX}2"
CONTROL = f"moorage-{PREFIX}-control"


@dataclass(frozen=True)
class LabCluster:
    """A cluster that serves. ``nodes`` are Ready; ``document`` is what `inv` said of it."""

    kubeconfig: Path
    nodes: tuple[str, ...]
    version: str
    document: dict[str, Any]
    program: str

    def kubectl(self, *words: str, stdin: str | None = None, check: bool = True) -> str:
        """What `kubectl WORDS` says on stdout. Raises AssertionError with its stderr."""
        done = self.try_kubectl(*words, stdin=stdin)
        assert done.returncode == 0 or not check, f"kubectl {' '.join(words)}: {done.stderr}"
        return done.stdout

    def try_kubectl(
        self, *words: str, stdin: str | None = None, kubeconfig: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.program, "--kubeconfig", str(kubeconfig or self.kubeconfig), *words],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def get(self, *words: str) -> Any:
        """The parsed answer of `kubectl get WORDS`."""
        return json.loads(self.kubectl("get", *words, "-o", "json"))


def up(nodes: str = NODES) -> LabCluster:
    """Brings it up (again), without a question."""
    answer = machine.good("lab.up", "--kubernetes", f"--nodes={nodes}", "--yes")
    told = answer.document["kubernetes"]
    program = told["kubectl"] or shutil.which("kubectl")
    assert program, "these binaries have no kubectl, and there is none on PATH"
    return LabCluster(
        kubeconfig=Path(told["kubeconfig"]),
        nodes=tuple(told["nodes"]),
        version=told["version"],
        document=answer.document,
        program=program,
    )


@contextmanager
def running(nodes: str = NODES) -> Iterator[LabCluster]:
    """One that is up for the length of a block."""
    stood = kubeconfig_path(Settings()).exists()
    try:
        yield up(nodes)
    finally:
        if not stood:
            machine.good("lab.down")


def on_node(node: str, *argv: str, check: bool = True) -> str:
    """What a command says inside the container of a lab node or of the control plane."""
    name = node if node.startswith("moorage-") else f"moorage-{node}"
    return container(name, argv, check=check)


def container(name: str, argv: Sequence[str], *, check: bool = True) -> str:
    done = subprocess.run(
        ["docker", "exec", name, *argv], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0 or not check, f"{name}: {' '.join(argv)}: {done.stderr}"
    return done.stdout
