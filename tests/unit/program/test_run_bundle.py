"""./run --bundle: from an empty folder to a command, by sh, tar, sha256sum and Python alone."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from moorage.bundle import packing, system
from tests.unit.bundle.made import CONTENT, described, flipped

ROOT = Path(__file__).resolve().parents[3]
# What a checkout has at least; the program is a stand-in that says what it was given.
SAYS = "import sys\nprint('given', *sys.argv[1:])\n"
CHECKOUT = {
    "run": (ROOT / "run").read_text(),
    "tasks.py": "# tasks\n",
    "requirements.lock": "# empty\n",
    "moorage/program/start.py": SAYS,
    ".gitignore": "/.venv/\n",
}


def repository() -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, text in CHECKOUT.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(text.encode()), 0o755 if name == "run" else 0o644
            tar.addfile(info, io.BytesIO(text.encode()))
    return made.getvalue()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return packed(tmp_path, {})


def packed(folder: Path, more: dict[str, bytes], **fields: object) -> Path:
    content = {**CONTENT, "repository.tar": repository(), "invoke.yaml": b"registry: {}\n", **more}
    one = replace(described(folder / "parts", content), **fields)  # type: ignore[arg-type]
    packing.pack(folder / "moorage.tar", one, folder / "parts", ())
    return folder / "moorage.tar"


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    folder = tmp_path / "bare"
    folder.mkdir()
    shutil.copy(ROOT / "run", folder / "run")
    return folder


def run(bare: Path, file: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["./run", "--bundle", str(file), *words],
        env={**os.environ, "XDG_CACHE_HOME": str(bare.parent / "cache"), **variables},
        cwd=bare,
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_empty_folder_becomes_a_checkout_that_has_loaded_it(bare: Path, file: Path) -> None:
    done = run(
        bare, Path("../moorage.tar"), "inv", "up", "--yes", PIP_INDEX_URL="http://localhost:1"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "given up --yes\n"
    assert f"given bundle.load {file}" in done.stderr
    assert (bare / "invoke.yaml").read_text() == "registry: {}\n"
    assert (bare / "moorage/program/start.py").read_text() == SAYS
    assert (bare / ".gitignore").exists()
    assert not (bare / ".unpacking").exists()
    (bare / "invoke.yaml").write_text("registry: {port: 444}\n")
    assert run(bare, file, "inv", "up").returncode == 0
    assert (bare / "invoke.yaml").read_text() == "registry: {port: 444}\n"


def test_a_stop_in_the_middle_of_unpacking_is_done_again(bare: Path, file: Path) -> None:
    (bare / ".unpacking").mkdir()
    (bare / ".unpacking" / "tasks.py").write_text("half")
    (bare / "requirements.lock").write_text("# empty\n")
    assert run(bare, file, "inv", "up").returncode == 0
    assert (bare / "tasks.py").read_text() == "# tasks\n"


@pytest.mark.parametrize("what", [b'"commit": "ccc', b"# tasks"])
def test_a_changed_byte_ends_it_by_digest(bare: Path, file: Path, what: bytes) -> None:
    done = run(bare, flipped(file, what), "inv", "up")
    assert done.returncode == 2
    assert "sha256:" in done.stderr
    assert "copy it again" in done.stderr
    assert not (bare / "tasks.py").exists()
    assert run(bare, file, "inv", "up").returncode == 0


@pytest.mark.parametrize("length", [0, 100, 3000, 5000])
def test_a_cut_file_ends_it(bare: Path, file: Path, length: int) -> None:
    (bare.parent / "cut.tar").write_bytes(file.read_bytes()[:length])
    done = run(bare, bare.parent / "cut.tar", "inv", "up")
    assert done.returncode == 2
    assert "sha256" in done.stderr
    assert not (bare / "tasks.py").exists()


def test_a_file_that_is_not_there_is_named(bare: Path) -> None:
    done = run(bare, Path("absent.tar"), "inv", "up")
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no bundle absent.tar" in done.stderr
    assert run(bare, Path("x.tar")).stderr.startswith("run: usage: ./run [--bundle FILE] inv")


def test_a_python_that_the_wheels_are_not_for_is_passed_over(bare: Path, tmp_path: Path) -> None:
    other = packed(tmp_path, {}, system=replace(system.here(), python="3.99"))
    apt = tmp_path / "bin" / "apt-get"  # a stand-in: this machine's packages are left alone
    apt.parent.mkdir()
    apt.write_text("#!/bin/sh\necho E: no such package; exit 100\n")
    apt.chmod(0o755)
    done = run(bare, other, "inv", "up", PATH=f"{apt.parent}:/usr/bin:/bin")
    assert done.returncode == 2
    assert "3.99" in done.stderr


def test_a_load_that_fails_ends_it_with_its_code(bare: Path, tmp_path: Path) -> None:
    checkout = CHECKOUT["moorage/program/start.py"]
    CHECKOUT["moorage/program/start.py"] = "import sys\nsys.exit(3)\n"
    try:
        other = packed(tmp_path, {})
    finally:
        CHECKOUT["moorage/program/start.py"] = checkout
    done = run(bare, other, "inv", "up")
    assert (done.returncode, done.stdout) == (3, "")
