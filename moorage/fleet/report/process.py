"""The process behind a logbook, told from every other that has its number at another time or place.

A number alone is given again: after a restart of the machine, or on the one that a backup was
restored on.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def mark(number: str = "self") -> str:
    """What no other process has, on whatever machine: the boot's id, and when in it that process
    began (proc(5)). "" if none runs by that number, or there is no such /proc."""
    try:
        return f"{_BOOT.read_text().strip()}/{_started(number)}"
    except (OSError, ValueError, IndexError):
        return ""


def at_work(number: str, noted: str, began: float) -> bool:
    """Whether the process ``number`` runs that had the mark ``noted``, and is not this one.

    ``noted``: "" in a logbook of an earlier build; then any will do that is older than ``began``.
    """
    if number == str(os.getpid()):
        return False
    return mark(number) == noted if noted else _is_older(number, began)


def _is_older(number: str, began: float) -> bool:
    try:
        boot = time.time() - float(Path("/proc/uptime").read_text().split()[0])
        started = boot + _started(number) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return False
    return started <= began + 1


def _started(number: str) -> int:
    """When a process began, in clock ticks since the boot."""
    fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    return int(fields[19])
