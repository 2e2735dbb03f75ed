"""The states a containerd is found in, and that others' settings survive what is done about them.

Facts are laid out here; that the real containerds see the same is `nox -s field`'s to show.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from agent.edit.change import Change, Owned
from agent.edit.toml import parse
from agent.edit.utf8 import encoding
from agent.facts import Facts, gather
from agent.formats.proposal import Proposal
from agent.node.host import Host
from agent.runtimes.containerd import explain, forgotten, kept, propose, restarts, strip
from agent.runtimes.containerd.layers import read as read_layers
from agent.runtimes.containerd.strategies import STRATEGIES
from agent.wire.faults import RefusedError
from tests.agent.authority import Authority
from tests.agent.conftest import Box, facts, spelled

CONFIG = "/etc/containerd/config.toml"
ROOT = "/etc/containerd/certs.d"
OURS = f"{ROOT}/my.registry.io"
V2 = 'plugins."io.containerd.grpc.v1.cri"'
V3 = 'plugins."io.containerd.cri.v1.images"'
Version = tuple[int, int, int]
ONE_6, ONE_7, TWO_0, TWO_1 = (1, 6, 20), (1, 7, 24), (2, 0, 0), (2, 1, 9)


def found(box: Box, files: dict[str, str], merged: str | None, version: Version) -> Facts:
    """A node with these files, of which containerd makes ``merged`` (None: the first file)."""
    for path, text in files.items():
        box.write(path, text.encode())
    return facts(box.root, (files[CONFIG] if merged is None else merged).encode(), version)


def after(proposal: Proposal) -> dict[str, str]:
    return {one.path: (one.after or b"").decode() for one in proposal.changes}


def taken(node: Facts, box: Box) -> list[str]:
    return [one.strategy for one in explain(node, box.plan()) if one.applies]


DROP_IN = "/etc/containerd/conf.d/99-nvidia.toml"
WITH_DROP_IN = {
    CONFIG: 'version = 2\nimports = ["/etc/containerd/conf.d/*.toml"]\n'
    f'[{V2}]\nsandbox_image = "p"\n',
    DROP_IN: f'version = 2\n[{V2}.containerd]\n  snapshotter = "native"\n',
}


def test_on_1_x_the_drop_in_that_has_the_plugin_is_edited_in_place_of_config_toml(box: Box) -> None:
    node = found(box, WITH_DROP_IN, WITH_DROP_IN[DROP_IN], ONE_7)
    proposal = propose(node, box.plan(), {})
    changed = after(proposal)
    assert CONFIG not in changed
    assert 'config_path = "/etc/containerd/certs.d"' in changed[DROP_IN]
    assert changed[DROP_IN].startswith(WITH_DROP_IN[DROP_IN])
    assert proposal.restarts == ("containerd.service",)
    back = strip(Owned("containerd", DROP_IN, None, None), changed[DROP_IN].encode(), REGISTRY)
    assert back == WITH_DROP_IN[DROP_IN].encode()


def test_on_2_x_config_toml_is_edited_since_the_drop_in_merges(box: Box) -> None:
    node = found(box, WITH_DROP_IN, None, TWO_1)
    changed = after(propose(node, box.plan(), {}))
    assert DROP_IN not in changed
    assert "config_path" in changed[CONFIG]


@pytest.mark.parametrize("version", [ONE_6, ONE_7, TWO_1])
def test_imports_are_read_in_containerds_order(box: Box, version: Version) -> None:
    files = {
        CONFIG: 'imports = ["/etc/containerd/d/*.toml", "plain.toml", "r/*.toml"]\n',
        "/etc/containerd/d/b.toml": 'imports = ["../nested.toml", "/etc/containerd/config.toml"]\n',
        "/etc/containerd/d/a.toml": "",
        "/etc/containerd/d/no.txt": "",
        "/etc/containerd/plain.toml": "",
        "/etc/containerd/r/relative.toml": "",
        "/etc/containerd/nested.toml": "",
        "/r/seen-from-the-root.toml": "",
    }
    node = found(box, files, None, version)
    assert node.containerd is not None
    paths = [one.path for one in read_layers(node.containerd, node.tree).all]
    relative = "/r/seen-from-the-root" if version == ONE_6 else "/etc/containerd/r/relative"
    assert paths == [
        CONFIG, "/etc/containerd/d/a.toml", "/etc/containerd/d/b.toml",
        "/etc/containerd/plain.toml", f"{relative}.toml", "/etc/containerd/nested.toml",
    ]  # fmt: skip


SEVERAL = f'version = 3\n[{V3}.registry]\n  config_path = "{ROOT}:/b"\n'


def test_folders_that_do_not_count_become_one_that_gives_what_all_gave(box: Box) -> None:
    box.write("/b/docker.example/ca.crt", b"x")
    box.write("/b/docker.example/client.cert", b"x")
    box.write("/b/docker.example/client.key", b"secret")
    box.write("/b/hosts.example_5000_/hosts.toml", b'ca = "sub/ca.pem" # old\n[host]\n')
    box.write(f"{ROOT}/both.example/ca.crt", b"x")
    box.write("/b/both.example/ca.crt", b"y")
    node = found(box, {CONFIG: SEVERAL}, None, TWO_1)
    assert taken(node, box) == ["folders-ignored"]
    changed = after(propose(node, box.plan(), {}))
    assert parse(changed[CONFIG].encode()) == parse(SEVERAL.replace(f"{ROOT}:/b", ROOT).encode())
    assert parse(changed[f"{ROOT}/docker.example/hosts.toml"].encode()) == {
        "server": "https://docker.example",
        "ca": ["/b/docker.example/ca.crt"],
        "client": [["/b/docker.example/client.cert", "/b/docker.example/client.key"]],
        "host": {},
    }
    carried = changed[f"{ROOT}/hosts.example_5000_/hosts.toml"]
    assert 'ca = "/b/hosts.example_5000_/sub/ca.pem" # old\n[host]\n' in carried
    assert f"{ROOT}/both.example/hosts.toml" not in changed
    assert "secret" not in "".join(changed.values())


def test_what_a_later_folder_gave_this_very_registry_is_kept_beside_our_ca(box: Box) -> None:
    box.write("/b/my.registry.io/corp.crt", Authority("corp").pem.encode())
    node = found(box, {CONFIG: SEVERAL}, None, TWO_1)
    told = parse(after(propose(node, box.plan(), {}))[f"{OURS}/hosts.toml"].encode())
    assert told["ca"] == ["/b/my.registry.io/corp.crt", f"{OURS}/moorage-ca.crt"]


@pytest.mark.parametrize(
    "option",
    ["use_local_image_pull = true", "discard_unpacked_layers = true",
     "max_concurrent_downloads = 5", "disable_snapshot_annotations = false",
     "image_pull_with_sync_fs = true"],
)  # fmt: skip
def test_several_folders_count_where_an_option_keeps_cri_at_its_own_client(
    box: Box, option: str
) -> None:
    config = SEVERAL + f"[{V3}]\n  {option}\n"
    node = found(box, {CONFIG: config}, None, TWO_1)
    assert taken(node, box) == ["folder"]
    assert taken(found(box, {CONFIG: SEVERAL}, None, TWO_0), box) == ["folder"]


LEGACY = f"""version = 2
[{V2}.registry.mirrors."docker.io"]
  endpoint = ["mirror.example", "http://other.example/prefix"]
