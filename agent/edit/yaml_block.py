"""Adds keys to a YAML text in block style and takes them away; every other byte stays.

Not a YAML parser: it understands the plain way in which people write small configuration files, one
key or list item a line, and raises ``Unsafe`` for anything else (anchors, block scalars, tabs,
several documents, values that go over lines), so that nothing is ever guessed. Each line added ends
with a mark. What is returned, less its marked lines, is the text as it was: that is checked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass

_KEY = r"\"[^\"\\]*\"|'[^']*'|[A-Za-z0-9_][A-Za-z0-9_.:/-]*?"
_SCALAR = (
    r"\"(?:[^\"\\]|\\.)*\"|'(?:[^']|'')*'|\[[^\[\]{}#]*\]|\{[^\[\]{}#]*\}"
    r"|[^\s\"'\[\]{}#&*!|>%@`,?:-](?:[^#:\n]|:(?=\S)|(?<=\S)#)*?|-?\d[\d.]*|~|/\S*"
)
_LINE = re.compile(
    rf"(?P<indent> *)(?:(?P<item>- +)?(?P<key>{_KEY}):(?: +(?P<value>{_SCALAR}))?"
    rf"|(?P<dash>- +)(?P<scalar>{_SCALAR}))(?: +#.*| *)"
)


class Unsafe(ValueError):
    """The text is written in a way that cannot be edited line by line; the message says where."""


@dataclass(frozen=True)
class _Line:
    """A line with a key or an item; ``number`` counts from 0."""

    number: int
    indent: int
    key: str
    value: str
    item: bool


@dataclass(frozen=True)
class Document:
    """A text whose every line is understood."""

    text: str
    lines: tuple[_Line, ...]

    def value(self, *path: str) -> str | None:
        """The scalar under a chain of keys, without its quotes; None if there is none."""
        line = self._find(path)
        return None if line is None or not line.value else _plain(line.value)

    def has(self, *path: str) -> bool:
        return self._find(path) is not None

    def items(self, *path: str) -> list[str]:
        """The items of a list of scalars, whether a line each or all in one."""
        line = self._find(path)
        if line is None:
            return []
        if line.value.startswith("["):
            return [_plain(word.strip()) for word in line.value[1:-1].split(",") if word.strip()]
        return [_plain(one.value) for one in self._children(line) if one.item and not one.key]

    def with_keys(self, path: tuple[str, ...], leaf: list[str], mark: str) -> Document:
        """The document with ``leaf``'s lines under ``path``, whose keys are made where missing."""
        raw = self.text.splitlines(keepends=True)
        newline = "\r\n" if "\r\n" in self.text else "\n"
        depth, parent = self._deepest(path)
        children = self._children(parent)
        if any(one.item for one in children) and depth < len(path):
            raise Unsafe(f"line {children[0].number + 1}: a list, where keys are expected")
        indent = children[0].indent if children else (parent.indent + 2 if parent else 0)
        added = []
        for key in path[depth:]:
            added.append(f"{' ' * indent}{_quoted(key)}: {mark}{newline}")
            indent += 2
        added += [f"{' ' * indent}{line} {mark}{newline}" for line in leaf]
        if parent is not None:
            place = parent.number + 1
            raw[parent.number] = _ended(raw[parent.number], newline)
        else:
            place = len(raw)
            if raw:
                raw[-1] = _ended(raw[-1], newline)
        edited = scan("".join([*raw[:place], *added, *raw[place:]]))
        rest, theirs = without(edited.text, mark), without(self.text, mark)
        if rest.rstrip("\r\n") != theirs.rstrip("\r\n"):
            raise Unsafe("an edit would change more than the lines added")
        return edited

    def _deepest(self, path: tuple[str, ...]) -> tuple[int, _Line | None]:
        """How many keys of a path are there, and the line of the last one that is."""
        parent: _Line | None = None
        for depth, key in enumerate(path):
            children = self._children(parent)
            found = next((one for one in children if one.key == key and not one.item), None)
            if found is None:
                return depth, parent
            if found.value:
                raise Unsafe(f"line {found.number + 1}: {key} has a value on its own line")
            parent = found
        return len(path), parent

    def _find(self, path: tuple[str, ...]) -> _Line | None:
        found: _Line | None = None
        for key in path:
            children = self._children(found)
            found = next((one for one in children if one.key == key and not one.item), None)
            if found is None:
                return None
        return found

    def _children(self, parent: _Line | None) -> list[_Line]:
        """The lines one level below another; below none, the top's."""
        if parent is None:
            return [one for one in self.lines if one.indent == 0]
        inside: list[_Line] = []
        for one in self.lines:
            if one.number <= parent.number:
                continue
            # A list may stand no deeper than the key it belongs to.
            if one.indent < parent.indent or (one.indent == parent.indent and not one.item):
                break
            inside.append(one)
        return [one for one in inside if one.indent == inside[0].indent]


def scan(text: str) -> Document:
    """The document. Raises :class:`Unsafe` for a line it does not understand."""
    found: list[_Line] = []
    for number, line in enumerate(text.splitlines()):
        bare = line.strip()
        if not bare or bare.startswith("#") or (bare == "---" and not found):
            continue
        match = _LINE.fullmatch(line.rstrip())
        if match is None:
            raise Unsafe(f"line {number + 1} is not one plain key or list item")
        indent = len(match["indent"])
        item = bool(match["item"] or match["dash"])
        key = _plain(match["key"]) if match["key"] else ""
        if item and match["item"]:
            found.append(_Line(number, indent, "", "", True))
            indent += len(match["item"])
            item = False
        found.append(_Line(number, indent, key, match["value"] or match["scalar"] or "", item))
    document = Document(text, tuple(found))
    _check(document)
    return document


