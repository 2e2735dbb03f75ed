"""The hosts file: one marked line, and every other byte as it was."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.facts import Names, gather
from agent.host import Host
from agent.resources import Proposal, hosts
from tests.agent.conftest import Box

ONLY: dict[str, Any] = {"parts": ["hosts"]}


def test_several_names_stand_in_one_line_and_go_again(box: Box) -> None:
    names: dict[str, Any] = {"registry": {"names": ["cache.registry.io", "old.registry.io"]}}
    theirs = b"10.0.0.1 old.registry.io\n127.0.0.1 localhost"
    box.write("/etc/hosts", theirs)
    box.apply(**ONLY, **names)
    assert b"10.0.0.1\tmy.registry.io cache.registry.io # moorage\n" in (
        box.read("/etc/hosts") or b""
    )
    assert box.apply(**ONLY, **names)["status"] == "unchanged"
    box.write("/etc/hosts", (box.read("/etc/hosts") or b"") + b"\n# later")
    box.untrust(**ONLY)
    assert box.read("/etc/hosts") == theirs + b"\n# later"


def test_a_further_names_other_address_is_refused_or_given_back(box: Box) -> None:
    names: dict[str, Any] = {"registry": {"names": ["cache.registry.io"]}}
    theirs = b"10.0.0.9 cache.registry.io other\n"
    box.write("/etc/hosts", theirs)
    assert box.apply(**ONLY, **names)["code"] == "hosts-conflict"
    assert "nodes.trust --replace" in box.apply(**ONLY, **names)["error"]["cure"]
    assert box.apply(**ONLY, **names, options={"replace": True})["status"] == "changed"
    assert b"\n10.0.0.9 other # moorage kept" in b"\n" + (box.read("/etc/hosts") or b"")
    box.write("/etc/hosts", (box.read("/etc/hosts") or b"") + b"# later\n")
    box.untrust(**ONLY)
    assert box.read("/etc/hosts") == theirs + b"# later\n"


def test_ipv6_in_any_spelling_is_the_same_address(box: Box) -> None:
    box.write("/etc/hosts", b"2001:0db8:0:0::0001 my.registry.io\n")
    assert box.apply(**ONLY, registry={"address": "2001:db8::1"})["status"] == "unchanged"


class Dns(Names):
    """Stands in for the node's resolver."""

    def by_dns(self, name: str) -> frozenset[str]:
        return frozenset({"10.0.0.1"}) if name == "my.registry.io" else frozenset()


def test_no_entry_is_made_where_dns_has_it_right(box: Box) -> None:
    facts = replace(gather(Host(str(box.root))), names=Dns())
    assert "DNS gives" in hosts.propose(facts, box.plan(), {}).absent
    elsewhere = box.plan(registry={"address": "10.0.0.2"})
    assert hosts.propose(facts, elsewhere, {}).changes
    also = box.plan(registry={"names": ["cache.registry.io"]})
    assert hosts.propose(facts, also, {}).changes


def test_an_entry_that_is_there_stays_whatever_dns_says(box: Box) -> None:
    box.apply(**ONLY)
    facts = replace(gather(Host(str(box.root))), names=Dns())
    assert hosts.propose(facts, box.plan(), {}) == Proposal()


@pytest.mark.parametrize(
    ("setting", "edited"),
    [("true", True), ("template", True), ("localhost", False), ("false", False)],
)
def test_the_entry_comes_into_cloud_inits_template_where_that_makes_the_file(
    box: Box, setting: str, edited: bool
) -> None:
    template = "/etc/cloud/templates/hosts.debian.tmpl"
    text = b"## template:jinja\n{# This is cloud-init's #}\n127.0.1.1 {{fqdn}} {{hostname}}\n"
    box.write(template, text)
    box.write("/etc/cloud/templates/hosts.redhat.tmpl", text)
    box.write("/etc/os-release", b'ID=ubuntu\nID_LIKE="debian"\n')
    box.write("/etc/cloud/cloud.cfg", b"manage_etc_hosts: false\n")
    box.write("/etc/cloud/cloud.cfg.d/99.cfg", f"manage_etc_hosts: {setting}\n".encode())
    paths = [one["path"] for one in box.apply(**ONLY)["changes"]]
    assert paths == ["/etc/hosts", *([template] if edited else [])]
    if edited:
        assert box.read(template) == text + b"10.0.0.1\tmy.registry.io # moorage\n"
    box.untrust(**ONLY)
    assert box.read(template) == text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"127.0.0.1 localhost\n",
        b"127.0.0.1 localhost",
        b"127.0.0.1 localhost\r\n::1 x\r\n",
        b"# only a comment\n\n\t\n",
        b"\xff\xfe not text\n",
        b"10.0.0.1 my.registry.io.example # my.registry.io\n",
        b"# 10.0.0.9 my.registry.io\n",
    ],
)
def test_one_marked_line_comes_and_goes(box: Box, content: bytes) -> None:
    box.write("/etc/hosts", content)
    assert box.apply(**ONLY)["status"] == "changed"
    after = box.read("/etc/hosts")
    assert after is not None
    assert b"10.0.0.1\tmy.registry.io # moorage\n" in after
    assert box.apply(**ONLY)["status"] == "unchanged"
    assert box.untrust(**ONLY)["status"] == "changed"
    assert box.read("/etc/hosts") == content


