"""What the node's DNS says of a name, its hosts file left aside."""

from __future__ import annotations

import ipaddress
import socket

from agent.node.host import Host
from agent.wire.faults import AgentError

SECONDS = 3


class Names:
    """Looks names up, each once, when something wants to know."""

    def __init__(self, host: Host | None = None) -> None:
        self._host = host
        self._known: dict[str, frozenset[str]] = {}

    def by_dns(self, name: str) -> frozenset[str]:
        """The addresses DNS gives a name; none where it gives none, or cannot be asked in time.

        ``getent -s hosts:dns`` leaves out what nsswitch.conf would ask first (getent(1)).
        """
        if name not in self._known:
            self._known[name] = self._asked(name)
        return self._known[name]

    def addresses(self, name: str) -> frozenset[str]:
        """The addresses that programs of this node get for a name, hosts file and all."""
        if self._host is None or not self._host.real:
            return frozenset()
        try:
            found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except OSError:
            return frozenset()
        return frozenset(str(one[4][0]).partition("%")[0] for one in found)

    def _asked(self, name: str) -> frozenset[str]:
        host = self._host
        if host is None or not host.real or host.which("getent") is None:
            return frozenset()
        try:
            done = host.run(["getent", "-s", "hosts:dns", "ahosts", name], timeout=SECONDS)
        except AgentError:  # out of time: no DNS that helps
            return frozenset()
        found = set()
        for line in done.out.splitlines() if done.ok else ():
            try:
                found.add(str(ipaddress.ip_address(line.split()[0].partition("%")[0])))
            except (ValueError, IndexError):
                continue
        return frozenset(found)
