"""An upstream on loopback that can be made to go away, to limit, to hang, or to be somebody else.

While it answers it is Debian's docker-registry with TLS; a registry that says 429, or nothing, is a
stand-in at the same port.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.agent.authority import Authority
from tests.debian import program
from tests.images.upstream import fill
from tests.ports import free_port

LIMITED = {"errors": [{"code": "TOOMANYREQUESTS", "message": "You have reached your pull rate"}]}


class Turning:
    """The upstream; each way of being ends the one before it."""

    def __init__(self, folder: Path, names: dict[str, int], host: str = "localhost") -> None:
        folder.mkdir(parents=True)
        self.host, self.address = host, "127.0.0.1" if host == "localhost" else host
        self.folder, self.port, self.authority = folder, free_port(), Authority()
        self.digests = fill(folder, names)
        self._running = contextlib.ExitStack()

    @property
    def name(self) -> str:
        return f"{self.host}:{self.port}"

    def answers(self, authority: Authority | None = None, **auth: Any) -> None:
        """The registry; ``authority`` signs its certificate, its own one unless another is given.

        ``auth``: how it lets in, as docker-registry's configuration says it.
        """
        self.away()
        pair = self._pair(authority or self.authority)
        configuration = {
            "version": "0.1",
            "storage": {"filesystem": {"rootdirectory": str(self.folder / "data")}},
            "http": {
                "addr": f"{self.address}:{self.port}",
                "secret": "s",
                "tls": {"certificate": pair[0], "key": pair[1]},
            },
            **({"auth": auth} if auth else {}),
        }
        config = self.folder / "config.yml"
        config.write_text(json.dumps(configuration))
        with (self.folder / "log").open("ab") as log:
            one = subprocess.Popen(
                [program("docker-registry"), "serve", str(config)], stdout=log, stderr=log
            )
        self._running.callback(one.wait)
        self._running.callback(one.kill)
        until = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection((self.address, self.port), 1).close()
                return
            assert time.monotonic() < until, (self.folder / "log").read_text()
            time.sleep(0.05)

    def away(self) -> None:
        self._running.close()

    def untrusted(self) -> None:
        self.answers(Authority("somebody else"))

    def limits(self, status: int = 429) -> None:
        """A stand-in that says no to each request."""
        self.away()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps(LIMITED).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        server = http.server.ThreadingHTTPServer((self.address, self.port), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self._pair(self.authority))
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self._running.callback(server.server_close)
        self._running.callback(server.shutdown)

    def hangs(self) -> None:
        """A stand-in that takes connections and says nothing."""
        self.away()
        silent = socket.create_server((self.address, self.port), backlog=64)
        self._running.callback(silent.close)

    def requests(self) -> list[str]:
        """Methods and paths that the registry was asked for so far."""
        words = (line for line in (self.folder / "log").read_text().splitlines())
        return [one.partition('"')[2].partition(" HTTP/")[0] for one in words if " HTTP/" in one]

    def _pair(self, authority: Authority) -> tuple[str, str]:
        paths = (self.folder / "tls.crt", self.folder / "tls.key")
        for path, content in zip(paths, authority.issue(self.host), strict=True):
            path.write_bytes(content)
        return str(paths[0]), str(paths[1])


@contextlib.contextmanager
def turning(folder: Path, names: dict[str, int], host: str = "localhost") -> Iterator[Turning]:
    """One that answers, to begin with; ``host``: an address of this machine, or localhost."""
    made = Turning(folder, names, host)
    made.answers()
    try:
        yield made
    finally:
        made.away()
