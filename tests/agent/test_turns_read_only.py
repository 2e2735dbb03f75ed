"""A file system that turns read-only at any step; the kernel is stood in for by its EROFS.

tests/faults has the real remount. Here every step of every operation is tried.
"""

from __future__ import annotations

import errno
import os
import pathlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.journal import transaction
from agent.journal.ledger import Store
from tests.agent.conftest import Box
from tests.agent.test_transaction import at, steps_of

PLACES = ["etc/containerd", "etc", "var/lib/moorage"]
# What writes, and which of its arguments are paths.
_WRITES = {"rename": 2, "unlink": 1, "mkdir": 1, "rmdir": 1, "chmod": 1, "symlink": 2}


class ReadOnly:
    """From :meth:`begin` on, nothing below ``folder`` can be written."""

    def __init__(self, patch: pytest.MonkeyPatch, folder: Path) -> None:
        self._patch = patch
        self._folder = folder

    def begin(self) -> None:
        real_open = os.open

        def opened(path: Any, flags: int, *rest: Any, **named: Any) -> int:
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self._refuse(path)
            return real_open(path, flags, *rest, **named)

        self._replace("open", opened)
        real_access, real_statvfs = os.access, os.statvfs

        def access(path: Any, mode: int, **named: Any) -> bool:
            refused = mode & os.W_OK and self._has(path)
            return not refused and real_access(path, mode, **named)

        def statvfs(path: Any) -> Any:
            return SimpleNamespace(f_flag=os.ST_RDONLY) if self._has(path) else real_statvfs(path)

        self._patch.setattr(os, "access", access)
        self._patch.setattr(os, "statvfs", statvfs)
        for name, count in _WRITES.items():
            self._replace(name, self._refusing(getattr(os, name), count))

    def end(self) -> None:
        self._patch.undo()

    def _replace(self, name: str, stand_in: Callable[..., Any]) -> None:
        self._patch.setattr(os, name, stand_in)
        # Before 3.10, pathlib has functions of os in hand since its own import.
        accessor = getattr(pathlib, "_normal_accessor", None)
        if accessor is not None:
            self._patch.setattr(accessor, name, stand_in)

    def _refusing(self, real: Callable[..., Any], count: int) -> Callable[..., Any]:
        def call(*words: Any, **named: Any) -> Any:
            for path in words[:count]:
                self._refuse(path)
            return real(*words, **named)

        return call

    def _has(self, path: Any) -> bool:
        whole = "" if isinstance(path, int) else os.path.abspath(path)  # noqa: PTH100
        return bool(whole) and Path(whole).is_relative_to(self._folder)

    def _refuse(self, path: Any) -> None:
        if self._has(path):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))


@pytest.mark.parametrize("place", ["etc/containerd", "etc"])
@pytest.mark.parametrize("operation", ["apply", "untrust"])
def test_from_the_beginning_no_journal_begins(
    box: Box, monkeypatch: pytest.MonkeyPatch, operation: str, place: str
) -> None:
    node = box.with_containerd().with_docker()
    if operation == "untrust":
        node.apply()
    before = node.files()
    steps: list[str] = []
    monkeypatch.setattr(transaction, "on_step", steps.append)
    ReadOnly(monkeypatch, node.root / place).begin()
    result = getattr(node, operation)()
    assert (result["status"], result["code"]) == ("failed", "read-only")
    assert "mount -o remount,rw" in result["error"]["cure"]
    assert (node.files(), steps) == (before, [])


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("operation", ["apply", "untrust"])
def test_the_next_run_recovers_and_until_then_each_says_what_it_waits_for(
    box: Box, operation: str, place: str
) -> None:
    node = box.with_containerd().with_docker()
    if operation == "untrust":
        node.apply()
    old = node.files(), node.folders()
    names = steps_of(node, operation)
    new = node.files(), node.folders()
    waited = 0
    for number, name in enumerate(names):
        node.untrust()
        if operation == "untrust":
            node.apply()
        assert (node.files(), node.folders()) == old
        with pytest.MonkeyPatch.context() as patch:
            mount = ReadOnly(patch, node.root / place)
            transaction.on_step = at(number, mount.begin)
            result = getattr(node, operation)()
            transaction.on_step = lambda name: None
            assert result["code"] in (None, "read-only"), (name, result["error"])
            if Store(str(node.root)).pending() is not None:
                waited += 1
                for again in ("recover", "apply", "untrust"):
                    still = said(node, again)
                    assert still["code"] == "read-only", (name, again, still["error"])
                    assert still["error"]["cure"]
            mount.end()
        recovered = said(node, "recover")
        assert recovered["error"] is None, (name, recovered["error"])
        now = node.files(), node.folders()
        assert now in (old, new), name
        assert now == old or result["code"] is None
        assert Store(str(node.root)).pending() is None
    assert waited


def said(node: Box, operation: str) -> dict[str, Any]:
    if operation == "recover":
        return node.run(node.engine().recover())
    found: dict[str, Any] = getattr(node, operation)()
    return found
