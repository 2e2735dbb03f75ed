"""Who trusts a registry is known for good, however many rollouts came after it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from agent.wire.report import (
    CHANGED,
    FAILED,
    ROLLED_BACK,
    UNCHANGED,
    UNREACHABLE,
    FileChange,
    HostResult,
)
from moorage.errors import Refused
from moorage.files import private_folder
from moorage.fleet.inventory import Target
from moorage.fleet.report import logbook, trusting

REGISTRY = "my.registry.io:5000"


def done(folder: Path, verb: str, *hosts: Target, status: str = CHANGED) -> None:
    results = [HostResult(one.name, status) for one in hosts]
    logbook.note(folder, f"{verb} {REGISTRY}", hosts, results)


def standing(folder: Path) -> dict[str, int]:
    return {name: one.changes for name, one in trusting.standings(folder, REGISTRY).items()}


def test_a_node_is_known_after_any_number_of_rollouts(tmp_path: Path) -> None:
    first = Target("web1", "10.0.0.1", "admin", 2222, ssh_args=("ProxyJump=gate",))
    done(tmp_path, "trust", first, Target("gone", "gone"), Target("twice", "twice"))
    done(tmp_path, "untrust", Target("gone", "gone"))
    done(tmp_path, "trust", Target("twice", "twice"))
    for number in range(3 * logbook.KEPT):
        done(tmp_path, "trust", Target(f"n{number}", f"n{number}"))
    done(tmp_path, "undo", Target("twice", "twice"))
    assert len(list(tmp_path.glob("*.jsonl"))) == logbook.KEPT
    found = standing(tmp_path)
    assert {name: found[name] for name in ("web1", "gone", "twice")} == {
        "web1": 1, "gone": 0, "twice": 1,
    }  # fmt: skip
    assert len(found) == 3 + 3 * logbook.KEPT
    assert trusting.standings(tmp_path, REGISTRY)["web1"].target == first
    assert trusting.standings(tmp_path, "another:5000") == {}


@pytest.mark.parametrize(
    ("status", "changes", "trusts"),
    [(FAILED, 1, True), (FAILED, 0, False), (ROLLED_BACK, 1, False), (UNREACHABLE, 0, False)],
)
def test_a_trust_that_failed_and_stands_is_one(
    tmp_path: Path, status: str, changes: int, trusts: bool
) -> None:
    """image-missing, login-refused: the change is right, so the agent keeps it."""
    change = FileChange("/etc/hosts", "edited")
    result = HostResult("a", status, changes=(change,) * changes)
    logbook.note(tmp_path, f"trust {REGISTRY}", [Target("a", "a")], [result])
    assert standing(tmp_path) == ({"a": 1} if trusts else {})
    done(tmp_path, "untrust", Target("a", "a"))
    assert standing(tmp_path) == {"a": 0}


def test_a_death_between_the_sum_and_the_unlink_counts_nothing_twice(tmp_path: Path) -> None:
    done(tmp_path, "trust", Target("a", "a"))
    done(tmp_path, "trust", Target("a", "a"))
    before = standing(tmp_path)
    trusting.keep(tmp_path, sorted(tmp_path.glob("*.jsonl"))[:1])
    assert standing(tmp_path) == before == {"a": 2}
    trusting.keep(tmp_path, sorted(tmp_path.glob("*.jsonl")))
    assert standing(tmp_path) == before


def test_rollouts_begun_at_once_lose_no_node(tmp_path: Path) -> None:
    def many(name: str) -> None:
        for number in range(logbook.KEPT):
            done(tmp_path, "trust", Target(f"{name}{number}", "x"))

    threads = [threading.Thread(target=many, args=(name,)) for name in "abc"]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(standing(tmp_path)) == 3 * logbook.KEPT


@pytest.mark.parametrize("content", ["", "null", "[]", '{"version": 2}', "no JSON"])
def test_a_damaged_sum_is_told_and_no_logbook_goes_any_more(tmp_path: Path, content: str) -> None:
    private_folder(tmp_path)
    (tmp_path / "trusting.json").write_text(content)
    for number in range(logbook.KEPT + 3):
        done(tmp_path, "trust", Target(f"n{number}", "x"), status=UNCHANGED)
    assert len(list(tmp_path.glob("*.jsonl"))) == logbook.KEPT + 3
    with pytest.raises(Refused) as refused:
        trusting.standings(tmp_path, REGISTRY)
    assert refused.value.code == "trusting-unreadable"


def test_the_hosts_of_a_rollout_that_runs_are_known_and_of_a_dead_one_are_not(
    tmp_path: Path,
) -> None:
    code = (
        "import sys; from pathlib import Path; from moorage.fleet.inventory import Target\n"
        "from moorage.fleet.report.logbook import Logbook\n"
        "from agent.wire.report import HostResult\n"
        f"book = Logbook.begin(Path(sys.argv[1]), 'trust {REGISTRY}',"
        " [Target('a', 'a'), Target('b', 'b')])\n"
        "book.result(HostResult('a', 'changed')); print('begun', flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        assert trusting.being_trusted(tmp_path, REGISTRY) == [Target("b", "b")]
        assert trusting.being_trusted(tmp_path, "another:5000") == []
        process.kill()
    assert trusting.being_trusted(tmp_path, REGISTRY) == []
    [file] = tmp_path.glob("*.jsonl")
    lines = file.read_text().splitlines()
    # Process 1 is older than any logbook, but did not begin this one so long ago as it says.
    old = file.with_name(f"{file.stem.rpartition('-')[0]}-1.jsonl")
    old.write_text("\n".join([json.dumps(json.loads(lines[0]) | {"began": 5.0}), *lines[1:]]))
    assert trusting.being_trusted(tmp_path, REGISTRY) == []
