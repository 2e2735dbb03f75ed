"""The lossless edit: what it changes, and that it changes nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.edit.toml import parse
from agent.edit.toml_edit import release, scan, set_string, unset_inline

TABLE = ("plugins", "io.containerd.grpc.v1.cri", "registry")
COMMENT = "# ours"
CASES = {
    "no table": 'version = 2\n[plugins."io.containerd.grpc.v1.cri"]\n  x = 1\n',
    "no last newline": "version = 2\n[debug]\n level = 'info'",
    "nothing": "",
    "windows": 'version = 2\r\n\r\n[plugins."io.containerd.grpc.v1.cri".registry]\r\n',
    "empty value": '[plugins."io.containerd.grpc.v1.cri".registry]\n   config_path = "" # why\n',
    "literal value": "[plugins.'io.containerd.grpc.v1.cri'.registry]\n\tconfig_path = ''\n",
    "table alone": '[plugins."io.containerd.grpc.v1.cri".registry]',
    "subtable only": '[plugins."io.containerd.grpc.v1.cri".registry.mirrors]\n',
    "dotted": '[plugins."io.containerd.grpc.v1.cri"]\nregistry.config_path = ""\nx = [\n1,\n]\n',
    "dotted other": '[plugins."io.containerd.grpc.v1.cri"]\n registry.mirrors = {}\nz = 1\n',
    "inline empty": '[plugins."io.containerd.grpc.v1.cri"]\nregistry = {}\nx = 1\n',
    "inline other": '[plugins."io.containerd.grpc.v1.cri"]\nregistry = {headers = {a = ["b"]}}\n',
    "spaced": '[ plugins . "io.containerd.grpc.v1.cri" . registry ] # c\n a = 1\n',
    "look-alikes": 's = """\n[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = 1\n"""\n'
    "t = '''\n[x] # ]]'''\n# [plugins]\nu = [ '[', \"]\", # ]\n { a = '}' } ]\n",
    "below its own": '[plugins."io.containerd.grpc.v1.cri".registry]\nheaders = {}\n'
    '[plugins."io.containerd.grpc.v1.cri"]\nx = 1\n[plugins]\n'
    '[plugins."io.containerd.grpc.v1.cri".cni]\ny = 2\n',
    "arrays of tables": "[[stream]]\na = 1\n[[stream]]\na = 2\n",
}


def unset(after: str, table: tuple[str, ...], key: str, before: str, comment: str) -> str:
    """What the marks tell, and for an inline table the text as it was."""
    return unset_inline(release(after, comment), table, key, before)


@pytest.mark.parametrize("name", CASES)
def test_the_value_is_set_and_taken_out_again(name: str) -> None:
    before = CASES[name]
    after = set_string(before, TABLE, "config_path", "/x", COMMENT)
    expected = parse(before.encode())
    table = expected
    for key in TABLE:
        table = table.setdefault(key, {})
    table["config_path"] = "/x"
    assert parse(after.encode()) == expected
    assert unset(after, TABLE, "config_path", before, COMMENT) == before
    lost = [line for line in before.splitlines() if line not in after and "config_path" not in line]
    assert not lost or "inline" in name


def test_an_inline_table_that_has_the_key_gets_another_value_and_gives_it_back() -> None:
    before = (
        '[plugins."io.containerd.grpc.v1.cri"]\nregistry = { a = ["x, }"], config_path = "" }\n'
    )
    after = set_string(before, TABLE, "config_path", "/x", COMMENT)
    assert parse(after.encode())["plugins"]["io.containerd.grpc.v1.cri"]["registry"] == {
        "a": ["x, }"],
        "config_path": "/x",
    }
    assert unset(after, TABLE, "config_path", before, COMMENT) == before


@pytest.mark.parametrize("ending", ["", " # why", "\r\n", " # why\r\n"])
def test_the_old_value_is_told_in_the_mark_and_comes_back_without_any_memory(ending: str) -> None:
    before = f'[plugins."io.containerd.grpc.v1.cri".registry]\n config_path = ""{ending}'
    once = set_string(before, TABLE, "config_path", "/x", COMMENT)
    twice = set_string(once, TABLE, "config_path", "/y", COMMENT)
    assert '"/y"  # Moorage, was ""' in twice
    assert release(twice, COMMENT) == before


def test_a_key_of_no_table_comes_before_the_first_table() -> None:
    for before in ("", "# head\n[t]\n", "a = 1\n\n# about t\n[t]\nb = 2\n", "a = 1", "[t]"):
        after = set_string(before, (), "ca", "/x", COMMENT)
        assert parse(after.encode()) == {"ca": "/x", **parse(before.encode())}
        assert release(after, COMMENT) == before


def test_a_value_that_needs_escapes_is_refused() -> None:
    for value in ('a"b', "a\nb", "a\\b", "é"):
        with pytest.raises(ValueError, match="escap"):
            set_string("", TABLE, "config_path", value, COMMENT)


def test_what_was_added_below_our_table_keeps_it() -> None:
    before = "version = 2\n"
    after = set_string(before, TABLE, "config_path", "/x", COMMENT)
    theirs = after + '  other = 1\n[plugins."x"]\n'
    left = unset(theirs, TABLE, "config_path", before, COMMENT)
    assert "config_path" not in left
    assert parse(left.encode())["plugins"]["io.containerd.grpc.v1.cri"]["registry"] == {"other": 1}


KEY = st.sampled_from(["a", "b-c", '"quoted.key"', "'lit'", "x_1"])
VALUE = st.sampled_from(
    ['"s"', "'l'", "1", "true", "[1,\n 2]", '"""m\n[t]\n"""', "'''\nk = 1'''", "{ i = 1 }", "[]",
     "1979-05-27", '"a # b"', "[ # c\n'x', ]"]
)  # fmt: skip
NEWLINE = st.sampled_from(["\n", "\r\n", "\n\n", " # c\n"])


@st.composite
def documents(draw: st.DrawFn) -> str:
    """Valid TOML with every construct in odd places."""
    text = draw(st.sampled_from(["", "version = 2\n", "# head\n\n"]))
    for number in range(draw(st.integers(0, 4))):
        text += f"[t{number}{draw(st.sampled_from(['', '.u', '.' + chr(34) + 'q.q' + chr(34)]))}]"
        text += draw(NEWLINE)
        for key in draw(st.lists(KEY, unique=True, max_size=3)):
            indent = draw(st.sampled_from(["", "  ", "\t"]))
            text += f"{indent}{key} = {draw(VALUE)}{draw(NEWLINE)}"
    return text if draw(st.booleans()) else text.rstrip("\r\n")


@given(text=documents())
@settings(max_examples=400)
def test_the_scanner_sees_what_the_parser_sees(text: str) -> None:
    expected = parse(text.encode())
    for entry in scan(text).entries:
        value = expected
        for key in entry.keys:
            value = value[key]
        assert parse(f"k = {text[entry.value : entry.value_end]}".encode())["k"] == value


@given(text=documents())
@settings(max_examples=400)
def test_set_then_unset_gives_every_byte_back(text: str) -> None:
    after = set_string(text, TABLE, "config_path", "/x", COMMENT)
    assert unset(after, TABLE, "config_path", text, COMMENT) == text
    assert set_string(after, TABLE, "config_path", "/x", COMMENT) == after
