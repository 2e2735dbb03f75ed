"""What a status tells of our files: the CA's end, the last apply, the last proving pull."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from typing import Any

import pytest

from agent.journal import status as standing
from agent.journal.ledger import Store
from agent.journal.lock import locked
from agent.wire.faults import AgentError
from tests.agent.authority import Authority
from tests.agent.conftest import Box


def status(box: Box) -> dict[str, Any]:
    told = box.run(box.engine().status())
    return next(event for event in told["events"] if event["event"] == "status")


def test_the_ca_on_the_node_tells_when_it_ends(box: Box) -> None:
    box.with_containerd().apply()
    found = status(box)["trusted"][0]
    # The authority is made once for all tests.
    assert abs(found["ca_ends"] - time.time() - 30 * 86400) < 3600
    path = next(one["path"] for one in found["files"] if one["path"].endswith("ca.crt"))
    box.write(path, b"-----BEGIN CERTIFICATE-----\nspoilt\n-----END CERTIFICATE-----\n")
    assert status(box)["trusted"][0]["ca_ends"] is None


def test_the_node_says_what_time_it_is(box: Box) -> None:
    box.with_containerd().apply()
    assert abs(status(box)["time"] - time.time()) < 60


def test_of_several_copies_the_one_that_ends_first_counts(box: Box) -> None:
    box.with_containerd().with_docker().apply()
    copies = [f["path"] for f in status(box)["trusted"][0]["files"] if f["path"].endswith("ca.crt")]
    assert len(copies) > 1
    sooner = Authority("sooner", days=3).pem
    for path in copies:
        before = box.read(path) or b""
        box.write(path, sooner.encode())
        assert abs(status(box)["trusted"][0]["ca_ends"] - time.time() - 3 * 86400) < 3600, path
        box.write(path, before)


def test_of_two_authorities_the_later_end_counts(box: Box) -> None:
    box.ca += Authority("another").pem
    box.with_containerd().apply()
    assert status(box)["trusted"][0]["ca_ends"] > time.time()


def test_the_last_apply_is_told_with_its_time(box: Box) -> None:
    assert status(box)["applied"] is None
    box.with_containerd().apply()
    when = status(box)["applied"]
    assert when.startswith(time.strftime("%Y-%m-%d", time.gmtime()))
    box.apply()  # which changes nothing
    assert status(box)["applied"] == when
    box.untrust()
    assert status(box)["applied"] == when


def test_the_last_pull_outlives_the_agent(box: Box) -> None:
    assert status(box)["pulled"] is None
    box.with_containerd().apply()
    pulled = status(box)["pulled"]
    assert (pulled["registry"], pulled["image"]) == ("my.registry.io", "my.registry.io/app:1")
    assert abs(pulled["time"] - time.time()) < 60
    assert pulled["seconds"] >= 0
    box.write("/var/lib/moorage/pull.json", b"[]")
    assert status(box)["pulled"] is None


def test_a_pull_that_cannot_be_noted_fails_no_proof(box: Box) -> None:
    box.with_containerd()
    (box.root / "var/lib/moorage/pull.json").mkdir(parents=True)
    assert box.apply()["code"] is None


def test_a_pipe_in_a_files_place_is_a_change_and_keeps_nobody_waiting(box: Box) -> None:
    box.with_containerd().apply()
    hosts = box.root / "etc/hosts"
    hosts.unlink()
    os.mkfifo(hosts)
    states = {one["path"]: one["state"] for one in status(box)["trusted"][0]["files"]}
    assert states["/etc/hosts"] != "as-left"


def test_what_was_not_proven_is_told_until_it_is(box: Box) -> None:
    def unproven() -> list[str]:
        return [one["part"] for one in status(box)["trusted"][0]["unproven"]]

    box.with_containerd().apply(verify=None)
    assert unproven() == ["containerd"]
    box.apply()
    assert unproven() == []
    box.apply(verify=None)  # which takes no proof away
    assert unproven() == []
    box.prover.reasons["cri"] = "no way"
    box.run(box.engine().verify(box.plan()))
    assert unproven() == ["containerd"]
    box.write("/var/lib/moorage/unproven.json", b"[]")
    assert unproven() == []


def test_a_look_that_writes_nothing_notes_nothing(box: Box) -> None:
    box.with_containerd().apply(parts=["hosts", "containerd"])
    path = box.root / "var/lib/moorage/unproven.json"
    path.unlink(missing_ok=True)
    assert box.engine().unchanged(box.plan(parts=["hosts", "containerd"], verify=None))
    assert not path.exists()


def test_files_of_an_operation_that_ends_amid_the_look_are_told_with_who_was_at_them(
    box: Box,
) -> None:
    box.with_containerd().apply()
    store = Store(str(box.root))
    with ExitStack() as at_work:
        at_work.enter_context(locked(store, "apply", 0))

        def read(path: str) -> bytes | None:
            at_work.close()
            return b"half-way"

        told = standing.standing(store, read, ())
    assert {one["state"] for one in told.trusted[0]["files"]} == {"changed"}
    assert told.holder is not None
    assert told.holder["operation"] == "apply"


def test_an_intent_that_becomes_history_amid_the_look_is_none(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one that stays and cannot be read is told."""
    store = Store(str(box.root))
    store.active.mkdir(parents=True)
    there = iter([True, False, True, True])
    monkeypatch.setattr(os.path, "exists", lambda _: next(there))
    assert store.pending() is None
    with pytest.raises(AgentError) as problem:
        store.pending()
    assert problem.value.code == "state-damaged"