def test_no_hosts_file_is_made_and_removed(box: Box) -> None:
    (box.root / "etc/hosts").unlink()
    assert box.apply(**ONLY)["changes"] == [{"path": "/etc/hosts", "action": "created"}]
    box.untrust(**ONLY)
    assert box.read("/etc/hosts") is None


@pytest.mark.parametrize("line", [b"10.0.0.1 a my.registry.io", b"10.0.0.1\tMY.Registry.IO # x\n"])
def test_an_entry_that_is_right_already_is_enough(box: Box, line: bytes) -> None:
    box.write("/etc/hosts", line)
    assert box.apply(**ONLY)["status"] == "unchanged"


def test_ipv6_addresses_are_compared_as_addresses(box: Box) -> None:
    box.write("/etc/hosts", b"fd00:0:0:0::1 my.registry.io\n")
    assert box.apply(registry={"address": "fd00::1"}, **ONLY)["status"] == "unchanged"


def test_a_different_address_is_refused_with_its_line(box: Box) -> None:
    box.write("/etc/hosts", b"127.0.0.1 localhost\n10.9.9.9 my.registry.io\n")
    before = box.files()
    result = box.apply(**ONLY)
    assert result["code"] == "hosts-conflict"
    assert "line 2" in result["error"]["message"]
    assert box.files() == before


@pytest.mark.parametrize(
    "line",
    [
        b"10.9.9.9 my.registry.io\n",
        b"10.9.9.9 other my.registry.io more # note\n",
        b"10.9.9.9 my.registry.io",
    ],
)
def test_a_replaced_entry_is_given_back(box: Box, line: bytes) -> None:
    content = b"127.0.0.1 localhost\n" + line
    box.write("/etc/hosts", content)
    assert box.apply(options={"replace": True}, **ONLY)["status"] == "changed"
    after = box.read("/etc/hosts") or b""
    active = [one.split(b"#")[0].split() for one in after.splitlines()]
    assert [b"10.0.0.1", b"my.registry.io"] in active
    assert not any(words[:1] == [b"10.9.9.9"] and b"my.registry.io" in words for words in active)
    if b"other" in line:
        assert [b"10.9.9.9", b"other", b"more"] in active
    assert box.apply(options={"replace": True}, **ONLY)["status"] == "unchanged"
    box.write("/etc/hosts", after + b"\n10.1.1.1 someone\n")
    box.untrust(**ONLY)
    assert (box.read("/etc/hosts") or b"").replace(b"\n10.1.1.1 someone\n", b"") == content


def test_our_line_follows_the_registry_to_another_address(box: Box) -> None:
    before = box.read("/etc/hosts")
    box.apply(**ONLY)
    box.apply(registry={"address": "10.0.0.2"}, **ONLY)
    after = box.read("/etc/hosts") or b""
    assert b"10.0.0.2\tmy.registry.io" in after
    assert b"10.0.0.1" not in after
    box.untrust(**ONLY)
    assert box.read("/etc/hosts") == before


def test_what_others_added_since_stays(box: Box) -> None:
    before = box.read("/etc/hosts") or b""
    box.apply(**ONLY)
    box.write("/etc/hosts", b"10.5.5.5 new\n" + (box.read("/etc/hosts") or b"") + b"10.6.6.6 x\n")
    box.untrust(**ONLY)
    assert box.read("/etc/hosts") == b"10.5.5.5 new\n" + before + b"10.6.6.6 x\n"


def test_of_a_file_that_had_to_be_mended_our_line_alone_goes_in_the_end(box: Box) -> None:
    before = box.read("/etc/hosts") or b""
    box.apply(**ONLY)
    ours = (box.read("/etc/hosts") or b"").replace(b"10.0.0.1\tmy", b"10.9.9.9\tmy")
    box.write("/etc/hosts", ours + b"10.6.6.6 x\n")
    assert box.apply(**ONLY)["status"] == "changed"
    box.untrust(**ONLY)
    assert box.read("/etc/hosts") == before + b"10.6.6.6 x\n"


def test_two_registries_come_and_go_in_any_order(box: Box) -> None:
    before = box.read("/etc/hosts")
    other: dict[str, Any] = {
        "registry": {"host": "two.registry.io", "address": "10.0.0.2"},
        "verify": None,
    }
    box.apply(**ONLY)
    box.apply(**other, **ONLY)
    box.untrust(**ONLY)
    assert b"two.registry.io" in (box.read("/etc/hosts") or b"")
    assert b"my.registry.io" not in (box.read("/etc/hosts") or b"")
    box.untrust(**other, **ONLY)
    assert box.read("/etc/hosts") == before


LINE = st.one_of(
    st.binary(max_size=30).map(lambda raw: raw.replace(b"my.registry.io", b"")),
    st.sampled_from([b"", b"\r", b"# moorage", b"10.0.0.1 a # moorage", b"127.0.0.1 localhost"]),
    st.sampled_from([b"10.0.0.1 my.registry.io", b"10.0.0.7 my.registry.io two", b"::1 x\t"]),
)


@given(lines=st.lists(LINE, max_size=8))
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_apply_twice_is_apply_once_and_untrust_gives_the_bytes_back(
    box: Box, lines: list[bytes]
) -> None:
    content = b"\n".join(lines)
    box.write("/etc/hosts", content)
    first = box.apply(options={"replace": True}, **ONLY)
    assert first["status"] in ("changed", "unchanged")
    assert box.apply(options={"replace": True}, **ONLY)["status"] == "unchanged"
    box.untrust(**ONLY)
    assert box.read("/etc/hosts") == content
