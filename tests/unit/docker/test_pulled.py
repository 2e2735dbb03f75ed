"""A pull that fails after it began. The engine is a stand-in that answers as Docker does."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from docker import DockerClient
from docker.errors import APIError

from moorage import settings
from moorage.configuration import parsing
from moorage.docker import pulled
from moorage.settings import Settings

DENIED = "unauthorized: incorrect username or password"


class Engine(http.server.BaseHTTPRequestHandler):
    """Begins each pull with status 200, ends it with what ``says``, and has an image of before."""

    protocol_version = "HTTP/1.1"
    says: list[dict[str, object]] = []  # noqa: RUF012

    def do_POST(self) -> None:
        self._begin(("Transfer-Encoding", "chunked"))
        for line in ({"status": "Pulling from app", "id": "1"}, *self.says):
            body = json.dumps(line).encode() + b"\r\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(body), body))
        self.wfile.write(b"0\r\n\r\n")

    def do_GET(self) -> None:
        body = json.dumps({"Id": "sha256:" + "1" * 64, "RepoTags": ["app:1"]}).encode()
        self._begin(("Content-Length", str(len(body))))
        self.wfile.write(body)

    def _begin(self, length: tuple[str, str]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header(*length)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def client() -> Iterator[DockerClient]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Engine)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    made = DockerClient(f"tcp://127.0.0.1:{server.server_address[1]}", version="1.41")
    yield made
    made.close()
    server.shutdown()
    server.server_close()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(settings, "ROOT", tmp_path)
    return parsing.parse({})


def test_an_older_image_does_not_pass_for_the_one_that_could_not_be_pulled(
    client: DockerClient, here: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = {"errorDetail": {"message": DENIED}, "error": DENIED}
    monkeypatch.setattr(Engine, "says", [failed])
    with pytest.raises(APIError) as refused:
        pulled.pull(here, client, "app:1")
    assert refused.value.explanation == DENIED
    assert pulled.ours(here) == []


def test_a_pull_that_went_well_is_noted(client: DockerClient, here: Settings) -> None:
    pulled.pull(here, client, "app:1")
    assert pulled.ours(here) == ["app:1"]


def test_what_two_threads_bring_at_once_is_all_noted(here: Settings) -> None:
    wanted = [f"app:{number}" for number in range(60)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda name: pulled.note(here, name), wanted))
    assert sorted(pulled.ours(here)) == sorted(wanted)
