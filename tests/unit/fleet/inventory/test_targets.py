"""Hosts as users write them: what is taken, what is refused, and with which words."""

from __future__ import annotations

import pytest

from moorage.errors import Refused
from moorage.fleet.inventory import Target, parse_hosts, parse_names


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("node1", Target("node1", "node1")),
        (" node1 ", Target("node1", "node1")),
        ("Node-1.lan", Target("Node-1.lan", "Node-1.lan")),
        ("alias_1", Target("alias_1", "alias_1")),
        ("admin@node1", Target("admin@node1", "node1", "admin")),
        ("admin@node1:2222", Target("admin@node1:2222", "node1", "admin", 2222)),
        ("me@corp.example@node1", Target("me@corp.example@node1", "node1", "me@corp.example")),
        ("10.0.0.3", Target("10.0.0.3", "10.0.0.3")),
        ("10.0.0.3:22", Target("10.0.0.3:22", "10.0.0.3", "", 22)),
        ("fd00::3", Target("fd00::3", "fd00::3")),
        ("[fd00::3]", Target("[fd00::3]", "fd00::3")),
        ("root@[fd00::3]:2222", Target("root@[fd00::3]:2222", "fd00::3", "root", 2222)),
    ],
)
def test_a_host_is_read_as_ssh_users_write_it(text: str, expected: Target) -> None:
    assert parse_hosts(text) == (expected,)


def test_hosts_keep_their_order() -> None:
    assert [target.name for target in parse_hosts("c,a,b")] == ["c", "a", "b"]


@pytest.mark.parametrize("text", ["", "   "])
def test_an_empty_list_is_refused(text: str) -> None:
    with pytest.raises(Refused) as refusal:
        parse_hosts(text)
    assert refusal.value.code == "no-hosts"
    assert "--hosts=" in refusal.value.cure


@pytest.mark.parametrize(
    "text",
    [
        "a,,b",
        ",",
        "a b",
        "-oProxyCommand=x",
        "-v@host",
        "user@",
        "@host",
        "ssh://host",
        "host/path",
        "host:",
        "host:0",
        "host:65536",
        "host:ssh",
        "10.0.0.300",
        "10.0.0",
        "[fd00::3",
        "[fd00::3]22",
        "[host]:22",
        "fd00::3:g",
        "host;reboot",
        "$(reboot)",
        "h\u00f6st",
        "a\nb",
        "a" * 300,
    ],
)
def test_what_is_no_host_is_refused_with_cause_and_cure(text: str) -> None:
    with pytest.raises(Refused) as refusal:
        parse_hosts(text)
    assert refusal.value.code == "bad-hosts"
    assert refusal.value.cause
    assert refusal.value.cure


@pytest.mark.parametrize(
    ("text", "named"),
    [("a,b,a", "a"), ("a,root@a", "root@a"), ("A,a", "a"), ("a.lan,a.lan.", "a.lan.")],
)
def test_a_host_given_twice_is_named(text: str, named: str) -> None:
    with pytest.raises(Refused) as refusal:
        parse_hosts(text)
    assert refusal.value.code == "host-twice"
    assert named in refusal.value.message + refusal.value.cure


def test_one_name_on_two_ports_is_two_hosts() -> None:
    assert len(parse_hosts("localhost:2201,localhost:2202")) == 2


def test_names_from_settings_pass_the_same_gate() -> None:
    assert parse_names(("a", "b"))[1].host == "b"
    with pytest.raises(Refused):
        parse_names(("a", "a b"))
