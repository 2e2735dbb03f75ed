"""The socket to a host, if it is to be another one than Fabric makes by itself."""

from __future__ import annotations

import os
import shlex
import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moorage.fleet.ssh.routes import Route


def own(route: Route) -> Any:
    """The socket that Fabric would not make as the route says; None if it would. Raises OSError."""
    if route.proxy_command:
        from paramiko import ProxyCommand

        # As ssh(1) does it: by the user's shell, which ``exec`` leaves no trace of.
        shell = os.environ.get("SHELL") or "/bin/sh"
        return ProxyCommand(shlex.join((shell, "-c", f"exec {route.proxy_command}")))
    if route.bind or route.family != "any":
        return _bound(route)
    return None


_FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}


def _bound(route: Route) -> socket.socket:
    """A connection by AddressFamily and from BindAddress. Raises OSError, the last address's."""
    family = _FAMILIES.get(route.family, socket.AF_UNSPEC)
    problem: OSError | None = None
    found = socket.getaddrinfo(route.hostname, route.port, family, socket.SOCK_STREAM)
    for kind, _, _, _, place in found:
        own = socket.socket(kind, socket.SOCK_STREAM)
        try:
            own.settimeout(route.connect_timeout)
            if route.bind:
                own.bind(socket.getaddrinfo(route.bind, 0, kind, socket.SOCK_STREAM)[0][4])
            own.connect(place)
        except OSError as failed:
            own.close()
            problem = failed
        else:
            return own
    raise problem or OSError(f"{route.hostname} has no address")
