"""Where an agent imports from: unpacked once, or its own archive, which no upgrade replaces."""

from __future__ import annotations

import gc
import hashlib
import io
import os
import sys
import zipfile
from pathlib import Path

import pytest

from agent import bootstrap


def test_two_unpacked_archives_stay_whatever_files_lie_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "moorage" / "agent"
    monkeypatch.setattr(bootstrap, "HOME", str(home))
    archive = tmp_path / "agent.pyz"
    with zipfile.ZipFile(archive, "w") as bundle:
        bundle.writestr("agent/__init__.py", "")
    for number, name in enumerate("abc"):
        bootstrap._unpack(str(archive), f"{home}/{name}")
        os.utime(home / name, (number, number))
        for kind in ("pyz", "python"):
            (home / f"{name}.{kind}").touch()
    assert sorted(path.name for path in home.iterdir() if path.is_dir()) == ["b", "c"]
    assert len([path for path in home.iterdir() if path.is_file()]) == 6


def test_a_service_keeps_the_archive_it_was_started_from(tmp_path: Path) -> None:
    archive = tmp_path / "agent.pyz"
    archive.write_bytes(b"first")
    for content in (b"first", b"second"):
        place = Path(bootstrap._pinned(str(archive)))
        new = tmp_path / "new"
        new.write_bytes(b"second")
        new.replace(archive)
        assert place.read_bytes() == content


@pytest.mark.parametrize("pending", [False, True])
def test_with_once_nothing_of_the_archive_is_left_but_what_must_roll_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pending: bool
) -> None:
    home, journal = tmp_path / "moorage" / "agent", tmp_path / "intent.json"
    monkeypatch.setattr(bootstrap, "HOME", str(home))
    monkeypatch.setattr(bootstrap, "PENDING", str(journal))
    monkeypatch.setattr(sys, "argv", ["agent.pyz", "facts", "--root", str(tmp_path), "--once"])
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    home.mkdir(parents=True)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as bundle:
        bundle.writestr("agent/__init__.py", "")
    archive = home / f"{hashlib.sha256(content.getvalue()).hexdigest()}.pyz"
    archive.write_bytes(content.getvalue())
    archive.with_suffix(".python").write_text("/usr/bin/python3")
    if pending:
        journal.touch()
    try:
        assert bootstrap.run(str(archive)) == 0
    finally:
        gc.enable()
    assert archive.exists() is pending
    assert home.exists() is pending
