"""Lists in daemon.json: an item comes and goes, every other byte stays."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.edit.json_edit import with_item, without_item

KEY, ITEM = "registry-mirrors", "https://my.registry.io"
FILES = [
    "{}",
    "{ }\n",
    '{"debug": true}',
    '{\n  "debug": true\n}\n',
    '{\n\t"registry-mirrors": ["https://other"],\n\t"debug": true\n}\n',
    '{\r\n  "registry-mirrors": [\r\n    "https://other"\r\n  ]\r\n}\r\n',
    '{"registry-mirrors": []}',
    '{"a": "registry-mirrors: [1]", "b": {"registry-mirrors": []}}',
]


@pytest.mark.parametrize("text", FILES)
def test_an_item_comes_and_goes_with_the_same_bytes(text: str) -> None:
    edited = with_item(text, KEY, ITEM)
    assert ITEM in json.loads(edited)[KEY]
    assert with_item(edited, KEY, ITEM) == edited
    assert without_item(edited, KEY, ITEM, keep_empty=KEY in json.loads(text)) == text


def test_a_missing_file_becomes_one() -> None:
    assert json.loads(with_item("", KEY, ITEM)) == {KEY: [ITEM]}


@pytest.mark.parametrize("text", ["[]", "{", '{"registry-mirrors": "x"}', "nonsense", "// c\n{}"])
def test_what_is_no_object_with_a_list_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        with_item(text, KEY, ITEM)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(st.text(max_size=6), values, max_size=4),
    st.lists(st.text(max_size=6), max_size=3, unique=True),
    st.booleans(),
    st.sampled_from([None, 0, 1, "\t"]),
)
def test_any_object_comes_back(
    data: dict[str, object], listed: list[str], there: bool, indent: int | str | None
) -> None:
    data.pop(KEY, None)
    if there:
        data[KEY] = [one for one in listed if one != ITEM]
    text = json.dumps(data, indent=indent, ensure_ascii=False)
    edited = with_item(text, KEY, ITEM)
    assert without_item(edited, KEY, ITEM, keep_empty=there) == text
