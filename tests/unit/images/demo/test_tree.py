"""A layer's files: as on a merged /usr, root's, and the same bytes each time."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from moorage.images.demo import tree


def packed(path: Path, *members: tuple[str, bytes, dict[str, object]]) -> Path:
    """A tar as mmdebstrap makes it; each member: name, kind, and what else it is."""
    with tarfile.open(path, "w") as tar:
        for name, kind, more in members:
            info = tarfile.TarInfo(name)
            content = more.pop("content", b"")
            assert isinstance(content, bytes)
            info.type, info.size, info.mtime, info.uid = kind, len(content), 1_700_000_000, 42
            for key, value in more.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(content))
    return path


def test_what_packages_have_below_the_root_is_below_usr(tmp_path: Path) -> None:
    tar = packed(
        tmp_path / "a.tar",
        ("./lib", tarfile.DIRTYPE, {"mode": 0o755}),
        ("./lib/libc.so.6", tarfile.REGTYPE, {"content": b"libc", "mode": 0o755}),
        ("./lib64/ld.so", tarfile.SYMTYPE, {"linkname": "/lib/libc.so.6"}),
        ("./bin/dash", tarfile.REGTYPE, {"content": b"dash", "mode": 0o755}),
        ("./bin/sh", tarfile.LNKTYPE, {"linkname": "./bin/dash"}),
        ("./usr/libexec/x", tarfile.REGTYPE, {"content": b"x"}),
        ("./lost", tarfile.REGTYPE, {"content": b"no"}),
    )
    found = tree.read(tar, lambda name: name != "lost")
    assert found["usr/lib/libc.so.6"].content == b"libc"
    assert found["usr/bin/sh"] == tree.LayerFile(tarfile.LNKTYPE, 0o644, target="usr/bin/dash")
    links = {name: one.target for name, one in found.items() if "/" not in name and one.target}
    assert links == {name: f"usr/{name}" for name in ("bin", "lib", "lib64")}
    assert {"lost", "libexec"}.isdisjoint(found)
    assert tree.content_at(found, "lib64/ld.so") == b"libc"


def test_no_program_keeps_a_bit_that_would_make_its_user_root(tmp_path: Path) -> None:
    tar = packed(
        tmp_path / "a.tar",
        ("opt/chage", tarfile.REGTYPE, {"content": b"x", "mode": 0o6755}),
        ("tmp", tarfile.DIRTYPE, {"mode": 0o1777}),
        ("dev/null", tarfile.CHRTYPE, {"mode": 0o666}),
        ("run/pipe", tarfile.FIFOTYPE, {"mode": 0o666}),
    )
    found = tree.read(tar, lambda _: True)
    assert {name: one.mode for name, one in found.items()} == {
        "opt/chage": 0o755,
        "tmp": 0o1777,
    }


def test_the_same_files_are_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    files = {"b/é": tree.file(b"1"), "a": tree.file(b"2", 0o755), "c": tree.link("a")}
    whole = tree.with_folders(files)
    one = tree.pack(whole, tmp_path / "one")
    other = tree.pack(dict(reversed(whole.items())), tmp_path / "other")
    assert one == other
    content = (tmp_path / "one").read_bytes()
    assert content == (tmp_path / "other").read_bytes()
    assert one.digest == f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert one.diff == f"sha256:{hashlib.sha256(gzip.decompress(content)).hexdigest()}"
    assert one.size == len(content)
    with tarfile.open(tmp_path / "one") as tar:
        members = tar.getmembers()
    assert [member.name for member in members] == ["a", "b", "b/é", "c"]
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, 0, "", "")}
    assert members[0].mode == 0o755


@pytest.mark.parametrize(
    ("name", "content"),
    [("usr/a", b"1"), ("usr/up", b"1"), ("usr/whole", b"1"), ("usr/round", None), ("usr", None)],
)
def test_links_are_followed_within_the_layer(name: str, content: bytes | None) -> None:
    files = {
        "usr": tree.FOLDER,
        "usr/a": tree.file(b"1"),
        "usr/up": tree.link("a"),
        "usr/whole": tree.link("/usr/up"),
        "usr/round": tree.link("round"),
    }
    assert tree.content_at(files, name) == content
