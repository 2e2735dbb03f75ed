"""Debian's packages as a layer: what their scripts would have made of them, and what fails."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from moorage.docker import bootstrap, debian
from moorage.errors import MoorageError
from moorage.images.demo import base, bytecode, tree
from moorage.images.demo.base import Base
from moorage.output import Update
from moorage.platforms import PLATFORMS
from moorage.settings import LabSettings
from moorage.ui import UI
from tests.unit.elsewhere import project

# What mmdebstrap 1.3.5 and apt say of a mirror that does not answer, and of a full disk.
UNREACHED = """\
I: running apt-get update...
Err:1 http://127.0.0.9/debian bookworm InRelease
  Could not connect to 127.0.0.9:80 (127.0.0.9). - connect (111: Connection refused)
E: Failed to fetch http://127.0.0.9/debian/dists/x  Could not connect to 127.0.0.9:80
E: Some index files failed to download. They have been ignored, or old ones used instead.
E: apt-get update --error-on=any -oAPT::Status-Fd=<$fd> -oDpkg::Use-Pty=false failed
I: removing tempdir /tmp/mmdebstrap.a_L7PMd5Ie...
E: mmdebstrap failed to run
"""
FULL = """\
I: extracting archives...
tar: ./usr/bin/python3.11: Cannot write: No space left on device
E: tar --extract failed: 512
E: mmdebstrap failed to run
"""


def files(**more: str) -> tree.Tree:
    """The few files of the packages that count."""
    texts = {
        "usr/share/base-passwd/passwd.master": "root:*:0:0:root:/root:/bin/bash\n",
        "usr/share/base-passwd/group.master": "root:*:0:\n",
        "usr/share/base-files/nsswitch.conf": "hosts: files dns\n",
        "usr/share/ca-certificates/mozilla/B.crt": "B\n",
        "usr/share/ca-certificates/mozilla/A.crt": "A\n",
        "var/lib/dpkg/status": "Package: b\n\nPackage: a\n\n",
        **more,
    }
    found = {name: tree.file(text.encode()) for name, text in texts.items()}
    return {**found, "usr/bin/python3": tree.link("python3.11")}


def test_users_groups_cas_and_the_list_of_packages_are_as_scripts_make_them() -> None:
    found = {name: one.content.decode() for name, one in base.completed(files()).items()}
    assert found["etc/passwd"].startswith("root:")
    assert found["etc/group"] == "root:*:0:\n"
    assert found["etc/nsswitch.conf"] == "hosts: files dns\n"
    assert found["etc/ssl/certs/ca-certificates.crt"] == "A\nB\n"
    assert found["var/lib/dpkg/status"] == "Package: a\n\nPackage: b\n\n"


def test_a_python_that_wheels_were_not_chosen_for_is_refused() -> None:
    with pytest.raises(MoorageError, match="not as expected") as failure:
        base.completed({**files(), "usr/bin/python3": tree.link("python3.13")})
    assert failure.value.code == "no-debian-base"
    assert "python3.13" in failure.value.cause


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("etc/passwd", True), ("etc/hostname", False), ("etc/resolv.conf", False),
        ("etc/apt/sources.list", False), ("var/lib/dpkg/status", True),
        ("var/lib/dpkg/info/x", False), ("var/lib/apt/lists/lock", False), ("tmp", True),
        ("usr/share/doc/python3/copyright", True), ("usr/share/doc/python3/NEWS.gz", False),
        ("usr/share/locale/de/x.mo", False), ("usr/lib/python3.11/os.py", True), ("dev", True),
    ],
)  # fmt: skip
def test_nothing_of_this_machine_or_of_apt_goes_in(name: str, wanted: bool) -> None:
    assert base._is_wanted(name) is wanted


def test_another_mirror_or_platform_is_another_base(tmp_path: Path) -> None:
    one = project(tmp_path)
    other = project(tmp_path, lab=LabSettings(mirror="http://mine.lan/debian"))
    keys = {
        base.key(settings, PLATFORMS[name])
        for settings in (one, other)
        for name in ("linux/amd64", "linux/arm64")
    }
    assert len(keys) == 4


class Mmdebstrap:
    """Stands in for mmdebstrap: says ``words`` and fails, or fills the tar with ``files``."""

    def __init__(self, words: str = "") -> None:
        self.words = words
        self.asked: list[list[str]] = []

    def run(self, words: list[str], aim: list[str], log: Path, update: Update) -> None:
        del update
        self.asked.append(words)
        if self.words:
            log.write_text(self.words)
            raise bootstrap._explained("", log)
        tree.pack(tree.with_folders(files()), Path(aim[1]))


@pytest.mark.parametrize(
    ("words", "code", "cause", "cure"),
    [
        (UNREACHED, "no-debian-base", "Could not connect to 127.0.0.9:80", "lab.mirror"),
        (FULL, "disk-full", "Cannot write: No space left on device", "df -h /tmp"),
    ],
)
def test_an_archive_out_of_reach_and_a_full_disk_leave_nothing_behind(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: str,
    code: str,
    cause: str,
    cure: str,
) -> None:
    monkeypatch.setattr(bootstrap, "run", Mmdebstrap(words).run)
    monkeypatch.setattr(debian, "mirror", lambda _: None)
    with pytest.raises(MoorageError) as failure:
        Base(project(tmp_path), bytecode.native()).layer(UI().progress)
    assert failure.value.code == code
    assert cause in failure.value.cause
    assert "mmdebstrap failed to run" not in failure.value.cause
    assert cure in failure.value.cure
    (left,) = [path for path in (tmp_path / ".moorage").rglob("*") if path.is_file()]
    assert str(left) == failure.value.fault.path
    assert left.read_text() == words


def test_a_base_is_made_once_and_again_if_it_was_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker = Mmdebstrap()
    monkeypatch.setattr(bootstrap, "run", maker.run)
    monkeypatch.setattr(debian, "mirror", lambda _: None)
    monkeypatch.setattr(bytecode, "unpack", lambda base, folder: folder)
    monkeypatch.setattr(bytecode, "compiled", lambda root, sources, work: {})
    (foreign,) = {"linux/amd64", "linux/arm64"} - {bytecode.native().name} or {"linux/arm64"}
    one = Base(project(tmp_path), PLATFORMS[foreign])
    first = one.layer(UI().progress)
    # The foreign one, and this machine's, whose Python compiles.
    architectures = {word for words in maker.asked for word in words if "architectures" in word}
    assert architectures == {
        f"--architectures={PLATFORMS[foreign].debian}",
        f"--architectures={bytecode.native().debian}",
    }
    assert one.layer(UI().progress) == first
    assert len(maker.asked) == 2
    with tarfile.open(one.path) as tar:
        assert "etc/passwd" in tar.getnames()
    one.path.write_bytes(one.path.read_bytes()[:100])
    assert one.layer(UI().progress) == first
    assert len(maker.asked) == 3


def test_a_machine_without_a_debian_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(MoorageError, match="cannot be made on riscv64") as failure:
        bytecode.native()
    assert failure.value.code == "no-debian-base"
