"""./run: makes the environment once, says in one line what is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
LOCKS = ("requirements.lock", "develop.lock")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with empty locks, so that making the environment needs no network."""
    shutil.copy(ROOT / "run", tmp_path / "run")
    for lock in LOCKS:
        (tmp_path / lock).write_text("# empty\n")
    return tmp_path


def run(checkout: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(checkout / "run"), *words],
        env={**os.environ, **variables},
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
    )


def test_environment_is_made_once_and_again_only_when_the_lock_changed(checkout: Path) -> None:
    first = run(checkout, "python", "-c", "import sys; print(sys.prefix)")
    assert first.stdout.strip() == str(checkout / ".venv")
    assert "making" in first.stderr
    assert run(checkout, "true").stderr == ""
    (checkout / "requirements.lock").write_text("# changed\n")
    assert "making" in run(checkout, "true").stderr
    assert run(checkout, "true").stderr == ""


def test_interrupted_making_is_done_anew(checkout: Path) -> None:
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / "half").write_text("made")
    assert run(checkout, "true").returncode == 0
    assert not (checkout / ".venv" / "half").exists()


def test_a_missing_venv_module_gets_one_line_with_the_cure(checkout: Path, tmp_path: Path) -> None:
    broken = tmp_path / "bin" / "python3"
    broken.parent.mkdir()
    # Debian without python3-venv: the interpreter is there, ensurepip is not.
    broken.write_text(
        '#!/bin/sh\ncase "$*" in *ensurepip*) exit 1;; *--version*) echo "Python 3.11.2";; esac\n'
    )
    broken.chmod(0o755)
    done = run(checkout, "true", MOORAGE_PYTHON=str(broken))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "apt-get install python3-venv" in done.stderr


@pytest.mark.parametrize(
    ("system", "cure"),
    [
        ("ID=ubuntu\nVERSION_ID=22.04\n", "add-apt-repository ppa:deadsnakes/ppa && apt-get"),
        ('ID=ubuntu\nVERSION_ID="24.04"\n', "apt-get install python3 python3-venv"),
        ('ID=debian\nVERSION_ID="11"\n', "Debian 12 has it, debian 11 does not"),
        ('ID=debian\nVERSION_ID="12"\n', "apt-get install python3 python3-venv"),
        ("", "apt-get install python3 python3-venv"),
    ],
)
def test_too_old_a_python_gets_one_line_with_the_cure_of_that_system(
    checkout: Path, tmp_path: Path, system: str, cure: str
) -> None:
    release = tmp_path / "os-release"
    release.write_text(system)
    script = checkout / "run"
    script.write_text(script.read_text().replace("/etc/os-release", str(release)))
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("python3", "python3.11", "python3.12", "python3.13", "python3.14"):
        old = folder / name
        old.write_text(
            '#!/bin/sh\ncase "$*" in *--version*) echo "Python 3.9.2";; *) exit 1;; esac\n'
        )
        old.chmod(0o755)
    done = run(checkout, "true", PATH=f"{folder}:/usr/bin:/bin")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "3.11" in done.stderr
    assert f"cure: {cure}" in done.stderr
    assert "MOORAGE_PYTHON" in done.stderr


def test_a_package_that_does_not_match_its_hash_is_not_installed(checkout: Path) -> None:
    (checkout / "requirements.lock").write_text(f"pip==23.0 --hash=sha256:{'0' * 64}\n")
    done = run(checkout, "true", PIP_NO_INDEX="1")
    assert done.returncode == 2
    assert not (checkout / ".venv" / ".installed-requirements.lock").exists()


def test_inv_needs_no_package_of_the_tests(checkout: Path) -> None:
    (checkout / "develop.lock").write_text(f"pip==23.0 --hash=sha256:{'0' * 64}\n")
    done = run(checkout, "inv", "--version", PIP_NO_INDEX="1")
    assert "develop.lock" not in done.stderr
    assert (checkout / ".venv" / ".installed-requirements.lock").exists()
    done = run(checkout, "true", PIP_NO_INDEX="1")
    assert done.returncode == 2
    assert "develop.lock could not be installed" in done.stderr


def test_both_locks_hold_the_same_versions() -> None:
    def pins(lock: str) -> set[str]:
        lines = (ROOT / lock).read_text().splitlines()
        return {line.split(" ")[0] for line in lines if "==" in line and line[0].isalnum()}

    runs, develops = map(pins, LOCKS)
    assert runs < develops


@pytest.mark.parametrize(
    "words",
    [
        ("--list",), ("--help", "nodes.trust"), ("--version",), ("--nonsense",), ("nonsense",),
        ("--complete", "--", "inv nodes.tr"), ("--print-completion-script", "bash"),
    ],
)  # fmt: skip
def test_inv_in_the_environment_is_the_same_but_for_how_it_is_typed(words: tuple[str, ...]) -> None:
    ours = run(ROOT, "inv", *words)
    inside = subprocess.run(
        [str(ROOT / ".venv" / "bin" / "inv"), *words],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    typed = f"{ROOT / 'run'} inv "
    told = [text.replace(typed, "inv ") for text in (ours.stdout, ours.stderr)]
    assert (ours.returncode, *told) == (inside.returncode, inside.stdout, inside.stderr)
    assert typed not in inside.stdout + inside.stderr


def test_what_tests_of_tasks_need_of_invoke_is_there_when_they_do() -> None:
    probe = (
        "import sys\n"
        "from moorage.program import start\n"
        "start.program()\n"
        "assert 'asyncio' not in sys.modules\n"
        "from invoke import MockContext, Result\n"
        "context = MockContext(run=Result('said'))\n"
        "assert context.run('words').stdout == 'said'\n"
        "context.run.assert_called_once_with('words')\n"
        "assert 'asyncio' in sys.modules\n"
    )
    done = run(ROOT, "python", "-c", probe)
    assert (done.returncode, done.stderr) == (0, "")


def test_no_command_shows_the_usage(checkout: Path) -> None:
    done = run(checkout)
    assert done.returncode == 2
    assert "usage" in done.stderr


def test_the_lock_names_hashes_and_no_host() -> None:
    places = ("[!.]*/*requirements.lock", "tests/**/*requirements.lock")
    found = {path for place in places for path in ROOT.glob(place)}
    assert len(found) >= 6
    for lock in (*map(ROOT.joinpath, LOCKS), *found):
        text = lock.read_text()
        assert "--hash=sha256:" in text
        assert "://" not in text, lock
        assert "--index-url" not in text, lock
