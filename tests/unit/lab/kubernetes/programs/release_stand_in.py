"""A stand-in: it plays the place of official Kubernetes releases, on loopback, with tiny programs.

The real one cannot be made to send a wrong checksum, half a program or a proxy's page.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PROGRAM = b"#!/bin/sh\necho Kubernetes v1.30.0\n"


@dataclass
class StandIn:
    """``trouble``: path's last part -> what goes wrong there; ``asked`` is what was asked for."""

    place: str
    trouble: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


@contextmanager
def release() -> Iterator[StandIn]:
    """One that serves every program of every version, until the block ends."""
    stand_in = StandIn("")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2]
            stand_in.asked.append(self.path)
            trouble = stand_in.trouble.get(name, "")
            checksum = f"{hashlib.sha256(PROGRAM).hexdigest()}\n".encode()
            body = checksum if name.endswith(".sha256") else PROGRAM
            if trouble == "missing":
                self.send_error(404)
                return
            if trouble == "page":
                body = b"<html>Sign in to the guest network</html>"
            if trouble == "other":
                body = PROGRAM + b"# something else\n"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if trouble == "half" else body)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    stand_in.place = f"http://127.0.0.1:{server.server_address[1]}/release"
    try:
        yield stand_in
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