# about one.example
[{V2}.registry.mirrors."one.example"]
  endpoint = ["https://two.example", "https://one.example"]
[{V2}.registry.configs."two.example".tls]
  ca_file = "/two.pem"
  insecure_skip_verify = true
[{V2}.registry.configs."two.example".auth]
  username = "u"
[debug]
  level = "info"
"""


def test_on_1_x_the_classic_entry_comes_beside_the_old_tables(box: Box) -> None:
    node = found(box, {CONFIG: LEGACY}, None, ONE_7)
    assert taken(node, box) == ["classic-entry"]
    changed = after(propose(node, box.plan(), {}))
    assert changed[CONFIG].startswith(LEGACY)
    table = parse(changed[CONFIG].encode())["plugins"]["io.containerd.grpc.v1.cri"]["registry"]
    for place in spelled(f"{OURS}/"):
        name = place.split("/")[-2]
        assert table["configs"][name] == {"tls": {"ca_file": f"{place}moorage-ca.crt"}}
    assert "config_path" not in changed[CONFIG]
    assert list(changed) == [*spelled(f"{OURS}/moorage-ca.crt"), CONFIG]


def test_the_ca_another_named_for_this_registry_goes_on_counting(box: Box) -> None:
    corp = Authority("corp").pem
    box.write("/corp.pem", corp.encode())
    config = f'version = 2\n[{V2}.registry.configs."my.registry.io".tls]\n  ca_file = "/corp.pem"\n'
    changed = after(propose(found(box, {CONFIG: config}, None, ONE_7), box.plan(), {}))
    assert changed[f"{OURS}/moorage-ca.crt"] == corp + box.ca
    owned = {CONFIG: Owned("containerd", CONFIG, config.encode(), changed[CONFIG].encode())}
    for path, text in changed.items():
        box.write(path, text.encode())
    again = propose(found(box, {CONFIG: changed[CONFIG]}, None, ONE_7), box.plan(), owned)
    assert again.changes == ()
    assert strip(owned[CONFIG], changed[CONFIG].encode(), REGISTRY) == config.encode()


def test_on_2_x_old_tables_move_and_come_back_byte_for_byte(box: Box) -> None:
    node = found(box, {CONFIG: LEGACY}, None, TWO_1)
    assert taken(node, box) == ["move-legacy"]
    changed = after(propose(node, box.plan(), {}))
    table = parse(changed[CONFIG].encode())["plugins"]["io.containerd.grpc.v1.cri"]["registry"]
    assert "mirrors" not in table
    assert table["configs"]["two.example"]["auth"] == {"username": "u"}
    assert parse(changed[f"{ROOT}/docker.io/hosts.toml"].encode()) == {
        "server": "https://registry-1.docker.io",
        "host": {
            "https://mirror.example": {"capabilities": ["pull", "resolve"]},
            "http://other.example/prefix": {
                "capabilities": ["pull", "resolve"],
                "override_path": True,
            },
        },
    }
    one = parse(changed[f"{ROOT}/one.example/hosts.toml"].encode())
    assert one["server"] == "https://one.example"
    assert one["host"]["https://two.example"]["ca"] == "/two.pem"
    # 2.x has ignored that word all along; it does not come back by our doing.
    assert "skip_verify" not in "".join(changed[path] for path in changed if path != CONFIG)
    back = strip(
        Owned("containerd", CONFIG, LEGACY.encode(), None), changed[CONFIG].encode(), REGISTRY
    )
    assert back == LEGACY.encode()


def test_a_version_1_file_on_2_x_gets_the_names_that_2_x_reads(box: Box) -> None:
    config = '[plugins.cri]\n  sandbox_image = "p"\n'
    changed = after(propose(found(box, {CONFIG: config}, "version = 3\n", TWO_1), box.plan(), {}))
    assert changed[CONFIG].startswith(config)
    assert f"[{V3}.registry]" in changed[CONFIG]


def test_a_node_that_was_down_before_us_is_named(box: Box) -> None:
    config = LEGACY + f'[{V2}.registry]\n  config_path = "{ROOT}"\n'
    node = found(box, {CONFIG: config}, None, ONE_7)
    with pytest.raises(RefusedError) as caught:
        propose(node, box.plan(), {})
    assert caught.value.code == "cri-down-already"


FOLDER = f'version = 2\n[{V2}.registry]\n  config_path = "{ROOT}"\n'
FOREIGN = {
    "server alone": 'server = "https://my.registry.io"\n',
    "no server": '# none\n[host."https://mirror.example"]\n  capabilities = ["pull"]\n',
    "string": 'ca = "corp.pem" # until May\n[host]\n',
    "list": 'server = "my.registry.io"\nca = ["corp.pem", "b.pem"]\n',
    "lines": 'ca = [\n  "corp.pem",\n]\nclient = [["c.cert", "c.key"]]\n',
    "host": '[host."https://my.registry.io"]\n  skip_verify = false\n[host."https://m.example"]\n',
    "port": 'server = "https://my.registry.io:443"\r\n',
}


@pytest.mark.parametrize("name", FOREIGN)
def test_our_ca_joins_anothers_hosts_toml_and_leaves_it_as_it_was(box: Box, name: str) -> None:
    box.write(f"{OURS}/corp.pem", Authority("corp").pem.encode())
    before = FOREIGN[name]
    box.write(f"{OURS}/hosts.toml", before.encode())
    proposal = propose(found(box, {CONFIG: FOLDER}, None, ONE_7), box.plan(), {})
    assert proposal.restarts == ()
    changed = after(proposal)
    text = changed[f"{OURS}/hosts.toml"]
    assert f"{OURS}/moorage-ca.crt" in changed
    kept = [line for line in before.splitlines() if not re.match(r"\s*ca =|\]|  \"corp", line)]
    assert all(line in text for line in kept)
    told, was = parse(text.encode()), parse(before.encode())
    reached = told["host"]["https://my.registry.io"] if name == "host" else told
    trusted = reached["ca"] if isinstance(reached["ca"], list) else [reached["ca"]]
    assert trusted[-1] == f"{OURS}/moorage-ca.crt"
    old = was.get("ca", [])
    assert name == "host" or trusted[:-1] == (old if isinstance(old, list) else [old])
    back = strip(
        Owned("containerd", f"{OURS}/hosts.toml", before.encode(), text.encode()),
        text.encode(), REGISTRY,
    )  # fmt: skip
    assert parse(back or b"") == was
    assert name == "lines" or back == before.encode()


def test_our_hosts_toml_has_the_table_without_which_1_x_does_not_read_it(box: Box) -> None:
    changed = after(propose(found(box, {CONFIG: FOLDER}, None, ONE_7), box.plan(), {}))
    assert parse(changed[f"{OURS}/hosts.toml"].encode()) == {
        "server": "https://my.registry.io",
        "ca": f"{OURS}/ca.crt",
        "host": {},
    }


def test_a_hosts_toml_that_never_asks_this_registry_is_refused(box: Box) -> None:
    box.write(f"{OURS}/hosts.toml", b'server = "https://mirror.example"\n')
    with pytest.raises(RefusedError) as caught:
        propose(found(box, {CONFIG: FOLDER}, None, ONE_7), box.plan(), {})
    assert caught.value.code == "hosts-toml-elsewhere"


def test_a_default_that_no_longer_counts_and_folders_that_begin_to_are_told(box: Box) -> None:
    box.write(f"{ROOT}/_default/hosts.toml", b"[host]\n")
    notes = propose(found(box, {CONFIG: FOLDER}, None, ONE_7), box.plan(), {}).notes
    assert any("_default no longer applies to my.registry.io" in note for note in notes)
    box.write(f"{ROOT}/quay.io/hosts.toml", b"[host]\n")
    notes = propose(found(box, {CONFIG: "version = 2\n"}, None, ONE_7), box.plan(), {}).notes
    assert any("takes effect now" in note and "quay.io" in note for note in notes)


def test_a_mirror_asks_ours_first_and_the_registry_itself_then(box: Box) -> None:
    plan: dict[str, Any] = {"mirrors": [{"of": "docker.io"}, {"of": "quay.io", "fallback": False}]}
    box.write(CONFIG, FOLDER.encode())
    changed = after(propose(facts(box.root, FOLDER.encode()), box.plan(**plan), {}))
    ours = {"capabilities": ["pull", "resolve"], "ca": f"{OURS}/ca.crt"}
    assert parse(changed[f"{ROOT}/docker.io/hosts.toml"].encode()) == {
        "server": "https://registry-1.docker.io",
        "host": {"https://my.registry.io": ours},
    }
    alone = parse(changed[f"{ROOT}/quay.io/hosts.toml"].encode())
    assert (alone["server"], alone["ca"]) == ("https://my.registry.io", f"{OURS}/ca.crt")
    box.write(f"{ROOT}/ghcr.io/hosts.toml", b"[host]\n")
    with pytest.raises(RefusedError) as caught:
        propose(facts(box.root, FOLDER.encode()), box.plan(mirrors=[{"of": "ghcr.io"}]), {})
    assert caught.value.code == "mirror-foreign"


@pytest.mark.parametrize(
    ("theirs", "named"),
    [
        ({"hosts.toml": b'server = "https://my.registry.io"\nca = "x.crt"\n'}, "moorage-ca.crt"),
        ({"ca.crt": Authority("another").pem.encode()}, "moorage-ca.crt"),
        ({"hosts.toml": b'server = "https://my.registry.io"\nca = "own"\n', "own": None},
         "moorage-ca.crt"),
        ({"ca.crt": None}, "ca.crt"),
    ],
)  # fmt: skip
def test_a_mirror_names_the_file_that_has_our_ca(
    box: Box, theirs: dict[str, bytes | None], named: str
) -> None:
    """``None``: the registry's CA, which another tool has put there."""
    wanted = box.plan(mirrors=[{"of": "docker.io"}])
    box.write(CONFIG, FOLDER.encode())
    for name, content in theirs.items():
        box.write(f"{OURS}/{name}", wanted.registry.ca_bytes if content is None else content)
    changed = after(propose(facts(box.root, FOLDER.encode()), wanted, {}))
    mirror = parse(changed[f"{ROOT}/docker.io/hosts.toml"].encode())
    path = mirror["host"]["https://my.registry.io"]["ca"]
    assert path == f"{OURS}/{named}"
    held = changed.get(path, "").encode() or box.read(path) or b""
    assert wanted.registry.ca_bytes in held


