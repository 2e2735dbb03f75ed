"""Who trusts a registry is known for good, however many rollouts came after it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from moorage.files import private_folder, write_atomically
from moorage.fleet.inventory import Target
from moorage.fleet.report import deeds, logbook, process, trusting

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


def test_a_host_is_not_missed_while_its_logbook_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the reading of the sum and of the logbooks, and while those are read."""
    for at, name in enumerate(("_read", "_logbooks")):
        folder = tmp_path / name
        for host in "abc":
            done(folder, "trust", Target(host, host))
        whole = getattr(trusting, name)

        def passing(
            of: Path, *, name: str = name, at: int = at, whole: Callable[[Path], object] = whole
        ) -> object:
            found = whole(of)
            monkeypatch.undo()
            with monkeypatch.context() as only:
                only.setattr(logbook, "KEPT", 2 - at)
                logbook._forget(of)
            return found

        monkeypatch.setattr(trusting, name, passing)
        assert sorted(standing(folder)) == ["a", "b", "c"]
        assert len(list(folder.glob("*.jsonl"))) == 2 - at


def test_a_backup_beside_a_rollout_that_begins_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, backup = tmp_path / "there", tmp_path / "backup"
    for host in "abc":
        done(there, "trust", Target(host, host))
    old = sorted(there.glob("*.jsonl"))[:2]
    trusting.keep(there, old)
    whole = trusting._logbooks

    def passing(of: Path) -> list[Path]:
        found = whole(of)
        old[0].unlink(missing_ok=True)
        return found

    monkeypatch.setattr(trusting, "_logbooks", passing)
    trusting.copy(there, backup)
    assert sorted(standing(backup)) == ["a", "b", "c"]
    assert len(list(backup.glob("*.jsonl"))) == 2


def test_all_that_reads_logbooks_passes_over_one_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done(tmp_path, "trust", Target("a", "a"))
    (gone,) = tmp_path.glob("*.jsonl")
    done(tmp_path, "trust", Target("b", "b"))
    there = gone.with_name("x.jsonl")
    monkeypatch.setattr(Path, "glob", lambda *_: [gone, there])
    gone.rename(there)
    assert [one.host for one in deeds.deeds(tmp_path, REGISTRY)] == ["a"]
    assert trusting.being_trusted(tmp_path, REGISTRY) == []
    with pytest.raises(Refused):
        logbook.newest(tmp_path, f"trust {REGISTRY}")


def names_trusted(folder: Path) -> list[str]:
    return sorted(name for name, changes in standing(folder).items() if changes)


