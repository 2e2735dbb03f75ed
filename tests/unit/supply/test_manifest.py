"""The manifest: read strictly, written the same each time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.errors import Refused
from moorage.supply import manifest
from tests.unit.bundle.made import described


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    one = described(tmp_path)
    content = manifest.written(one)
    assert manifest.parse(content, "x") == one
    assert manifest.written(manifest.parse(content, "x")) == content


def test_a_file_is_a_line_for_run(tmp_path: Path) -> None:
    lines = manifest.written(described(tmp_path)).decode().splitlines()
    row = next(line for line in lines if "debs/Packages" in line)
    assert row.startswith('{"path": "debs/Packages", "sha256": "')
    assert '"format": 1,' in lines


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("files", None),
        ("files", [{"path": "debs/a", "sha256": "1", "size": 1}]),
        ("files", [{"path": "debs/a", "sha256": "1" * 64, "size": -1}]),
        ("files", [{"path": "debs/a", "sha256": "1" * 64, "size": 1}] * 2),
        ("system", {"name": "debian 12"}),
        ("packages", ["-o=evil"]),
        ("since", "../evil"),
        ("locks", {"requirements.lock": "x"}),
        ("engine", [{"name": "x", "config": "absent", "layers": []}]),
        ("images", [{"reference": "x", "digest": "sha256:1"}]),
        ("version", "0\n1"),
    ],
)
def test_a_wrong_field_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    found = json.loads(manifest.written(described(tmp_path)))
    with pytest.raises(Refused) as told:
        manifest.parse(json.dumps({**found, key: value}).encode(), "x.tar")
    assert told.value.code == "bad-bundle"
    assert told.value.path == "x.tar"


@given(st.binary(max_size=300))
def test_any_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(Refused):
        manifest.parse(content, "x")


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(Refused):
        manifest.parse(b"[" * 100_000, "x")
