"""Prometheus and promtool: this machine's, else those of Debian's package."""

from __future__ import annotations

import shutil

from tests import debian


def program(name: str) -> str:
    """The path of ``prometheus`` or ``promtool``; skips the test if neither way leads to it."""
    return shutil.which(name) or debian.program("prometheus", name)
