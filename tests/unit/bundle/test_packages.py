"""The archive of packages is one that apt itself reads and installs from."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from moorage.bundle import packages
from moorage.files import digest, private_folder, write_atomically
from moorage.supply import loaded

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


@needs_apt
def test_apt_resolves_from_the_bundle_alone(tmp_path: Path) -> None:
    made = [
        package(tmp_path, "moorage-test-a", "Depends: moorage-test-b"),
        package(tmp_path, "moorage-test-b"),
    ]
    folder = tmp_path / "a bundle"
    private_folder(folder / "debs")
    for path in made:
        shutil.copy(path, folder / "debs")
    content = packages.listed(made, [digest(path) for path in made])
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


@pytest.mark.parametrize(
    ("file", "name"),
    [("a_1%3a2.0-1_all.deb", "a_1-2.0-1_all.deb"), ("x_1+b~1_amd64.deb", "x_1+b~1_amd64.deb")],
)
def test_a_version_with_an_epoch_has_a_name_without_colon(file: str, name: str) -> None:
    assert packages.member_name(file) == name
