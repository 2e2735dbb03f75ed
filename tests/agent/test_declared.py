"""A runtime is one file: a made-up one, dropped into a copy of the agent, is at work everywhere."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.agent.authority import Authority

ROOT = Path(__file__).parents[2]
# What the recipe of docs/architecture.md writes by itself ("To add a runtime").
GENERATED = {"wire/runtimes/declared.py", "wire/plan.schema.json", "wire/plan_check.py"}

MADE_UP = '''"""Wharf: a runtime that nobody has. Its folder has a file a registry."""

from __future__ import annotations

from collections.abc import Sequence

from agent.edit.change import Change, Ledger, Owned, change
from agent.facts import Facts
from agent.formats.proposal import Explained, Proof, Proposal, unit_of
from agent.wire.plan import Plan, Registry
from agent.wire.runtimes.declaration import IMAGE, Declaration, Kind

RUNTIME = Declaration(
    "wharf",
    kinds=(Kind("wharf", ("wharfd",), ("wharf.service",), daemon="wharfd", client="wharfctl"),),
    kubelet=True,
    readers=("wharf-early.service",),
    writes=("/srv/wharf",),
    containerds=("/run/wharf/",),
    proves="wharfctl",
    by_hand="wharfctl fetch",
    certificates="/etc/wharf",
)
PART = RUNTIME.name


def propose(facts: Facts, plan: Plan, owned: Ledger) -> Proposal:
    file = facts.tree.read(f"/etc/wharf/{plan.registry.name}.crt")
    changes = tuple(change(PART, file, plan.registry.ca_bytes))
    return Proposal(changes, restarts(facts, changes))


def explain(facts: Facts, plan: Plan) -> tuple[Explained, ...]:
    return (Explained(PART, "folder", PART in facts.others, "it reads /etc/wharf"),)


def strip(owned: Owned, content: bytes, registry: Registry) -> bytes | None:
    return None


def restarts(facts: Facts, changes: Sequence[Change]) -> tuple[str, ...]:
    return (unit_of(PART, facts.others[PART].unit),) if changes else ()


def proofs(facts: Facts) -> tuple[Proof, ...]:
    client = facts.others[PART].client
    return (Proof(RUNTIME.proves, "/run/wharf.sock", command=(client, "fetch", IMAGE)),)
'''

# Run in the copy: from facts to the proof, the unit at boot and the sandbox. Prints what it finds.
DRIVE = """
import json, sys
from pathlib import Path
root, registry, log = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
from agent.daemonset import loop
from agent.facts import containerd, gather
from agent.journal.boot import unit_file
from agent.node.host import Host
from agent.proof import verify
from agent.proof.decision import decide
from agent.resident import units
from agent.runtimes import table
from agent.wire.faults import AgentError
from agent.wire.plan import Plan
plan = Plan.parse(json.dumps({
    "version": 1, "registry": registry, "verify": {"image": "my.registry.io/app:1"},
}).encode())
facts = gather(Host(root))
found = facts.others["wharf"]
proposal = table.propose("wharf", facts, plan, {})
[proof] = [one for one in decide(facts, plan).proofs if one.kind == "wharfctl"]
try:
    verify.pull(proof._replace(command=(log + ".py", *proof.command[1:])), plan.registry,
                plan.verify, 30)
    said = ""
except AgentError as problem:
    said = problem.fault.cure
print(json.dumps({
    "parts": plan.parts,
    "runtime": facts.runtime,
    "unit": found.unit,
    "client": proof.command[0],
    "changes": [one.path for one in proposal.changes],
    "restarts": proposal.restarts,
    "boot": unit_file(["x"], ()).decode(),
    "sandbox": units.systemd("x"),
    "kubelets": loop._KUBELETS,
    "kept": containerd._is_kept_by_others(("containerd", "--config", "/run/wharf/c.toml")),
    "asked": Path(log).read_text(),
    "cure": said,
}))
"""


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of the agent, with nothing of this checkout on its path."""
    pytest.importorskip("fastjsonschema")
    shutil.copytree(ROOT / "agent", tmp_path / "copy" / "agent")
    return tmp_path / "copy"


def python(at: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], cwd=at, capture_output=True, text=True, check=False
    )


def drive(copied: Path) -> dict[str, Any]:
    node, log = copied.parent / "node", copied.parent / "log"
    for name in ("usr/bin/wharfd", "usr/bin/wharfctl"):
        (node / name).parent.mkdir(parents=True, exist_ok=True)
        (node / name).write_text("#!/bin/sh\n")
        (node / name).chmod(0o755)
    client = Path(f"{log}.py")
    client.write_text(f"#!/bin/sh\necho \"$@\" > {log}\necho 'mooring full' >&2\nexit 1\n")
    client.chmod(0o755)
    registry = json.dumps({"host": "my.registry.io", "ca": Authority().pem})
    done = python(copied, "-c", DRIVE, str(node), registry, str(log))
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_made_up_runtime_is_one_file(copied: Path) -> None:
    before = digests(copied / "agent")
    (copied / "agent" / "runtimes" / "wharf.py").write_text(MADE_UP)
    done = python(copied, "-m", "agent.wire.regenerate")
    assert done.returncode == 0, done.stderr
    after = digests(copied / "agent")
    written = {name for name in after if after[name] != before.get(name)}
    assert written == GENERATED | {"runtimes/wharf.py"}
    found = drive(copied)
    assert found["parts"][-1] == "wharf"
    assert (found["runtime"], found["unit"]) == ("wharf", "wharf.service")
    assert found["changes"] == ["/etc/wharf/my.registry.io.crt"]
    assert found["restarts"] == ["wharf.service"]
    assert found["client"] == "/usr/bin/wharfctl"
    assert found["asked"] == "fetch my.registry.io/app:1\n"
    assert "wharfctl fetch my.registry.io/app:1" in found["cure"]
    before_it = next(line for line in found["boot"].splitlines() if line.startswith("Before="))
    assert {"wharf.service", "wharf-early.service"} <= set(before_it[len("Before=") :].split())
    assert "ReadWritePaths=-/srv/wharf" in found["sandbox"].splitlines()
    assert "wharf" in found["kubelets"]
    assert found["kept"]


def test_the_file_alone_is_not_enough(copied: Path) -> None:
    """What is generated has to be: else the test above would show nothing of it."""
    (copied / "agent" / "runtimes" / "wharf.py").write_text(MADE_UP)
    done = python(copied, "-c", "from agent.runtimes.table import TABLE; print(*TABLE)")
    assert "wharf" not in done.stdout.split()


@pytest.mark.parametrize(
    ("declared", "why"),
    [
        ('Declaration("pier")', "is not Declaration('wharf', ...)"),
        ('Kind("wharf")', "is not Declaration('wharf', ...)"),
        ("Declaration(NAME)", "malformed node"),
    ],
)
def test_a_declaration_that_cannot_be_collected_is_refused(
    copied: Path, declared: str, why: str
) -> None:
    (copied / "agent" / "runtimes" / "wharf.py").write_text(f"RUNTIME = {declared}\n")
    before = digests(copied / "agent")
    done = python(copied, "-m", "agent.wire.regenerate")
    assert (done.returncode, why in done.stderr) == (1, True), done.stderr
    assert digests(copied / "agent") == before
