"""Measures the house, a line per row: ``python -m tests.unit.house.measure``."""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator

from tests.unit.house.test_house import (
    PRODUCTS,
    ROOT,
    circle,
    files,
    folders,
    modules,
    speaking,
    strangers,
)
from tests.unit.house.test_walk_of_trust import listed

# The lab is a product of its own.
OURS = ("agent", "moorage")


def lengths(*products: str) -> dict[str, int]:
    """Each module's lines, by its path."""
    return {
        str(path.relative_to(ROOT)): path.read_text().count("\n")
        for name, path in modules().items()
        if name.split(".")[0] in products
    }


def circles() -> Iterator[str]:
    """A circle of files and one of folders, if there are any."""
    for graph in (files(), folders()):
        if found := circle(graph):
            yield " -> ".join(found)


def shared_names(*products: str) -> dict[str, list[str]]:
    """The names that classes of several modules have; those with a ``_`` are a module's own."""
    found = defaultdict[str, list[str]](list)
    for name, path in modules().items():
        if name.split(".")[0] in products:
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    found[node.name].append(name)
    return {name: places for name, places in sorted(found.items()) if len(places) > 1}


def rows() -> Iterator[tuple[str, str]]:
    """What is measured, and the figure."""
    for name, own in (("agent and moorage", lengths(*OURS)), ("lab", lengths("lab"))):
        yield f"files / lines of {name}", f"{len(own)} / {sum(own.values())}"
    yield "circles of files and of folders", str(len(list(circles())))
    beyond = sum(len(strangers(name, others)) for name, others in files().items())
    yield "imports of another product beyond what it may", str(beyond)
    every = lengths(*PRODUCTS)
    counts = defaultdict[str, int](int)
    for name in every:
        counts[name.rpartition("/")[0]] += 1
    folder = max(counts, key=lambda name: counts[name])
    yield "files in the fullest folder", f"{counts[folder]} ({folder})"
    longest = max(every, key=lambda name: every[name])
    yield "lines of the longest file", f"{every[longest]} ({longest})"
    way = listed()
    steps = f"{len(way)} / {len({file for file, _ in way})}"
    yield "functions / files on the way of nodes.trust", steps
    yield "class names in several modules", str(len(shared_names(*OURS)))
    speak = sum(len(speaking(path.read_text())) for path in modules().values())
    yield "functions that take a ui, those of lab too", str(speak)


def main() -> int:
    for what, figure in rows():
        print(f"{figure:>40}  {what}")  # noqa: T201 - a program of its own
    return 0


if __name__ == "__main__":
    sys.exit(main())
