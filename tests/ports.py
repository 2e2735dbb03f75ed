"""Ports for what a test starts only later."""

from __future__ import annotations

import os
import random
import socket

# Below the kernel's ephemeral ports (ip(7): from 32768), one of which any connection of a test
# that runs beside this one may take meanwhile; below Kubernetes' NodePorts (from 30000) too.
FIRST, END = 10000, 30000
_WORKERS = 16  # a share for each of pytest's workers, which start what they ask for at any time
_handed: set[int] = set()


def free_port(address: str = "127.0.0.1") -> int:
    """A port on which nothing listens, and that nobody gets by chance; never the same twice."""
    share = (END - FIRST) // _WORKERS
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[len("gw") :]) % _WORKERS
    chance = random.SystemRandom()  # a test that seeds its own would find the same ports again
    while True:
        port = FIRST + worker * share + chance.randrange(share)
        if port in _handed:
            continue
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
            try:
                probe.bind((address, port))
            except OSError:
                continue
        _handed.add(port)
        return port
