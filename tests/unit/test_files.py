"""Files are replaced as a whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from moorage.errors import Refused
from moorage.files import private_folder, user_home, user_path, write_atomically


def test_content_and_mode_are_as_asked(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"old")
    path.chmod(0o644)
    write_atomically(path, b"new", mode=0o600)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["key"]


def test_failure_leaves_the_old_file_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["key"]


def test_a_private_folder_is_closed_even_if_it_stood_open(tmp_path: Path) -> None:
    folder = tmp_path / "certs"
    folder.mkdir(mode=0o755)
    assert private_folder(folder).stat().st_mode & 0o777 == 0o700


def test_a_home_stands_for_the_tilde_of_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert user_path("~/keys/x") == Path("/home/ada/keys/x")
    assert user_path("~root/x") == Path("/root/x")
    assert user_path("keys/~x") == Path("keys/~x")


def test_a_home_of_nobody_is_refused_by_the_setting_that_names_it() -> None:
    with pytest.raises(Refused) as problem:
        user_path("~no-such-user/config", "nodes.ssh_config")
    assert problem.value.code == "no-home"
    assert problem.value.message.startswith("~no-such-user/config")
    assert "nodes.ssh_config" in problem.value.cause
    assert "no user no-such-user" in problem.value.cause


def test_who_has_neither_name_nor_home_is_told_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    with pytest.raises(Refused) as problem:
        user_home()
    assert problem.value.cause.startswith("HOME is not set")
    assert problem.value.cause.endswith("54321")
