"""A step is a value that follows from values alone; an apply passes its phases in their order."""

from __future__ import annotations

import copy
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, get_type_hints

import pytest

from agent.engine import looking, steps
from agent.engine.looking import Seen
from agent.engine.phases import Phases
from agent.engine.steps import Noted, Step, decide
from agent.facts import Facts, gather
from agent.facts.seen import Noting
from agent.journal import transaction
from agent.journal.ledger import Store
from agent.node.host import Host
from agent.wire.faults import AgentError, RefusedError
from agent.wire.plan import Plan
from agent.wire.report import Event, event_to_json
from tests.agent.conftest import Box

OPERATIONS = ("apply", "untrust", "undo")
CONFIG = "/etc/containerd/config.toml"
# Every way to a file, a program or the network, as CPython tells it: library/audit_events.
TOUCHES = (
    "open", "os.listdir", "os.scandir", "os.chmod", "os.mkdir", "os.remove", "os.rename", "os.link",
    "os.symlink", "os.truncate", "os.fork", "os.exec", "os.posix_spawn", "os.system",
    "subprocess.Popen", "socket.connect", "socket.getaddrinfo", "fcntl.flock",
)  # fmt: skip
# Neither os.stat nor os.readlink is among them, so their callers are counted.
ASKS = ("stat", "lstat", "readlink", "access")


class Touched:
    """All that is opened, asked of the disk or run while it listens; a hook, once added, stays."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.listens = False
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.listens and event in TOUCHES:
            self.found.append(f"{event} {arguments[:1]}")


@pytest.fixture(scope="module")
def listener() -> Touched:
    return Touched()


@pytest.fixture
def touched(listener: Touched, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What is touched in :func:`only_values`."""

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def ask(*words: Any, **more: Any) -> Any:
            if listener.listens:
                listener.found.append(f"os.{name} {words[:1]}")
            return real(*words, **more)

        return ask

    for name in ASKS:
        monkeypatch.setattr(os, name, counted(name, getattr(os, name)))
    listener.found.clear()
    yield listener.found
    listener.listens = False


@pytest.fixture
def node(box: Box) -> Box:
    """A node with everything to look at: imports, drop-ins, Docker, and a history of two."""
    box.with_containerd(b'version = 2\nimports = ["/etc/containerd/conf.d/*.toml"]\n').with_docker()
    box.write("/etc/containerd/conf.d/one.toml", b"version = 2\n")
    box.write("/etc/docker/certs.d/my.registry.io/other.crt", b"")
    box.apply()
    box.apply(registry={"names": ["two.registry.io"]})
    box.write("/etc/hosts", b"127.0.0.1\tlocalhost\n# Ansible managed\n")
    return box


def looked_at(node: Box, operation: str, plan: Plan) -> Seen:
    host = Host(str(node.root))
    return looking.look(operation, host, Store(str(node.root)), gather(host), plan)


def only_values(listener: Touched, operation: str, plan: Plan, seen: Seen) -> Step:
    listener.listens = True
    try:
        return decide(operation, seen.facts, plan, seen.noted)
    finally:
        listener.listens = False


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_decision_opens_no_file_and_runs_no_program(
    node: Box, operation: str, touched: list[str], listener: Touched
) -> None:
    plan = node.plan()
    seen = looked_at(node, operation, plan)
    step = only_values(listener, operation, plan, seen)
    assert touched == []
    assert step.changes
    facts = gather(Host(str(node.root)))  # the same on the node itself is seen
    only_values(listener, operation, plan, seen._replace(facts=facts))
    assert touched


@pytest.mark.parametrize("operation", OPERATIONS)
def test_equal_values_make_equal_steps(node: Box, operation: str) -> None:
    plan = node.plan()
    first, second = looked_at(node, operation, plan), looked_at(node, operation, plan)
    step = decide(operation, first.facts, plan, first.noted)
    assert step == decide(operation, first.facts, plan, first.noted)
    assert step == decide(operation, second.facts, copy.deepcopy(plan), second.noted)
    for path in ("/etc/hosts", CONFIG):
        node.write(path, b"something else\n")
    assert step == decide(operation, first.facts, plan, first.noted)


