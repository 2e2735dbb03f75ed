"""An apply that has nothing to do is answered by the server itself; anything else by a process."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from agent.engine.engine import Engine
from agent.journal import boot, desired
from agent.journal.ledger import Store
from agent.journal.lock import locked
from agent.node.host import Onlooker
from agent.node.memory import Memory
from agent.server import unchanged
from agent.server.unchanged import Unchanged
from agent.server.work import Work, events
from agent.wire.faults import AgentError
from agent.wire.plan import Plan
from agent.wire.report import Event, event_to_json
from tests.agent.conftest import Box

Answer = TypeVar("Answer")
HOSTS = "/etc/hosts"


@pytest.fixture
def settled(box: Box) -> Box:
    """A node that is as its plan has it."""
    box.with_docker().write(HOSTS, b"127.0.0.1\tlocalhost\n")
    assert applied(box)[-1]["status"] == "changed"
    return box


def wanted(box: Box) -> Plan:
    return replace(box.plan(), verify=None)


def applied(box: Box) -> list[dict[str, Any]]:
    """An apply as a process of the resident agent does it."""
    told = desired.applied(Store(str(box.root)), wanted(box), box.engine().apply(wanted(box)))
    return [event_to_json(event) for event in told]


def onlooker(box: Box) -> Engine:
    return Engine(Onlooker(str(box.root), Memory()), box.prover)


def looks(box: Box, engine: Callable[[], Engine] | None = None) -> Unchanged:
    return Unchanged(Store(str(box.root)), engine or (lambda: onlooker(box)))


def looked(box: Box, plan: Plan | None = None) -> list[Event] | None:
    return in_time(looks(box).apply(plan or wanted(box)))


def in_time(work: Awaitable[Answer]) -> Answer:
    async def bounded() -> Answer:
        return await asyncio.wait_for(work, 20)

    return asyncio.run(bounded())


def without_seconds(told: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**one, "seconds": 0} if "seconds" in one else one for one in told]


# What a thread of the server may not do, as CPython tells it of itself: library/audit_events.
CHANGES = (
    "os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir",
    "os.symlink", "os.truncate", "os.utime", "os.setxattr", "os.fork", "subprocess.Popen",
)  # fmt: skip


class Audit:
    """All that is written or run while it listens; a hook, once added, stays (sys.addaudithook)."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.listens = False
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.listens:
            return
        writes = event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writes or event in CHANGES:
            self.found.append(f"{event} {arguments}")


@pytest.fixture(scope="module")
def audit() -> Audit:
    return Audit()


@pytest.fixture
def audited(audit: Audit) -> Iterator[list[str]]:
    audit.listens = True
    try:
        yield audit.found
    finally:
        audit.listens = False
        audit.found.clear()


def test_it_tells_what_an_apply_tells(settled: Box) -> None:
    told = looked(settled)
    assert told is not None
    assert settled.prover.asked[-1] == "registry"
    alike = without_seconds([event_to_json(event) for event in told])
    assert alike == without_seconds(applied(settled))
    assert alike[-1]["status"] == "unchanged"


def test_nothing_is_written_and_nothing_run(settled: Box, audited: list[str]) -> None:
    audited.clear()
    assert looked(settled) is not None
    assert audited == []
    applied(settled)
    assert audited  # the lock's note of who has it: what is watched for is seen


def drifted(box: Box) -> None:
    box.write(HOSTS, b"127.0.0.1\tlocalhost\n")


def half_way(box: Box) -> None:
    box.write("/var/lib/moorage/active/intent.json", b'{"version": 1}')


def recovering_at_boot(box: Box) -> None:
    box.write(boot.UNIT, b"")


def held_to_less(box: Box) -> None:
    desired.drop(Store(str(box.root)), "my.registry.io")


def refused_by_the_registry(box: Box) -> None:
    box.prover.errors["registry"] = AgentError("registry-refused", "no")


def a_runtime_that_was_not_asked(box: Box) -> None:
    box.with_containerd()


def a_long_file(box: Box) -> None:
    box.write(HOSTS, (box.read(HOSTS) or b"") + b"# block\n" * 10_000)


def a_restart_that_waits(box: Box) -> None:
    newest = max((box.root / "var/lib/moorage/history").iterdir())
    record = json.loads(newest.read_bytes())
    newest.write_text(json.dumps({**record, "waiting": {"docker.service": ""}}))


def damaged_notes(box: Box) -> None:
    for blob in (box.root / "var/lib/moorage/blobs").iterdir():
        blob.write_bytes(b"?")


def a_defect(box: Box) -> None:
    box.prover.errors["registry"] = ZeroDivisionError()


