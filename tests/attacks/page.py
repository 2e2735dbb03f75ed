"""The page of `inv web` as it is attacked: the real command, in a folder full of canaries.

Its registry is a stand-in, which names its images as no real one would; its rollouts and its node
are named so, too.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.agent.authority import Authority

ROOT = Path(__file__).parents[2]
NAME = "localhost"
EVIL = "<script>alert('x')</script><img src=x onerror=y>&\"'"
CANARY = "canary-5f1e9c"
# Every file with a secret that a folder may have; the page's user can read them all.
SECRETS = (
    ".moorage/registry/password", ".moorage/registry/front-key", ".moorage/registry/logins/nodes",
    "certs/registry.key", "certs/ca.key", "certs/fleet/operator.key", "secret.yaml",
)  # fmt: skip


class _Hostile(http.server.BaseHTTPRequestHandler):
    """A registry whose repositories, tags and labels are somebody's script."""

    def do_GET(self) -> None:
        path = unquote(self.path)
        found: dict[str, Any] = {"config": {"Labels": {EVIL: EVIL}}, "errors": [{"message": EVIL}]}
        if "_catalog" in path:
            found = {"repositories": [EVIL, "app", "../../etc/passwd"]}
        elif "tags/list" in path:
            found = {"name": EVIL, "tags": [EVIL, "1"]}
        body = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Docker-Distribution-API-Version", "registry/2.0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def _registry(folder: Path, authority: Authority) -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hostile)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pair = folder / "pair.pem"
    pair.write_bytes(b"".join(authority.issue(NAME)))
    context.load_cert_chain(pair)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    text: str


class Page:
    """The running page, and a browser that has used its link. ``said``: all it ever answered."""

    def __init__(self, folder: Path, process: subprocess.Popen[str], link: str) -> None:
        self.folder, self.process = folder, process
        parts = urlsplit(link)
        assert parts.port is not None
        self.port, self.login = parts.port, f"{parts.path}?{parts.query}"
        self.said: list[str] = []
        self.cookie = ""
        self.cookie = self.ask("GET", self.login).headers["Set-Cookie"].partition(";")[0]
        self.said.clear()  # the cookie is the browser's to have

    @property
    def own(self) -> str:
        """The name it is served under."""
        return f"127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: str | None = None, **headers: str) -> Answer:
        """One request, with the browser's cookie unless another is given."""
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.cookie:
            names.setdefault("Cookie", self.cookie)
        try:
            line.putrequest(method, path, skip_host="Host" in names, skip_accept_encoding=True)
            if body is not None:
                names.setdefault("Content-Length", str(len(body)))
            for name, value in names.items():
                line.putheader(name, value)
            line.endheaders(body.encode() if body is not None else None)
            answer = line.getresponse()
            found = dict(answer.getheaders())
            is_endless = found.get("Content-Type", "").startswith("text/event-stream")
            text = "" if is_endless else answer.read().decode()
        finally:
            line.close()
        self.said.append(f"{found}{text}")
        return Answer(answer.status, found, text)

    @property
    def logs(self) -> str:
        """What stands in the logs of commands."""
        folder = self.folder / ".moorage" / "log"
        return "".join(path.read_text() for path in sorted(folder.glob("*.log")))


@contextmanager
def serving(*words: str) -> Iterator[Page]:
    """`inv web`, with ``words`` behind it, in a folder that is taken away again."""
    authority = Authority()
    with TemporaryDirectory() as made, _registry(Path(made), authority) as port:
        folder, words_said = Path(made) / "checkout", Path(made) / "stderr"
        _checkout(folder, port, authority.pem)
        command = [
            *(sys.executable, "-m", "invoke", "web", "--listen=127.0.0.1:0", "--json-lines"),
            *("--hosts=127.0.0.1:1", *words),
        ]
        process = subprocess.Popen(
            command, cwd=folder, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=words_said.open("w"), env={**os.environ, "DOCKER_HOST": "unix:///nowhere"},
        )  # fmt: skip
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert '"link"' in line, f"{line}{words_said.read_text()}"
            page = Page(folder, process, str(json.loads(line)["link"]))
            _filled(page)
            yield page
        finally:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()
            process.wait()


def _checkout(folder: Path, port: int, ca: str) -> None:
    for name in ("moorage", "agent", "lab"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    shutil.copy(ROOT / "tasks.py", folder)
    (folder / "invoke.yaml").write_text(
        f"registry: {{host: {NAME}, port: {port}, external: true, address: 127.0.0.1,"
        " ca: ca.pem}\nnodes: {retries: 0}\n"
    )
    for name in SECRETS:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{CANARY}\n")
    login = folder / ".moorage" / "registry" / "external" / f"{NAME}:{port}.login"
    login.parent.mkdir()
    login.write_text(f"robot:{CANARY}\n")
    (folder / "ca.pem").write_text(ca)
    _rollout(folder / ".moorage" / "rollouts")


def _rollout(folder: Path) -> None:
    folder.mkdir()
    host = {"name": EVIL, "host": EVIL}
    result = {"host": EVIL, "status": EVIL}
    lines = [
        {"version": 1, "command": f"trust {EVIL}", "run": "", "began": 1.0, "hosts": [host]},
        {"result": result, "at": 2.0},
        {"end": EVIL, "at": 3.0},
    ]
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (folder / "20260101T000000.000000000-1.jsonl").write_text(text)


def _filled(page: Page) -> None:
    """Waits until every section has what there is to tell."""
    deadline = time.monotonic() + 60
    while True:
        told = page.ask("GET", "/").text
        if told.count("alert(") >= 4 and "127.0.0.1" in told:
            return
        assert time.monotonic() < deadline, told
        time.sleep(0.2)
