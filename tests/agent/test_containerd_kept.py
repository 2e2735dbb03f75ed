"""What stays when a registry goes, because others rely on it by now, and comes back at the end."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from agent.edit.toml import at, parse
from tests.agent.conftest import Box

CONFIG = "/etc/containerd/config.toml"
ROOT = "/etc/containerd/certs.d"
OURS = f"{ROOT}/my.registry.io"
TABLE = 'plugins."io.containerd.cri.v1.images".registry'
CARRIED = f"{ROOT}/docker.io/hosts.toml"
SECOND: dict[str, Any] = {
    "registry": {"host": "second.registry.io", "address": "10.0.0.2"},
    "verify": None,
}
MIRRORS = f"""version = 3
[{TABLE}.mirrors."docker.io"]
  endpoint = ["https://mirror.example"]
[{TABLE}.mirrors."gcr.io"]
  endpoint = ["https://mirror.example/gcr"]
[{TABLE}.configs."mirror.example".tls]
  ca_file = "/etc/ssl/mirror.pem"
[{TABLE}.configs."mirror.example".auth]
  username = "u"
"""


@pytest.fixture
def node(box: Box) -> Box:
    return with_config(box, MIRRORS)


def with_config(box: Box, text: str, version: str = "2.1.9") -> Box:
    box.with_containerd(text.encode())
    program = box.root / "usr/bin/containerd"
    program.write_text(program.read_text().replace("1.7.24", version))
    return box


def apply(node: Box, **more: Any) -> None:
    assert node.apply(parts=["containerd"], **more)["status"] == "changed"


def taken(node: Box, way: str) -> dict[str, Any]:
    result = node.untrust() if way == "untrust" else node.run(node.engine().undo(node.plan()))
    assert result["status"] == "changed"
    return result


def notes(result: dict[str, Any]) -> str:
    return "\n".join(one["message"] for one in result["events"] if one["event"] == "note")


def status(node: Box) -> dict[str, Any]:
    events = node.run(node.engine().status())["events"]
    return dict(next(one for one in events if one["event"] == "status"))


def remove(node: Box, path: str) -> None:
    target = node.root / path.lstrip("/")
    if target.is_dir():
        shutil.rmtree(target)
    else:
        target.unlink()


@pytest.mark.parametrize("way", ["untrust", "undo"])
def test_a_carried_mirror_stays_as_long_as_another_relies_on_the_folder(
    node: Box, way: str
) -> None:
    files, folders = node.files(), node.folders()
    apply(node)
    carried = node.read(CARRIED)
    node.write(f"{ROOT}/quay.io/hosts.toml", b"[host]\n")
    result = taken(node, way)
    assert node.read(CARRIED) == carried
    assert node.read(f"{ROOT}/gcr.io/hosts.toml") is not None
    assert at(parse(node.read(CONFIG) or b""), "plugins", "io.containerd.cri.v1.images",
              "registry", "config_path") == ROOT  # fmt: skip
    assert node.read(f"{OURS}/hosts.toml") is None
    assert result["restarts"] == []
    assert "quay.io relies on it" in notes(result)
    assert f"{CARRIED} stays" in notes(result)
    told = status(node)
    assert told["trusted"] == ()
    assert {CONFIG, CARRIED, f"{ROOT}/gcr.io/hosts.toml"} <= set(told["kept"])
    assert node.untrust()["status"] == "unchanged"
    remove(node, f"{ROOT}/quay.io")
    last = node.untrust()
    assert (last["status"], last["restarts"]) == ("changed", ["containerd.service"])
    assert (node.files(), node.folders()) == (files, folders)
    assert status(node)["kept"] == ()


@pytest.mark.parametrize("way", ["untrust", "undo"])
def test_a_carried_file_that_another_edited_stays_with_all_that_makes_it_count(
    node: Box, way: str
) -> None:
    apply(node)
    edited = (node.read(CARRIED) or b"") + b"# by the network team\n"
    node.write(CARRIED, edited)
    assert "docker.io relies on it" in notes(taken(node, way))
    assert node.read(CARRIED) == edited
    assert b"config_path" in (node.read(CONFIG) or b"")
    assert node.read(f"{OURS}/ca.crt") is None


def test_trust_after_what_stayed_takes_it_over_and_gives_it_all_back(node: Box) -> None:
    files, folders = node.files(), node.folders()
    apply(node)
    node.write(f"{ROOT}/quay.io/hosts.toml", b"[host]\n")
    node.untrust()
    apply(node)
    assert [one["registry"] for one in status(node)["trusted"]] == ["my.registry.io"]
    remove(node, f"{ROOT}/quay.io")
    assert node.untrust()["status"] == "changed"
    assert (node.files(), node.folders()) == (files, folders)


def test_what_stayed_for_one_registry_goes_with_the_next(node: Box) -> None:
    files, folders = node.files(), node.folders()
    apply(node)
    node.write(f"{ROOT}/quay.io/hosts.toml", b"[host]\n")
    node.untrust()
    apply(node, **SECOND)
    remove(node, f"{ROOT}/quay.io")
    assert node.read(CARRIED) is not None
    assert node.untrust(**SECOND)["status"] == "changed"
    assert (node.files(), node.folders()) == (files, folders)


def test_of_two_registries_the_second_keeps_what_was_carried_for_the_first(node: Box) -> None:
    files, folders = node.files(), node.folders()
    apply(node)
    apply(node, **SECOND)
    node.write(f"{ROOT}/quay.io/hosts.toml", b"[host]\n")
    for plan in ({}, SECOND):
        assert node.untrust(**plan)["status"] == "changed"
        assert node.read(CARRIED) is not None
    remove(node, f"{ROOT}/quay.io")
    assert node.untrust(**SECOND)["status"] == "changed"
    assert (node.files(), node.folders()) == (files, folders)


OWN = f"""version = 3
[{TABLE}.mirrors."my.registry.io"]
  endpoint = ["https://cache.example", "https://my.registry.io"]