@pytest.mark.parametrize("version", [ONE_7, TWO_1])
@pytest.mark.parametrize("kind", ["plain", "old-tables", "beside", "several"])
def test_what_is_ours_is_known_by_its_marks_where_all_notes_are_lost(
    box: Box, kind: str, version: Version
) -> None:
    files = {
        "plain": {CONFIG: f'version = 2 # a\n[{V2}.registry]\n  config_path = "" # why\n'},
        "old-tables": {CONFIG: LEGACY},
        "beside": {CONFIG: FOLDER, f"{OURS}/hosts.toml": FOREIGN["string"]},
        "several": WITH_DROP_IN,
    }[kind]
    node = found(box, files, WITH_DROP_IN[DROP_IN] if kind == "several" else None, version)
    before = box.files()
    others = {f"{ROOT}/docker.io/hosts.toml", f"{ROOT}/one.example/hosts.toml",
              f"{ROOT}/two.example/hosts.toml"}  # fmt: skip
    for one in propose(node, box.plan(), {}).changes:
        if one.path not in others:
            box.write(one.path, one.after or b"")
    now = facts(box.root, box.read(CONFIG), version)
    for one in forgotten(now, REGISTRY):
        if one.after is None:
            (box.root / one.path.lstrip("/")).unlink()
        else:
            box.write(one.path, one.after)
    assert box.files() == before


