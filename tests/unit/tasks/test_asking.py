"""Before nodes change: what is said, who is asked, and that nothing is touched after a no."""

from __future__ import annotations

import signal

import pytest

from moorage.configuration.parsing import parse
from moorage.errors import Refused
from moorage.fleet.report import announcement
from moorage.fleet.report.announcement import Announced
from moorage.settings import Settings
from moorage.tasks.command import Run
from moorage.tasks.on_nodes import ClusterChoice, Nodes, Waves
from moorage.ui import UI
from tests.terminal import on_a_terminal

SETTINGS = parse({"nodes": {"agent_port": 7555}})
# Stands in for a task: what all six verbs do first, then a word in place of the work.
TASK = """
from moorage.fleet.report.announcement import Announced
from moorage.configuration.parsing import parse
from moorage.ui import UI
from tests.unit.tasks.test_asking import on_nodes
import sys
from moorage.errors import Refused
settings = parse({"nodes": {"confirm": CONFIRM}})
change = Announced("trust", restarts=True, port=7443)
try:
    on_nodes("trust", settings, UI(yes=YES)).agree(["n1", "n2"], change)
except Refused as problem:
    print(problem.code)
    sys.exit(problem.exit_code)
print("the work begins")
"""


def on_nodes(verb: str, settings: Settings, ui: UI) -> Nodes:
    """A command about the node n1, without options."""
    nowhere, at_once = ClusterChoice(False, "", "", ""), Waves(None, None, None, False)
    run = Run(settings, ui)
    return Nodes(run, "n1", "", "", "", nowhere, False, False, "", f"nodes.{verb}", at_once)


def task(*, yes: bool = False, confirm: bool = True) -> str:
    return TASK.replace("CONFIRM", str(confirm)).replace("YES", str(yes))


@pytest.mark.parametrize(
    ("typed", "code", "begins"),
    [(b"y\n", 0, True), (b"yes\n", 0, True), (b"n\n", 2, False), (b"\n", 2, False),
     (b"\x04", 2, False), (b"maybe\n", 2, False)],
)  # fmt: skip
def test_only_a_yes_lets_the_work_begin(typed: bytes, code: int, begins: bool) -> None:
    ended, words = on_a_terminal(task(), typed)
    assert ended == code
    assert ("the work begins" in words) == begins
    for said in ("2 nodes (n1, n2)", "restart the runtimes", "running containers",
                 "service of root", "port 7443", "Change these nodes? [y/N]"):  # fmt: skip
        assert said in words.replace("\r\n", " ")


def test_ctrl_c_at_the_question_ends_it() -> None:
    ended, words = on_a_terminal(task(), b"\x03")
    assert "the work begins" not in words
    assert ended in (1, -signal.SIGINT, 130)


@pytest.mark.parametrize("agreed", [{"yes": True}, {"confirm": False}])
def test_who_agreed_beforehand_is_not_asked(agreed: dict[str, bool]) -> None:
    ended, words = on_a_terminal(task(**agreed), b"n\n")
    assert (ended, words.strip()) == (0, "the work begins")


def test_without_a_terminal_it_goes_on_as_ever(capsys: pytest.CaptureFixture[str]) -> None:
    on_nodes("trust", SETTINGS, UI()).agree(["n1"], Announced("trust", port=1))
    assert capsys.readouterr() == ("", "")


VERBS = ("trust", "untrust", "undo", "adopt", "release", "upgrade")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_asks_before_it_does_anything(
    verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moorage.fleet.rollout.fleet import Fleet
    from moorage.tasks import nodes

    asked: list[list[str]] = []

    class Person(UI):
        @property
        def interactive(self) -> bool:
            return True

        def confirm(self, actions: object, *, question: str = "") -> None:
            asked.append(list(actions))  # type: ignore[call-overload]
            raise Refused("not-confirmed", "no")

    def touched(*words: object, **options: object) -> None:
        raise AssertionError("the node was touched")

    monkeypatch.setattr(Fleet, "run", touched)
    chosen = on_nodes(verb, SETTINGS, Person())
    body = getattr(nodes, verb).body
    while hasattr(body, "__wrapped__"):
        body = body.__wrapped__
    with pytest.raises(Refused):
        body(chosen.run, chosen)
    assert len(asked) == 1
    assert "1 node (n1)" in asked[0][0]
    stays = any("port 7555" in line for line in asked[0])
    assert stays == (verb in ("trust", "adopt"))


@pytest.mark.parametrize(
    ("change", "said", "unsaid"),
    [
        (Announced("trust", restarts=False), "make 1 node (a) trust", "restart"),
        (Announced("adopt", port=1, loopback=True), "127.0.0.1, port 1", "restart"),
        (Announced("upgrade"), "containers run on", "port"),
        (Announced("undo", restarts=True), "take back", "service of root"),
    ],
)
def test_what_is_said_is_what_will_be_done(change: Announced, said: str, unsaid: str) -> None:
    words = " ".join(announcement.actions("r.io", ["a"], change))
    assert said in words
    assert unsaid not in words


def test_many_hosts_are_counted() -> None:
    [words] = announcement.actions("r.io", [f"n{i}" for i in range(1000)], Announced("release"))
    assert "1000 nodes (n0, " in words
    assert "and 980 more" in words
