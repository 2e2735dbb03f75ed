"""Versions of containerd's files: which names count in which, and what they keep from being read.

What 2.3 makes of each was measured with 2.3.4; Debian carries none, so facts are laid out here.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.edit.toml import at, parse
from agent.facts import Facts
from agent.node.tree import Tree
from agent.runtimes.containerd import candidate, differs_in_trust_alone, propose
from agent.runtimes.containerd.layers import read
from agent.wire.faults import RefusedError
from tests.agent.conftest import Box, facts
from tests.agent.test_containerd_states import taken
from tests.field import case

CONFIG = "/etc/containerd/config.toml"
DROP_IN = "/etc/containerd/conf.d/new.toml"
ROOT = "/etc/containerd/certs.d"
T1, T2, T3 = "cri", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images"
Version = tuple[int, int, int]
TWO_1, TWO_2, TWO_3 = (2, 1, 9), (2, 2, 7), (2, 3, 4)
IMPORTS = 'imports = ["/etc/containerd/conf.d/*.toml"]\n'
DEFAULT = next(
    one for one in case.read(case.FOLDER / "kubeadm-config-default-2.3.case")
).files[CONFIG]  # fmt: skip


def laid(box: Box, files: dict[str, str], version: Version, dump: str | None = DEFAULT) -> Facts:
    """A node with these files, of which containerd makes ``dump``; None: it refuses them."""
    for path, text in files.items():
        box.write(path, text.encode())
    found = facts(box.root, (dump or "").encode(), version)
    assert found.containerd is not None
    if dump is None:
        told = found.containerd._replace(merged=None, complaint="it says why")
        return Facts("node", Tree(str(box.root)), None, told)
    return found


def edited(node: Facts, box: Box) -> dict[str, dict[str, object]]:
    changes = propose(node, box.plan(), {}).changes
    return {
        one.path: parse(one.after or b"") for one in changes if one.path.endswith(".toml")
    }  # fmt: skip


def test_a_file_of_version_4_is_read_and_edited_by_the_names_that_count_in_it(box: Box) -> None:
    node = laid(box, {CONFIG: DEFAULT}, TWO_3)
    assert taken(node, box) == ["folders-ignored"]
    after = edited(node, box)[CONFIG]
    assert at(after, "plugins", T3, "registry", "config_path") == ROOT
    assert at(after, "version") == 4


def test_a_version_that_is_not_known_here_is_judged_by_containerds_own_dump(box: Box) -> None:
    """It may have moved the table: the dump tells where it stands."""
    moved = DEFAULT.replace("version = 4", "version = 5").replace(T3, "io.containerd.cri.v2.pull")
    node = laid(box, {CONFIG: moved}, (3, 0, 0), moved)
    after = edited(node, box)[CONFIG]
    assert at(after, "plugins", "io.containerd.cri.v2.pull", "registry", "config_path") == ROOT
    before = moved.encode()
    new = moved.replace("config_path = ''", f"config_path = '{ROOT}'", 1).encode()
    assert differs_in_trust_alone(before, new, box.plan().registry)
    other = new.replace(b"SystemdCgroup = true", b"SystemdCgroup = false")
    assert not differs_in_trust_alone(before, other, box.plan().registry)


@pytest.mark.parametrize("version", [TWO_1, TWO_3, (1, 7, 24)])
def test_a_version_that_containerd_itself_does_not_take_is_refused(
    box: Box, version: Version
) -> None:
    node = laid(box, {CONFIG: "version = 9\n"}, version, None)
    with pytest.raises(RefusedError) as caught:
        propose(node, box.plan(), {})
    assert caught.value.code == "config-version"
    assert caught.value.fault.cause == "it says why"


def test_1_x_takes_a_newer_version_without_a_word_and_is_refused_all_the_same(box: Box) -> None:
    with pytest.raises(RefusedError) as caught:
        propose(laid(box, {CONFIG: "version = 3\n"}, (1, 6, 20), "version = 2\n"), box.plan(), {})
    assert caught.value.code == "config-version"


OWN = {2: T2, 3: T3, 4: T3, 0: T3}


@pytest.mark.parametrize("main", [0, 2, 3, 4])
def test_on_2_3_each_file_is_read_and_edited_by_its_own_version(box: Box, main: int) -> None:
    said = f"version = {main}\n" if main else ""
    files = {
        CONFIG: said + IMPORTS + "[debug]\n  level = 'info'\n",
        DROP_IN: f"version = 2\n[plugins.'{T2}']\n  sandbox_image = 'p'\n",
    }
    after = edited(laid(box, files, TWO_3), box)
    assert at(after[CONFIG], "plugins", OWN[main], "registry", "config_path") == ROOT
    assert DROP_IN not in after


@pytest.mark.parametrize(
    ("version", "table", "counts"),
    [(0, T1, True), (0, T2, True), (0, T3, True), (2, T1, False), (2, T2, True), (2, T3, True),
     (3, T2, False), (3, T3, True), (4, T2, False), (4, T3, True)],
)  # fmt: skip
def test_on_2_3_the_tables_that_count_in_a_file_follow_from_its_version(
    box: Box, version: int, table: str, counts: bool
) -> None:
    said = f"version = {version}\n" if version else ""
    text = f"{said}[plugins.'{table}'.registry.mirrors.'quay.io']\n  endpoint = ['https://m.io']\n"
    node = laid(box, {CONFIG: text}, TWO_3)
    assert node.containerd is not None
    layers = read(node.containerd, node.tree)
    assert ("quay.io" in layers.written.get("mirrors", {})) is counts
    dump = DEFAULT.replace("mirrors = {}", "")
    if counts:
        dump += f"[plugins.'{T3}'.registry.mirrors.'quay.io']\n  endpoint = ['https://m.io']\n"
        node = laid(box, {CONFIG: text}, TWO_3, without(dump))
        assert taken(node, box) == ["move-legacy"]
        after = edited(node, box)
        assert at(after[CONFIG], "plugins", table, "registry", "config_path") == ROOT
        assert at(after[CONFIG], "plugins", table, "registry", "mirrors") is None
        assert f"{ROOT}/quay.io/hosts.toml" in after


def without(dump: str) -> str:
    """A dump whose empty tables of mirrors give way to the one that is added at its end."""
    lines = dump.splitlines(keepends=True)
    return "".join(one for one in lines if ".registry.mirrors]" not in one)


def test_where_nothing_is_set_what_is_in_force_unsaid_is_kept(box: Box) -> None:
    """From 2.2.2 on a dump tells an empty config_path while two folders count."""
    local = DEFAULT.replace("use_local_image_pull = false", "use_local_image_pull = true")
    box.write("/etc/docker/certs.d/other.registry.io/ca.crt", b"x")
    node = laid(box, {CONFIG: "version = 2\n"}, TWO_2, local)
    assert taken(node, box) == ["folder"]
    proposal = propose(node, box.plan(), {})
    assert proposal.restarts == ()
    assert CONFIG not in {one.path for one in proposal.changes}
    assert f"{ROOT}/my.registry.io/hosts.toml" in {one.path for one in proposal.changes}


def test_what_is_in_force_unsaid_is_no_folder_to_the_transfer_service(box: Box) -> None:
    box.write("/etc/docker/certs.d/other.registry.io/ca.crt", b"x")
    node = laid(box, {CONFIG: "version = 2\n"}, TWO_2)
    assert taken(node, box) == ["folders-ignored"]
    after = edited(node, box)
    assert at(after[CONFIG], "plugins", T2, "registry", "config_path") == ROOT
    told = after[f"{ROOT}/other.registry.io/hosts.toml"]
    assert told["ca"] == ["/etc/docker/certs.d/other.registry.io/ca.crt"]


@pytest.mark.parametrize(("version", "strategy"), [((2, 2, 1), "set-config-path"),
                                                   ((2, 2, 2), "folders-ignored")])  # fmt: skip
def test_before_2_2_2_nothing_is_in_force_that_a_dump_does_not_tell(
    box: Box, version: Version, strategy: str
) -> None:
    assert taken(laid(box, {CONFIG: "version = 3\n"}, version), box) == [strategy]


LOST = {
    CONFIG: f"version = 2\n{IMPORTS}[plugins.'{T2}']\n  sandbox_image = 'p'\n",
    DROP_IN: "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.containerd]\n",
}


@pytest.mark.parametrize("version", [(2, 0, 0), TWO_1, TWO_2])
def test_settings_that_a_newer_drop_in_keeps_from_being_read_are_told_before_a_restart(
    box: Box, version: Version
) -> None:
    node = laid(box, LOST, version)
    words = "\n".join(propose(node, box.plan(), {}).notes)
    assert f"reads none of CRI's tables in {CONFIG}" in words
    assert DROP_IN in words
    assert "config migrate" in words


@pytest.mark.parametrize("newer", [3, 4])
def test_where_2_3_does_not_start_with_a_newer_drop_in_that_is_the_reason_told(
    box: Box, newer: int
) -> None:
    files = {**LOST, DROP_IN: LOST[DROP_IN].replace("version = 3", f"version = {newer}")}
    with pytest.raises(RefusedError) as caught:
        propose(laid(box, files, TWO_3, None), box.plan(), {})
    assert caught.value.code == "config-version"
    assert DROP_IN in str(caught.value)
    assert "config migrate" in caught.value.fault.cure


@pytest.mark.parametrize(
    "files",
    [{CONFIG: LOST[CONFIG]}, {**LOST, DROP_IN: "[debug]\n"},
     {**LOST, CONFIG: f"version = 2\n{IMPORTS}[debug]\n"},
     {**LOST, DROP_IN: LOST[DROP_IN].replace("= 3", "= 2")}],
)  # fmt: skip
def test_nothing_is_told_where_nothing_is_lost(box: Box, files: dict[str, str]) -> None:
    notes = propose(laid(box, files, TWO_1, "version = 3\n"), box.plan(), {}).notes
    assert not any("config migrate" in one for one in notes)


MARK = "\ufeff"
PLAIN = f"version = 2\r\n[plugins.'{T2}'.registry]\r\n  config_path = ''\r\n"


@pytest.mark.parametrize("version", [(1, 6, 20), (1, 7, 24)])
def test_a_byte_order_mark_stays_where_containerd_reads_it(box: Box, version: Version) -> None:
    for text in (MARK + PLAIN, MARK, MARK + "# none\n", MARK + "version = 2\n"):
        node = laid(box, {CONFIG: text}, version, "version = 2\n")
        change = next(one for one in propose(node, box.plan(), {}).changes if one.path == CONFIG)
        after = change.after or b""
        assert after.startswith(MARK.encode())
        assert after.count(MARK.encode()) == 1
        assert at(parse(after), "plugins", T2, "registry", "config_path") == ROOT


def test_a_byte_order_mark_that_containerd_does_not_read_is_refused_by_name(box: Box) -> None:
    for files in ({CONFIG: MARK + PLAIN}, {CONFIG: "version = 2\n" + IMPORTS, DROP_IN: MARK}):
        with pytest.raises(RefusedError) as caught:
            propose(laid(box, files, TWO_1, None), box.plan(), {})
        assert caught.value.code == "config-not-toml"
        assert "byte order mark" in str(caught.value)
        assert caught.value.fault.cure.startswith("take it out: sed -i")


def test_the_whole_way_with_a_byte_order_mark_gives_every_byte_back(box: Box) -> None:
    box.with_containerd((MARK + PLAIN).encode())
    box.write(f"{ROOT}/my.registry.io/hosts.toml", (MARK + "ca = 'corp.pem'\n[host]\n").encode())
    before = box.files()
    assert box.apply(parts=["containerd"])["status"] == "changed"
    assert (box.read(f"{ROOT}/my.registry.io/hosts.toml") or b"").startswith(MARK.encode())
    box.write(CONFIG, (box.read(CONFIG) or b"") + b"# theirs\r\n")
    assert box.untrust()["status"] == "changed"
    after = box.files()
    assert after.pop("etc/containerd/config.toml") == (MARK + PLAIN + "# theirs\r\n").encode()
    assert after == {k: v for k, v in before.items() if k != "etc/containerd/config.toml"}


@pytest.mark.parametrize(("version", "refused"), [((1, 7, 24), False), (TWO_1, True)])
def test_a_hosts_toml_with_a_byte_order_mark_goes_by_what_containerd_reads(
    box: Box, version: Version, refused: bool
) -> None:
    config = f"version = 2\n[plugins.'{T2}'.registry]\n  config_path = '{ROOT}'\n"
    box.write(f"{ROOT}/my.registry.io/hosts.toml", (MARK + "[host]\n").encode())
    node = laid(box, {CONFIG: config}, version, config)
    if not refused:
        assert propose(node, box.plan(), {}).changes
        return
    with pytest.raises(RefusedError) as caught:
        propose(node, box.plan(), {})
    assert caught.value.code == "config-not-toml"


def test_the_candidate_keeps_a_byte_order_mark_too(box: Box) -> None:
    node = laid(box, {CONFIG: MARK + "version = 2\n" + IMPORTS, DROP_IN: MARK}, (1, 7, 24), "")
    assert node.containerd is not None
    changes = propose(node, box.plan(), {}).changes
    files = candidate(node.containerd, node.tree, changes)
    assert all(one.startswith(MARK.encode()) for one in files.values())
    assert "@moorage-scratch@" in files["config.toml"].decode()
    assert Path(DROP_IN).name not in files
