"""A registry that is wrong in one way. A stand-in: whoever asks it is real, and is listened to."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import ssl
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

REGISTRY, TOKENS, MIRROR, STORE = "reg.test", "token.test", "mirror.test", "store.test"
NAMES = (REGISTRY, TOKENS, MIRROR, STORE)
LOGIN = ("ship", "quay-4711")
OCI, DOCKER = "application/vnd.oci.image", "application/vnd.docker"


class Request(NamedTuple):
    """What was asked; ``site`` is the host and port as they were spelled."""

    path: str
    site: str
    authorization: str = ""
    form: str = ""

    @property
    def port(self) -> str:
        return self.site.rpartition(":")[2]


class Answer(NamedTuple):
    """A status, a body, and headers beside its length."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


Handler = Callable[[Request], Answer]


def said(status: int, code: str, message: str, *headers: tuple[str, str]) -> Answer:
    """A refusal as the distribution specification has it."""
    errors = {"errors": [{"code": code, "message": message, "detail": None}]}
    return Answer(
        status, json.dumps(errors).encode(), (("Content-Type", "application/json"), *headers)
    )


def page(status: int = 200, title: str = "Sign in") -> Answer:
    """What a portal, a proxy or a load balancer answers in a registry's place."""
    body = f"<!DOCTYPE html><html><head><title>{title}</title></head><body></body></html>\n"
    return Answer(status, body.encode(), (("Content-Type", "text/html; charset=utf-8"),))


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def tar(name: str) -> bytes:
    """A layer of one empty file. Runtimes keep what they had, so no two situations share one."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as bundle:
        bundle.addfile(tarfile.TarInfo(name), io.BytesIO())
    return target.getvalue()


class Image(NamedTuple):
    """A manifest, its media type, and the blobs it names."""

    manifest: bytes
    kind: str
    blobs: dict[str, bytes]

    def serve(self, request: Request) -> Answer:
        """As a registry without a login would."""
        if request.path == "/v2/":
            return Answer(200, b"{}")
        if "/manifests/" in request.path:
            named = ("Docker-Content-Digest", digest(self.manifest))
            return Answer(200, self.manifest, (("Content-Type", self.kind), named))
        content = self.blobs.get(request.path.rpartition("/")[2])
        if content is None:
            return said(404, "BLOB_UNKNOWN", "blob unknown to registry")
        return Answer(200, content, (("Content-Type", "application/octet-stream"),))


def described(content: bytes, kind: str) -> dict[str, Any]:
    return {"mediaType": kind, "digest": digest(content), "size": len(content)}


def image(
    layer: bytes,
    config_kind: str = f"{OCI}.config.v1+json",
    layer_kind: str = f"{OCI}.layer.v1.tar",
) -> Image:
    """An OCI image of one layer; other kinds make an artifact of it."""
    inside = {"type": "layers", "diff_ids": [digest(layer)]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": inside}).encode()
    kind = f"{OCI}.manifest.v1+json"
    manifest = {
        "schemaVersion": 2,
        "mediaType": kind,
        "config": described(config, config_kind),
        "layers": [described(layer, layer_kind)],
    }
    blobs = {digest(config): config, digest(layer): layer}
    return Image(json.dumps(manifest).encode(), kind, blobs)


def schema1() -> Image:
    """A manifest as Docker pushed it before 1.10 (2016), without its signature."""
    layer = tar("schema1")
    history = {"v1Compatibility": json.dumps({"id": "1" * 64, "architecture": "amd64"})}
    manifest = {
        "schemaVersion": 1,
        "name": "app",
        "tag": "1",
        "architecture": "amd64",
        "fsLayers": [{"blobSum": digest(layer)}],
        "history": [history],
    }
    kind = f"{DOCKER}.distribution.manifest.v1+prettyjws"
    return Image(json.dumps(manifest, indent=3).encode(), kind, {digest(layer): layer})


class _Talk(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    handler: Handler

    def do_GET(self) -> None:
        request = Request(
            self.path.partition("?")[0],
            self.headers.get("Host", ""),
            self.headers.get("Authorization", ""),
            self.rfile.read(int(self.headers.get("Content-Length", 0))).decode(),
        )
        answer = type(self).handler(request)
        self.send_response(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_HEAD = do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Silent(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is what is wanted here."""


class Server:
    """A TLS server on an address; a context manager.

    ``pairs``: a certificate and key in PEM by the name that is asked for, ``""`` for any other.
    """

    def __init__(
        self, address: str, pairs: dict[str, tuple[bytes, bytes]], handler: Handler, folder: Path
    ) -> None:
        talk = type("Talk", (_Talk,), {"handler": staticmethod(handler)})
        self._server = _Silent((address, 0), talk)
        self.port: int = self._server.server_address[1]
        contexts = {name: _context(pair, folder) for name, pair in pairs.items()}

        def choose(connection: ssl.SSLObject, name: str | None, context: object) -> None:
            connection.context = contexts.get(name or "", contexts[""])

        contexts[""].sni_callback = choose
        self._server.socket = contexts[""].wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _context(pair: tuple[bytes, bytes], folder: Path) -> ssl.SSLContext:
    both = folder / f"{hashlib.sha256(pair[0]).hexdigest()}.pem"
    both.write_bytes(pair[0] + pair[1])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    return context
