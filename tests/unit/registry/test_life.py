"""A registry's life on a real Distribution: collected, replaced under a download, taken over."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import socket
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from moorage import registry
from moorage.docker import engine
from moorage.errors import MoorageError
from moorage.pki import registry as pki
from moorage.registry import client as https
from moorage.registry import container, image, spec
from moorage.registry.logins.credentials import ensure
from moorage.settings import Settings
from moorage.ui import UI
from tests.engine import bridge
from tests.unit.elsewhere import registry_project

pytestmark = pytest.mark.engine

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
# What an earlier build wrote: one container, with TLS and the login, on the port.
BEFORE = """\
version: 0.1
storage:
  filesystem: {rootdirectory: /var/lib/registry}
  delete: {enabled: true}
  cache: {blobdescriptor: inmemory}
http:
  addr: :5000
  secret: 0123456789
  tls: {certificate: /etc/moorage/tls.crt, key: /etc/moorage/tls.key}
  debug: {addr: ":5001", prometheus: {enabled: true, path: /metrics}}
auth:
  htpasswd: {realm: Moorage, path: /etc/moorage/htpasswd}
"""


@pytest.fixture
def settings(client: Any, tmp_path: Path) -> Iterator[Settings]:
    made = registry_project(tmp_path)
    pki.issue(made)
    yield made
    registry.down(made, client, UI())


class Wire:
    """The registry's HTTP interface with a login, and no client library's opinion of an answer."""

    def __init__(self, settings: Settings) -> None:
        login = registry.credentials(settings)
        token = b64encode(f"{login.user}:{login.password}".encode()).decode()
        self.headers = {"Authorization": f"Basic {token}", "Accept": MANIFEST}
        self.port = settings.registry.port
        self.context = ssl.create_default_context(cadata=pki.ca_pem(settings))

    def open(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection("localhost", self.port, context=self.context, timeout=60)

    def ask(
        self, method: str, path: str, body: bytes = b"", **headers: str
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        connection = self.open()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, path, body or None, {**self.headers, **named})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def push_blob(self, content: bytes) -> str:
        """The blob's digest; as the engine does, it asks first and uploads what is not there."""
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        if self.ask("HEAD", f"/v2/app/blobs/{digest}")[0] == 200:
            return digest
        status, headers, _ = self.ask("POST", "/v2/app/blobs/uploads/")
        assert status == 202
        place = headers["Location"].partition(f":{self.port}")[2] or headers["Location"]
        status, _, said = self.ask(
            "PUT",
            f"{place}&digest={digest}",
            content,
            Content_Type="application/octet-stream",
        )
        assert status == 201, said
        return digest

    def push(self, layer: bytes) -> tuple[int, str]:
        """(status of the manifest's upload, its digest) of an image with one layer."""
        config = json.dumps({"architecture": "amd64", "os": "linux"}).encode()
        parts = [
            {"mediaType": kind, "digest": self.push_blob(content), "size": len(content)}
            for kind, content in (
                ("application/vnd.oci.image.config.v1+json", config),
                ("application/vnd.oci.image.layer.v1.tar", layer),
            )
        ]
        manifest = json.dumps(
            {"schemaVersion": 2, "mediaType": MANIFEST, "config": parts[0], "layers": parts[1:]}
        ).encode()
        status, _, _ = self.ask("PUT", "/v2/app/manifests/1", manifest, Content_Type=MANIFEST)
        return status, "sha256:" + hashlib.sha256(manifest).hexdigest()

    def pull(self) -> bytes:
        """The layer of the image, as it comes; raises AssertionError if it does not come whole."""
        status, _, manifest = self.ask("GET", "/v2/app/manifests/1")
        assert status == 200, f"the manifest: {status}"
        layer = json.loads(manifest)["layers"][0]
        status, _, content = self.ask("GET", f"/v2/app/blobs/{layer['digest']}")
        assert status == 200, f"the layer: {status}"
        assert len(content) == layer["size"]
        return content


def collect(settings: Settings, client: Any) -> None:
    found = client.containers.get(settings.registry.container)
    done = found.exec_run(["docker-registry", "garbage-collect", f"{spec.ETC}/{spec.CONFIG}"])
    assert done.exit_code == 0, done.output


