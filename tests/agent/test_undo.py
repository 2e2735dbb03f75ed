"""The last apply taken back, what was done here told, and what differs from the plan."""

from __future__ import annotations

import os
import shutil
from typing import Any

import pytest

from agent.journal.record import Record, RecordedChange
from agent.journal.undoing import last_apply, without
from tests.agent.conftest import Box

CONFIG = "/etc/containerd/config.toml"


@pytest.fixture
def node(box: Box) -> Box:
    return box.with_containerd().with_docker()


def undo(node: Box, dry_run: bool = False) -> dict[str, Any]:
    return node.run(node.engine().undo(node.plan(), dry_run))


def notes(result: dict[str, Any]) -> list[str]:
    return [event["message"] for event in result["events"] if event["event"] == "note"]


def history(node: Box) -> list[dict[str, Any]]:
    events = node.run(node.engine().history())["events"]
    return list(next(event for event in events if event["event"] == "history")["records"])


def test_the_first_apply_taken_back_leaves_every_byte_as_it_was(node: Box) -> None:
    files, folders = node.files(), node.folders()
    node.apply()
    result = undo(node)
    assert (result["status"], result["restarts"]) == ("changed", ["containerd.service"])
    assert (node.files(), node.folders()) == (files, folders)
    assert undo(node)["status"] == "unchanged"


def test_each_undo_takes_back_one_apply_more(node: Box) -> None:
    states = [node.files()]
    for address in ("10.0.0.1", "10.0.0.2", "10.0.0.3"):
        node.apply(registry={"address": address})
        states.append(node.files())
    for state in reversed(states[:-1]):
        assert undo(node)["status"] == "changed"
        assert node.files() == state
    assert "nothing to take back" in notes(undo(node))[0]
    assert node.apply()["status"] == "changed"
    node.untrust()
    assert node.files() == states[0]


def test_an_undo_that_is_asked_for_again_takes_no_second_apply_back(node: Box) -> None:
    """Its answer was lost with the line, and the operator cannot know that it was done."""
    for address in ("10.0.0.1", "10.0.0.2", "10.0.0.3"):
        node.apply(registry={"address": address})
    again = node.plan(options={"run": "r1"})
    assert node.run(node.engine().undo(again))["status"] == "changed"
    state = node.files()
    result = node.run(node.engine().undo(again))
    assert (result["status"], node.files()) == ("unchanged", state)
    assert notes(result) == ["this run has taken its apply back already"]
    other = node.plan(options={"run": "r2"})
    assert node.run(node.engine().undo(other))["status"] == "changed"


def test_a_plan_names_its_run_only_where_it_has_one(node: Box) -> None:
    assert "run" not in node.plan().to_json()["options"]
    assert node.plan(options={"run": "r1"}).to_json()["options"]["run"] == "r1"


def test_an_undo_keeps_what_others_wrote_since(node: Box) -> None:
    hosts, config = node.read("/etc/hosts") or b"", node.read(CONFIG) or b""
    node.apply()
    first = node.read("/etc/hosts")
    node.apply(registry={"address": "10.0.0.2"})
    node.write("/etc/hosts", b"# theirs\n" + (node.read("/etc/hosts") or b"") + b"10.9.9.9 box\n")
    node.write(CONFIG, (node.read(CONFIG) or b"") + b"# theirs too\n")
    undo(node)
    assert node.read("/etc/hosts") == b"# theirs\n" + (first or b"") + b"10.9.9.9 box\n"
    undo(node)
    assert node.read("/etc/hosts") == b"# theirs\n" + hosts + b"10.9.9.9 box\n"
    assert node.read(CONFIG) == config + b"# theirs too\n"


def test_an_undo_leaves_alone_what_others_made_of_our_own_line(node: Box) -> None:
    node.apply()
    node.apply(registry={"address": "10.0.0.2"})
    theirs = (node.read("/etc/hosts") or b"").replace(b"10.0.0.2", b"10.7.7.7")
    node.write("/etc/hosts", theirs)
    result = undo(node)
    assert node.read("/etc/hosts") == theirs
    assert any("/etc/hosts is left alone" in note for note in notes(result))


def test_an_undo_is_about_the_registry_of_its_plan(node: Box) -> None:
    other: dict[str, Any] = {
        "registry": {"host": "two.registry.io", "port": 5000, "address": "10.0.0.2"},
        "verify": None,
    }
    node.apply(**other)
    alone = node.files()
    result = undo(node)
    assert (result["status"], node.files()) == ("unchanged", alone)
    assert notes(result) == [
        "no apply for my.registry.io is in effect on this node: there is nothing to take back; an "
        "undo for two.registry.io:5000 takes back what was done for it"
    ]
    node.apply()
    assert node.run(node.engine().undo(node.plan(**other)))["status"] == "changed"
    assert "two.registry.io:5000" not in str(node.files())
    assert node.apply()["status"] == "unchanged"


def test_an_undo_that_is_only_tried_changes_nothing(node: Box) -> None:
    node.apply()
    during = node.files()
    result = undo(node, dry_run=True)
    assert (result["status"], len(result["changes"])) == ("changed", 8)
    assert node.files() == during
    assert len(history(node)) == 1


