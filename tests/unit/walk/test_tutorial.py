"""The tutorial shows both ways, asks before each step, and changes nothing by itself."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest

from moorage import commands
from moorage.configuration.parsing import parse
from moorage.tasks import learn
from moorage.tasks.command import Run
from moorage.ui import UI
from moorage.walk.tutorial import steps
from tests.unit.elsewhere import checkout
from tests.unit.program.test_help import content, inv
from tests.unit.program.test_help import parse as parsed

SETTINGS = parse({"registry": {"host": "registry.example.com", "port": 5443}})


class Answers(UI):
    """A stand-in for a terminal at which somebody sits: gives the answers in turn."""

    interactive = True

    def __init__(self, *answers: bool) -> None:
        super().__init__()
        self.answers = list(answers)

    def agrees(self, question: str) -> bool:
        return self.answers.pop(0)


def walk(monkeypatch: pytest.MonkeyPatch, *answers: bool, code: int = 0) -> tuple[Any, list[str]]:
    ran: list[str] = []

    def attached(argv: list[str]) -> int:
        ran.append(" ".join(argv[3:]))
        return code

    monkeypatch.setattr(commands, "attached", attached)
    body: Any = inspect.unwrap(learn.tutorial.body)
    return body(Run(SETTINGS, Answers(*answers))), ran


def test_every_step_shows_both_ways_with_commands_that_can_be_typed() -> None:
    for step in steps(SETTINGS):
        assert step.by_hand and step.ours
        for line in step.ours:
            assert parsed(line), line
    assert any(
        "registry.example.com:5443" in line for one in steps(SETTINGS) for line in one.by_hand
    )


def test_without_a_terminal_it_shows_all_and_changes_nothing(tmp_path: Path) -> None:
    project = checkout(tmp_path)
    before = content(project)
    (code, out, _), (_, as_json, _) = inv(project, ["tutorial"], ["tutorial", "--yes", "--json"])
    assert code == 0
    assert "by hand:" in out and "openssl req" in out and "inv certs.issue" in out
    assert "Nothing was run." in out
    document = json.loads(as_json)
    assert [one["ran"] for one in document["steps"]] == [False] * len(steps(SETTINGS))
    assert content(project) == before


def test_it_runs_the_steps_that_were_agreed_to_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count = len(steps(SETTINGS))
    document, ran = walk(monkeypatch, True, False, True, *[False] * (count - 3))
    assert ran == ["certs.issue", "image.build image.push"]
    assert [one["ran"] for one in document["steps"]][:3] == [True, False, True]


@pytest.mark.parametrize(("line", "ended_well"), [("inv certs", True), ("inv no.such.task", False)])
def test_a_command_of_a_step_is_the_one_that_a_user_types(line: str, ended_well: bool) -> None:
    assert learn._typed(Run(SETTINGS, UI()), (line,)) is ended_well


def test_it_stops_at_a_step_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    document, ran = walk(monkeypatch, True, True, code=1)
    assert ran == ["certs.issue"]
    assert document["ok"] is False
    assert len(document["steps"]) == 1
