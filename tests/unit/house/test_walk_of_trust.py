"""The way of `inv nodes.trust` that docs/architecture.md lists is the way the code takes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from agent.wire import verbs

ROOT = Path(__file__).parents[3]
ROW = re.compile(r"^\d+\. `(?P<file>[\w/]+\.py):(?P<function>[\w.]+)`", re.MULTILINE)
Step = tuple[str, str]
# Over the line the archive is run, whose entry is this.
FAR_SIDE = ("agent/__main__.py", "main")


def listed() -> list[Step]:
    text = (ROOT / "docs/architecture.md").read_text()
    section = text.partition("### From the key press to the rename\n")[2].partition("\n## ")[0]
    return [(row["file"], row["function"]) for row in ROW.finditer(section)]


def functions(tree: ast.AST, within: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Each function by its name in its file, as ``Class.method``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef):
            yield f"{within}{node.name}", node
        elif isinstance(node, ast.ClassDef):
            yield from functions(node, f"{within}{node.name}.")


def body(step: Step) -> ast.AST:
    found = dict(functions(ast.parse((ROOT / step[0]).read_text())))
    return found[step[1]]


def names(node: ast.AST) -> set[str]:
    """What is named in a function: called, or handed on to be called."""
    found = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
    return found | {inner.attr for inner in ast.walk(node) if isinstance(inner, ast.Attribute)}


def leads(node: ast.AST, after: Step) -> bool:
    """Whether this function goes on to ``after``."""
    name = after[1].rpartition(".")[2]
    if "getattr" in names(node):  # by the verb's name
        return verbs.asked("trust").name == name
    return name in names(node)


def test_the_list_is_as_short_as_was_promised() -> None:
    steps = listed()
    assert 10 < len(steps) <= 18
    assert len({file for file, _ in steps}) <= 11
    assert steps[0] == ("moorage/tasks/nodes.py", "trust")
    assert "rename" in names(body(steps[-1]))


@pytest.mark.parametrize(("step", "after"), list(pairwise(listed())))
def test_each_function_goes_on_to_the_next(step: Step, after: Step) -> None:
    if step[0].startswith("moorage/") and after[0].startswith("agent/"):
        assert after == FAR_SIDE
        assert {"warm_words", "cold_words"} <= names(body(step))
        return
    assert leads(body(step), after)


def test_a_function_that_goes_elsewhere_is_seen() -> None:
    tree = ast.parse("def one(): two(three)\ndef other(): getattr(engine, verb.name)()")
    one, other = (node for _, node in functions(tree))
    assert leads(one, ("a.py", "two"))
    assert leads(one, ("a.py", "Any.three"))
    assert not leads(one, ("a.py", "four"))
    assert leads(other, ("a.py", "Engine.apply"))
    assert not leads(other, ("a.py", "Engine.untrust"))


def test_only_the_way_over_ssh_leaves_this_side() -> None:
    sides = [file.partition("/")[0] for file, _ in listed()]
    assert [one for one, after in pairwise([*sides, ""]) if one != after] == ["moorage", "agent"]