@pytest.mark.parametrize(
    "differs",
    [
        drifted, half_way, recovering_at_boot, held_to_less, refused_by_the_registry,
        a_runtime_that_was_not_asked, a_restart_that_waits, a_long_file, damaged_notes, a_defect,
    ],
)  # fmt: skip
def test_anything_else_is_left_to_a_process(
    settled: Box, differs: Callable[[Box], None], audited: list[str]
) -> None:
    differs(settled)
    audited.clear()
    assert looked(settled) is None
    assert audited == []


def test_a_pull_is_left_to_a_process(settled: Box) -> None:
    asked = len(settled.prover.asked)
    assert looked(settled, settled.plan()) is None
    assert len(settled.prover.asked) == asked


def test_while_another_agent_works_here_it_does_not_look(settled: Box) -> None:
    with locked(Store(str(settled.root)), "untrust", 0):
        assert looked(settled) is None
    assert looked(settled) is not None


def test_no_agent_begins_to_work_here_while_it_looks(settled: Box) -> None:
    tried: list[str] = []

    class Held(Engine):
        def unchanged(self, plan: Plan) -> list[Event] | None:
            try:
                with locked(Store(str(settled.root)), "untrust", 0):
                    pass
            except AgentError as problem:
                tried.append(problem.code)
            return super().unchanged(plan)

    def engine() -> Engine:
        return Held(Onlooker(str(settled.root), Memory()), settled.prover)

    assert in_time(looks(settled, engine).apply(wanted(settled))) is not None
    assert tried == ["locked"]


def test_a_node_that_hangs_holds_up_neither_the_loop_nor_the_next(
    settled: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unchanged, "SECONDS", 0.2)
    release, begun = threading.Event(), []

    class Hanging(Engine):
        def unchanged(self, plan: Plan) -> list[Event] | None:
            begun.append(plan)
            release.wait(20)
            return super().unchanged(plan)

    def engine() -> Engine:
        return Hanging(Onlooker(str(settled.root), Memory()), settled.prover)

    async def tries() -> None:
        several = looks(settled, engine)
        first = asyncio.ensure_future(several.apply(wanted(settled)))
        turns = 0
        while not first.done():
            turns += 1
            await asyncio.sleep(0.01)
        assert (first.result(), turns > 5) == (None, True)
        with locked(Store(str(settled.root)), "apply", 0):  # it is not held up either
            pass
        assert await several.apply(wanted(settled)) is None
        assert len(begun) == 1
        release.set()
        await asyncio.sleep(0.3)  # its thread comes back
        assert await several.apply(wanted(settled)) is not None

    in_time(tries())


# -- what the server makes of it -------------------------------------------------------------------


async def all_of(lines: asyncio.Queue[bytes | None]) -> list[dict[str, Any]]:
    return [event async for event in events(lines)]


def notes() -> tuple[list[str], Callable[[dict[str, Any], float], None]]:
    found: list[str] = []
    return found, lambda result, when: found.append(result["status"])


def test_what_is_answered_at_once_has_no_process(
    settled: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forked() -> int:
        raise AssertionError("a process was made")

    monkeypatch.setattr(os, "fork", forked)
    noted, note = notes()

    async def answer() -> list[dict[str, Any]]:
        work = Work(lambda: None, Memory())
        plan = wanted(settled)
        lines = work.begin(
            lambda: settled.engine().apply(plan), note, lambda: looks(settled).apply(plan)
        )
        return await all_of(lines)

    told = in_time(answer())
    assert [one["event"] for one in told] == ["facts", "verify", "result"]
    assert (told[-1]["status"], noted) == ("unchanged", ["unchanged"])


def test_what_is_not_has_one_and_none_is_made_beside_a_look(settled: Box) -> None:
    looking = False

    async def look() -> None:
        nonlocal looking
        looking = True
        await asyncio.sleep(0.2)
        looking = False

    def operation() -> Iterator[Event]:
        assert not looking  # as the process finds it: copied when it was made
        return settled.engine().status()

    noted, note = notes()

    async def answers() -> list[list[dict[str, Any]]]:
        work = Work(lambda: None, Memory())
        queues = [work.begin(operation, note, look), work.begin(operation, note)]
        return [await all_of(queue) for queue in queues]

    for told in in_time(answers()):
        assert [one["event"] for one in told] == ["facts", "status", "result"], told
    assert noted == ["unchanged", "unchanged"]


def test_told_to_stop_while_it_looks_it_begins_no_process(settled: Box) -> None:
    async def answer() -> list[dict[str, Any]]:
        work = Work(lambda: None, Memory())

        async def look() -> None:
            await asyncio.sleep(0.1)

        lines = work.begin(lambda: settled.engine().apply(wanted(settled)), None, look)
        await asyncio.sleep(0.02)
        await work.stop(5)
        return await all_of(lines)

    told = in_time(answer())
    assert [one["error"]["code"] for one in told] == ["interrupted"]