def test_another_plan_other_facts_or_other_notes_make_another_step(node: Box) -> None:
    plan = node.plan()
    seen = looked_at(node, "apply", plan)
    step = decide("apply", seen.facts, plan, seen.noted)
    other = replace(plan, registry=replace(plan.registry, address="10.0.0.2"))
    assert decide("apply", seen.facts, other, seen.noted) != step
    waits = seen.noted._replace(waiting=("other.service",))
    assert decide("apply", seen.facts, plan, waits).restarts[-1] == "other.service"
    node.write("/etc/hosts", b"127.0.0.1\tanother\n")
    assert decide("apply", looked_at(node, "apply", plan).facts, plan, seen.noted) != step


def test_by_its_types_a_decision_gets_no_host() -> None:
    assert get_type_hints(decide) == {
        "operation": str, "facts": Facts, "plan": Plan, "noted": Noted, "return": Step,
    }  # fmt: skip
    assert not [name for name in vars(steps) if name in ("Host", "Store", "gather", "os", "open")]


def test_what_was_not_looked_at_is_not_fetched_later(box: Box) -> None:
    noting = Noting(gather(Host(str(box.root))))
    assert noting.facts.tree.exists("/etc/hosts")
    seen = noting.seen()
    box.write("/etc/hosts", b"changed\n")
    assert seen.tree.exists("/etc/hosts")
    for ask in (seen.tree.read, seen.tree.names, seen.tree.real, seen.tree.outside):
        with pytest.raises(LookupError):
            ask("/etc/hosts")
    with pytest.raises(LookupError):
        seen.names.addresses("localhost")


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_refusal_is_the_decisions_own(node: Box, operation: str) -> None:
    """What the look meets on its way, the decision says: as a value it is refused the same."""
    for path in ("/etc/hosts", CONFIG):
        (node.root / path.lstrip("/")).unlink()
        (node.root / path.lstrip("/")).symlink_to("/nowhere")
    plan = node.plan()
    seen = looked_at(node, operation, plan)
    with pytest.raises(RefusedError) as refused:
        decide(operation, seen.facts, plan, seen.noted)
    result = node.run(getattr(node.engine(), operation)(plan))
    assert result["code"] == refused.value.code == "dangling-link"


def test_an_undo_whose_history_is_cut_is_told_and_then_refused(node: Box) -> None:
    (node.root / "var/lib/moorage/history/000001.json").unlink()
    result = node.run(node.engine().undo(node.plan()))
    assert result["code"] == "history-too-short"
    kinds = [event["event"] for event in result["events"]]
    assert kinds == ["facts", "note", "result"]


# -- the phases ------------------------------------------------------------------------------------

PHASES = (
    "recover", "look", "decide", "ask", "begin", "stage", "judge", "write", "restart", "prove",
    "commit",
)  # fmt: skip


def phase_of(sign: str) -> str:
    """The phase that a step of the journal, an event or a program run stands for; "" for none."""
    signs = {
        "journal: forgotten": "recover",
        "event: facts": "look",
        "event: note": "decide",
        "event: verify registry beforehand": "ask",
        "journal: begun": "begin",
        "journal: staged": "stage",
        "program: config dump": "judge",
        "journal: written": "write",
        "event: change": "write",
        "journal: restart noted": "restart",
        "event: restart": "restart",
        "event: verify cri": "restart",
        "event: verify registry": "prove",
        "event: verify pull": "prove",
        "journal: committed": "commit",
    }
    return signs.get(sign, "")


def sign_of(event: dict[str, Any]) -> str:
    words = [event["event"], *(event.get(key, "") for key in ("step", "detail"))]
    return f"event: {' '.join(word for word in words if word)}"