def restored_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A folder whose logbooks of the backup are in its sum, with deeds after it; and the backup."""
    here, backup = tmp_path / "here", tmp_path / "backup"
    done(here, "trust", Target("n1", "n1"), Target("n3", "n3"))
    done(here, "trust", Target("n4", "n4"))
    trusting.copy(here, backup)
    monkeypatch.setattr(logbook, "KEPT", 1)
    done(here, "untrust", Target("n1", "n1"))
    done(here, "trust", Target("n2", "n2"))
    return here, backup


def test_a_restore_beside_later_rollouts_changes_no_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, backup = restored_over(tmp_path, monkeypatch)
    before, files = trusting.standings(here, REGISTRY), sorted(here.glob("*.jsonl"))
    assert names_trusted(here) == ["n2", "n3", "n4"]
    trusting.take_over(here, backup)
    assert trusting.standings(here, REGISTRY) == before
    assert sorted(here.glob("*.jsonl")) == files
    done(here, "undo", Target("n3", "n3"))
    assert names_trusted(here) == ["n2", "n4"]


def test_a_restore_brings_what_the_backup_alone_knows(tmp_path: Path) -> None:
    here, backup = tmp_path / "here", tmp_path / "backup"
    done(here, "trust", Target("a", "a"), Target("b", "b"))
    done(backup, "untrust", Target("b", "b"))
    done(backup, "trust", Target("c", "c"))
    another = [Target("d", "d")]
    logbook.note(backup, "trust another:5000", another, [HostResult("d", CHANGED)])
    done(here, "trust", Target("e", "e"))
    trusting.take_over(here, backup)
    assert names_trusted(here) == ["a", "c", "e"]
    assert list(trusting.standings(here, "another:5000")) == ["d"]
    trusting.keep(here, list(here.glob("*.jsonl")))
    assert names_trusted(here) == ["a", "c", "e"], "no logbook is added to the sum twice"


@pytest.mark.parametrize("over", [False, True])
def test_a_restore_that_is_killed_anywhere_is_ended_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, over: bool
) -> None:
    here, backup = restored_over(tmp_path, monkeypatch)
    here = here if over else tmp_path / "empty"
    expected = ["n2", "n3", "n4"] if over else ["n1", "n3", "n4"]
    for instant in range(1 if over else 3):
        left = instant

        def dying(path: Path, content: bytes) -> None:
            nonlocal left
            if not left:
                raise KeyboardInterrupt
            left -= 1
            write_atomically(path, content)

        monkeypatch.setattr(trusting, "write_atomically", dying)
        with pytest.raises(KeyboardInterrupt):
            trusting.take_over(here, backup)
        monkeypatch.setattr(trusting, "write_atomically", write_atomically)
        assert names_trusted(here) in ([], expected), instant
    for _ in range(2):
        trusting.take_over(here, backup)
        assert names_trusted(here) == expected
    assert len(list(here.glob("*.jsonl"))) == (1 if over else 2)
    for name in expected:  # each deed counts once
        done(here, "undo", Target(name, name))
    assert names_trusted(here) == []


def test_what_another_process_is_at_is_added_when_it_has_ended(tmp_path: Path) -> None:
    here, backup = tmp_path / "here", tmp_path / "backup"
    done(backup, "trust", Target("z", "z"))
    with rollout(here) as (process, file):
        trusting.take_over(here, backup)
        assert file.name not in json.loads((here / "trusting.json").read_bytes())["folded"]
        process.communicate(b"go on")
    assert names_trusted(here) == ["a", "b", "z"]


def test_the_logbook_of_a_long_rollout_stays_until_its_end(tmp_path: Path) -> None:
    with rollout(tmp_path) as (process, file):
        for _ in range(2 * logbook.KEPT):
            done(tmp_path, "trust", Target("c", "c"), status=UNCHANGED)
        done(tmp_path, "untrust", Target("a", "a"))
        process.communicate(b"go on")
        assert file.exists()
    assert names_trusted(tmp_path) == ["b", "c"]
    done(tmp_path, "undo", Target("c", "c"))
    assert not file.exists()
    assert len(list(tmp_path.glob("*.jsonl"))) == logbook.KEPT
    assert names_trusted(tmp_path) == ["b"]


@contextmanager
def rollout(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A trust of a and b by a process of its own that has come to a, and goes on when told."""
    code = (
        "import sys; from pathlib import Path; from moorage.fleet.inventory import Target\n"
        "from moorage.fleet.report.logbook import Logbook\n"
        "from agent.wire.report import HostResult\n"
        f"book = Logbook.begin(Path(sys.argv[1]), 'trust {REGISTRY}',"
        " [Target('a', 'a'), Target('b', 'b')])\n"
        "book.result(HostResult('a', 'changed')); print('begun', flush=True); sys.stdin.read()\n"
        "book.result(HostResult('b', 'changed'))"
    )
    words = [sys.executable, "-c", code, str(folder)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        (file,) = folder.glob(f"*-{process.pid}.jsonl")
        try:
            yield process, file
        finally:
            process.kill()


@pytest.mark.parametrize(
    "target", [{"host": 3}, {"name": ["a"]}, {"port": "22"}, {"ssh_args": "x"}, {"x": 1}]
)
def test_a_damaged_host_is_told_in_the_sum_and_in_a_logbook(
    tmp_path: Path, target: dict[str, object]
) -> None:
    done(tmp_path, "trust", Target("a", "a"))
    [book] = tmp_path.glob("*.jsonl")
    first, *more = book.read_text().splitlines()
    head = json.loads(first)
    head["hosts"][0] |= target
    book.write_text("\n".join((json.dumps(head), "3", "[" * 100_000, *more)) + "\n")
    with pytest.raises(Refused) as refused:
        trusting.standings(tmp_path, REGISTRY)
    assert (refused.value.code, str(book) in refused.value.message) == ("trusting-unreadable", True)
    with pytest.raises(Refused):
        trusting.keep(tmp_path, [book])
    book.write_text("\n".join((first, "3", *more)) + "\n")
    trusting.keep(tmp_path, [book])
    book.unlink()
    summed = json.loads((tmp_path / "trusting.json").read_text())
    summed["registries"][REGISTRY]["a"]["target"] |= target
    (tmp_path / "trusting.json").write_text(json.dumps(summed))
    with pytest.raises(Refused) as refused:
        trusting.standings(tmp_path, REGISTRY)
    assert refused.value.code == "trusting-unreadable"


def test_the_hosts_of_a_rollout_that_runs_are_known_and_of_a_dead_one_are_not(
    tmp_path: Path,
) -> None:
    with rollout(tmp_path) as (_, file):
        assert trusting.being_trusted(tmp_path, REGISTRY) == [Target("b", "b")]
        assert trusting.being_trusted(tmp_path, "another:5000") == []
        lines = file.read_text().splitlines()
    assert trusting.being_trusted(tmp_path, REGISTRY) == []
    # Process 1 is older than any logbook, but did not begin this one so long ago as it says.
    as_of(file, lines, "1", process="", began=5.0)
    assert trusting.being_trusted(tmp_path, REGISTRY) == []


def as_of(file: Path, lines: list[str], number: str, **noted: object) -> None:
    """A logbook once more, as the process of that number would have begun it."""
    other = file.with_name(f"{file.stem.rpartition('-')[0]}-{number}.jsonl")
    first = json.loads(lines[0]) | noted
    first = {key: one for key, one in first.items() if one != ""}
    other.write_text("".join(f"{one}\n" for one in (json.dumps(first), *lines[1:])))


@pytest.mark.parametrize(
    ("noted", "at_work"),
    [
        ("", True),  # of an earlier build, which notes the number alone
        ("{boot}/{began}", True),
        ("{boot}/1", False),  # the number was given again
        ("2c0ed2f1-aaaa-bbbb-cccc-0123456789ab/{began}", False),  # after a boot, or elsewhere
    ],
)
def test_a_number_that_another_process_has_now_is_not_the_rollouts(
    tmp_path: Path, noted: str, *, at_work: bool
) -> None:
    with rollout(tmp_path) as (running, file):
        lines = file.read_text().splitlines()
        file.unlink()
        boot, _, began = process.mark(str(running.pid)).partition("/")
        as_of(file, lines, str(running.pid), process=noted.format(boot=boot, began=began))
        found = [one.name for one in trusting.being_trusted(tmp_path, REGISTRY)]
    assert found == (["b"] if at_work else [])


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("cut", ["", '{"resu'])
def test_what_was_under_way_in_a_backup_is_not_after_the_restore(
    tmp_path: Path, cut: str, *, earlier: bool
) -> None:
    here, there, backup = (tmp_path / name for name in ("here", "there", "backup"))
    with rollout(there) as (running, file):
        if earlier:
            as_of(file, file.read_text().splitlines(), str(running.pid), process="")
        with file.open("a") as book:
            book.write(cut)
        trusting.copy(there, backup)
        trusting.take_over(here, backup)
        assert trusting.being_trusted(there, REGISTRY) == [Target("b", "b")]
        assert trusting.being_trusted(here, REGISTRY) == []
    assert names_trusted(here) == ["a"]
    (past,) = logbook.past(here)
    assert past.ended == deeds.RESTORED
    stopped = logbook.newest(here, f"trust {REGISTRY}")
    assert stopped.ended == deeds.RESTORED
    assert stopped.settled == {"a"}, "--resume goes on from it"


@pytest.mark.parametrize(
    ("key", "value"),
    [("hosts", 3), ("hosts", [{"name": 3}]), ("began", None), ("command", None), ("command", 3)],
)
def test_a_spoilt_logbook_is_told_by_whoever_reads_it(
    tmp_path: Path, key: str, value: object
) -> None:
    done(tmp_path, "trust", Target("n1", "n1"))
    (book,) = tmp_path.glob("*.jsonl")
    first, *rest = book.read_text().splitlines()
    document = {**json.loads(first), key: value}
    if value is None:
        del document[key]
    book.write_text("\n".join([json.dumps(document), *rest, ""]))
    readers: list[Callable[[], object]] = [
        lambda: logbook.past(tmp_path),
        lambda: deeds.deeds(tmp_path, "r"),
        lambda: trusting.standings(tmp_path, "r"),
        lambda: logbook.newest(tmp_path, "trust r"),
    ]
    for read in readers:
        try:
            read()
        except Refused as refused:
            assert refused.code in ("trusting-unreadable", "nothing-to-resume")
            assert str(book) in refused.message or refused.code == "nothing-to-resume"
