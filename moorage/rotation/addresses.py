"""The addresses by which nodes may know the registry. Reads /proc, asks nobody."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moorage.settings import Settings

_FOUR, _SIX = Path("/proc/net/fib_trie"), Path("/proc/net/if_inet6")


def of_registry(settings: Settings) -> tuple[str, ...]:
    """The one that is set, else all of this machine's; the loopback ones always, for its Docker."""
    registry = settings.registry
    if registry.address != "auto":
        found = [registry.address]
    elif not ipaddress.ip_address(registry.listen).is_unspecified:
        found = [registry.listen]
    else:
        found = [*four(_read(_FOUR)), *six(_read(_SIX))]
    return tuple(dict.fromkeys(("127.0.0.1", "::1", *found)))


def four(table: str) -> list[str]:
    """The local addresses in the kernel's routing table: ``|-- 10.0.0.1`` above ``host LOCAL``."""
    found = re.findall(r"\|-- ([0-9.]+)\n\s+/32 host LOCAL", table)
    return list(dict.fromkeys(found))


def six(table: str) -> list[str]:
    """Those of proc's list of IPv6 interfaces, without link-local ones (scope 20)."""
    rows = [line.split() for line in table.splitlines()]
    return [str(ipaddress.IPv6Address(int(row[0], 16))) for row in rows if row[3] != "20"]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""
