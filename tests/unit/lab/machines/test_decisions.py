"""The lab's decisions: which nodes, what a node is, how it is reached, what the machine lacks."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest

import lab
from lab.machines import access, containers, images, limits
from lab.machines.node import LabNode, Recipe, capabilities, container_name, host_config, number
from moorage.configuration.parsing import parse
from moorage.docker import engine
from moorage.errors import MoorageError, Refused
from moorage.mix import LINES, parse_mix
from moorage.settings import LabSettings, Settings
from moorage.ui import UI
from tests.unit.elsewhere import project

ONE, TWO = "AAAAC3NzaC1lZDI1NTE5AAAAIAbc", "AAAAC3NzaC1lZDI1NTE5AAAAIDef"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("1.6,1.7,2", ["1.6", "1.7", "2"]),
        ("2", ["2"]),
        (" 1.6 , 1.7*2,2 * 1", ["1.6", "1.7", "1.7", "2"]),
        ("2*64", ["2"] * 64),
        ("2,1.6,2", ["2", "1.6", "2"]),
    ],
)
def test_a_mix_names_the_line_of_each_node(text: str, lines: list[str]) -> None:
    assert [line.name for line in parse_mix(text)] == lines


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "it is empty"),
        (" ", "it is empty"),
        ("1.6,,2", "nothing between two commas"),
        ("1.6,", "nothing between two commas"),
        ("3", "for 3 nodes of one line say 2*3"),
        ("1.8", "1.8 is not a containerd line"),
        ("1.6.20", "did you mean 1.6?"),
        ("2.1", "did you mean 2?"),
        ("1.6*0", "no node at all"),
        ("1.6*x", "not a containerd line"),
        ("1.6*-1", "not a containerd line"),
        ("2*65", "more than 64"),
        ("1.6*32,1.7*33", "more than 64"),
        ("2*99999", "not a containerd line"),
        ("lab1", "lab1 is not a containerd line"),
    ],
)
def test_a_bad_mix_is_refused_with_the_reason(text: str, cause: str) -> None:
    with pytest.raises(Refused) as refusal:
        parse_mix(text)
    assert cause in refusal.value.cause
    assert all(line in refusal.value.cure for line in LINES)
    assert refusal.value.exit_code == 2


@pytest.mark.parametrize(
    "section",
    [
        {"nodes": "1.8"},
        {"mirror": "ftp://mirror.lan/debian"},
        {"mirror": "http://a b"},
        {"prefix": "Lab"},
        {"prefix": "lab1"},
        {"prefix": ""},
    ],
)
def test_bad_settings_of_the_lab_are_refused_by_name(section: dict[str, str]) -> None:
    with pytest.raises(Refused) as refusal:
        parse({"lab": section})
    assert f"lab.{next(iter(section))}" in refusal.value.message


def test_a_node_gets_what_the_machine_has_and_not_more() -> None:
    # A machine without SYS_RESOURCE (bit 24), as some CI services have it.
    some = capabilities("Name:\tinit\nCapBnd:\t000001fffeffffff\n")
    assert "SYS_RESOURCE" not in some
    assert {"SYS_ADMIN", "NET_ADMIN", "MKNOD", "AUDIT_READ"} <= set(some)
    everything = capabilities("CapBnd:\t000001ffffffffff\n")
    assert set(everything) - set(some) == {"SYS_RESOURCE"}


@pytest.mark.parametrize("status", ["", "CapBnd:\t00000000a80425fb\n"])
def test_in_a_container_the_engine_is_elsewhere_and_has_everything(status: str) -> None:
    assert len(capabilities(status)) == 38


def test_a_node_is_not_privileged() -> None:
    config = host_config(("SYS_ADMIN",), {"a": "b"})
    assert "Privileged" not in config
    assert config["CapAdd"] == ["SYS_ADMIN"]


def test_another_image_key_or_line_makes_another_node() -> None:
    def recipe(
        line: str = "2", image_id: str = "sha256:1", key: str = "k", prefix: str = "lab"
    ) -> str:
        return Recipe(prefix, 1, LINES[line], "moorage/lab:x", image_id, {}, key).digest

    assert recipe() == recipe()
    others = {recipe("1.7"), recipe(image_id="2"), recipe(key="l"), recipe(prefix="x")}
    assert len({recipe(), *others}) == 5


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("moorage-lab1", 1),
        ("moorage-lab64", 64),
        ("moorage-my-lab3", 3),
        ("moorage-lab", 0),
        ("moorage-lab0", 0),
        ("moorage-lab01", 0),
        ("lab1", 0),
        ("moorage-lab1x", 0),
        ("moorage-registry", 0),
    ],
)
def test_only_a_nodes_name_has_a_number(name: str, place: int) -> None:
    assert number(name) == place


def test_ssh_itself_reads_the_configuration_as_meant(tmp_path: Path) -> None:
    settings = project(tmp_path / "a folder, 100%")
    access.prepare(settings)
    nodes = [LabNode("lab1", "172.17.0.2", "1.6", "x"), LabNode("lab2", "172.17.0.9", "2", "y")]
    access.write(settings, nodes, {"lab1": f"ssh-ed25519 {ONE}", "lab2": f"ssh-ed25519 {TWO}"})
    told = ssh_options(access.ssh_config(settings), "lab2")
    place = access.folder(settings)
    assert told["hostname"] == "172.17.0.9"
    assert told["user"] == "root"
    assert told["hostkeyalias"] == container_name("lab2")
    assert told["stricthostkeychecking"] == "true"
    # ssh -G shows %% as it is written; ssh itself reads it as %.
    assert told["identityfile"].replace("%%", "%") == str(place / "id_ed25519")
    assert told["userknownhostsfile"].replace("%%", "%").strip('"') == str(place / "known_hosts")
    assert access.known_keys(settings)["lab1"] == f"ssh-ed25519 {ONE}"


def ssh_options(config: Path, host: str) -> dict[str, str]:
    if shutil.which("ssh") is None:
        pytest.skip("no ssh here")
    told = subprocess.run(
        ["ssh", "-G", "-F", config, host], capture_output=True, text=True, check=True
    )
    return dict(line.split(" ", maxsplit=1) for line in told.stdout.splitlines() if " " in line)


def test_key_and_password_are_made_once_and_for_the_owner_alone(tmp_path: Path) -> None:
    settings = project(tmp_path)
    first = access.prepare(settings)
    assert access.prepare(settings) == first
    place = access.folder(settings)
    assert place.stat().st_mode & 0o777 == 0o700
    for name in ("id_ed25519", "operator-pw"):
        assert (place / name).stat().st_mode & 0o777 == 0o600
    assert len(first.password) >= 20
    assert first.password not in repr(first)


@pytest.mark.parametrize("content", [b"", b"not a key", b"\xff\xfe"])
def test_a_spoilt_key_is_made_anew(tmp_path: Path, content: bytes) -> None:
    settings = project(tmp_path)
    first = access.prepare(settings)
    (access.folder(settings) / "id_ed25519").write_bytes(content)
    assert access.prepare(settings).public_key != first.public_key


def test_a_new_node_gets_keys_that_sshd_accepts_and_a_password_nobody_reads() -> None:
    content = access.archive(access.Access("ssh-ed25519 A", "pw"))
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        files = {member.name: member for member in tar}
    assert all(member.uid == 0 and not member.mode & 0o022 for member in files.values())
    assert files["etc/lab/passwords"].mode == 0o600
    assert {name for name in files if name.endswith("authorized_keys")} == {
        "root/.ssh/authorized_keys",
        "home/operator/.ssh/authorized_keys",
        "home/operator-pw/.ssh/authorized_keys",
    }


@pytest.mark.parametrize("word", ["lab2", "2", "moorage-lab2", " lab2 "])
def test_a_node_answers_to_all_its_names(word: str) -> None:
    assert access.need_node(word, ["lab1", "lab2", "lab12"]) == "lab2"


@pytest.mark.parametrize(("word", "cure"), [("lab9", "inv lab.ssh lab1"), ("", "inv lab.ssh lab1")])
def test_an_unknown_node_is_refused_with_the_known_ones(word: str, cure: str) -> None:
    with pytest.raises(Refused) as refusal:
        access.need_node(word, ["lab1", "lab2"])
    assert refusal.value.cause == "there are lab1, lab2"
    assert refusal.value.cure == cure
    with pytest.raises(Refused, match="not a node") as refusal:
        access.need_node("lab1", [])
    assert refusal.value.cure == "inv lab.up"


@pytest.mark.parametrize(
    ("new", "used", "limit", "after"),
    [
        (3, 20, 128, None),
        (0, 500, 128, None),  # all of them run already
        (16, 20, 128, 20 + 16 * 12 + 32),
        (64, 0, 128, 64 * 12 + 32),
        (64, 0, 8192, None),
    ],
)
def test_limits_are_raised_for_what_new_nodes_need(
    new: int, used: int, limit: int, after: int | None
) -> None:
    change = limits.needed(new, used, limit)
    assert (change.after if change else None) == after


def test_a_raised_limit_is_put_back(tmp_path: Path) -> None:
    settings, limit = project(tmp_path), tmp_path / "limit"
    limit.write_text("128\n")
    (action,) = limits.pending(16, 0, limit)
    assert action.asks
    assert action.before == "128\n"
    limits.raise_them(settings, 16, 0, limit)
    assert int(limit.read_text()) >= 16 * 12
    limits.raise_them(settings, 64, 0, limit)
    assert limits.restore(settings, limit)
    assert limit.read_text() == "128\n"
    assert not limits.restore(settings, limit)


def test_a_limit_that_somebody_else_has_changed_since_is_theirs(tmp_path: Path) -> None:
    settings, limit = project(tmp_path), tmp_path / "limit"
    limit.write_text("128\n")
    limits.raise_them(settings, 16, 0, limit)
    limit.write_text("1024\n")
    assert not limits.restore(settings, limit)
    assert limit.read_text() == "1024\n"


def test_checking_the_settings_does_not_load_the_lab() -> None:
    code = (
        "import sys, json; from moorage.configuration.parsing import parse; parse({}); "
        "print(json.dumps([m for m in sys.modules if m.startswith(('lab', 'docker'))]))"
    )
    import sys

    said = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert json.loads(said) == []


def test_the_lab_has_no_other_public_names() -> None:
    for name in lab.__all__:
        assert getattr(lab, name)
    with pytest.raises(AttributeError):
        lab.anything  # noqa: B018


def test_a_mix_in_the_settings_is_named_as_such() -> None:
    settings: Settings = project(Path("/nowhere"), lab=LabSettings(nodes="1.8"))
    with pytest.raises(Refused, match=r"lab\.nodes: '1\.8'"):
        lab.pending(settings)


class Unused:
    """An engine's client that nothing is asked of."""

    def close(self) -> None: ...