def test_a_config_path_that_others_rely_on_by_now_stays(box: Box) -> None:
    box.with_containerd(b"version = 2\n")
    assert box.apply()["status"] == "changed"
    box.write(f"{ROOT}/quay.io/hosts.toml", b"[host]\n")
    result = box.untrust()
    assert "config_path" in (box.read(CONFIG) or b"").decode()
    assert any("quay.io relies on it" in one.get("message", "") for one in result["events"])
    assert box.read(f"{OURS}/hosts.toml") is None
    assert result["restarts"] == []


def test_nothing_is_kept_where_all_that_is_there_is_ours(box: Box) -> None:
    item = Owned("containerd", CONFIG, b"", b"", folders=())
    ours = Owned("containerd", f"{OURS}/ca.crt", None, b"", folders=(ROOT, OURS))
    box.write(f"{OURS}/ca.crt", b"x")
    node = found(box, {CONFIG: FOLDER}, None, ONE_7)
    assert kept(node, item, {one.path: one for one in (item, ours)}) == ""


def test_every_containerd_of_a_node_is_set_up_and_restarted(box: Box) -> None:
    box.with_containerd(b"version = 2\n")
    unit = "[Service]\nExecStart=/usr/bin/containerd --config /etc/cri/own.toml -a /run/own.sock\n"
    box.write("/etc/systemd/system/own-cri.service", unit.encode())
    box.write("/etc/systemd/system/k3s-cri.service", unit.replace("/etc/cri", "/run/k3s").encode())
    box.write("/etc/cri/own.toml", b"version = 2 # own\n")
    node = gather(Host(str(box.root)))
    assert [one.config.path for one in node.containerds] == [CONFIG, "/etc/cri/own.toml"]
    proposal = propose(node, box.plan(), {})
    assert {CONFIG, "/etc/cri/own.toml"} <= set(after(proposal))
    assert proposal.restarts == ("containerd.service", "own-cri.service")
    told = [one for one in explain(node, box.plan()) if one.applies]
    assert [one.why.partition(":")[0] for one in told] == [CONFIG, "/etc/cri/own.toml"]
    edit = Change("containerd", "/etc/cri/own.toml", "/etc/cri/own.toml", b"a", b"b")
    assert restarts(node, (edit,)) == ("own-cri.service",)


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ('[host."{url}"]\ncapabilities = ["pull"]\n', False),
        ("[host.'{url}']\ncapabilities = [\"pull\"]\n", False),
        ('host."{url}".capabilities = ["pull"]\n', True),
        ('[host]\n"{url}" = {{ capabilities = ["pull"] }}\n', True),
    ],
)
@pytest.mark.parametrize("version", [ONE_7, TWO_1])
def test_a_mirror_that_containerd_2_passes_over_is_refused_there(
    box: Box, text: str, refused: bool, version: Version
) -> None:
    url = "https://my.registry.io/v2/docker.io"
    box.write(f"{ROOT}/docker.io/hosts.toml", text.format(url=url).encode())
    wanted = box.plan(mirrors=[{"of": "docker.io", "path": "docker.io"}])
    assert wanted.mirrors[0].url(wanted.registry) == url
    node = found(box, {CONFIG: FOLDER}, None, version)
    if version == ONE_7 or not refused:
        assert f"{ROOT}/docker.io/hosts.toml" not in after(propose(node, wanted, {}))
        return
    with pytest.raises(RefusedError) as caught:
        propose(node, wanted, {})
    assert caught.value.code == "mirror-foreign"
    assert url in caught.value.fault.cure


