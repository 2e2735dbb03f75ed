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
from moorage.files import write_tar
from moorage.supply import manifest
from tests.unit.bundle.made import CONTENT, described, difference, flipped

ROOT = Path(__file__).resolve().parents[3]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="a mount of its own takes root")
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


def test_a_wheel_that_the_first_bundle_has_for_another_lock_comes_along(
    bare: Path, tmp_path: Path
) -> None:
    """`run` finds what a difference leaves out by its path."""
    name = "b-1-py3-none-any.whl"
    first = packed(tmp_path, {f"wheels/agents/{name}": b"b" * 900})
    there = bare.parent / "cache/moorage/bundle" / packing.opened(first).id
    there.mkdir(parents=True)
    subprocess.run(["tar", "-xf", str(first), "-C", str(there)], check=True)
    more = {f"wheels/own/{name}": b"b" * 900}
    second = difference(tmp_path, first, {**CONTENT, "repository.tar": repository(), **more})
    assert {one.name for one in packing.members(second)} == set(more)
    done = run(bare, second, "inv", "up")
    assert done.returncode == 0, done.stderr


def test_a_file_that_is_not_there_is_named(bare: Path) -> None:
    done = run(bare, Path("absent.tar"), "inv", "up")
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no bundle absent.tar" in done.stderr
    assert run(bare, Path("x.tar")).stderr.startswith("run: usage: ./run [--bundle FILE] inv")


def test_a_load_that_fails_ends_it_with_its_code(bare: Path, tmp_path: Path) -> None:
    checkout = CHECKOUT["moorage/program/start.py"]
    CHECKOUT["moorage/program/start.py"] = "import sys\nsys.exit(3)\n"
    try:
        other = packed(tmp_path, {})
    finally:
        CHECKOUT["moorage/program/start.py"] = checkout
    done = run(bare, other, "inv", "up")
    assert (done.returncode, done.stdout) == (3, "")


# -- what is refused before anything is changed -------------------------------------------------

_TOOLS = (
    "cat chmod cmp cp cut dirname env grep id mkdir mv readlink rm sed sh sha256sum tail tar uname"
)


@pytest.fixture
def lean(tmp_path: Path) -> Path:
    """A PATH with what `run` needs of any Debian, and neither Python nor apt-get nor sudo."""
    folder = tmp_path / "lean"
    folder.mkdir()
    for name in _TOOLS.split():
        (folder / name).symlink_to(str(shutil.which(name)))
    return folder