def test_what_nodes_are_made_from_is_built_beside_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    going, ended = threading.Event(), threading.Event()

    def ensure(*_: object) -> None:
        going.set()
        assert ended.wait(20)

    monkeypatch.setattr(images, "missing", lambda *_: (LINES["1.6"],))
    monkeypatch.setattr(images, "base", lambda *_: "base")
    monkeypatch.setattr(images, "ensure", ensure)
    monkeypatch.setattr(engine, "connect", lambda _: Unused())
    begun = lab.build(project(tmp_path), Unused(), UI().progress)  # type: ignore[arg-type]
    assert begun is not None
    assert going.wait(20)
    assert not begun.done()
    ended.set()
    begun.result(20)


def test_a_build_that_fails_beside_the_caller_is_told_to_who_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ensure(*_: object) -> None:
        raise MoorageError("build-failed", "building the lab nodes' system failed")

    monkeypatch.setattr(images, "missing", lambda *_: (LINES["1.6"],))
    monkeypatch.setattr(images, "base", lambda *_: "base")
    monkeypatch.setattr(images, "ensure", ensure)
    monkeypatch.setattr(engine, "connect", lambda _: Unused())
    begun = lab.build(project(tmp_path), Unused(), UI().progress)  # type: ignore[arg-type]
    assert begun is not None
    with pytest.raises(MoorageError, match="system failed"):
        begun.result(20)
    monkeypatch.setattr(images, "missing", lambda *_: ())
    assert lab.build(project(tmp_path), Unused(), UI().progress) is None  # type: ignore[arg-type]


def test_containers_are_removed_one_after_another() -> None:
    """Stands in for dockerd, whose lock of itself no test can bring about for sure."""
    guard, now, most = threading.Lock(), 0, 0

    class Removed:
        def remove(self, **_: object) -> None:
            nonlocal now, most
            with guard:
                now += 1
                most = max(most, now)
            time.sleep(0.01)
            with guard:
                now -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(containers.remove, [cast("Any", Removed()) for _ in range(8)]))
    assert most == 1
