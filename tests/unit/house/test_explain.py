"""Every error code has an explanation, and none of today's vanishes unsaid."""

from __future__ import annotations

import ast
import functools
import json
import re
from pathlib import Path

import pytest

from moorage.cluster.login import secrets
from moorage.explanations import CHANGED, FILES, explanations
from tests import codes
from tests.unit.elsewhere import checkout
from tests.unit.program.test_help import CONTEXTS, ROOT, inv

# Expressions that hand on a code which something else has made, and has been read from.
HANDED_ON = {
    "(result['error'] or {}).get('code')",
    "*words.parts(problem)",
    "code",
    "str(fault['code'])",
    "str(one.get('code', ''))",
    "str(said['code'])",
}
# Expressions that make a code of parts -> what they can come to.
PUT_TOGETHER = {"f'secret-{state}'": {f"secret-{state}" for state in secrets._WHY_NOT}}
# Codes of this build: one that goes needs a line in the changelog.
LISTED = (Path(__file__).parent / "error-codes.txt").read_text().split()


@functools.cache
def found() -> codes.Found:
    return codes.collect(codes.modules())


def given() -> set[str]:
    """Every code that Moorage or its agent can give."""
    put_together = (PUT_TOGETHER[one] for one in found().unread if one in PUT_TOGETHER)
    return {*found().codes, *(code for known in put_together for code in known)}


def test_every_code_in_the_source_can_be_read() -> None:
    unread = {text: places for text, places in found().unread.items() if text not in PUT_TOGETHER}
    assert {text: unread[text] for text in unread if text not in HANDED_ON} == {}
    assert len(given()) > 300


def test_every_code_is_explained_and_nothing_else_is() -> None:
    missing, idle = given() - explanations().keys(), explanations().keys() - given()
    places = {code: found().codes.get(code) for code in missing}
    assert places == {}, "explain them in moorage/explanations/*.toml"
    assert idle == set(), "nothing gives these codes any more"


def test_no_code_of_today_vanishes_without_a_line_in_the_changelog() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    gone = [code for code in LISTED if code not in given() and f"`{code}`" not in changelog]
    assert gone == [], "programs rely on codes: keep them, or say in CHANGELOG.md what came instead"


@pytest.mark.parametrize(
    ("source", "read"),
    [
        ('raise Refused("new-code", "words")', {"new-code"}),
        ('raise MoorageError(code="new-code", message="words")', {"new-code"}),
        ('raise Refused("one-way" if late else "other-way", "words")', {"one-way", "other-way"}),
        ('code = "new-code"\nraise Refused(code, "words")', {"new-code"}),
        (
            'ROWS = {1: ("from-a-table", "words")}\n'
            "def f(n):\n"
            '    code, words = ROWS.get(n) or ("by-default", "words")\n'
            "    return Refused(code, words)",
            {"from-a-table", "by-default"},
        ),
        ('{"code": "in-a-document"}', {"in-a-document"}),
        (
            "class Worse(Refused):\n"
            "    def __init__(self):\n"
            '        super().__init__("of-a-class", "words")',
            {"of-a-class"},
        ),
    ],
)
def test_a_code_is_found_however_it_is_given(source: str, read: set[str]) -> None:
    assert read <= collected_with(source).codes.keys()


def test_a_code_that_cannot_be_read_is_reported() -> None:
    source = 'raise Refused(compute("a", "b"), "words")'
    assert "compute('a', 'b')" in collected_with(source).unread


def collected_with(source: str) -> codes.Found:
    bases = ("agent/wire/faults.py", "moorage/errors.py")
    modules = {path: ast.parse((ROOT / path).read_text()) for path in bases}
    # The other module stands for any: it defines no error of its own.
    return codes.collect({**modules, "moorage/tasks/registry/certs.py": ast.parse(source)})


COMMAND = re.compile(r"\binv ([a-z0-9]+(?:\.[a-z-]+)?)((?: --[a-z-]+(?:=\S+)?)*)")


def test_explanations_are_short_and_their_commands_can_be_typed() -> None:
    commands = 0
    for code, _, means, changed, cure in explanations().values():
        assert means.endswith("."), code
        assert means.count(". ") <= 1, f"{code}: one or two sentences"
        assert changed in CHANGED.values(), code
        for name, options in COMMAND.findall(cure):
            commands += 1
            flags = [flag.partition("=")[0].rstrip(",;.") for flag in options.split()]
            assert [flag for flag in flags if flag not in CONTEXTS[name].flags] == [], code
    assert commands > 80


def test_every_file_of_explanations_is_read() -> None:
    folder = ROOT / "moorage" / "explanations"
    assert {path.stem for path in folder.glob("*.toml")} == set(FILES)


def test_explain_lists_explains_and_names_the_nearest(tmp_path: Path) -> None:
    lines = [["explain"], ["explain", "port-taken"], ["explain", "port-takn"], ["explain", "zzz"]]
    project = checkout(tmp_path)
    (_, listed, _), (_, one, _), (wrong, _, near), (_, _, far) = inv(project, *lines)
    for code in explanations():
        assert re.search(rf"^  {code}( |$)", listed, re.MULTILINE), code
    assert all(title in listed for title in {one.group for one in explanations().values()})
    assert explanations()["port-taken"].means in one
    assert wrong == 2
    assert "did you mean port-taken?" in near
    assert "did you mean" not in far
    as_json = inv(project, *([*line, "--json"] for line in lines))
    documents = [json.loads(out) for _, out, _ in as_json]
    assert [row["code"] for row in documents[0]["codes"]] == list(explanations())
    assert documents[1]["codes"] == [explanations()["port-taken"]._asdict()]
    assert documents[2]["error"]["code"] == "unknown-code"


def test_no_code_is_explained_twice() -> None:
    import tomllib

    folder = ROOT / "moorage" / "explanations"
    found = [
        code
        for name in FILES
        for code in tomllib.loads((folder / f"{name}.toml").read_text())["codes"]
    ]
    assert sorted(found) == sorted(set(found))
