"""Inventories as users have them: ranges, groups, files, Ansible's, and what is left of them."""

from __future__ import annotations

import contextlib
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.errors import Refused
from moorage.fleet.inventory import listing, ranges
from moorage.fleet.inventory.selection import Selection, resolve

INI = b"""\
bastion ansible_host=10.0.0.9   # lone hosts come first

[web]
web[01:03].lan ansible_port=2222
[db]
db-[a:b] ansible_user="ops team" ansible_user=ops

[prod:children]
web
db
[prod:vars]
ansible_user=deploy
http_port=80
[web:vars]
ansible_user=www
"""

YAML = b"""\
all:
  vars: {ansible_user: deploy}
  hosts:
    bastion: {ansible_host: 10.0.0.9}
  children:
    web:
      hosts:
        web[01:03].lan: {ansible_port: 2222}
      vars: {ansible_user: www}
    prod:
      children: {web: {}, db: {hosts: {db-a: , db-b: {ansible_user: ops}}}}
"""


def names(
    selection: Selection,
    files: dict[str, bytes] | None = None,
    groups: dict[str, str] | None = None,
) -> list[str]:
    there = files or {}
    return [host.name for host in resolve(selection, groups or {}, lambda path: there[path])]


def refused(
    selection: Selection,
    files: dict[str, bytes] | None = None,
    groups: dict[str, str] | None = None,
) -> Refused:
    with pytest.raises(Refused) as refusal:
        names(selection, files, groups)
    assert refusal.value.cause
    assert refusal.value.cure
    return refusal.value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a,b", ["a", "b"]),
        ("node[01-03].lan", ["node01.lan", "node02.lan", "node03.lan"]),
        ("n[1-2,7],b", ["n1", "n2", "n7", "b"]),
        ("ops@r[1-2]n[1-2]:2222", [f"ops@r{r}n{n}:2222" for r in (1, 2) for n in (1, 2)]),
        ("[fd00::3]:22,x", ["[fd00::3]:22", "x"]),
    ],
)
def test_ranges_stand_for_all_their_hosts(text: str, expected: list[str]) -> None:
    assert names(Selection(text)) == expected


@pytest.mark.parametrize("text", ["n[3-1]", "n[1-", "n[1-99999]", "n[1-2", "n[1-2]]", "n[a-b]"])
def test_a_bad_range_is_refused_by_name(text: str) -> None:
    problem = refused(Selection(text))
    assert problem.code == "bad-hosts"
    assert text[:2] in problem.message


@given(st.text(string.printable, max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(Refused):
        resolve(Selection(text), {"web": "a"}, lambda _path: b"a\n")


def test_groups_of_the_settings_may_hold_ranges_and_groups() -> None:
    groups = {"web": "web[1-2]", "db": "db1", "prod": "@web,@db", "loop": "@loop", "none": " "}
    assert names(Selection("@prod,extra"), None, groups) == ["web1", "web2", "db1", "extra"]
    assert "known groups: db, loop" in refused(Selection("@wbe"), None, groups).cause
    assert "contains itself" in refused(Selection("@loop"), None, groups).cause
    assert "no hosts" in refused(Selection("@none"), None, groups).cause


def test_a_host_of_two_sources_counts_once_and_one_typed_twice_is_refused() -> None:
    assert names(Selection("@web,web1", "", "", ""), None, {"web": "web[1-2]"}) == ["web1", "web2"]
    assert names(Selection("a,-"), {"-": b"b\na\n"}) == ["a", "b"]
    assert refused(Selection("a,b,a")).code == "host-twice"


def test_standard_input_and_files_hold_a_host_a_line() -> None:
    listed = b"# the rack\nnode[1-2]\n\nadmin@node3:2222  # the odd one\nnode1\n"
    assert names(Selection("-"), {"-": listed}) == ["node1", "node2", "admin@node3:2222"]
    assert names(Selection(None, "rack"), {"rack": listed})[0] == "node1"
    problem = refused(Selection(None, "rack"), {"rack": b"node1\nno/de\n"})
    assert "rack, line 2" in problem.message
    assert refused(Selection(None, "rack"), {"rack": b"# none\n"}).cause == "it names no host"
    assert "UTF-8" in refused(Selection(None, "rack"), {"rack": b"a\n\xff\n"}).cause


def test_an_openssh_configuration_names_its_hosts() -> None:
    config = b"Host *\n  User x\nHost b1 a1\n  HostName 10.0.0.1\nHost *.lan !z\n  Port 22\n"
    assert names(Selection(None, "config"), {"config": config}) == ["b1", "a1"]


@pytest.mark.parametrize(("name", "content"), [("hosts", INI), ("hosts.yml", YAML)])
def test_an_ansible_inventory_tells_hosts_groups_and_how_to_reach_them(
    name: str, content: bytes
) -> None:
    found = listing.read(content, name)
    hosts = {host.name: host for host in found.hosts}
    assert hosts["bastion"].host == "10.0.0.9"
    assert hosts["web02.lan"].port == 2222
    assert hosts["web02.lan"].user == "www"  # a child's variable wins over its parent's
    assert hosts["db-b"].user == "ops"
    assert hosts["db-a"].user == ("ops" if name == "hosts" else "deploy")
    assert set(found.groups["prod"]) == {"web01.lan", "web02.lan", "web03.lan", "db-a", "db-b"}
    limited = Selection(None, name, limit="@prod,bastion", exclude="web*")
    assert sorted(names(limited, {name: content})) == ["bastion", "db-a", "db-b"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[web]\na b\n", "line 2"),
        (b"[web:kids]\na\n", "line 1"),
        (b"[web:children]\nnone\n", "unknown child none"),
        (b"[a:children]\nb\n[b:children]\na\n", "its own child"),
        (b'[web]\na ansible_host="{{ x }}"\n', "template"),
        (b"[web]\na[5:1]\n", "empty"),
        (b"[web]\na ansible_port=ssh\n", "port"),
        (b"[web]\na 'b\n", "line 2"),
        (b"all: [a]\n", "keys were expected"),
        (b"all:\n  hosts: [a]\n", "expected keys"),
        (b"all:\n  hosts: {a: {}\n", "line 3"),
        (b"all:\n  host: {a: {}}\n", "unknown key 'host'"),
    ],
)
def test_a_bad_ansible_inventory_names_the_place(content: bytes, words: str) -> None:
    name = "i.yml" if content.startswith(b"all") else "i"
    problem = refused(Selection(None, name), {name: content})
    assert problem.code == "bad-inventory"
    assert words in problem.message + problem.cause


@given(st.binary(max_size=200), st.sampled_from(["hosts", "hosts.yml"]))
def test_any_bytes_are_an_inventory_or_refused(content: bytes, name: str) -> None:
    with contextlib.suppress(Refused):
        listing.read(content, name)


def test_limit_and_exclude_say_what_they_do_not_find() -> None:
    assert names(Selection("n[1-9]", limit="n[2-4]", exclude="n3")) == ["n2", "n4"]
    problem = refused(Selection("n[1-9]", limit="m1"))
    assert problem.code == "no-such-host"
    assert "n[1-9]" in problem.cure
    assert refused(Selection("n1", exclude="n*")).code == "no-hosts"


def test_many_names_fold_into_few_words() -> None:
    assert ranges.fold(["node01", "node02", "node03", "db1"]) == "db1,node[01-03]"
    assert ranges.fold(["10.0.0.1", "admin@b:22"]) == "10.0.0.1,admin@b:22"