def passed(node: Box, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The phases of an apply, by what is heard of it while it runs."""
    heard: list[str] = []
    engine = node.engine()
    real = engine._host.run

    def run(argv: list[str], *words: Any, **more: Any) -> Any:
        if heard and argv[-2:] == ["config", "dump"] and "scratch" in " ".join(argv):
            heard.append("program: config dump")
        return real(argv, *words, **more)

    monkeypatch.setattr(engine._host, "run", run)
    monkeypatch.setattr(transaction, "on_step", lambda name: heard.append(f"journal: {name}"))
    for event in engine.apply(node.plan()):
        told = event_to_json(event)
        after_recovery = not (told["event"] == "note" and "interrupted" in told["message"])
        heard += [sign_of(told)] if after_recovery else []
    found = [phase for phase in map(phase_of, heard) if phase]
    return [phase for phase, _ in itertools.groupby(found)]


@pytest.fixture
def cut_off(node: Box, monkeypatch: pytest.MonkeyPatch) -> Box:
    """A node on which an agent was killed amidst a change."""

    class Killed(BaseException):
        pass

    def kill(name: str) -> None:
        if name == "written":
            raise Killed

    with monkeypatch.context() as patch:
        engine = node.engine()
        patch.setattr(engine._back, "roll_back", lambda *_: None)
        patch.setattr(transaction, "on_step", kill)
        with pytest.raises(Killed):
            list(engine.apply(node.plan(registry={"address": "10.0.0.5"})))
    return node


def test_an_apply_passes_the_phases_in_their_order(
    cut_off: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off.write(CONFIG, b"version = 2\n")  # one more restart, and a file to be judged
    assert passed(cut_off, monkeypatch) == list(PHASES)
    newest = next(Store(str(cut_off.root)).records())
    assert (newest.operation, list(newest.starts)) == ("apply", ["containerd.service"])


def test_each_phase_has_one_place() -> None:
    own = [name for name in vars(Phases) if name in PHASES]
    assert own == list(PHASES)


@pytest.mark.parametrize("phase", ["stage", "judge", "write", "restart", "prove"])
def test_what_fails_in_a_phase_with_a_journal_is_put_back(
    node: Box, phase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = node.files()

    def fail(self: Phases) -> Iterator[Event]:
        raise ZeroDivisionError(phase)

    monkeypatch.setattr(Phases, phase, fail)
    with pytest.raises(ZeroDivisionError):
        list(node.engine().apply(node.plan()))
    assert node.files() == files
    assert Store(str(node.root)).pending() is None


# -- records ---------------------------------------------------------------------------------------


def test_a_journal_of_the_first_agents_is_read(node: Box) -> None:
    """They knew neither who asked, nor runs, nor what is undone or kept."""
    for path in (node.root / "var/lib/moorage/history").iterdir():
        document = json.loads(path.read_bytes())
        for name in ("by", "from", "run", "undoes", "along", "agreed"):
            del document[name]
        path.write_text(json.dumps(document))
    events = node.run(node.engine().history())["events"]
    told = next(event for event in events if event["event"] == "history")["records"]
    assert [(one["number"], one["by"], one["undone_by"]) for one in told] == [
        (2, "", None), (1, "", None),
    ]  # fmt: skip
    assert node.untrust()["error"] is None


def test_a_record_that_lacks_something_is_damaged_notes(node: Box) -> None:
    newest = max((node.root / "var/lib/moorage/history").iterdir())
    document = json.loads(newest.read_bytes())
    del document["changes"][0]["mode"]
    document["changes"][0]["metadata"] = None
    newest.write_text(json.dumps(document))
    with pytest.raises(AgentError) as problem:
        next(Store(str(node.root)).records())
    assert problem.value.code == "state-damaged"


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_step_is_decided_once(box: Box, monkeypatch: pytest.MonkeyPatch, operation: str) -> None:
    box.with_containerd()
    if operation != "apply":
        box.apply()
    decided: list[Step] = []
    decision = steps._DECISIONS[operation]

    def noted(*asked: Any) -> Step:
        decided.append(decision(*asked))
        return decided[-1]

    monkeypatch.setitem(steps._DECISIONS, operation, noted)
    assert box.run(getattr(box.engine(), operation)(box.plan()))["status"] == "changed"
    assert len(decided) == 1
