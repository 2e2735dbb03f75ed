"""Connections to Unix sockets, for both sides."""

from __future__ import annotations

import socket
import time

_PAUSE = 0.02


def connect(line: socket.socket, path: str, seconds: float) -> None:
    """Connect within ``seconds``, which is the line's time limit from then on.

    With a time limit Python makes a socket non-blocking, and Linux refuses such a one at once
    (EAGAIN, unix(7)) while the server's queue is full: it is tried again. Raises OSError; of it
    socket.timeout if the queue stays full.
    """
    deadline = time.monotonic() + seconds
    line.settimeout(seconds)
    while True:
        try:
            return line.connect(path)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise socket.timeout("timed out: its queue stays full") from None
        time.sleep(_PAUSE)
