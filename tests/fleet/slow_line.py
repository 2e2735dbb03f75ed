"""Stands in for `tc netem` on kernels without it: delays and loses the packets a node sends.

    python3 slow_line.py DELAY_MS LOSS_PERCENT

Runs in the node's own network namespace. Its packets come here by an NFQUEUE rule, real ones, and
each gets its verdict late, or is dropped: what TCP makes of that is TCP's own doing.
Source: linux/netfilter/nfnetlink_queue.h and nfnetlink.h.
"""

from __future__ import annotations

import heapq
import random
import select
import socket
import struct
import sys
import time
from collections.abc import Iterator

NETLINK_NETFILTER = 12
SUBSYSTEM = 3 << 8  # NFNL_SUBSYS_QUEUE
PACKET, VERDICT, CONFIG = 0, 1, 2
ATTRIBUTE_PACKET, ATTRIBUTE_VERDICT = 1, 2
CONFIG_COMMAND, CONFIG_MODE, CONFIG_LENGTH = 1, 2, 3
BIND, COPY_META, DROP, ACCEPT = 1, 1, 0, 1
QUEUE = 7


def attribute(kind: int, content: bytes) -> bytes:
    size = 4 + len(content)
    return struct.pack("=HH", size, kind) + content + b"\0" * (-size % 4)


def message(kind: int, *attributes: bytes) -> bytes:
    body = struct.pack(">BBH", socket.AF_UNSPEC, 0, QUEUE) + b"".join(attributes)
    return struct.pack("=IHHII", 16 + len(body), SUBSYSTEM | kind, 1, 0, 0) + body


def packets(data: bytes) -> Iterator[int]:
    """The numbers of the packets that are told of in one read."""
    while len(data) >= 16:
        size, kind = struct.unpack_from("=IH", data)
        body, data = data[20:size], data[(size + 3) & ~3 :]
        while kind == SUBSYSTEM | PACKET and len(body) >= 4:
            length, name = struct.unpack_from("=HH", body)
            if name & 0x3FFF == ATTRIBUTE_PACKET:
                yield struct.unpack_from(">I", body, 4)[0]
            body = body[(length + 3) & ~3 :]


def main(delay: float, loss: float) -> None:
    line = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    line.bind((0, 0))
    line.send(message(CONFIG, attribute(CONFIG_COMMAND, struct.pack(">BBH", BIND, 0, 0))))
    line.send(message(CONFIG, attribute(CONFIG_MODE, struct.pack(">IB", 0, COPY_META))))
    line.send(message(CONFIG, attribute(CONFIG_LENGTH, struct.pack(">I", 10000))))
    held: list[tuple[float, int]] = []
    while True:
        pause = max(0.0, held[0][0] - time.monotonic()) if held else None
        if select.select([line], [], [], pause)[0]:
            due = time.monotonic() + delay
            for number in packets(line.recv(1 << 16)):
                heapq.heappush(held, (due, number))
        while held and held[0][0] <= time.monotonic():
            number = heapq.heappop(held)[1]
            verdict = DROP if random.random() < loss else ACCEPT  # noqa: S311 - a test's dice
            line.send(
                message(VERDICT, attribute(ATTRIBUTE_VERDICT, struct.pack(">II", verdict, number)))
            )


if __name__ == "__main__":
    main(float(sys.argv[1]) / 1000, float(sys.argv[2]) / 100)
