"""Tells systemd how it goes: sd_notify(3), one datagram a word, nothing if nobody listens."""

from __future__ import annotations

import contextlib
import os
import socket


def tell(state: str) -> None:
    """``READY=1``, ``WATCHDOG=1``, ``STOPPING=1`` or ``STATUS=…``."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line,
    ):
        line.sendto(state.encode(), address)


def watchdog_seconds() -> float:
    """How often the watchdog is to hear of us; 0 where there is none."""
    with contextlib.suppress(ValueError):
        return int(os.environ.get("WATCHDOG_USEC", "0")) / 2e6
    return 0.0
