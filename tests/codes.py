"""Finds every error code that the source can give, by reading the source.

A code is whatever reaches a parameter or a field called ``code``: the calls of all functions and
classes that have one are followed back to literals. What cannot be followed is reported.
"""

from __future__ import annotations

import ast
import functools
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PRODUCTS = ("agent", "moorage", "lab")
PARAMETER = "code"
# A row's refusal: a tuple that begins with a code, until whoever chooses the row raises it.
ROW = "refusal"
IN_JSON = re.compile(r'"code": "([a-z0-9-]+)"')
CODE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
Function = ast.FunctionDef | ast.AsyncFunctionDef
# Which modules define a name, and at which places of its arguments the code stands; -1: by name.
Takers = Mapping[str, Mapping[str, set[int]]]


class Found(NamedTuple):
    """Codes with the places that give them, and the expressions that no code was read from."""

    codes: Mapping[str, list[str]]
    unread: Mapping[str, list[str]]


class Place(NamedTuple):
    """Where an expression stands, for names to be looked up."""

    path: str
    function: Function | None = None
    owner: ast.ClassDef | None = None


class Source(NamedTuple):
    """All modules, and what is looked up in them."""

    modules: Mapping[str, ast.Module]
    takers: Takers
    constants: Mapping[str, list[ast.expr]]


def modules() -> dict[str, ast.Module]:
    """Every product module, parsed, by its path from the root."""
    return {
        str(path.relative_to(ROOT)): ast.parse(path.read_text())
        for top in PRODUCTS
        for path in sorted((ROOT / top).rglob("*.py"))
        if not path.name.endswith("_pb2.py")
    }


def collect(trees: Mapping[str, ast.Module]) -> Found:
    """Every code that the modules give."""
    constants: dict[str, list[ast.expr]] = defaultdict(list)
    for path, tree in trees.items():
        for name, value in _assigned(tree.body):
            constants[name].append(value)
            constants[f"{path}:{name}"].append(value)
    source = Source(trees, _takers(trees), constants)
    codes: dict[str, list[str]] = defaultdict(list)
    unread: dict[str, list[str]] = defaultdict(list)
    for path, tree in trees.items():
        for place, call in _calls(tree, Place(path)):
            for value in _given(call, place, source.takers):
                for one in _followed(value, place, source):
                    known = codes[one] if isinstance(one, str) else unread[ast.unparse(one)]
                    known.append(f"{path}:{value.lineno}")
        for node in ast.walk(tree):  # a script that travels as text
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                for code in IN_JSON.findall(node.value):
                    codes[code].append(f"{path}:{node.lineno}")
    return Found(dict(sorted(codes.items())), dict(sorted(unread.items())))


# Who takes a code


def _takers(trees: Mapping[str, ast.Module]) -> Takers:
    found: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    classes: list[tuple[str, ast.ClassDef]] = []
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                classes.append((path, node))
                places = [_of_function(one) for one in _inits(node)] or [_of_fields(node)]
                found[node.name][path].update(one for one in places if one is not None)
            elif isinstance(node, Function) and node.name != "__init__":
                place = _of_function(node)
                found[node.name][path].update(() if place is None else (place,))
    for _ in range(4):  # deeper than any exception here descends
        for path, node in classes:
            if not _inits(node):
                found[node.name][path].update(*_of_bases(node, path, found))
    for path, node in classes:
        found[f"super of {node.name}"][path].update(*_of_bases(node, path, found))
    return found


def _of_bases(node: ast.ClassDef, path: str, found: Takers) -> list[set[int]]:
    names = [ast.unparse(base).rpartition(".")[2] for base in node.bases]
    return [_places(name, path, found) for name in names]


def _places(name: str, path: str, takers: Takers) -> set[int]:
    """A module's own definition of the name wins, then those of the modules that it imports."""
    known = takers.get(name, {})
    for paths in ([path], _imports(path)):
        if any(one in known for one in paths):
            return set().union(*(known[one] for one in paths if one in known))
    return set().union(*known.values())


