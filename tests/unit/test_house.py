"""The house holds: no circle of files or of folders, and each room keeps to what it alone does.

Only imports that run when a module is loaded or called count; those for the type checker do not.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRODUCTS = ("agent", "moorage")
Graph = Mapping[str, frozenset[str]]


@functools.cache
def modules() -> Mapping[str, Path]:
    """Every product module's file, by its dotted name."""
    found = {}
    for path in (path for top in PRODUCTS for path in (ROOT / top).rglob("*.py")):
        words = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(words[:-1] if words[-1] == "__init__" else words)] = path
    return found


def imported(source: str, known: Mapping[str, Path]) -> frozenset[str]:
    """The modules among ``known`` that this source imports when it runs."""
    tree = ast.parse(source)
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    return frozenset(
        name
        for node in ast.walk(tree)
        if id(node) not in typing_only
        for name in _names(node, known)
        if name in known
    )


def _names(node: ast.AST, known: Mapping[str, Path]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        for alias in node.names:
            inner = f"{node.module}.{alias.name}"
            yield inner if inner in known else node.module


@functools.cache
def files() -> Graph:
    known = modules()
    return {name: imported(path.read_text(), known) - {name} for name, path in known.items()}


def package_of(name: str) -> str:
    return name if modules()[name].name == "__init__.py" else name.rpartition(".")[0]


def folders() -> Graph:
    """Which folders import which; a folder and what is in its own folders are two."""
    found: dict[str, set[str]] = {}
    for name, others in files().items():
        own = package_of(name)
        found.setdefault(own, set()).update({package_of(other) for other in others} - {own})
    return {name: frozenset(others) for name, others in found.items()}


def circle(graph: Graph) -> list[str]:
    """One circle of the graph; nothing if it has none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as problem:
        return list(reversed(problem.args[1]))
    return []


def within(product: str, graph: Graph) -> Graph:
    """What one product's parts import of each other."""
    ours = {name for name in graph if name.split(".")[0] == product}
    return {name: graph[name] & ours for name in ours}


UNDER_WAY = pytest.mark.xfail(reason="the move into rooms is under way", strict=True)


@pytest.mark.parametrize("product", ["agent", pytest.param("moorage", marks=UNDER_WAY)])
@pytest.mark.parametrize("graph", [files, folders])
def test_nothing_imports_itself_by_way_of_others(product: str, graph: Callable[[], Graph]) -> None:
    assert circle(within(product, graph())) == []


def test_a_circle_is_found() -> None:
    assert circle({"a": frozenset("b"), "b": frozenset("c"), "c": frozenset("a")})[0] in "abc"
    assert circle({"a": frozenset("b"), "b": frozenset()}) == []


@pytest.mark.parametrize(
    "source", ["import a.b", "from a import b", "from a.b import c", "def f():\n    import a.b"]
)
def test_every_way_to_import_is_seen(source: str) -> None:
    assert imported(source, {"a.b": Path("a/b.py")}) == {"a.b"}


def test_an_import_for_the_type_checker_is_not_counted() -> None:
    source = "if TYPE_CHECKING:\n    import a.b"
    assert imported(source, {"a.b": Path("a/b.py")}) == frozenset()
