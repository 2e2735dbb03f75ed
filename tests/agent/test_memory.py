"""What a program answered counts until it, its words or what it reads is another."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from agent.facts.containerd import _alone
from agent.node.host import Done, Host
from agent.node.memory import MOST, Memory
from agent.node.tree import Tree


class Counting(Host):
    """The real one, which tells how often it ran something."""

    def __init__(self, memory: Memory) -> None:
        super().__init__("/", memory)
        self.ran = 0

    def run(self, argv: list[str], timeout: float = 20, *, brief: bool = False) -> Done:
        self.ran += 1
        return super().run(argv, timeout, brief=brief)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return Path(shutil.copy(shutil.which("echo") or "/bin/echo", tmp_path / "echo"))


def test_nothing_is_run_again_while_all_is_the_same(program: Path) -> None:
    host = Counting(Memory())
    for _ in range(3):
        assert host.answer([str(program), "one"], b"config").out == "one\n"
    assert host.ran == 1


def test_other_words_other_inputs_and_another_program_are_asked_anew(program: Path) -> None:
    host = Counting(Memory())
    host.answer([str(program), "one"], b"config")
    host.answer([str(program), "two"], b"config")
    host.answer([str(program), "one"], b"confi", b"g")
    assert host.ran == 3
    other = Path(shutil.copy(shutil.which("cat") or "/bin/cat", program.with_name("new")))
    times = program.stat()
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.rename(program)
    assert not host.answer([str(program), "one"], b"config").ok
    assert host.ran == 4


def test_a_failure_and_a_script_are_never_kept(program: Path, tmp_path: Path) -> None:
    host = Counting(Memory())
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\necho script\n")
    script.chmod(0o755)
    shutil.copy(shutil.which("false") or "/bin/false", program)
    for _ in range(2):
        assert not host.answer([str(program)]).ok
        assert host.answer([str(script)]).out == "script\n"
    assert host.ran == 4


def test_what_one_process_learned_another_knows(program: Path) -> None:
    learned = Memory()
    Counting(learned).answer([str(program), "a\nb"])
    told = Memory()
    told.take(learned.news())
    host = Counting(told)
    assert host.answer([str(program), "a\nb"]).out == "a\nb\n"
    assert (host.ran, told.news()) == (0, b"")


def test_it_keeps_few(program: Path) -> None:
    memory = Memory()
    host = Counting(memory)
    for number in [*range(MOST + 1), MOST, 0]:
        host.answer([str(program), str(number)])
    assert host.ran == MOST + 2


@pytest.mark.parametrize(
    ("config", "alone"),
    [
        (b"version = 2\n", True),
        (b"imports = []\nversion = 2\n", True),
        (b"imports = ['/etc/containerd/conf.d/*.toml']\n", True),
        (b"imports = ['/etc/containerd/x.toml']\n", False),
        (b"imports = [\n  'x.toml',\n]\n", False),
        (b"'imports' = ['x.toml']\n", False),
    ],
)
def test_a_configuration_that_imports_others_does_not_tell_alone(
    tmp_path: Path, config: bytes, alone: bool
) -> None:
    assert _alone(Tree(str(tmp_path)), config) == alone
    folder = tmp_path / "etc/containerd/conf.d"
    folder.mkdir(parents=True)
    (folder / "any.toml").touch()
    assert not _alone(Tree(str(tmp_path)), config)
