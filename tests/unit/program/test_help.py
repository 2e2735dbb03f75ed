"""Help: it never acts, it shows what may be typed, and what it shows can be typed."""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from invoke.collection import Collection
from invoke.exceptions import ParseError
from invoke.parser import Parser
from invoke.parser.context import ParserContext

import tasks
from moorage.configuration import profiles
from moorage.output.typed import VARIABLE, typed, typed_document
from moorage.program import pages
from tests.unit.elsewhere import checkout

ROOT = Path(__file__).resolve().parents[3]
NAMESPACE: Collection = tasks.namespace
CONTEXTS: dict[str, ParserContext] = {str(one.name): one for one in NAMESPACE.to_contexts()}
NAMES = sorted(CONTEXTS)

# Runs many command lines in one process: a process for each would take minutes.
RUNNER = """
import contextlib, io, json, sys
from moorage.program import start
program = start.program()
sys.path.insert(0, ".")
from moorage.program import edges
edges.install()
told = []
for line in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["inv", *line]
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            type(program)().run(["inv", *line])
        except SystemExit as end:
            code = end.code or 0
    told.append([code, out.getvalue(), err.getvalue()])
json.dump(told, sys.stdout)
"""


def inv(project: Path, *lines: list[str], **variables: str) -> list[tuple[int, str, str]]:
    """(exit code, stdout, stderr) of each command line."""
    # The session that runs this has settings of its own.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("INVOKE_")}
    done = subprocess.run(
        [sys.executable, "-P", "-B", "-c", RUNNER],
        cwd=project,
        env={**clean, "HOME": str(project), "PYTHONPATH": str(project), **variables},
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return [(code, out, err) for code, out, err in json.loads(done.stdout)]


def content(folder: Path) -> dict[str, str]:
    """Every file below a folder, by digest, and every folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else "folder"
        for path in sorted(folder.rglob("*"))
    }


def options_with_values(name: str) -> list[str]:
    return [flag for flag, one in CONTEXTS[name].flags.items() if one.takes_value]


def test_no_task_changes_a_byte_if_asked_for_help(tmp_path: Path) -> None:
    project = checkout(tmp_path)
    before = content(project)
    lines: list[list[str]] = []
    for name in NAMES:
        lines += [[name, "--help"], [name, "-h"], ["--help", name], [f"--help={name}"]]
        lines += [["-h", name], [name, "--json", "--help"], [name, "word", "-h"]]
        lines += [[name, flag, "--help"] for flag in options_with_values(name)[:2]]
    for line, (code, out, err) in zip(lines, inv(project, *lines), strict=True):
        name = next(word for word in line for word in [word.partition("=")[2] or word]
                    if word in CONTEXTS)  # fmt: skip
        assert (code, err) == (0, ""), line
        assert f"Usage: inv {name}" in out, line
    assert content(project) == before


def test_no_task_changes_a_byte_if_rehearsed_by_invokes_options(tmp_path: Path) -> None:
    project = checkout(tmp_path)
    before = content(project)
    lines = [line for name in NAMES for line in (["-R", name], [name, "--dry"], ["--dry", name])]
    lines += [[option, "certs.issue"] for option in ("-e", "-p", "-w", "--no-dedupe")]
    lines += [["--hide=out", "certs.issue"], ["-T", "3", "certs.issue"]]
    for line, (code, out, err) in zip(lines, inv(project, *lines), strict=True):
        assert code == 2, line
        # A task whose positional word is still missing is refused for that, before anything.
        assert re.search("has no meaning here|did not receive|needs [A-Z]+ before", err), line
        assert out == ""
    assert content(project) == before


def test_what_there_is_is_shown_in_groups(tmp_path: Path) -> None:
    project = checkout(tmp_path)
    told = inv(project, [], ["--help"], ["-h"])
    assert len({out for _, out, _ in told}) == 1
    code, out, err = told[0]
    assert (code, err) == (0, "")
    positions = [out.index(f"\n{title}\n") for title in pages.GROUPS]
    assert positions == sorted(positions)
    for name in NAMES:
        assert re.search(rf"^  {re.escape(name)}( |$)", out, re.MULTILINE), name
    assert "--no-dedupe" not in out
    assert "Core options" not in out


ALONE = sorted(name for name, one in NAMESPACE.collections.items() if not one.default)


@pytest.mark.parametrize("name", ALONE)
def test_a_namespace_alone_shows_its_tasks(tmp_path: Path, name: str) -> None:
    ((code, out, err),) = inv(checkout(tmp_path), [name])
    assert (code, err) == (0, "")
    inner = [one for one in NAMES if one.startswith(f"{name}.")]
    assert all(f"  {one} " in out for one in inner)
    others = [one for one in NAMES if one not in inner]
    assert not any(f"  {one} " in out for one in others)


def test_every_task_belongs_to_a_group_and_every_value_has_a_name() -> None:
    grouped = {name for names in pages.GROUPS.values() for name in names}
    assert grouped == {name.partition(".")[0] for name in NAMES}
    for name, context in CONTEXTS.items():
        for one in context.args.values():
            if one.takes_value:
                assert pages.value(one) != "VALUE", f"{name} --{one.name}"


@pytest.mark.parametrize("name", NAMES)
def test_help_of_a_task_has_groups_values_and_two_examples(name: str) -> None:
    page = pages.task_page(name, NAMESPACE[name], CONTEXTS[name], 90)
    said = pages.words_of(NAMESPACE[name])
    assert len(said.examples) >= 2, "two examples"
    assert said.summary.endswith("."), "a first line that is a sentence"
    for flag, one in CONTEXTS[name].flags.items():
        if not one.positional and flag.startswith("--") and not flag.startswith("--no-json"):
            assert f"  {flag}{'=' if one.takes_value else ''}" in page, flag
    assert max(map(len, page.splitlines())) <= 90
    assert "\nOutput\n" in page


@pytest.mark.parametrize("name", NAMES)
def test_examples_can_be_typed(name: str) -> None:
    for example in pages.words_of(NAMESPACE[name]).examples:
        for command in example.split(" && "):
            parsed = parse(command)
            assert name in parsed or "nodes.status" in parsed or name == "image.push", command


def parse(command: str) -> list[str]:
    """The tasks of a command line. Raises ParseError for what Invoke would not take."""
    program, *words = shlex.split(command)
    assert program == "inv"
    parser = Parser(contexts=NAMESPACE.to_contexts())
    words = profiles.chosen(words, {}).words
    return [str(one.name) for one in parser.parse_argv(words) if one.name]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["nods.trust"], "did you mean nodes.trust?"),
        (["trust"], "did you mean nodes.trust?"),
        (["nodes.trust", "--host=a"], "did you mean --hosts?"),
        (["nodes.trust", "--dryrun"], "did you mean --dry-run?"),
        (["--help", "registry.upp"], "did you mean registry.up?"),
        (["up", "dwon"], "did you mean down?"),
        (["nodes.trust", "--canary"], "--canary needs a value"),
        (["--nonsense"], "there is no option --nonsense"),
    ],
)
def test_a_misspelt_word_names_its_nearest_neighbour(
    tmp_path: Path, line: list[str], words: str
) -> None:
    project = checkout(tmp_path)
    (code, out, err), (again, document, _) = inv(project, line, [*line, "--json"])
    assert (code, again, out) == (2, 2, "")
    assert words in err
    assert json.loads(document)["error"]["code"] == "wrong-use"


def test_version_is_moorages_own(tmp_path: Path) -> None:
    project = (ROOT / "pyproject.toml").read_text()
    version = re.search(r'^version = "(.*)"', project, re.MULTILINE)
    assert version is not None
    ((code, out, _),) = inv(checkout(tmp_path), ["--version"])
    assert (code, out) == (0, f"Moorage {version[1]}\n")


# Commands in messages


def strings(path: Path) -> list[str]:
    """The string literals of a module, f-strings with PLACE for what is put in."""
    found: list[str] = []
    inside: set[int] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            parts = [one.value if isinstance(one, ast.Constant) else "PLACE" for one in node.values]
            inside.update(id(one) for one in node.values)
            found.append("".join(map(str, parts)))
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in inside
        ):
            found.append(node.value)
    return found


COMMAND = re.compile(r"(?<![\w./-])inv ((?:[a-z0-9]+\.)?[a-z0-9][a-z0-9-]*)((?: --[a-z-]+)*)")
# Words that follow `inv` in prose about Invoke, not in a message.
PROSE = frozenset(("namespace",))


@functools.cache
def commands_in_messages() -> frozenset[tuple[str, str, str]]:
    found: set[tuple[str, str, str]] = set()
    for folder in ("moorage", "agent"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path.name == "completion.py":  # holds shell scripts, not messages
                continue
            for text in strings(path):
                for match in COMMAND.finditer(" ".join(text.split())):
                    found.add((str(path.relative_to(ROOT)), match[1], match[2].strip()))
    return frozenset(found)


def test_every_command_in_a_message_names_a_task_and_its_options() -> None:
    wrong = []
    commands = commands_in_messages()
    assert len(commands) > 60
    for path, name, options in sorted(commands):
        if name in NAMESPACE.collections or "PLACE" in name or name in PROSE:
            continue
        context = CONTEXTS.get(name)
        flags = options.split()
        if context is None or any(one not in context.flags and one != "--help" for one in flags):
            wrong.append((path, name, options))
    assert wrong == []


def test_commands_are_told_as_they_are_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "inv doctor; then inv nodes.trust --hosts=a (not /usr/bin/inv x, nor reinv y)"
    assert typed(text) == text
    monkeypatch.setenv(VARIABLE, "./run inv")
    assert typed(text) == (
        "./run inv doctor; then ./run inv nodes.trust --hosts=a (not /usr/bin/inv x, nor reinv y)"
    )
    document: Any = {"error": {"cure": "inv up", "cause": "inv up"}, "next": ["inv down"]}
    assert typed_document(document) == {
        "error": {"cure": "./run inv up", "cause": "inv up"},
        "next": ["./run inv down"],
    }


def test_a_message_after_run_says_run_and_in_the_environment_does_not(tmp_path: Path) -> None:
    project = checkout(tmp_path)
    ((_, _, after_run),) = inv(project, ["nods.trust"], MOORAGE_TYPED="./run inv")
    assert "cure: ./run inv nodes.trust --help" in after_run
    ((_, _, inside),) = inv(project, ["nods.trust"], MOORAGE_TYPED="inv")
    assert "cure: inv nodes.trust --help" in inside


def test_invoke_still_takes_what_the_examples_say() -> None:
    with pytest.raises(ParseError):
        parse("inv nodes.trust --no-such-option")
