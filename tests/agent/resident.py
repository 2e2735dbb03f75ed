"""An agent that serves: the real server in a process of its own, on a laid-out node."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.resident.home import AgentSettings, Home
from tests.agent.authority import Authority
from tests.agent.conftest import Box
from tests.agent.fleet import NODE_ID, SERVER, Fleet
from tests.ports import free_port

PROGRAM = """
import sys
from agent.server import serve
sys.exit(serve.run(sys.argv[1]))
"""


class Resident:
    """The server's process, and requests to it.

    It runs from the source, with this environment's packages; with ``archive`` as on a node, with
    what that carries and none of them (-S).
    """

    def __init__(
        self, box: Box, fleet: Fleet, archive: Path | None = None, **environment: str
    ) -> None:
        self.box, self.fleet = box, fleet
        self.command = [sys.executable, "-c", PROGRAM, str(box.root)]
        if archive is not None:
            self.command = [
                *(sys.executable, "-I", "-S", str(archive), "serve", "--root", str(box.root))
            ]
        self.operator = fleet.issue("operator")
        self.home = Home(str(box.root))
        self.home.folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        pair = fleet.issue("node", f"urn:moorage:node:{NODE_ID}", SERVER).read_bytes()
        self.home.certificate.write_bytes(pair)
        self.home.key.write_bytes(pair)
        self.home.authority.write_bytes(fleet.path.read_bytes())
        self.port = free_port()
        settings = AgentSettings(NODE_ID, "127.0.0.1", self.port, int(time.time()) + 86400)
        self.home.write_settings(settings)
        self.log = box.root.parent / "agent.log"
        self.environment = {**os.environ, **environment}
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stderr=log, env=self.environment, cwd=Path(__file__).parents[2],
            )  # fmt: skip
        try:
            self._wait_until_it_serves()
        except BaseException:
            self.process.kill()
            raise

    def _wait_until_it_serves(self) -> None:
        deadline = time.monotonic() + 20
        while b"serving on" not in self.log.read_bytes() or not self._listens():
            assert self.process.poll() is None, self.words()
            assert time.monotonic() < deadline, self.words()
            time.sleep(0.02)

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def words(self) -> str:
        return self.log.read_text()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()

    def connect(self, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
        context = context or self.fleet.client(self.operator)
        raw = socket.create_connection(("127.0.0.1", self.port), 20)
        return context.wrap_socket(raw, server_hostname="node")

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        context: ssl.SSLContext | None = None,
        **headers: str,
    ) -> tuple[int, bytes]:
        return self.whole(method, path, body, context, **headers)[:2]

    def whole(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        context: ssl.SSLContext | None = None,
        **headers: str,
    ) -> tuple[int, bytes, str]:
        """The answer's status, body and content type."""
        line = http.client.HTTPConnection("node")
        line.sock = self.connect(context)
        try:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            line.request(method, path, body, names)
            answer = line.getresponse()
            return answer.status, answer.read(), answer.headers.get("Content-Type", "")
        finally:
            line.close()

    def events(self, path: str, plan: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        if plan is None:
            status, said = self.ask("GET", path)
        else:
            content = json.dumps(plan).encode()
            status, said = self.ask("POST", path, content, Content_Type="application/json")
        assert status == 200, said
        return [json.loads(line) for line in said.splitlines()]


@contextmanager
def serving_archive() -> Iterator[Resident]:
    """The archive that nodes run, serving on a laid-out node with a containerd and openssl."""
    from moorage.archive import agent_archive  # not on the oldest Python, which has none

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "node")
        root.mkdir()
        box = Box(root, Authority().pem).with_containerd()
        box.write("/etc/hosts", b"127.0.0.1\tlocalhost\n")
        (root / "usr/bin/openssl").symlink_to(shutil.which("openssl") or "/none")
        archive = agent_archive(Path(folder, "state")).path
        agent = Resident(box, Fleet(Path(folder)), archive)
        try:
            yield agent
        finally:
            agent.stop()