"""


def test_a_mirror_of_this_very_registry_outlives_our_ca(box: Box) -> None:
    node = with_config(box, OWN)
    files, folders = node.files(), node.folders()
    apply(node)
    assert node.apply(parts=["containerd"])["status"] == "unchanged"
    assert "https://cache.example" in parse(node.read(f"{OURS}/hosts.toml") or b"")["host"]
    node.write(f"{ROOT}/quay.io/hosts.toml", b"[host]\n")
    assert node.untrust()["status"] == "changed"
    told = parse(node.read(f"{OURS}/hosts.toml") or b"")
    assert "https://cache.example" in told["host"]
    assert "ca" not in told
    assert node.read(f"{OURS}/moorage-ca.crt") is None
    remove(node, f"{ROOT}/quay.io")
    node.untrust()
    assert (node.files(), node.folders()) == (files, folders)


def test_folders_that_lay_there_unread_are_as_unread_afterwards(box: Box) -> None:
    node = with_config(box, MIRRORS)
    node.write(f"{ROOT}/old.example/hosts.toml", b"[host]\n")
    files, folders = node.files(), node.folders()
    apply(node)
    assert node.untrust()["status"] == "changed"
    assert (node.files(), node.folders()) == (files, folders)
    apply(node)
    node.write(f"{ROOT}/new.example/hosts.toml", b"[host]\n")
    words = notes(node.untrust())
    assert "new.example relies on it" in words
    assert "old.example" not in words


def test_another_file_in_the_registrys_own_folder_relies_on_it_too(node: Box) -> None:
    apply(node)
    node.write(f"{OURS}/corp.crt", b"theirs")
    assert "my.registry.io relies on it" in notes(node.untrust())
    assert node.read(f"{OURS}/corp.crt") == b"theirs"


def test_folders_that_count_one_by_one_stay_where_one_came(box: Box) -> None:
    text = f'version = 3\n[{TABLE}]\n  config_path = "{ROOT}:/b"\n'
    node = with_config(box, text)
    node.write("/b/docker.io/ca.crt", b"x")
    files, folders = node.files(), node.folders()
    apply(node)
    node.write(f"{ROOT}/quay.io/hosts.toml", b"[host]\n")
    node.untrust()
    assert node.read(CARRIED) is not None
    assert node.read(CONFIG) != files["etc/containerd/config.toml"]
    remove(node, f"{ROOT}/quay.io")
    node.untrust()
    assert (node.files(), node.folders()) == (files, folders)


def test_an_undo_of_a_later_apply_keeps_what_it_carried(box: Box) -> None:
    """The node was set up anew from its image in between, and trusted a second time."""
    node = with_config(box, f'version = 3\n[{TABLE}]\n  config_path = "{ROOT}"\n')
    apply(node)
    node.write(CONFIG, MIRRORS.encode())
    apply(node)
    node.write(f"{ROOT}/quay.io/hosts.toml", b"[host]\n")
    node.run(node.engine().undo(node.plan()))
    assert node.read(CARRIED) is not None
    assert b"config_path" in (node.read(CONFIG) or b"")


def test_a_classic_entry_goes_though_others_put_files_beside_it(box: Box) -> None:
    """No `config_path` was set there, so nothing in the folder counts by it."""
    text = MIRRORS.replace("version = 3", "version = 2").replace(
        "io.containerd.cri.v1.images", "io.containerd.grpc.v1.cri"
    )
    node = with_config(box, text, "1.7.24")
    apply(node)
    node.write(f"{ROOT}/quay.io/hosts.toml", b"[host]\n")
    node.untrust()
    assert (node.read(CONFIG) or b"").decode() == text


def test_untrust_goes_on_where_another_took_our_folder_away(node: Box) -> None:
    files = node.files()
    apply(node)
    remove(node, OURS)
    assert node.untrust()["status"] == "changed"
    assert node.files() == files


USELESS = ["http://other.registry.io", "https://docker.io", "other.registry.io/team", "docker.io/",
           "../up", "_default", "quay.io:https", ""]  # fmt: skip


@pytest.mark.parametrize("key", USELESS)
@pytest.mark.parametrize("version", ["1.7.24", "2.1.9"])
def test_a_table_whose_key_names_no_registry_makes_no_folder_and_is_told(
    box: Box, key: str, version: str
) -> None:
    table = TABLE if version[0] == "2" else 'plugins."io.containerd.grpc.v1.cri".registry'
    text = (
        f"version = {3 if version[0] == '2' else 2}\n"
        f'[{table}.mirrors."{key}"]\n  endpoint = ["https://mirror.example"]\n'
        f'[{table}.configs."{key}".tls]\n  ca_file = "/ca.pem"\n'
    )
    node = with_config(box, text, version)
    files, folders = node.files(), node.folders()
    result = node.apply(parts=["containerd"])
    assert result["status"] == "changed"
    assert f'"{key}" applies to no image' in notes(result)
    made = {one.name for one in (node.root / ROOT[1:]).iterdir()}
    assert made == {"my.registry.io", "my.registry.io:443"}
    assert node.untrust()["status"] == "changed"
    assert (node.files(), node.folders()) == (files, folders)


@pytest.mark.parametrize("key", ["other.example:5000", "Other.Example", "localhost:5000",
                                 "127.0.0.1", "[::1]:5000", "other.example"])  # fmt: skip
@pytest.mark.parametrize("endpoint", ["[]", '["https://mirror.example"]'])
def test_a_table_whose_key_names_a_registry_is_carried(box: Box, key: str, endpoint: str) -> None:
    node = with_config(box, f'version = 3\n[{TABLE}.mirrors."{key}"]\n  endpoint = {endpoint}\n')
    files, folders = node.files(), node.folders()
    apply(node)
    told = parse(node.read(f"{ROOT}/{key}/hosts.toml") or b"")
    assert told["server"].endswith(f"://{key}")
    assert ("https://mirror.example" in told["host"]) is ("mirror" in endpoint)
    node.untrust()
    assert (node.files(), node.folders()) == (files, folders)


def test_a_table_of_all_registries_becomes_the_folder_of_all(box: Box) -> None:
    node = with_config(box, f'version = 3\n[{TABLE}.mirrors."*"]\n  endpoint = ["https://m.io"]\n')
    apply(node)
    assert "server" not in parse(node.read(f"{ROOT}/_default/hosts.toml") or b"")


def test_a_mirror_of_the_plan_that_a_table_sends_elsewhere_is_refused(node: Box) -> None:
    result = node.apply(parts=["containerd"], mirrors=[{"of": "docker.io"}])
    assert result["code"] == "mirror-foreign"
    text = MIRRORS.replace('["https://mirror.example"]', '["https://my.registry.io"]')
    node.write(CONFIG, text.encode())
    apply(node, mirrors=[{"of": "docker.io"}])
    assert "https://my.registry.io" in parse(node.read(CARRIED) or b"")["host"]
    assert node.apply(parts=["containerd"], mirrors=[{"of": "docker.io"}])["status"] == "unchanged"


def test_the_drop_in_of_k0s_stays_as_long_as_another_relies_on_its_folder(box: Box) -> None:
    box.write("/usr/local/bin/k0s", b"#!/bin/sh\n", 0o755)
    (box.root / "etc/k0s").mkdir(parents=True)
    files, folders = box.files(), box.folders()
    assert box.apply(parts=["k0s"])["status"] == "changed"
    drop_in = box.read("/etc/k0s/containerd.d/moorage.toml")
    assert drop_in is not None
    box.write("/etc/k0s/containerd.d/certs.d/quay.io/hosts.toml", b"[host]\n")
    assert "quay.io relies on it" in notes(box.untrust())
    assert box.read("/etc/k0s/containerd.d/moorage.toml") == drop_in
    remove(box, "/etc/k0s/containerd.d/certs.d/quay.io")
    assert box.untrust()["status"] == "changed"
    assert (box.files(), box.folders()) == (files, folders)