@functools.cache
def _imports(path: str) -> tuple[str, ...]:
    names: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            names |= {one.name for one in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{one.name}" for one in node.names)}
    places = [name.replace(".", "/") for name in sorted(names)]
    return tuple(f"{place}{end}" for place in places for end in (".py", "/__init__.py"))


def _inits(node: ast.ClassDef) -> list[Function]:
    return [one for one in node.body if isinstance(one, Function) and one.name == "__init__"]


def _of_function(node: Function) -> int | None:
    given = [*node.args.posonlyargs, *node.args.args]
    names = [one.arg if _is_text(one.annotation) else "" for one in given]
    if PARAMETER in names:
        return names.index(PARAMETER) - (given[0].arg in ("self", "cls"))
    return -1 if PARAMETER in (one.arg for one in node.args.kwonlyargs) else None


def _of_fields(node: ast.ClassDef) -> int | None:
    fields = [one for one in node.body if isinstance(one, ast.AnnAssign)]
    names = [ast.unparse(one.target) if _is_text(one.annotation) else "" for one in fields]
    return names.index(PARAMETER) if PARAMETER in names else None


def _is_text(annotation: ast.expr | None) -> bool:
    """A code is text; what a program ended with is a number."""
    return annotation is None or "str" in ast.unparse(annotation)


# Who gives one


def _calls(node: ast.AST, place: Place) -> Iterator[tuple[Place, ast.Call | ast.Dict]]:
    for child in ast.iter_child_nodes(node):
        inner = place
        if isinstance(child, Function):
            inner = place._replace(function=child)
        elif isinstance(child, ast.ClassDef):
            inner = place._replace(owner=child)
        if isinstance(child, ast.Call | ast.Dict):
            yield inner, child
        yield from _calls(child, inner)


def _given(call: ast.Call | ast.Dict, place: Place, takers: Takers) -> Iterator[ast.expr]:
    """What the call, or a JSON document, gives as a code."""
    if isinstance(call, ast.Dict):
        for key, value in zip(call.keys, call.values, strict=True):
            if isinstance(key, ast.Constant) and key.value == PARAMETER:
                yield value
        return
    for one in call.keywords:
        if one.arg == ROW and isinstance(one.value, ast.Tuple):
            yield one.value.elts[0]
    places = _places(_name(call, place), place.path, takers)
    by_name = [one.value for one in call.keywords if one.arg == PARAMETER]
    for position in places if not by_name else ():
        if 0 <= position < len(call.args):
            yield call.args[position]
    yield from by_name if places else ()


def _name(call: ast.Call, place: Place) -> str:
    text = ast.unparse(call.func)
    if place.owner is not None and text in ("super().__init__", "cls"):
        return f"super of {place.owner.name}" if text != "cls" else place.owner.name
    return text.rpartition(".")[2]


# What it is


def _followed(value: ast.expr, place: Place, source: Source) -> Iterator[str | ast.expr]:
    """The literals behind an expression; the expression itself if there are none."""
    if isinstance(value, ast.Constant):
        if isinstance(value.value, str) and CODE.fullmatch(value.value):
            yield value.value
    elif isinstance(value, ast.IfExp | ast.BoolOp):
        parts = value.values if isinstance(value, ast.BoolOp) else [value.body, value.orelse]
        for part in parts:
            yield from _followed(part, place, source)
    elif isinstance(value, ast.Attribute) and value.attr == PARAMETER:
        return  # handed on: whoever made it is read
    elif isinstance(value, ast.Name):
        known = _values_of(value.id, place, source)
        if not known and not (value.id == PARAMETER and _is_parameter(value.id, place)):
            yield value
        for one in known:
            yield from _followed(one, place, source)
    else:
        yield value


def _values_of(name: str, place: Place, source: Source) -> list[ast.expr]:
    """What a name stands for: locally, in a row of a table that is unpacked, or as a constant."""
    if place.function is None or not _is_local(name, place.function):
        own = source.constants.get(f"{place.path}:{name}")
        return own or source.constants.get(name, [])
    inside = [one for one in ast.walk(place.function) if isinstance(one, ast.stmt)]
    plain = [value for one, value in _assigned(inside) if one == name]
    return plain or [
        row.elts[index]
        for node in inside
        for target, rows in _unpacked(node)
        for index in [i for i, one in enumerate(target.elts) if _is_name(one, name)]
        for row in _rows(rows, place, source)
        if index < len(row.elts)
    ]


def _unpacked(node: ast.stmt) -> Iterator[tuple[ast.Tuple, ast.expr]]:
    if isinstance(node, ast.For) and isinstance(node.target, ast.Tuple):
        yield node.target, node.iter
    elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple):
        yield node.targets[0], node.value


def _rows(value: ast.expr, place: Place, source: Source) -> Iterator[ast.Tuple]:
    """The tuples that a table, one of its rows, or a choice between rows may be."""
    if isinstance(value, ast.Tuple) and any(isinstance(one, ast.Tuple) for one in value.elts):
        yield from (one for one in value.elts if isinstance(one, ast.Tuple))
    elif isinstance(value, ast.Tuple):
        yield value
    parts: list[ast.expr] = []
    if isinstance(value, ast.BoolOp | ast.Dict):
        parts = value.values
    elif isinstance(value, ast.IfExp):
        parts = [value.body, value.orelse]
    elif isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
        parts = [value.func.value, *value.args[1:]]  # table.get(key, row)
    elif isinstance(value, ast.Name):
        parts = _values_of(value.id, place, source)
    for part in parts:
        yield from _rows(part, place, source)


def _assigned(body: list[ast.stmt]) -> Iterator[tuple[str, ast.expr]]:
    for node in body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            targets = [node.target]
        for target in targets:
            value = getattr(node, "value")  # noqa: B009 - either kind of assignment has one
            if isinstance(target, ast.Name):
                yield target.id, value
            elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                pairs = zip(target.elts, value.elts, strict=False)
                yield from ((one.id, part) for one, part in pairs if isinstance(one, ast.Name))


def _is_name(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _is_local(name: str, function: Function) -> bool:
    return any(
        isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Store)
        for node in ast.walk(function)
    ) or _is_parameter(name, Place("", function))


def _is_parameter(name: str, place: Place) -> bool:
    if place.function is None:
        return False
    given = place.function.args
    return name in (one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs))
