"""How our TCP connections to nodes are set up: at once, and given up where the other end is gone.

A host that is switched off, or whose packets a firewall drops from one moment to the next, closes
nothing. The kernel's own patience is a quarter of an hour: tcp(7), ``tcp_retries2``.
"""

from __future__ import annotations

import socket

# Unanswered for so long, a connection is broken: six to seven retransmissions, at 200 ms there and
# back. One that is only idle is asked after: RFC 1122, section 4.2.3.6.
DEAD_SECONDS = 30
_IDLE_SECONDS = 10
_ASK_SECONDS = 5


def prepare(line: socket.socket) -> None:
    """Sets the options; ``line`` then fails with ETIMEDOUT where nothing is answered any more.

    Source: tcp(7), TCP_USER_TIMEOUT: it bounds data that is unacknowledged, and keep-alive as well.
    """
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _IDLE_SECONDS)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _ASK_SECONDS)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_SECONDS * 1000)
