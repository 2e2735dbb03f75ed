"""The machine before anything, and the promise that it looks the same afterwards."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.e2e.machine import LABEL, Machine, inv


@pytest.fixture(scope="session", autouse=True)
def machine() -> Iterator[Machine]:
    """This machine as it was found. Refuses to run on top of something that is up."""
    if shutil.which("docker"):
        listing = ["docker", "ps", "-aq", "--filter", f"label={LABEL}"]
        found = subprocess.run(listing, capture_output=True, text=True, check=False).stdout
        if found.strip():
            pytest.exit("Moorage is up on this machine; run `./run inv down` first", returncode=2)
    before = Machine.look()
    yield before
    inv("down")