def test_an_image_pushed_again_after_a_collection_can_be_pulled(
    settings: Settings, client: Any
) -> None:
    registry.up(settings, client, UI())
    wire, layer = Wire(settings), os.urandom(100_000)
    status, digest = wire.push(layer)
    assert (status, wire.pull()) == (201, layer)
    assert wire.ask("DELETE", f"/v2/app/manifests/{digest}")[0] == 202
    collect(settings, client)
    assert wire.push(layer)[0] == 201
    assert wire.pull() == layer


def test_a_manifest_of_collected_blobs_is_refused(settings: Settings, client: Any) -> None:
    registry.up(settings, client, UI())
    wire, layer = Wire(settings), os.urandom(100_000)
    digest = wire.push_blob(layer)
    part = {"digest": digest, "size": len(layer), "mediaType": "application/octet-stream"}
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": part, "layers": [part]}
    collect(settings, client)
    status, _, said = wire.ask(
        "PUT", "/v2/app/manifests/1", json.dumps(manifest).encode(), Content_Type=MANIFEST
    )
    assert (status, b"MANIFEST_BLOB_UNKNOWN" in said) == (400, True)


def slowly(wire: Wire, address: str, digest: str, got: list[bytes], begun: threading.Event) -> None:
    """Reads the blob as a node behind a slow line does: about 3 MB per second."""
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        raw.settimeout(60)
        raw.connect((address, wire.port))
        with wire.context.wrap_socket(raw, server_hostname="localhost") as line:
            fields = "".join(f"{name}: {value}\r\n" for name, value in wire.headers.items())
            line.sendall(
                f"GET /v2/app/blobs/{digest} HTTP/1.1\r\nHost: localhost\r\n{fields}"
                "Connection: close\r\n\r\n".encode()
            )
            while chunk := line.recv(65536):
                got.append(chunk)
                begun.set()
                time.sleep(0.005)