def test_a_mirrors_file_is_parsed_once(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    text = '[host."https://my.registry.io"]\ncapabilities = ["pull"]\n'
    box.write(f"{ROOT}/docker.io/hosts.toml", text.encode())
    node, seen = found(box, {CONFIG: FOLDER}, None, TWO_1), list[bytes]()

    def noted(content: bytes) -> str:
        seen.append(content)
        return encoding(content)

    monkeypatch.setattr("agent.edit.toml.encoding", noted)  # each parse asks for it
    assert propose(node, box.plan(mirrors=[{"of": "docker.io"}]), {}).changes
    assert seen.count(text.encode()) == 1


def test_a_containerd_that_no_service_starts_is_refused_where_it_needs_a_restart(box: Box) -> None:
    node = found(box, {CONFIG: "version = 2\n"}, None, ONE_7)
    assert node.containerd is not None
    alone = node._replace(containerd=node.containerd._replace(unit=None, pid=4711))
    with pytest.raises(RefusedError) as caught:
        propose(alone, box.plan(), {})
    assert caught.value.code == "containerd-unmanaged"
    assert propose(alone, box.plan(options={"restart": False}), {}).changes


def test_the_table_in_the_docs_is_the_table_in_the_code() -> None:
    text = (Path(__file__).parents[2] / "docs/containerd.md").read_text("utf-8")
    table = [
        line.split(" | ") for line in text.splitlines() if re.match(r"\| [a-z0-9-]+ \| ", line)
    ]
    rows = [(name.strip("| "), when, does.removesuffix(" |")) for name, when, does in table]
    assert rows[1:] == [
        (one.name, "; ".join(condition.yes for condition in one.when) or "anything else", one.does)
        for one in STRATEGIES
    ]


REGISTRY = Box(Path(), Authority("r").pem).plan().registry


SECOND: dict[str, Any] = {
    "registry": {"host": "second.registry.io", "address": "10.0.0.2"},
    "verify": None,
}


@pytest.mark.parametrize("kind", ["several", "old-tables"])
def test_what_others_had_outlives_the_registry_for_which_it_was_moved(box: Box, kind: str) -> None:
    old = LEGACY.replace("version = 2", "version = 3").replace(V2, V3)
    box.with_containerd((SEVERAL if kind == "several" else old).encode())
    program = box.root / "usr/bin/containerd"
    program.write_text(program.read_text().replace("1.7.24", "2.1.9"))
    box.write("/b/docker.example/ca.crt", b"x")
    before = box.files()
    name = "docker.example" if kind == "several" else "docker.io"
    path = f"{ROOT}/{name}/hosts.toml"
    assert box.apply(parts=["containerd"])["status"] == "changed"
    assert box.apply(parts=["containerd"], **SECOND)["status"] == "changed"
    assert box.read(path) is not None
    assert box.untrust()["status"] == "changed"
    assert box.read(path) is not None
    assert box.read(f"{OURS}/hosts.toml") is None
    assert box.untrust(**SECOND)["status"] == "changed"
    assert box.files() == before


def test_a_classic_entry_goes_with_its_registry_and_leaves_anothers(box: Box) -> None:
    box.with_containerd(LEGACY.encode())
    assert box.apply(parts=["containerd"])["status"] == "changed"
    assert box.apply(parts=["containerd"], **SECOND)["status"] == "changed"
    assert box.untrust()["restarts"] == ["containerd.service"]
    text = (box.read(CONFIG) or b"").decode()
    assert '"my.registry.io"' not in text
    assert '"second.registry.io"' in text
    box.untrust(**SECOND)
    assert (box.read(CONFIG) or b"").decode() == LEGACY


def test_a_system_that_makes_etc_from_its_settings_is_refused_with_its_own_way(box: Box) -> None:
    box.write("/etc/os-release", b'NAME=Bottlerocket\nID="bottlerocket"\n')
    with pytest.raises(RefusedError) as caught:
        propose(found(box, {CONFIG: FOLDER}, None, ONE_7), box.plan(), {})
    assert caught.value.code == "immutable-system"
    assert "apiclient set pki" in caught.value.fault.cure


def test_a_file_that_boot_writes_anew_is_told_where_it_is_edited(box: Box) -> None:
    box.write("/usr/bin/nodeadm", b"")
    edited = propose(found(box, {CONFIG: "version = 2\n"}, None, ONE_7), box.plan(), {})
    assert any("nodeadm" in note for note in edited.notes)
    assert propose(found(box, {CONFIG: FOLDER}, None, ONE_7), box.plan(), {}).notes == ()
