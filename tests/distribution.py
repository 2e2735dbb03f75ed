"""Debian's docker-registry as a process on loopback, with TLS, and a token server if wished.

The registry is the real one. The token server is a stand-in for Harbor's and GitLab's: it speaks
https://distribution.github.io/distribution/spec/auth/token/ and knows two users.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import http.server
import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from tests.agent.authority import Authority
from tests.debian import program
from tests.ports import free_port

NAME = "localhost"
ISSUER, SERVICE = "stand-in", "registry"
# The second may log in and pull nothing.
ROBOT, STRANGER, PUSHER = "robot$ci", "robot$other", "pusher"
PASSWORD = "a:pass word"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


@dataclass
class TokenServer:
    """The stand-in, at ``address`` and by ``name``. ``asked``: the user of each request for a
    token, "" for nobody. ``public``: nobody may pull as well."""

    authority: Authority
    port: int = 0
    asked: list[str] = field(default_factory=list)
    answer: bytes | None = None
    name: str = NAME
    address: str = "127.0.0.1"
    public: bool = False

    def token(self, user: str, scopes: Sequence[str]) -> str:
        pair = self.pair
        key = serialization.load_pem_private_key(pair[1], None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        der = ssl.PEM_cert_to_DER_cert(pair[0].decode())
        access = []
        for scope in scopes:
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            pulls = ("", ROBOT) if self.public else (ROBOT,)
            may = actions.split(",") if user == PUSHER else ["pull"] if user in pulls else []
            access.append({"type": kind, "name": name, "actions": may})
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": ISSUER,
            "aud": SERVICE,
            "sub": user,
            "jti": str(now),
            "access": access,
        }
        claims |= {"iat": now, "nbf": now - 60, "exp": now + 600}
        header = {"typ": "JWT", "alg": "ES256", "x5c": [base64.b64encode(der).decode()]}
        signed = ".".join(_base64url(json.dumps(one).encode()) for one in (header, claims))
        r, s = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_base64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    @contextlib.contextmanager
    def running(self) -> Iterator[TokenServer]:
        self.pair = self.authority.issue(self.name)
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                word = self.headers.get("Authorization", "").removeprefix("Basic ")
                user, _, password = base64.b64decode(word).decode().partition(":")
                server.asked.append(user)
                known = user in (ROBOT, STRANGER, PUSHER) and password == PASSWORD
                query = parse_qs(urlsplit(self.path).query)
                token = server.token(user, query.get("scope", []))
                body = json.dumps({"token": token}).encode()
                if server.answer is not None:
                    body = server.answer
                self.send_response(200 if known or not user else 401)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                # containerd begins with OAuth 2's POST, and takes this for "by GET, please".
                self.send_error(405)

            def log_message(self, *_: Any) -> None:
                pass

        httpd = http.server.ThreadingHTTPServer((self.address, 0), Handler)
        self.port = httpd.server_address[1]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with _files(self.pair) as (crt, key):
            context.load_cert_chain(crt, key)
        httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
        thread = threading.Thread(target=httpd.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            httpd.shutdown()
            httpd.server_close()


@contextlib.contextmanager
def _files(pair: tuple[bytes, bytes]) -> Iterator[tuple[Path, Path]]:
    with TemporaryDirectory() as folder:
        crt, key = Path(folder) / "tls.crt", Path(folder) / "tls.key"
        crt.write_bytes(pair[0])
        key.write_bytes(pair[1])
        yield crt, key


@dataclass(frozen=True)
class Served:
    """A registry that serves; ``log`` is its own."""

    port: int
    folder: Path
    log: Path


@contextlib.contextmanager
def serving(
    folder: Path,
    pair: tuple[bytes, bytes] | None,
    tokens: TokenServer | None = None,
    client_ca: str = "",
    scheme: str = "https",
    port: int = 0,
) -> Iterator[Served]:
    """Debian's docker-registry with its data below ``folder``; ``pair`` None: without TLS.

    It listens where ``tokens`` does, else on loopback. ``scheme``: of the token server's address,
    as the registry tells it. ``port``: 0 for a free one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    address = tokens.address if tokens is not None else "127.0.0.1"
    port = port or free_port(address)
    configuration: dict[str, Any] = {
        "version": "0.1",
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": f"{address}:{port}", "secret": "s"},
    }
    if pair is not None:
        (folder / "tls.crt").write_bytes(pair[0])
        (folder / "tls.key").write_bytes(pair[1])
        tls: dict[str, Any] = {
            "certificate": str(folder / "tls.crt"),
            "key": str(folder / "tls.key"),
        }
        if client_ca:
            (folder / "clients.crt").write_text(client_ca)
            tls["clientcas"] = [str(folder / "clients.crt")]
        configuration["http"]["tls"] = tls
    if tokens is not None:
        (folder / "signers.crt").write_bytes(tokens.pair[0])
        configuration["auth"] = {
            "token": {
                "realm": f"{scheme}://{tokens.name}:{tokens.port}/token",
                "service": SERVICE,
                "issuer": ISSUER,
                "rootcertbundle": str(folder / "signers.crt"),
            }
        }
    (folder / "config.yml").write_text(json.dumps(configuration))
    log = folder / "log"
    with log.open("wb") as words:
        process = subprocess.Popen(
            [program("docker-registry"), "serve", str(folder / "config.yml")],
            stdout=words,
            stderr=words,
        )
        try:
            _wait(address, port, log)
            yield Served(port, folder, log)
        finally:
            process.terminate()
            process.wait(20)


def _wait(address: str, port: int, log: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection((address, port), 1):
            return
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def push(served: Served, authority: Authority, tokens: TokenServer, repository: str) -> str:
    """An image of one small blob at ``repository:1``; returns its digest."""
    context = ssl.create_default_context(cadata=authority.pem)
    token = tokens.token(PUSHER, [f"repository:{repository}:pull,push"])
    headers = {"Authorization": f"Bearer {token}"}

    def ask(method: str, path: str, body: bytes = b"", kind: str = "") -> http.client.HTTPResponse:
        line = http.client.HTTPSConnection(NAME, served.port, context=context, timeout=10)
        line.request(method, path, body, headers | ({"Content-Type": kind} if kind else {}))
        answer = line.getresponse()
        assert answer.status < 400, answer.read()
        return answer

    config = b"{}"
    digest = f"sha256:{sha256(config).hexdigest()}"
    there = urlsplit(ask("POST", f"/v2/{repository}/blobs/uploads/").headers["Location"])
    query = f"{there.query}&digest={digest}"
    ask("PUT", f"{there.path}?{query}", config, "application/octet-stream")
    kind = "application/vnd.oci.image.config.v1+json"
    described = {"mediaType": kind, "size": len(config), "digest": digest}
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": []}
    body = json.dumps(manifest).encode()
    answer = ask("PUT", f"/v2/{repository}/manifests/1", body, MANIFEST)
    return answer.headers["Docker-Content-Digest"]
