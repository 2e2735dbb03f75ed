"""Who listens on a TCP port of this machine, read from /proc: the kernel needs no extra tool."""

from __future__ import annotations

import ipaddress
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_LISTEN = "0A"  # include/net/tcp_states.h: TCP_LISTEN


@dataclass(frozen=True)
class Listener:
    """A listening socket. ``pid`` is None if its process is hidden from us (not root)."""

    address: str
    port: int
    inode: str
    pid: int | None = None
    program: str = ""

    def describe(self) -> str:
        """For a sentence: ``nginx (process 812)``."""
        if self.pid is None:
            return f"a process of another user; sudo ss -ltnp sport = :{self.port} names it"
        return f"{self.program or 'a process'} (process {self.pid})"


def listener(address: str, port: int, *, proc: Path = Path("/proc")) -> Listener | None:
    """Whose socket keeps ``address``:``port`` from being bound; None if it is free."""
    for found in _listening(proc):
        if found.port == port and _collide(found.address, address):
            pid = _owner(found.inode, proc)
            name = "" if pid is None else _program(pid, proc)
            return Listener(found.address, found.port, found.inode, pid, name)
    return None


def _listening(proc: Path) -> Iterator[Listener]:
    for table in ("tcp", "tcp6"):
        try:
            lines = (proc / "net" / table).read_text().splitlines()[1:]
        except OSError:  # no IPv6 here
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTEN:
                address, port = fields[1].split(":")
                yield Listener(_decode(address), int(port, 16), fields[9])


def _decode(digits: str) -> str:
    # The kernel prints each 32-bit word in the machine's own byte order.
    words = [int(digits[start : start + 8], 16) for start in range(0, len(digits), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    address = ipaddress.ip_address(packed)
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def _collide(listening: str, wanted: str) -> bool:
    one, other = ipaddress.ip_address(listening), ipaddress.ip_address(wanted)
    # `::` takes IPv4 too unless told otherwise (bindv6only).
    if one.is_unspecified and one.version == 6:
        return True
    if one.version != other.version:
        return False
    return one == other or one.is_unspecified or other.is_unspecified


def _owner(inode: str, proc: Path) -> int | None:
    wanted = f"socket:[{inode}]"
    for folder in proc.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            for descriptor in (folder / "fd").iterdir():
                if os.readlink(descriptor) == wanted:  # noqa: PTH115 - no path, only a name
                    return int(folder.name)
        except OSError:  # gone meanwhile, or another user's
            continue
    return None


def _program(pid: int, proc: Path) -> str:
    # Its name alone: a command line may hold a password.
    try:
        return (proc / str(pid) / "comm").read_text(errors="replace").strip()
    except OSError:
        return ""