_TOP = re.compile(rf"(?P<key>(?:{_KEY})\+?)[ \t]*:(?:[ \t]+(?P<value>.*))?")
_WORD = re.compile(
    r"(?:(?P<double>\"[^\"\\]*\")|(?P<single>'[^']*')|(?P<plain>[^\s\"'&*!|>{}\[\]%@`#,].*?))"
    r"(?:[ \t]+#.*)?|(?:#.*)?"
)


def top(text: str, wanted: Collection[str]) -> dict[str, str]:
    """The plain values of ``wanted`` keys at the top of a document, whatever else is in it.

    A key's ``+`` is left out, and of two with one name the last counts. Raises :class:`Unsafe`
    where one of them has no plain value, or a line at the top is no key.
    """
    if text.lstrip()[:1] == "{":
        return _top_of_json(text, wanted)
    told: dict[str, str] = {}
    last = ""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith(("#", "%", "---", "...")):
            continue
        if line[0] in " \t-":  # of the key above: nested, a list, or a value that goes on
            if last in wanted and not line.lstrip().startswith("#"):
                raise Unsafe(f"line {number}: {last} has no plain value on its own line")
            continue
        key = _TOP.fullmatch(line.rstrip())
        if key is None:
            raise Unsafe(f"line {number} is not a key")
        last = _plain(key["key"]).rstrip("+")
        if last in wanted:
            word = _WORD.fullmatch((key["value"] or "").strip())
            if word is None:
                raise Unsafe(f"line {number}: {last} has no plain value")
            plain = word["plain"] or ""
            told[last] = _plain(word["double"] or word["single"] or "") or (
                "" if plain in ("~", "null") else plain
            )
    return told


def _top_of_json(text: str, wanted: Collection[str]) -> dict[str, str]:
    """JSON is YAML too."""
    try:
        found = json.loads(text)
    except ValueError:
        raise Unsafe("it is in flow style") from None
    plain = {key: found[key] for key in wanted if key in found}
    if any(isinstance(value, (dict, list)) for value in plain.values()):
        raise Unsafe("it is in flow style")
    return {key: "" if value is None else str(value) for key, value in plain.items()}


def without(text: str, mark: str) -> str:
    """The text without the marked lines; a key of ours that others put something under stays."""
    kept: list[str] = []
    for line in reversed(text.splitlines(keepends=True)):
        bare = line.rstrip()
        ours = bare.endswith(f" {mark}")
        opened = bare[: -len(mark)].rstrip().endswith(":") if ours else False
        if ours and not (opened and kept and _deeper(kept, line)):
            continue
        kept.append(line)
    return "".join(reversed(kept))


def without_lines(text: str, leaf: list[str], mark: str) -> str:
    """The text without the marked lines that say just what one of ``leaf`` says."""
    ours = {f"{line} {mark}" for line in leaf}
    return "".join(line for line in text.splitlines(keepends=True) if line.strip() not in ours)


def without_empty(text: str, mark: str) -> str:
    """The text without keys that bear a mark (and perhaps a name behind it) and hold nothing."""
    kept: list[str] = []
    for line in reversed(text.splitlines(keepends=True)):
        empty = re.fullmatch(rf".*: {re.escape(mark)}(?: \S+)?\s*", line, re.DOTALL)
        if empty is not None and not _deeper(kept, line):
            continue
        kept.append(line)
    return "".join(reversed(kept))


def _deeper(following: list[str], line: str) -> bool:
    """Whether what follows (nearest last) is below a line."""
    indent = len(line) - len(line.lstrip(" "))
    for one in reversed(following):
        bare = one.strip()
        if bare and not bare.startswith("#"):
            return len(one) - len(one.lstrip(" ")) > indent or (
                bare.startswith("- ") and len(one) - len(one.lstrip(" ")) == indent
            )
    return False


def _check(document: Document) -> None:
    """Indentation that leads nowhere, and keys that stand twice, are not to be touched."""
    lines = document.lines
    if lines and lines[0].indent:
        raise Unsafe(f"line {lines[0].number + 1} is indented, and nothing is above it")
    for before, one in zip(lines, lines[1:]):
        if one.indent > before.indent and before.value and one.number != before.number:
            raise Unsafe(f"line {one.number + 1} goes on with the value above it")
    open_levels: list[tuple[int, set[str]]] = []
    for one in lines:
        while open_levels and open_levels[-1][0] > one.indent:
            open_levels.pop()
        if not open_levels or open_levels[-1][0] < one.indent:
            open_levels.append((one.indent, set()))
        if one.item and not one.key:
            open_levels[-1] = (one.indent, set())
        elif one.key in open_levels[-1][1]:
            raise Unsafe(f"line {one.number + 1}: {one.key} is there twice")
        else:
            open_levels[-1][1].add(one.key)


def _plain(word: str) -> str:
    return word[1:-1] if word[:1] in "\"'" and word[-1:] == word[:1] and len(word) > 1 else word


def _quoted(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z_]+", key) else f'"{key}"'


def _ended(line: str, newline: str) -> str:
    return line if line.endswith("\n") else line + newline
