"""A bundle is unpacked whole or named by what is not; what is whole stays."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

from moorage.bundle import checkout, loading, packing, system
from moorage.errors import MoorageError, Refused
from moorage.files import remove_folder
from moorage.settings import ROOT, Settings
from moorage.supply import loaded, manifest
from moorage.ui import UI
from tests.unit.bundle.made import (
    CONTENT,
    INDEX,
    REFERENCE,
    bundle,
    described,
    difference,
    flipped,
    sha,
    with_locks,
)

LAYER = "engine/layers/l.tar.gz"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return loaded.cache()


@pytest.fixture
def ours(tmp_path: Path) -> Settings:
    return with_locks(tmp_path / "checkout")


def load(settings: Settings, path: Path) -> loading.Loaded:
    return loading.load(settings, path, UI().progress)


def refused(settings: Settings, path: Path) -> MoorageError:
    with pytest.raises(MoorageError) as told:
        load(settings, path)
    assert told.value.cure
    return told.value


def test_all_of_it_is_there_and_answers(ours: Settings, tmp_path: Path) -> None:
    found = load(ours, bundle(tmp_path))
    for name, content in CONTENT.items():
        assert (found.folder / name).read_bytes() == content
    supply = loaded.current(ours.root)
    assert supply is not None
    assert supply.folder == found.folder == loaded.cache() / found.id
    lock = ours.root / "requirements.lock"
    words = loaded.pip_words(ours.root, lock)
    assert words[-1] == str(found.folder / "wheels/own")
    assert "--no-index" in words
    assert f"Dir::Etc::SourceList={found.folder}/apt/sources.list" in loaded.apt_words(
        ours.root, ["a"]
    )
    assert loaded.apt_words(ours.root, ["a", "not-in-it"]) == []
    assert loaded.engine_image(ours.root, "moorage/x:1") is not None
    assert loaded.engine_image(ours.root, "moorage/x:2") is None
    assert loaded.held(ours.root) == {REFERENCE: f"sha256:{sha(INDEX)}"}


def test_a_second_load_changes_nothing(ours: Settings, tmp_path: Path) -> None:
    path = bundle(tmp_path)
    assert load(ours, path).changed
    assert not load(ours, path).changed


def test_nothing_is_taken_from_a_bundle_that_was_dropped(ours: Settings, tmp_path: Path) -> None:
    found = load(ours, bundle(tmp_path))
    assert loading.drop(ours)
    assert not found.folder.exists()
    assert loaded.current(ours.root) is None
    assert loaded.held(ours.root) == {}
    assert loaded.pip_words(ours.root, ours.root / "requirements.lock") == []
    assert not loading.drop(ours)


def test_a_changed_byte_is_named_by_digest_and_the_rest_stays(
    ours: Settings, tmp_path: Path
) -> None:
    path = bundle(tmp_path)
    told = refused(ours, flipped(path, CONTENT[LAYER]))
    assert told.code == "bundle-damaged"
    assert f"{LAYER} is not sha256:{sha(CONTENT[LAYER])}" in told.message
    assert "its content is sha256:" in told.fault.cause
    assert loaded.current(ours.root) is None
    folder = loaded.cache() / packing.opened(path).id
    assert not (folder / LAYER).exists()
    found = load(ours, path)
    assert (found.unpacked, found.folder) == (1, folder)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9])
def test_a_cut_file_is_named_and_goes_on_once_it_is_whole(
    ours: Settings, tmp_path: Path, share: float
) -> None:
    path = bundle(tmp_path)
    cut = tmp_path / "cut.tar"
    cut.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    told = refused(ours, cut)
    assert told.code in ("bundle-damaged", "bad-bundle")
    if told.code == "bundle-damaged":
        assert "sha256:" in told.message
    assert load(ours, path).unpacked <= len(CONTENT)


def test_every_cut_is_refused(ours: Settings, tmp_path: Path) -> None:
    content = bundle(tmp_path).read_bytes()
    end = content.rstrip(b"\0")
    for length in range(0, len(end), 4099):
        (tmp_path / "cut.tar").write_bytes(content[:length])
        assert refused(ours, tmp_path / "cut.tar").code in ("bundle-damaged", "bad-bundle")


def test_a_changed_manifest_is_refused(ours: Settings, tmp_path: Path) -> None:
    told = refused(ours, flipped(bundle(tmp_path), b'"commit": "cccccccc'))
    assert told.code == "bad-bundle"
    assert "manifest.json is sha256:" in told.fault.cause
    assert isinstance(told, Refused)


@pytest.mark.parametrize("content", [b"", b"not a tar", b"\0" * 20480])
def test_what_is_no_bundle_is_refused(ours: Settings, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(content)
    assert refused(ours, tmp_path / "x.tar").code == "bad-bundle"
    assert refused(ours, tmp_path / "absent.tar").code == "bad-bundle"
    assert refused(ours, tmp_path).code == "bad-bundle"


def written(path: Path, one: bytes, *more: tuple[tarfile.TarInfo, bytes]) -> Path:
    """A tar with this manifest and these members."""
    said = f"{manifest.identity(one)}  manifest.json\n".encode()
    heads = [(tarfile.TarInfo(manifest.NAME), one), (tarfile.TarInfo(manifest.SUM), said)]
    with tarfile.open(path, "w") as tar:
        for info, content in (*heads, *more):
            info.size = len(content) if info.isreg() else 0
            tar.addfile(info, io.BytesIO(content))
    return path


def test_a_bundle_of_another_version_is_refused_with_the_way_on(
    ours: Settings, tmp_path: Path
) -> None:
    one = manifest.written(described(tmp_path / "parts"))
    other = written(tmp_path / "x.tar", one.replace(b'"format": 1', b'"format": 2'))
    told = refused(ours, other)
    assert told.code == "bundle-version"
    assert "./run --bundle" in told.fault.cure
    (ours.root / "requirements.lock").write_text("# another\n")
    told = refused(ours, bundle(tmp_path))
    assert told.code == "bundle-version"
    assert "requirements.lock" in told.fault.cause


def test_a_bundle_for_another_system_is_refused(tmp_path: Path) -> None:
    one = described(tmp_path / "parts")
    locks = checkout.locks(ROOT)
    loading.judge(one, system.here(), locks, "x.tar")
    for other in (
        replace(system.here(), name="debian 99"),
        replace(system.here(), architecture="s390x"),
    ):
        with pytest.raises(Refused, match="another system") as told:
            loading.judge(one, other, locks, "x.tar")
        assert told.value.code == "bundle-system"


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "wheels/own/../../../evil", "evil"])
def test_a_member_that_the_manifest_does_not_name_goes_nowhere(
    ours: Settings, tmp_path: Path, name: str
) -> None:
    one = replace(described(tmp_path / "parts"), files=(), engine=(), images=())
    evil = written(tmp_path / "x.tar", manifest.written(one), (tarfile.TarInfo(name), b"evil"))
    told = refused(ours, evil)
    assert told.code == "bundle-damaged"
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize("path", ["../evil", "/etc/evil", "wheels/own/..", "debs/a/b", "debs/-x"])
def test_a_manifest_with_a_path_that_leads_out_is_refused(
    ours: Settings, tmp_path: Path, path: str
) -> None:
    one = manifest.written(described(tmp_path / "parts")).replace(b"debs/Packages", path.encode())
    assert refused(ours, written(tmp_path / "x.tar", one)).code == "bad-bundle"


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_a_member_that_is_a_link_is_damage(ours: Settings, tmp_path: Path, kind: bytes) -> None:
    one = described(tmp_path / "parts")
    link = tarfile.TarInfo("debs/a_1_all.deb")
    link.type, link.linkname = kind, "/etc/passwd"
    told = refused(ours, written(tmp_path / "x.tar", manifest.written(one), (link, b"")))
    assert told.code == "bundle-damaged"
    assert not (loaded.cache() / packing.opened(tmp_path / "x.tar").id / link.name).exists()


def test_a_member_that_would_fill_the_disk_is_not_unpacked(
    ours: Settings, tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(small_disk))
    one = described(tmp_path / "parts")
    name = "debs/a_1_all.deb"
    zeros = tarfile.TarInfo(name)
    # A hole of a terabyte, as GNU tar writes it: a kilobyte in the file.
    zeros.pax_headers = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.name": name,
        "GNU.sparse.size": str(1 << 40),
        "GNU.sparse.map": f"0,1,{(1 << 40) - 1},1",
    }
    path = written(tmp_path / "x.tar", manifest.written(one), (zeros, b"zz"))
    told = refused(ours, path)
    assert told.code == "bundle-damaged"
    assert f"it has {1 << 40} bytes instead of 5000" in told.fault.cause


def test_a_difference_takes_the_rest_from_the_first(ours: Settings, tmp_path: Path) -> None:
    first = bundle(tmp_path)
    content = {**CONTENT, "debs/a_1_all.deb": b"new" * 900}
    second = difference(tmp_path, first, content)
    assert second.stat().st_size < first.stat().st_size / 3
    told = refused(ours, second)
    assert told.code == "bundle-first"
    assert packing.opened(first).id in told.fault.cause
    load(ours, first)
    found = load(ours, second)
    assert found.shared == len(CONTENT) - 1
    assert {name: (found.folder / name).read_bytes() for name in content} == content
    # What the first had is the second's own by now.
    remove_folder(loaded.cache() / packing.opened(first).id)
    assert (found.folder / LAYER).read_bytes() == CONTENT[LAYER]


def test_what_was_changed_in_the_cache_is_not_shared(ours: Settings, tmp_path: Path) -> None:
    first = bundle(tmp_path)
    second = difference(tmp_path, first, {**CONTENT, "run": b"#!/bin/sh\ntrue\n"})
    found = load(ours, first)
    (found.folder / LAYER).write_bytes(b"m" * len(CONTENT[LAYER]))
    assert refused(ours, second).code == "bundle-first"


CHILD = """
import sys
from pathlib import Path
from moorage.bundle import loading
from moorage.settings import ROOT
from moorage.ui import UI
from tests.unit.elsewhere import project
loading.load(project(Path(sys.argv[1])), Path(sys.argv[2]), UI().progress)
"""


def test_a_load_that_was_killed_goes_on(ours: Settings, tmp_path: Path) -> None:
    names = {f"debs/p{n}_1_all.deb": os.urandom(400_000) for n in range(100)}
    path = bundle(tmp_path, {**CONTENT, **names})
    folder = loaded.cache() / packing.opened(path).id
    argv = [sys.executable, "-c", CHILD, str(ours.root), str(path)]
    with subprocess.Popen(argv, cwd=ROOT) as child:
        until = time.monotonic() + 60
        while len(list(folder.glob("debs/p*.deb"))) < 10 and time.monotonic() < until:
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
    there = len(list(folder.glob("debs/p*.deb")))
    assert there >= 10
    assert loaded.current(ours.root) is None
    found = load(ours, path)
    assert found.unpacked <= len(names) + len(CONTENT) - there
    assert (folder / "debs/p99_1_all.deb").read_bytes() == names["debs/p99_1_all.deb"]


def test_a_full_disk_is_named_and_goes_on_with_room(
    ours: Settings, tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bundle(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(small_disk))
    told = refused(ours, path)
    assert told.code == "disk-full"
    assert str(small_disk) in told.fault.cure
    assert loaded.current(ours.root) is None
    subprocess.run(["mount", "-o", "remount,size=1m", str(small_disk)], check=True)
    assert load(ours, path).unpacked < len(CONTENT)


def test_an_image_has_the_names_that_skopeo_looks_for() -> None:
    top, inner, blob = ("1" * 64, "2" * 64, "3" * 64)
    image = manifest.BundledImage(REFERENCE, f"sha256:{top}", (top, inner, blob))
    rows = [{"digest": f"sha256:{inner}"}, {"digest": "sha256:../../evil"}]
    found = loading.names(image, json.dumps({"manifests": rows}).encode())
    assert found["manifest.json"] == top
    assert found[f"{inner}.manifest.json"] == inner
    assert found[blob] == blob
    assert len(found) == 5
    for odd in (b"", b"[]", b'{"manifests": 3}', b'{"manifests": [3]}'):
        assert len(loading.names(image, odd)) == 4
