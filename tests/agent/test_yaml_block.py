"""YAML edited line by line: what is added goes again, and what is not understood is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.edit import yaml_block
from agent.edit.yaml_block import Unsafe

MARK = "# moorage my.registry.io"
TLS = ("configs", "my.registry.io", "tls")
FILES = [
    "",
    "# nothing yet\n",
    '---\nmirrors:\n  docker.io:\n    endpoint:\n      - "https://mirror.corp:5000"\n',
    "mirrors:\n  docker.io:\n    endpoint:\n    - https://mirror.corp\nconfigs:\n"
    "  \"mirror.corp\":\n    auth:\n      username: u # who\n      password: 'p#w: x'\n",
    "configs:\r\n  other:5000:\r\n    tls:\r\n      insecure_skip_verify: true\r\n",
    "configs:\n    my.registry.io:\n        auth:\n            username: u",
    "mirrors:\n  '*':\n    endpoint: [\"https://a\", 'https://b']\nconfigs:\n",
]


@pytest.mark.parametrize("text", FILES)
def test_what_is_added_is_there_and_goes_again(text: str) -> None:
    edited = yaml_block.scan(text).with_keys(TLS, ['ca_file: "/etc/ca.crt"'], MARK)
    assert edited.value(*TLS, "ca_file") == "/etc/ca.crt"
    assert yaml_block.without(edited.text, MARK).rstrip("\r\n") == text.rstrip("\r\n")
    again = yaml_block.scan(edited.text)
    assert again.value(*TLS, "ca_file") == "/etc/ca.crt"


def test_keys_come_below_those_that_are_there() -> None:
    text = "configs:\n    my.registry.io:\n        auth:\n            username: u\n"
    edited = yaml_block.scan(text).with_keys(TLS, ['ca_file: "/c"'], MARK)
    assert edited.text == (
        "configs:\n    my.registry.io:\n"
        f'        tls: {MARK}\n          ca_file: "/c" {MARK}\n'
        "        auth:\n            username: u\n"
    )
    assert edited.value("configs", "my.registry.io", "auth", "username") == "u"


def test_a_key_of_ours_that_others_use_stays() -> None:
    text = yaml_block.scan("").with_keys(TLS, ['ca_file: "/c"'], MARK).text
    theirs = text.replace(f"configs: {MARK}\n", f"configs: {MARK}\n  other.io:\n    tls:\n")
    left = yaml_block.without(theirs, MARK)
    assert left == f"configs: {MARK}\n  other.io:\n    tls:\n"


@pytest.mark.parametrize(
    "text",
    [
        "configs: &anchor\n  a:\n",
        "configs: *other\n",
        "configs: |\n  tls:\n",
        "configs:\n\ta:\n",
        "configs: {my.registry.io: {tls: {}}}\n",
        "a: 1\n---\nb: 2\n",
        "configs:\nconfigs:\n",
        "  configs:\n",
        'configs: "over\n  lines"\n',
        "configs: plain\n  goes on: 1\n",
        "<<: *base\n",
        "configs: {}\n",
        "? complex\n",
        "!!map\n",
        "just words\n",
        "configs:\n- my.registry.io\n",
    ],
)
def test_what_is_not_plain_is_refused(text: str) -> None:
    with pytest.raises(Unsafe):
        yaml_block.scan(text).with_keys(TLS, ['ca_file: "/c"'], MARK)


def test_lists_are_read_in_both_spellings() -> None:
    document = yaml_block.scan(FILES[6])
    assert document.value("mirrors", "*", "endpoint") is not None
    assert document.items("mirrors", "*", "endpoint") == ["https://a", "https://b"]
    assert yaml_block.scan(FILES[3]).items("mirrors", "docker.io", "endpoint") == [
        "https://mirror.corp"
    ]


@given(st.text(alphabet="abc:-#'\"[]{} \n\t&*|>", max_size=60))
def test_any_text_is_refused_or_comes_back(text: str) -> None:
    try:
        edited = yaml_block.scan(text).with_keys(TLS, ['ca_file: "/c"'], MARK)
    except Unsafe:
        return
    assert yaml_block.without(edited.text, MARK).rstrip("\r\n") == text.rstrip("\r\n")
