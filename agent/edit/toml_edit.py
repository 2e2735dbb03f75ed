"""Edits one value in a TOML text and leaves every other byte as it is.

A small scanner finds where each table and key stands. Whoever edits parses the result and compares
(``resources/containerd.py`` does): a construct the scanner takes wrong is refused, never written.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from agent.edit.toml import parse

Keys = tuple[str, ...]


class Header(NamedTuple):
    """A ``[table]`` line: ``start`` is its line's start, ``end`` the start of the next line."""

    keys: Keys
    start: int
    end: int
    array: bool


class Entry(NamedTuple):
    """A ``key = value``: ``keys`` is the whole path, ``raw`` the key's own parts as written."""

    keys: Keys
    raw: tuple[str, ...]
    start: int
    value: int
    value_end: int
    end: int

    @property
    def at_top(self) -> bool:
        """Whether it stands before the first table."""
        return len(self.keys) == len(self.raw)


class TomlLayout(NamedTuple):
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


def scan(text: str) -> TomlLayout:
    """The places of all tables and keys."""
    headers: list[Header] = []
    entries: list[Entry] = []
    table: Keys = ()
    place = 0
    while True:
        place = _BLANK.match(text, place).end()  # type: ignore[union-attr]
        if place >= len(text):
            return TomlLayout(text, tuple(headers), tuple(entries))
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


def set_value(text: str, table: Keys, key: str, literal: str, comment: str) -> str:
    """``text`` with ``table.key`` set to a TOML value, marked as ours on the line's end.

    A value that stood there is kept in the mark; a new table gets ``comment`` above it.
    """
    layout = scan(text)
    there = layout.entry((*table, key))
    if there is not None:
        return _replaced(text, there, literal)
    inline = layout.entry(table)
    if inline is not None and text[inline.value] == "{":
        return _into_inline(text, inline, key, literal)
    line = f"{key} = {literal}{MARK}"
    if not table:
        above = [one for one in layout.entries if one.at_top]
        return _insert_line(layout, above[-1].end if above else _top(layout), line)
    header = layout.header(table)
    if header is not None:
        inside = layout.within(header)
        indent = _indent(text, inside[0].start if inside else header.start)
        indent += "" if inside else "  "
        return _insert_line(layout, header.end, f"{indent}{line}")
    dotted = [
        one for one in layout.entries if one.keys[: len(table)] == table and one.keys != table
    ]
    under = [one for one in dotted if len(one.raw) > len(one.keys) - len(table)]
    if under:
        last = under[-1]
        prefix = ".".join(last.raw[: len(last.raw) - (len(last.keys) - len(table))])
        return _insert_line(layout, last.end, f"{_indent(text, last.start)}{prefix}.{line}")
    return _append(layout, [comment, f"[{dotted_name(table, text)}]", f"  {line}"])


def set_string(text: str, table: Keys, key: str, value: str, comment: str) -> str:
    """:func:`set_value` for a string, in the kind of quotes the text uses."""
    return set_value(text, table, key, quoted(value, text), comment)


def release(text: str, comment: str, keys: Keys | None = None) -> str:
    """``text`` without what carries our mark: old values back, new lines and tables gone.

    With ``keys``, only that value. Needs no memory of what stood there before.
    """
    while True:
        layout = scan(text)
        ours = [one for one in layout.entries if keys in (None, one.keys)]
        marked = next((one for one in reversed(ours) if _mark(text, one)), None)
        if marked is None:
            return text
        text = _released(layout, marked, comment)


def unset_inline(text: str, table: Keys, key: str, before: str) -> str:
    """``text`` with what :func:`set_value` did to an inline table undone; no mark fits in there.

    ``before`` is the text from which it was done.
    """
    inline = scan(text).entry(table)
    if inline is None or text[inline.value] != "{":
        return text
    old = scan(before).entry(table)
    was = before[old.value : old.value_end] if old is not None else ""
    if _in_inline(was, key):
        ours = text[inline.value : inline.value_end]
        place, value = _in_inline(ours, key), _in_inline(was, key)
        if place and value:
            new = ours[: place[0]] + was[value[0] : value[1]] + ours[place[1] :]
            return text[: inline.value] + new + text[inline.value_end :]
        return text
    return _out_of_inline(text, inline, key)


def dotted_name(keys: Keys, text: str) -> str:
    """A table's name as it is written in a header, in the kind of quotes the text uses."""
    return ".".join(part if _BARE.fullmatch(part) else quoted(part, text) for part in keys)