def stands_in(folder: Path, name: str, script: str) -> None:
    (folder / name).unlink(missing_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def somebody(lean: Path) -> None:
    """`id` says that we are not root."""
    real = shutil.which("id")
    stands_in(lean, "id", f'if [ "$*" = -u ]; then echo 1000; else exec {real} "$@"; fi')


def with_venv(folder: Path) -> Path:
    """A bundle whose packages have the venv of its Python."""
    return packed(folder, {f"debs/python{system.here().python}-venv_1_all.deb": b"v" * 900})


def left_alone(bare: Path) -> bool:
    return {path.name for path in bare.iterdir()} == {"run"} and not (
        bare.parent / "cache"
    ).exists()


@pytest.mark.parametrize(
    "fields", [{"name": "ubuntu 24.04"}, {"name": "debian 99"}, {"architecture": "s390x"}]
)
def test_another_system_is_refused_before_anything_is_written(
    bare: Path, tmp_path: Path, fields: dict[str, str]
) -> None:
    other = packed(tmp_path, {}, system=replace(system.here(), **fields))
    done = run(bare, other, "inv", "up", "--yes")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"is for {fields.get('name', system.here().name)} on " in done.stderr
    assert f"and this is {system.here().name} on {system.here().architecture}" in done.stderr
    assert "cure: make it on a machine of the same release" in done.stderr
    assert left_alone(bare)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('ID=ubuntu\nVERSION_ID="24.04"\n', "ubuntu 24.04"),
        ("ID=debian\nVERSION_CODENAME=sid\n", "debian sid"),
        ('PRETTY_NAME="Made Up"\n', "linux"),
    ],
)
@needs_root
def test_a_release_is_called_as_the_bundle_calls_it(
    bare: Path, file: Path, text: str, name: str
) -> None:
    assert system.release(text) == name
    (bare.parent / "os-release").write_text(text)
    inside = 'mount --bind ../os-release "$(readlink -f /etc/os-release)" && exec "$@"'
    argv = ["unshare", "--mount", "sh", "-c", inside, "sh", "./run", "--bundle", str(file)]
    done = subprocess.run(
        [*argv, "inv", "up"],
        env={**os.environ, "XDG_CACHE_HOME": str(bare.parent / "cache")},
        cwd=bare,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert f"and this is {name} on " in done.stderr
    assert left_alone(bare)


def test_another_format_is_refused_before_anything_is_written(bare: Path, file: Path) -> None:
    content = packing.opened(file).content.replace(b'"format": 1,', b'"format": 2,')
    said = f"{manifest.identity(content)}  {manifest.NAME}\n".encode()
    write_tar(file, [(manifest.NAME, content), (manifest.SUM, said)])
    done = run(bare, file, "inv", "up")
    assert done.returncode == 2
    assert f"a bundle of another version; cure: use the run that is in it: tar -xf {file}" in (
        done.stderr
    )
    assert left_alone(bare)


def test_without_root_and_sudo_the_way_on_is_said(bare: Path, tmp_path: Path, lean: Path) -> None:
    somebody(lean)
    file = with_venv(tmp_path)
    done = run(bare, file, "inv", "up", "--yes", PATH=str(lean))
    assert (done.returncode, done.stdout) == (2, "")
    assert "root alone can install it, and there is no sudo here; cure: become root (su -)" in (
        done.stderr
    )
    assert f"tar -xf {file} run && ./run --bundle {file} inv up --yes" in done.stderr
    assert not list((bare.parent / "cache").rglob("*.deb"))


def test_with_sudo_the_lists_are_fetched_as_the_user_and_root_installs(
    bare: Path, tmp_path: Path, lean: Path
) -> None:
    somebody(lean)
    said = tmp_path / "said"
    stands_in(lean, "sudo", f'AS=root exec "$@" # and {said}')
    stands_in(lean, "apt-get", f'for last; do :; done; echo "${{AS:-user}} $last" >>{said}')
    done = run(bare, with_venv(tmp_path), "inv", "up", "--yes", PATH=str(lean))
    assert said.read_text() == "user update\nroot python3-venv\n"
    assert "through sudo" in done.stderr
    assert "set MOORAGE_PYTHON to one" in done.stderr  # the stand-in brought none


def test_no_package_is_installed_if_the_wheels_are_for_another_python(
    bare: Path, tmp_path: Path, lean: Path
) -> None:
    stands_in(lean, "apt-get", f"touch {tmp_path}/asked")
    other = packed(tmp_path, {}, system=replace(system.here(), python="3.99"))
    done = run(bare, other, "inv", "up", PATH=str(lean))
    assert done.returncode == 2
    assert "cure: set MOORAGE_PYTHON to a Python 3.99" in done.stderr
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize("room", [8, 16, 24, 32])
def test_a_full_disk_is_named_and_goes_on_with_room(
    bare: Path, tmp_path: Path, small_disk: Path, room: int
) -> None:
    subprocess.run(["mount", "-o", f"remount,size={room}k", str(small_disk)], check=True)
    file = packed(tmp_path, {"wheels/own/a-1-py3-none-any.whl": b"w" * 20_000})
    done = run(bare, file, "inv", "up", XDG_CACHE_HOME=str(small_disk))
    assert done.returncode == 2
    assert f"cure: make room (df -h {small_disk}" in done.stderr
    assert not (bare / ".venv").exists()
