"""The hosts file: one marked line, and every other byte as it was."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.facts import Names, gather
from agent.formats.proposal import Proposal
from agent.node.host import Host
from agent.system import hosts
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
    facts = gather(Host(str(box.root)))._replace(names=Dns())
    assert "DNS gives" in hosts.propose(facts, box.plan(), {}).absent
    elsewhere = box.plan(registry={"address": "10.0.0.2"})
    assert hosts.propose(facts, elsewhere, {}).changes
    also = box.plan(registry={"names": ["cache.registry.io"]})
    assert hosts.propose(facts, also, {}).changes


def test_an_entry_that_is_there_stays_whatever_dns_says(box: Box) -> None:
    box.apply(**ONLY)
    facts = gather(Host(str(box.root)))._replace(names=Dns())
    assert hosts.propose(facts, box.plan(), {}) == Proposal()


TEMPLATE = "/etc/cloud/templates/hosts.debian.tmpl"
TEMPLATE_TEXT = b"## template:jinja\n{# This is cloud-init's #}\n127.0.1.1 {{fqdn}} {{hostname}}\n"
INSTANCE = "/var/lib/cloud/instance"


def with_cloud_init(box: Box, files: dict[str, str]) -> None:
    box.write(TEMPLATE, TEMPLATE_TEXT)
    box.write("/etc/cloud/templates/hosts.redhat.tmpl", TEMPLATE_TEXT)
    box.write("/etc/os-release", b'ID=ubuntu\nID_LIKE="debian"\n')
    for path, text in files.items():
        box.write(path, text.encode())


def written(box: Box) -> list[str]:
    """The files that get the entry; all is as it was afterwards."""
    paths = [one["path"] for one in box.apply(**ONLY)["changes"]]
    for path in paths[1:]:
        assert box.read(path) == TEMPLATE_TEXT + b"10.0.0.1\tmy.registry.io # moorage\n"
    box.untrust(**ONLY)
    assert all(box.read(path) == TEMPLATE_TEXT for path in paths[1:])
    return paths[1:]


@pytest.mark.parametrize(
    ("setting", "edited"),
    [
        ("true", True),
        ("True", True),
        ("TRUE", True),
        ("yes", True),
        ("Yes", True),
        ("on", True),
        ("ON", True),
        ("1", True),
        ('"yes"', True),
        ("'on'", True),
        ("yes  # by the image", True),
        ("\n  yes", True),
        ("!!bool yes", True),
        ("template", True),
        ("localhost", False),
        ("false", False),
        ("no", False),
        ("off", False),
        ("0", False),
        ("y", False),  # a word for YAML 1.1 as PyYAML reads it, and for cloud-init
        ("", False),
        ("~", False),
        ("null", False),
        ('""', False),
    ],
)
def test_the_entry_comes_into_cloud_inits_template_where_that_makes_the_file(
    box: Box, setting: str, edited: bool
) -> None:
    text = f"manage_etc_hosts: {setting}\n"
    assert edited is is_true_for_cloud_init(text)
    for file in ("/etc/cloud/cloud.cfg.d/99.cfg", f"{INSTANCE}/vendor-cloud-config.txt"):
        with_cloud_init(box, {"/etc/cloud/cloud.cfg": "manage_etc_hosts: false\n", file: text})
        assert written(box) == ([TEMPLATE] if edited else [])
        (box.root / file.lstrip("/")).unlink()


def is_true_for_cloud_init(text: str) -> bool:
    """Stands in for cloud-init: PyYAML and ``util.translate_bool`` of 22.4.2, word by word."""
    yaml = pytest.importorskip("yaml")
    said = (yaml.safe_load(text) or {}).get("manage_etc_hosts", False)
    return str(said).lower().strip() in ("true", "1", "on", "yes", "template")


@pytest.mark.parametrize(
    "text",
    [
        '{"manage_etc_hosts": true, "packages": ["jq"]}',
        "#cloud-config\n{packages: [jq], manage_etc_hosts: yes}\n",
        '"manage_etc_hosts": on\n',
        "manage_etc_hosts : yes\n",
        "manage_etc_hosts: no\nfqdn: a.b\nmanage_etc_hosts: yes\n",
        "\ufeffmanage_etc_hosts: yes\n",
        "manage_etc_hosts: yes\r\nfqdn: a.b\r\n",
        "manage_etc_hosts: yes",
        "write_files:\n- content: |\n    manage_etc_hosts: yes\n  path: /x\n",
        "other:\n  manage_etc_hosts: yes\n",
        "# manage_etc_hosts: yes\n",
        "not_manage_etc_hosts: yes\n",
        "manage_etc_hosts_too: yes\n",
        "manage_etc_hosts:\nfqdn: a.b\n",
    ],
)
def test_yaml_is_read_as_cloud_init_reads_it(box: Box, text: str) -> None:
    with_cloud_init(box, {f"{INSTANCE}/cloud-config.txt": text})
    assert written(box) == ([TEMPLATE] if is_true_for_cloud_init(text) else [])


SYSTEM, DROP_IN = "/etc/cloud/cloud.cfg", "/etc/cloud/cloud.cfg.d"
VENDOR, VENDOR2 = f"{INSTANCE}/vendor-cloud-config.txt", f"{INSTANCE}/vendor2-cloud-config.txt"
USER = f"{INSTANCE}/cloud-config.txt"


@pytest.mark.parametrize(
    ("says_no", "says_yes"),
    [
        (SYSTEM, f"{DROP_IN}/05.cfg"),
        (f"{DROP_IN}/05.cfg", f"{DROP_IN}/90_dpkg.cfg"),
        (f"{DROP_IN}/90_dpkg.cfg", VENDOR),
        (VENDOR, VENDOR2),
        (VENDOR2, USER),
    ],
)
def test_of_two_configurations_the_one_that_cloud_init_prefers_counts(
    box: Box, says_no: str, says_yes: str
) -> None:
    yes, no = "manage_etc_hosts: yes\n", "manage_etc_hosts: no\n"
    with_cloud_init(box, {says_no: no, says_yes: yes})
    assert written(box) == [TEMPLATE]
    with_cloud_init(box, {says_no: yes, says_yes: no})
    assert written(box) == []


def test_what_cloud_init_does_not_read_says_nothing(box: Box) -> None:
    said = "manage_etc_hosts: yes\n"
    with_cloud_init(box, {f"{DROP_IN}/99.cfg.dpkg-old": said, f"{DROP_IN}/README": said})
    assert written(box) == []


def test_a_value_that_jinja_makes_at_boot_is_taken_for_a_yes(box: Box) -> None:
    text = "## template: jinja\nmanage_etc_hosts: {{ ds.managed }}\n"
    with_cloud_init(box, {f"{DROP_IN}/99.cfg": text})
    assert written(box) == [TEMPLATE]


@pytest.mark.parametrize(
    ("distro", "release", "family"),
    [
        ("debian", "ID=debian", "debian"),
        ("ubuntu", "ID=rocky", "debian"),  # cloud.cfg's word goes first
        (None, "ID=rocky\nID_LIKE='rhel centos fedora'", "redhat"),
        (None, "ID=amzn", "redhat"),
        (None, "ID=openEuler", "redhat"),
        (None, "ID=cloudlinux", "redhat"),
        (None, "ID=opensuse-leap\nID_LIKE='suse opensuse'", "suse"),
        (None, "ID=alpine", "alpine"),
    ],
)
def test_the_template_is_that_of_the_systems_family(
    box: Box, distro: str | None, release: str, family: str
) -> None:
    for name in ("debian", "redhat", "suse", "alpine"):
        box.write(f"/etc/cloud/templates/hosts.{name}.tmpl", TEMPLATE_TEXT)
    system = f"system_info:\n  # its class\n  distro: {distro}\n" if distro else ""
    box.write("/etc/cloud/cloud.cfg", f"manage_etc_hosts: yes\n{system}".encode())
    box.write("/etc/os-release", f"{release}\n".encode())
    assert written(box) == [f"/etc/cloud/templates/hosts.{family}.tmpl"]


def test_a_line_that_cloud_init_has_written_again_is_still_ours(box: Box) -> None:
    # `manage_etc_hosts: localhost` joins the words by tabs and glues the comment to the last.
    before = b"127.0.0.1\tlocalhost\n"
    box.write("/etc/hosts", before)
    box.apply(**ONLY)
    box.write("/etc/hosts", before + b"10.0.0.1\tmy.registry.io# moorage\n")
    box.untrust(**ONLY)
    assert box.read("/etc/hosts") == before


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
@settings(max_examples=150)
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