def test_history_tells_what_was_done_newest_first(
    node: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert history(node) == []
    monkeypatch.setenv("SUDO_USER", "ada")
    monkeypatch.setenv("SSH_CONNECTION", "10.3.3.3 50000 10.0.0.9 22")
    node.apply()
    undo(node)
    newest, first = history(node)
    assert (newest["operation"], first["operation"]) == ("undo", "apply")
    assert first["undone_by"] == newest["number"] == 2
    assert (first["by"], first["from"], first["registry"]) == ("ada", "10.3.3.3", "my.registry.io")
    assert first["restarts"] == ["containerd.service"]
    assert {"path": "/etc/hosts", "action": "edited"} in first["changes"]


def test_diff_tells_what_differs_and_changes_nothing(node: Box) -> None:
    files = node.files()
    result = node.run(node.engine().diff(node.plan()))
    assert (result["status"], len(result["changes"])) == ("differs", 8)
    assert node.files() == files
    node.apply()
    assert node.run(node.engine().diff(node.plan()))["status"] == "unchanged"
    node.write("/etc/hosts", files["etc/hosts"])
    result = node.run(node.engine().diff(node.plan()))
    assert [one["path"] for one in result["changes"]] == ["/etc/hosts"]
    assert result["status"] == "differs"


def test_explain_names_the_strategy_of_each_part(node: Box) -> None:
    events = node.run(node.engine().explain(node.plan()))["events"]
    findings = next(event for event in events if event["event"] == "explain")["findings"]
    taken = {one["part"] for one in findings if one["applies"]}
    assert {"hosts", "docker", "containerd"} <= taken
    assert all(one["why"] and one["strategy"] for one in findings)


def test_trust_is_taken_away_by_its_marks_where_the_notes_are_lost(node: Box) -> None:
    files = node.files()
    node.apply()
    shutil.rmtree(node.root / "var/lib/moorage")
    result = node.untrust()
    assert result["status"] == "changed"
    assert node.files() == files


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_look_without_root_goes_as_far_as_it_may_and_says_where_that_ends(
    node: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.apply()
    node.write("/etc/hosts", b"127.0.0.1 localhost\n")
    (node.root / CONFIG[1:]).chmod(0o600)
    for folder in (node.root, *node.root.parents):
        if folder != folder.parent:
            folder.chmod(folder.stat().st_mode | 0o055)
    os.seteuid(65534)
    try:
        result = node.run(node.engine().diff(node.plan()))
    finally:
        os.seteuid(0)
    assert result["code"] == "not-root"
    assert CONFIG in result["error"]["message"]
    assert "/etc/hosts" in [one["path"] for one in result["changes"]]
    assert any("only by root" in note for note in notes(result))


@pytest.mark.parametrize(
    ("before", "after", "now", "expected"),
    [
        (b"a\nb\n", b"a\nX\nb\n", b"a\nX\nb\n", b"a\nb\n"),
        (b"a\nb\n", b"a\nX\nb\n", b"0\na\nX\nb\n9\n", b"0\na\nb\n9\n"),
        (b"a\nb\n", b"a\nX\n", b"0\na\nX\n", b"0\na\nb\n"),
        (b"a\nb\nc\n", b"a\nc\n", b"a\nnew\nc\n", b"a\nb\nnew\nc\n"),
        (b"a\n", b"X\na\n", b"a\n", None),
        (b"a\n", b"X\nY\na\n", b"X\nZ\nY\na\n", None),
        (b"", b"X", b"Xother", None),
        (b"a\r\n", b"a\r\nX\r\n", b"a\r\nX\r\nb", b"a\r\nb"),
        (b"a", b"a\nX\n", b"a\nX\nb\n", b"a\nb\n"),
        (b"#\nA\n", b"#\nA\n#\nX\n", b"#\nX\n", b""),
        # Of equal lines the match takes others; ours stand together once.
        (b"b\na\n", b"X\na\nb\na\n", b"X\na\na\nb\na\n", b"a\nb\na\n"),
    ],
)
def test_an_edit_is_taken_out_of_a_file_others_changed(
    before: bytes, after: bytes, now: bytes, expected: bytes | None
) -> None:
    assert without(before, after, now) == expected


HOSTS = RecordedChange("hosts", "/etc/hosts", "edited", None, None, 0o644)


def record(number: int, operation: str, registry: str = "r", **more: Any) -> Record:
    return Record(number, operation, registry, **{"changes": (HOSTS,), **more})


@pytest.mark.parametrize(
    ("records", "number"),
    [
        ([], None),
        ([record(1, "apply")], 1),
        ([record(2, "untrust"), record(1, "apply")], None),
        ([record(2, "untrust", "s"), record(1, "apply")], 1),
        ([record(2, "apply", "s"), record(1, "apply")], 1),
        ([record(3, "undo", "s", undoes=2), record(2, "apply", "s")], None),
        ([record(2, "apply", changes=()), record(1, "apply")], 1),
        ([record(3, "undo", undoes=2), record(2, "apply"), record(1, "apply")], 1),
        ([record(4, "apply"), record(3, "untrust"), record(1, "apply")], 4),
    ],
)
def test_the_last_apply_is_the_newest_that_still_stands(
    records: list[Record], number: int | None
) -> None:
    found = last_apply(records, "r")
    assert (found and found.number) == number
