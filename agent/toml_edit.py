"""Edits one value in a TOML text and leaves every other byte as it is.

A small scanner finds where each table and key stands. Whoever edits parses the result and compares
(``resources/containerd.py`` does): a construct the scanner takes wrong is refused, never written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from agent.toml import parse

Keys = tuple[str, ...]


@dataclass(frozen=True)
class Header:
    """A ``[table]`` line: ``start`` is its line's start, ``end`` the start of the next line."""

    keys: Keys
    start: int
    end: int
    array: bool


@dataclass(frozen=True)
class Entry:
    """A ``key = value``: ``keys`` is the whole path, ``raw`` the key's own parts as written."""

    keys: Keys
    raw: tuple[str, ...]
    start: int
    value: int
    value_end: int
    end: int


@dataclass(frozen=True)
class Layout:
    """Where everything stands in a text that is known to be valid TOML."""

    text: str
    headers: tuple[Header, ...]
    entries: tuple[Entry, ...]

    def header(self, keys: Keys) -> Header | None:
        return next((one for one in self.headers if one.keys == keys and not one.array), None)

    def entry(self, keys: Keys) -> Entry | None:
        return next((one for one in self.entries if one.keys == keys), None)

    def within(self, header: Header) -> tuple[Entry, ...]:
        """The entries between a header and the next."""
        later = [one.start for one in self.headers if one.start > header.start]
        end = min(later, default=len(self.text))
        return tuple(one for one in self.entries if header.start < one.start < end)

    @property
    def newline(self) -> str:
        return "\r\n" if self.text.count("\r\n") * 2 > self.text.count("\n") else "\n"


def scan(text: str) -> Layout:
    """The places of all tables and keys."""
    headers: list[Header] = []
    entries: list[Entry] = []
    table: Keys = ()
    place = 0
    while True:
        place = _BLANK.match(text, place).end()  # type: ignore[union-attr]
        if place >= len(text):
            return Layout(text, tuple(headers), tuple(entries))
        start = text.rfind("\n", 0, place) + 1
        if text[place] == "[":
            array = text.startswith("[[", place)
            raw, after = _key(text, place + (2 if array else 1))
            table = tuple(_plain(part) for part in raw)
            place = _line_end(text, after + (2 if array else 1))
            headers.append(Header(table, start, place, array))
        else:
            raw, after = _key(text, place)
            value = _SPACE.match(text, after + 1).end()  # type: ignore[union-attr]
            value_end = _value_end(text, value)
            place = _line_end(text, value_end)
            keys = table + tuple(_plain(part) for part in raw)
            entries.append(Entry(keys, tuple(raw), start, value, value_end, place))


def set_string(text: str, table: Keys, key: str, value: str, comment: str) -> str:
    """``text`` with ``table.key`` set to a string; a new table gets ``comment`` above it."""
    layout = scan(text)
    quoted = _quote(value, text)
    there = layout.entry((*table, key))
    if there is not None:
        return text[: there.value] + quoted + text[there.value_end :]
    inline = layout.entry(table)
    if inline is not None and text[inline.value] == "{":
        return _into_inline(text, inline, f"{key} = {quoted}")
    header = layout.header(table)
    if header is not None:
        inside = layout.within(header)
        indent = _indent(text, inside[0].start if inside else header.start)
        indent += "" if inside else "  "
        return _insert_line(layout, header.end, f"{indent}{key} = {quoted}")
    dotted = [
        one for one in layout.entries if one.keys[: len(table)] == table and one.keys != table
    ]
    under = [one for one in dotted if len(one.raw) > len(one.keys) - len(table)]
    if under:
        last = under[-1]
        prefix = ".".join(last.raw[: len(last.raw) - (len(last.keys) - len(table))])
        line = f"{_indent(text, last.start)}{prefix}.{key} = {quoted}"
        return _insert_line(layout, last.end, line)
    name = ".".join(part if _BARE.fullmatch(part) else _quote(part, text) for part in table)
    return _append(layout, [comment, f"[{name}]", f"  {key} = {quoted}"])


