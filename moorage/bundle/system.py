"""What this machine is, as packages and wheels see it."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

from moorage.supply.manifest import System

# As Debian calls them.
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def here() -> System:
    """This machine: packages fit its release and architecture, wheels its Python."""
    machine = platform.machine()
    return System(
        release(_text(Path("/etc/os-release"))),
        _ARCHITECTURES.get(machine, machine),
        f"{sys.version_info[0]}.{sys.version_info[1]}",
    )


def release(text: str) -> str:
    """``debian 12`` out of os-release(5); Debian's testing has no number, so its name stands."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    found = {key: value.strip("\"'") for key, _, value in pairs}
    number = found.get("VERSION_ID") or found.get("VERSION_CODENAME", "")
    return f"{found.get('ID', 'linux')} {number}".strip()


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
