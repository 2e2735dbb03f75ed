"""A node on loopback that an operator's folder has adopted, for the tests of the fleet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adopted import Folder, adopted


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    with adopted(tmp_path) as made:
        yield made
