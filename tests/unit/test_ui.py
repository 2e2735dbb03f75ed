"""The one voice: results on stdout, words on stderr, questions only where somebody can answer."""

from __future__ import annotations

import json

import pytest

from moorage.errors import MoorageError, Refused
from moorage.ui import UI


def test_json_is_alone_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    ui = UI(as_json=True)
    ui.say("words")
    ui.table(["a"], [["b"]])
    ui.show("shown")
    ui.stream("log line")
    ui.diff_text("+added")
    ui.document({"ok": True})
    seen = capsys.readouterr()
    assert json.loads(seen.out) == {"ok": True}
    for words in ("words", "log line", "+added"):
        assert words in seen.err


def test_people_get_a_table_and_no_json(capsys: pytest.CaptureFixture[str]) -> None:
    ui = UI()
    ui.table(["node", "status"], [["lab1", "changed"]])
    ui.document({"ok": True})
    out = capsys.readouterr().out
    assert "lab1" in out
    assert "{" not in out


def test_error_names_place_cause_and_cure(capsys: pytest.CaptureFixture[str]) -> None:
    UI().error(
        MoorageError("x", "it failed", cause="why", cure="type this", host="n1", path="/etc/x")
    )
    err = capsys.readouterr().err
    assert "n1: /etc/x: it failed" in err
    assert "cause: why" in err
    assert "cure: type this" in err


def test_nobody_to_ask_is_a_refusal_that_says_what_it_would_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(Refused) as refusal:
        UI().confirm(["install docker.io"])
    assert refusal.value.exit_code == 2
    assert "--yes" in refusal.value.cure
    assert "install docker.io" in capsys.readouterr().err


def test_a_word_between_colons_stays_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    UI().note("node1:key:2222")
    UI().page("node1:key:2222")
    heard = capsys.readouterr()
    assert "node1:key:2222" in heard.err
    assert "node1:key:2222" in heard.out


def test_yes_agrees_but_still_announces(capsys: pytest.CaptureFixture[str]) -> None:
    UI(yes=True).confirm(["install docker.io"])
    assert "install docker.io" in capsys.readouterr().err


def test_nothing_to_do_asks_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    UI().confirm([])
    assert capsys.readouterr().err == ""


def test_diff_of_a_new_file_is_from_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    UI().diff("/etc/hosts", None, "a\n", host="n1")
    out = capsys.readouterr().out
    assert "--- /dev/null" in out
    assert "+++ n1:/etc/hosts" in out
    assert "+a" in out


def test_a_pipe_gets_no_escape_codes(capsys: pytest.CaptureFixture[str]) -> None:
    ui = UI()
    ui.diff("/x", "a\n", "b\n")
    ui.warn("careful")
    with ui.progress("working") as update:
        update(done=1, total=2)
    seen = capsys.readouterr()
    assert "\x1b" not in seen.out + seen.err
