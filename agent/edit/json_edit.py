"""Adds a string to a list at the top of a JSON text, and takes it away; other bytes stay.

The standard decoder finds where each value begins and ends. The result is parsed and compared, so
an edit that would say anything else is never returned.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()


class _Member(NamedTuple):
    """A key of the top object: where its text begins, and where its value is."""

    key: str
    start: int
    value: int
    end: int


def parse(text: str) -> dict[str, Any]:
    """The object in the text, {} for a blank one. Raises ValueError where there is no object."""
    if not text.strip():
        return {}
    data = json.loads(text)
    if not isinstance(data, dict):
        raise ValueError("it is not a JSON object")
    return data


def with_item(text: str, key: str, item: str) -> str:
    """The text with ``item`` as the last one of the list ``key``, which is made if need be.

    Raises ValueError where the text is no JSON object, or ``key`` is something else than a list.
    """
    data = parse(text)
    there = data.get(key, [])
    if not isinstance(there, list):
        raise ValueError(f"{key} is not a list")
    if item in there:
        return text
    word = json.dumps(item)
    if not text.strip():
        edited = f'{{\n  "{key}": [{word}]\n}}\n'
    else:
        members, close = _members(text)
        found = next((one for one in members if one.key == key), None)
        if found is not None:
            items = _items(text, found.value)
            place = items[-1][1] if items else found.value + 1
            edited = text[:place] + (f", {word}" if items else word) + text[place:]
        elif members:
            indent = text[text.rfind("\n", 0, members[-1].start) + 1 : members[-1].start]
            lead = f",{_newline(text)}{indent}" if not indent.strip() else ", "
            place = members[-1].end
            edited = f'{text[:place]}{lead}"{key}": [{word}]{text[place:]}'
        else:
            edited = f'{text[:close]}"{key}": [{word}]{text[close:]}'
    return _checked(edited, {**data, key: [*there, item]})


def without_item(text: str, key: str, item: str, keep_empty: bool) -> str:
    """The text without ``item`` in the list ``key``; an empty list goes too unless it is kept."""
    data = parse(text)
    there = data.get(key)
    if not isinstance(there, list) or item not in there:
        return text
    members, _ = _members(text)
    at = next(number for number, one in enumerate(members) if one.key == key)
    rest = [one for one in there if one != item]
    if rest or keep_empty:
        items = _items(text, members[at].value)
        start, end = _without_comma(items, there.index(item))
        return _checked(text[:start] + text[end:], {**data, key: rest})
    start, end = _without_comma([(one.start, one.end) for one in members], at)
    del data[key]
    return _checked(text[:start] + text[end:], data)


def _without_comma(spans: list[tuple[int, int]], number: int) -> tuple[int, int]:
    """What to cut so that one of several goes with its comma."""
    if number:
        return spans[number - 1][1], spans[number][1]
    if len(spans) > 1:
        return spans[0][0], spans[1][0]
    return spans[0]


def _members(text: str) -> tuple[list[_Member], int]:
    """The top object's keys, and where its closing brace is."""
    found: list[_Member] = []
    place = _after_space(text, _after_space(text, 0) + 1)
    while text[place] != "}":
        start = place
        key, place = _DECODER.raw_decode(text, place)
        value = _after_space(text, _after_space(text, place) + 1)
        _, end = _DECODER.raw_decode(text, value)
        found.append(_Member(key, start, value, end))
        place = _after_space(text, end)
        if text[place] == ",":
            place = _after_space(text, place + 1)
    return found, place


def _items(text: str, start: int) -> list[tuple[int, int]]:
    """Where the items of the list that begins at ``start`` are."""
    found: list[tuple[int, int]] = []
    place = _after_space(text, start + 1)
    while text[place] != "]":
        _, end = _DECODER.raw_decode(text, place)
        found.append((place, end))
        place = _after_space(text, end)
        if text[place] == ",":
            place = _after_space(text, place + 1)
    return found


def _after_space(text: str, place: int) -> int:
    match = _SPACE.match(text, place)
    return match.end() if match else place


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _checked(edited: str, expected: dict[str, Any]) -> str:
    if parse(edited) != expected:
        raise ValueError("it cannot be edited without a change to something else")
    return edited