@pytest.mark.parametrize("replaced", ["_CONFIG", "_LINGER"], ids=["registry", "front"])
@pytest.mark.parametrize("size", [48_000_000, 6_000_000], ids=["running", "handed to the kernel"])
def test_a_running_download_ends_when_a_container_is_replaced(
    settings: Settings, client: Any, size: int, replaced: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.up(settings, client, UI())
    wire, layer = Wire(settings), os.urandom(size)
    digest = wire.push_blob(layer)
    got: list[bytes] = []
    begun = threading.Event()
    reader = threading.Thread(target=slowly, args=(wire, bridge(client), digest, got, begun))
    reader.start()
    assert begun.wait(20)
    monkeypatch.setattr(spec, replaced, getattr(spec, replaced) + "# another\n")
    started = time.monotonic()
    assert registry.up(settings, client, UI()).changed
    took = time.monotonic() - started
    reader.join(60)
    assert b"".join(got).partition(b"\r\n\r\n")[2] == layer
    assert took < spec.STOP_SECONDS  # it did not need to be killed
    if size > 12e6 or replaced == "_LINGER":
        assert took > size / 12e6  # it did wait


def test_a_download_that_stands_still_does_not_hold_the_registry_for_ever(
    settings: Settings, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spec, "_CONFIG", spec._CONFIG.replace(f"{spec.DRAIN_SECONDS}s", "3s"))
    drain = f"sleep {spec.DRAIN_SECONDS}"
    monkeypatch.setattr(spec, "_LINGER", spec._LINGER.replace(drain, "sleep 3"))
    registry.up(settings, client, UI())
    wire = Wire(settings)
    digest = wire.push_blob(os.urandom(100_000_000))
    connection = wire.open()
    connection.request("GET", f"/v2/app/blobs/{digest}", headers=wire.headers)
    connection.getresponse().read(1000)
    started = time.monotonic()
    registry.down(settings, client, UI())
    assert 2 < time.monotonic() - started < 20
    connection.close()


def test_an_idle_registry_is_replaced_at_once(settings: Settings, client: Any) -> None:
    registry.up(settings, client, UI())
    idle = Wire(settings).open()
    idle.request("GET", "/v2/", headers=Wire(settings).headers)
    idle.getresponse().read()  # kept alive, as containerd does
    started = time.monotonic()
    registry.down(settings, client, UI())
    assert time.monotonic() - started < 5
    idle.close()


def earlier_build(settings: Settings, client: Any) -> Any:
    """The container of an earlier build, made as that made it, with its login."""
    login, etc = ensure(settings), settings.state / "registry" / "etc"
    for folder in (etc, settings.registry_data):
        folder.mkdir(parents=True, exist_ok=True)
    hashed = bcrypt.hashpw(login.password.encode(), bcrypt.gensalt(5)).decode()
    (etc / "htpasswd").write_text(f"{login.user}:{hashed}\n")
    (etc / "config.yml").write_text(BEFORE)
    for name, issued in (("tls.crt", "registry.crt"), ("tls.key", "registry.key")):
        (etc / name).write_bytes((settings.certs_dir / issued).read_bytes())
    user, owner = container.user(client)
    if owner:
        for path in (etc, settings.registry_data, *etc.iterdir()):
            os.chown(path, *owner)
    return client.containers.run(
        image.ensure(settings, client, UI().progress)[0],
        ["serve", "/etc/moorage/config.yml"],
        name=settings.registry.container,
        user=user,
        detach=True,
        labels={**engine.labels(settings, "registry"), spec.DIGEST_LABEL: "earlier"},
        ports={"5000/tcp": ("0.0.0.0", settings.registry.port),
               "5001/tcp": ("127.0.0.1", settings.registry.metrics_port)},
        volumes={str(etc): {"bind": "/etc/moorage", "mode": "ro"},
                 str(settings.registry_data): {"bind": "/var/lib/registry", "mode": "rw"}},
        environment={"OTEL_TRACES_EXPORTER": "none"},
    )  # fmt: skip


def test_a_registry_of_the_build_before_is_taken_over_with_its_data(
    settings: Settings, client: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    before = earlier_build(settings, client).id
    login, layer = registry.credentials(settings), os.urandom(100_000)
    served(settings)
    assert Wire(settings).push(layer)[0] == 201
    name = settings.registry.container
    assert f"make again the container {name}, and before it {name}-front on " in (
        registry.pending(settings, client)[-1].text
    )
    assert registry.up(settings, client, UI()).changed
    assert f"{name} is made again (config.yml changed); images and logins stay" in " ".join(
        capfd.readouterr().err.split()
    )
    after = client.containers.get(name)
    assert after.id != before
    assert after.attrs["Config"]["StopTimeout"] == spec.STOP_SECONDS
    assert registry.credentials(settings) == login
    assert Wire(settings).pull() == layer
    assert not registry.up(settings, client, UI()).changed
    left = [path.name for path in (settings.state / "registry" / "etc").iterdir()]
    assert left == ["config.yml"]  # neither a key nor a hash that nobody needs


def served(settings: Settings) -> None:
    """Waits until something answers with a login."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return https.check_login(settings, registry.credentials(settings))
        except MoorageError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_requests_wait_while_the_registry_is_made_anew(
    settings: Settings, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.up(settings, client, UI())
    wire, layer = Wire(settings), os.urandom(100_000)
    assert wire.push(layer)[0] == 201
    stop, pulled, failed = threading.Event(), [], []

    def pull() -> None:
        while not stop.is_set():
            try:
                pulled.append(wire.pull() == layer)
            except (AssertionError, OSError, http.client.HTTPException) as problem:
                failed.append(problem)

    pullers = [threading.Thread(target=pull) for _ in range(4)]
    for one in pullers:
        one.start()
    monkeypatch.setattr(spec, "_CONFIG", spec._CONFIG + "# another\n")
    assert registry.up(settings, client, UI()).changed
    stop.set()
    for one in pullers:
        one.join(60)
    assert (failed, all(pulled), len(pulled) > 4) == ([], True, True)


def test_a_certificate_put_under_it_by_hand_is_served_no_longer(
    settings: Settings, client: Any
) -> None:
    registry.up(settings, client, UI())
    mounted = settings.state / "registry" / "front" / "tls.pem"
    good = mounted.read_bytes()
    mounted.write_bytes((settings.certs_dir / "ca.crt").read_bytes())
    client.containers.get(f"{settings.registry.container}-front").restart(timeout=2)
    assert registry.up(settings, client, UI()).changed
    assert mounted.read_bytes() == good
    assert Wire(settings).ask("GET", "/v2/")[0] == 200
    assert not registry.up(settings, client, UI()).changed
