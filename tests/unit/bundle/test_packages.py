"""The archive of packages is one that apt itself reads and installs from."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from moorage.bundle import packages
from moorage.errors import MoorageError
from moorage.files import digest, private_folder, write_atomically
from moorage.supply import loaded
from tests.unit.bundle.made import CONTENT, described

needs_apt = pytest.mark.skipif(
    shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None, reason="no apt here"
)


def package(folder: Path, name: str, *lines: str) -> Path:
    root = folder / name
    (root / "DEBIAN").mkdir(parents=True)
    control = [f"Package: {name}", "Version: 1", "Architecture: all", "Maintainer: x <x@x>"]
    text = "\n".join([*control, *lines, "Description: made for a test\n a second line", ""])
    (root / "DEBIAN" / "control").write_text(text)
    made = folder / f"{name}_1_all.deb"
    build = ["dpkg-deb", "--build", str(root), str(made)]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    return made


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mirror with two packages, the only one that apt knows of."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    made = [
        package(tmp_path, "moorage-test-a", "Depends: moorage-test-b"),
        package(tmp_path, "moorage-test-b"),
    ]
    blocks = []
    for path in made:
        shutil.copy(path, folder)
        control = subprocess.run(
            ["dpkg-deb", "--field", str(path)], check=True, capture_output=True, text=True
        ).stdout
        size = f"Filename: ./{path.name}\nSize: {path.stat().st_size}"
        blocks.append(f"{control}{size}\nSHA256: {digest(path)}\n")
    (folder / "Packages").write_text("\n".join(blocks))
    sources = tmp_path / "sources.list"
    sources.write_text(f"deb [trusted=yes] copy:{folder} ./\n")
    settings = f'Dir::Etc {{ SourceList "{sources}"; SourceParts "-"; }};\n'
    (tmp_path / "apt.conf").write_text(settings)
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    return folder


@needs_apt
def test_apt_resolves_from_the_bundle_alone(tmp_path: Path, mirror: Path) -> None:
    wanted = packages.needed(tmp_path / "work", ["moorage-test-a"])
    assert sorted(one.file for one in wanted) == sorted(path.name for path in mirror.glob("*.deb"))
    folder = tmp_path / "a bundle"
    private_folder(folder / "debs")
    for path in packages.fetch(tmp_path / "work", wanted):
        shutil.copy(path, folder / "debs")
    content = packages.listed(wanted)
    (folder / "debs" / packages.LIST).write_bytes(content)
    private_folder(folder / loaded.LISTS / "partial")
    write_atomically(folder / loaded.SOURCES, loaded.apt_line(folder).encode())
    options = [*loaded.apt_options(folder), "-o", "Debug::NoLocking=true"]
    subprocess.run(["apt-get", *options, "-q", "update"], check=True, stdout=subprocess.DEVNULL)
    install = ["apt-get", *options, "-s", "install", "moorage-test-a"]
    said = subprocess.run(install, check=True, capture_output=True, text=True).stdout
    assert "Inst moorage-test-b" in said
    others = ["apt-get", *options, "-s", "install", "bsdgames"]
    assert subprocess.run(others, capture_output=True, check=False).returncode


@needs_apt
def test_what_a_first_bundle_has_is_not_fetched(tmp_path: Path, mirror: Path) -> None:
    wanted = packages.needed(tmp_path / "work", ["moorage-test-a"])
    (other,) = (one for one in wanted if "test-b" in one.file)
    content = {other.path: (mirror / other.file).read_bytes()}
    first = described(tmp_path / "parts", {**CONTENT, **content})
    left = packages.lacking(wanted, first)
    assert ["test-a" in one.file for one in left] == [True]
    assert packages.lacking(wanted, None) == wanted
    (mirror / other.file).unlink()
    (path,) = packages.fetch(tmp_path / "work", left)
    before = path.stat().st_ino
    assert packages.fetch(tmp_path / "work", left) == [path]
    assert path.stat().st_ino == before
    changed = described(tmp_path / "parts", {**CONTENT, other.path: b"another"})
    assert packages.lacking(wanted, changed) == wanted


@needs_apt
def test_a_package_that_changed_on_the_way_is_refused(tmp_path: Path, mirror: Path) -> None:
    wanted = packages.needed(tmp_path / "work", ["moorage-test-a"])
    path = mirror / wanted[0].file
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(MoorageError):
        packages.fetch(tmp_path / "work", wanted)


@pytest.mark.parametrize(
    ("file", "name"),
    [("a_1%3a2.0-1_all.deb", "a_1-2.0-1_all.deb"), ("x_1+b~1_amd64.deb", "x_1+b~1_amd64.deb")],
)
def test_a_version_with_an_epoch_has_a_name_without_colon(file: str, name: str) -> None:
    assert packages.member_name(file) == name