def unset(text: str, table: Keys, key: str, before: str, comment: str) -> str:
    """``text`` with ``table.key`` as ``before`` had it: its old value, no key, or no table."""
    layout, old = scan(text), scan(before)
    there = layout.entry((*table, key))
    if there is None:
        inline = layout.entry(table)
        return text if inline is None else _out_of_inline(text, inline, key)
    was = old.entry((*table, key))
    if was is not None:
        return text[: there.value] + before[was.value : was.value_end] + text[there.value_end :]
    header = layout.header(table)
    if header is None or old.header(table) is not None or layout.within(header) != (there,):
        return _cut(text, there.start, there.end)
    start = header.start
    above = text.rfind("\n", 0, max(start - 1, 0)) + 1
    if text[above:start].strip() == comment:
        start = above
    if text[header.end : there.start].strip():
        return _cut(text, there.start, there.end)
    return _cut(text, start, there.end)


_BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_PART = re.compile(r"""[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'""")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}|' + r"'''.*?'{3,5}|" + r'"(?:[^"\\\n]|\\.)*"|' + r"'[^'\n]*'",
    re.DOTALL,
)


def _key(text: str, place: int) -> tuple[list[str], int]:
    parts = []
    while True:
        match = _PART.match(text, _SPACE.match(text, place).end())  # type: ignore[union-attr]
        if match is None:
            raise ValueError(f"no key at {place}")
        parts.append(match[0])
        place = _SPACE.match(text, match.end()).end()  # type: ignore[union-attr]
        if not text.startswith(".", place):
            return parts, place
        place += 1


def _plain(part: str) -> str:
    if part[0] == "'":
        return part[1:-1]
    if part[0] == '"':
        return str(parse(f"k = {part}".encode())["k"])
    return part


def _value_end(text: str, place: int) -> int:
    depth = 0
    end = place
    while place < len(text):
        mark = text[place]
        string = _STRING.match(text, place) if mark in "\"'" else None
        if string is not None:
            place = end = string.end()
            continue
        if mark == "#":
            if depth == 0:
                break
            place = text.find("\n", place)
            place = len(text) if place < 0 else place
            continue
        if mark in "[{":
            depth += 1
        elif mark in "]}":
            depth -= 1
        elif mark == "\n" and depth == 0:
            break
        place += 1
        if not mark.isspace():
            end = place
    return end


def _line_end(text: str, place: int) -> int:
    end = text.find("\n", place)
    return len(text) if end < 0 else end + 1


def _indent(text: str, start: int) -> str:
    return _SPACE.match(text, start)[0]  # type: ignore[index]


def _quote(value: str, text: str) -> str:
    if re.search(r"[^ !#-&(-\[\]-~]", value):
        raise ValueError(f"{value!r} has a character that would need escaping")
    quote = "'" if text.count("'") > text.count('"') else '"'
    return f"{quote}{value}{quote}"


def _insert_line(layout: Layout, place: int, line: str) -> str:
    text, newline = layout.text, layout.newline
    if place == len(text) and text and not text.endswith("\n"):
        return text + newline + line
    return text[:place] + line + newline + text[place:]


def _append(layout: Layout, lines: list[str]) -> str:
    """Lines at the end; a text without a last newline stays one, so that ``_cut`` gives it back."""
    text, newline = layout.text, layout.newline
    block = newline.join(lines)
    if text and not text.endswith("\n"):
        return text + newline + block
    return text + block + newline


def _cut(text: str, start: int, end: int) -> str:
    if end == len(text) and not text.endswith("\n") and start > 0:
        start -= 2 if text.endswith("\r\n", 0, start) else 1
    return text[:start] + text[end:]


def _into_inline(text: str, entry: Entry, pair: str) -> str:
    rest = text[entry.value + 1 :]
    empty = rest.lstrip().startswith("}")
    return text[: entry.value + 1] + f" {pair}" + ("" if empty else ",") + rest


def _out_of_inline(text: str, entry: Entry, key: str) -> str:
    """The reverse of ``_into_inline``, which puts its pair first."""
    ours = re.compile(rf"""\{{ {re.escape(key)} = ("[^"]*"|'[^']*'),?""")
    match = ours.match(text, entry.value)
    return text if match is None else text[: entry.value] + "{" + text[match.end() :]