def quoted(value: str, text: str) -> str:
    """A string as TOML, in the kind of quotes ``text`` uses most."""
    if re.search(r"[^ !#-&(-\[\]-~]", value):
        raise ValueError(f"{value!r} has a character that would need escaping")
    quote = "'" if text.count("'") > text.count('"') else '"'
    return f"{quote}{value}{quote}"


MARK = "  # Moorage"
_MARKED = re.compile(r"  # Moorage(?P<was>, was )?(?![\w-])")
_BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_GAP = re.compile(r"[ \t\r\n,]*")
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


def _top(layout: TomlLayout) -> int:
    """Where a first key can stand: before the first table, below what is said above it."""
    if not layout.headers:
        return len(layout.text)
    place = layout.headers[0].start
    while place > 0:
        above = layout.text.rfind("\n", 0, place - 1) + 1
        if not layout.text[above:place].strip():
            break
        place = above
    return place


def _mark(text: str, entry: Entry) -> re.Match[str] | None:
    return _MARKED.match(text, entry.value_end)


def _replaced(text: str, entry: Entry, literal: str) -> str:
    """Another value for a key. The first one that stood there is remembered in the mark."""
    mark = _mark(text, entry)
    if mark is not None:
        return text[: entry.value] + literal + text[entry.value_end :]
    was = text[entry.value : entry.value_end]
    noted = "" if "\n" in was else f"{MARK}, was {was}"
    return text[: entry.value] + literal + noted + text[entry.value_end :]


def _released(layout: TomlLayout, entry: Entry, comment: str) -> str:
    text = layout.text
    mark = _mark(text, entry)
    assert mark is not None  # noqa: S101
    if mark["was"]:
        end = _value_end(text, mark.end())
        return text[: entry.value] + text[mark.end() : end] + text[end:]
    header = layout.header(entry.keys[:-1])
    if header is None or layout.within(header) != (entry,):
        return _cut(text, entry.start, entry.end)
    above = text.rfind("\n", 0, max(header.start - 1, 0)) + 1
    if text[above : header.start].strip() != comment or text[header.end : entry.start].strip():
        return _cut(text, entry.start, entry.end)
    return _cut(text, above, entry.end)


def _insert_line(layout: TomlLayout, place: int, line: str) -> str:
    text, newline = layout.text, layout.newline
    if place == len(text) and text and not text.endswith("\n"):
        return text + newline + line
    return text[:place] + line + newline + text[place:]


def _append(layout: TomlLayout, lines: list[str]) -> str:
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


def _into_inline(text: str, entry: Entry, key: str, literal: str) -> str:
    inner = _in_inline(text[entry.value : entry.value_end], key)
    if inner is not None:
        return text[: entry.value + inner[0]] + literal + text[entry.value + inner[1] :]
    rest = text[entry.value + 1 :]
    empty = rest.lstrip().startswith("}")
    return text[: entry.value + 1] + f" {key} = {literal}" + ("" if empty else ",") + rest


def _in_inline(table: str, key: str) -> tuple[int, int] | None:
    """Where the value of a bare key stands in an inline table's own text."""
    place = 1
    while table.startswith("{") and place < len(table):
        match = _PART.match(table, _GAP.match(table, place).end())  # type: ignore[union-attr]
        if match is None:
            return None
        parts, after = _key(table, match.start())
        value = _SPACE.match(table, after + 1).end()  # type: ignore[union-attr]
        end = _item_end(table, value)
        if parts == [key]:
            return value, end
        place = table.find(",", end) + 1
        if place == 0:
            return None
    return None


def _item_end(text: str, place: int) -> int:
    """The end of a value within an inline table: before the comma or brace that follows it."""
    depth, end = 0, place
    while place < len(text):
        string = _STRING.match(text, place) if text[place] in "\"'" else None
        if string is not None:
            place = end = string.end()
            continue
        if depth == 0 and text[place] in ",}":
            break
        depth += (text[place] in "[{") - (text[place] in "]}")
        end = end if text[place].isspace() else place + 1
        place += 1
    return end


def _out_of_inline(text: str, entry: Entry, key: str) -> str:
    """The reverse of ``_into_inline``, which puts its pair first."""
    ours = re.compile(rf"""\{{ {re.escape(key)} = ("[^"]*"|'[^']*'),?""")
    match = ours.match(text, entry.value)
    return text if match is None else text[: entry.value] + "{" + text[match.end() :]
