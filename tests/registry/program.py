"""Debian's own docker-registry as a process on loopback: no engine, started in a tenth of a second.

It has the storage of our configuration (moorage/registry/spec.py); TLS and logins are not the
storage's business, so it serves without.
"""

from __future__ import annotations

import http.client
import json
import multiprocessing
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from moorage.registry import spec
from moorage.registry.storage.layout import Layout
from tests.debian import program
from tests.ports import free_port

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


class InFlight:
    """The requests that are on their way, as a forked process sees them too."""

    def __init__(self, threads: int = 16) -> None:
        # Odd while a request of that thread is on its way; shared, as memory of the same page.
        self._turns = multiprocessing.RawArray("Q", threads)
        self._mine = threading.local()
        self._free = iter(range(threads))
        self._lock = threading.Lock()

    @contextmanager
    def one(self) -> Iterator[None]:
        """Around each request."""
        if not hasattr(self._mine, "slot"):
            with self._lock:
                self._mine.slot = next(self._free)
        self._turns[self._mine.slot] += 1
        try:
            yield
        finally:
            self._turns[self._mine.slot] += 1

    def wait(self, _seconds: float = 0) -> None:
        """Until each request has ended that is on its way now."""
        for slot, turn in enumerate(list(self._turns)):
            while turn % 2 and self._turns[slot] == turn:
                time.sleep(0.0005)


class Registry:
    """One process over a data folder; it may be killed and started again."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.in_flight = InFlight()
        self._mine = threading.local()
        self.program = program("docker-registry")
        self.port = free_port()
        self.config = data.with_name(f"{data.name}.yml")
        self.config.write_text(configuration(data, self.port))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.config.with_suffix(".log").open("ab") as log:
            self._process = subprocess.Popen(
                [self.program, "serve", self.config], stdout=log, stderr=log
            )
        until = time.monotonic() + 10
        while self._ask_once("GET", "/v2/")[0] != 200:
            assert time.monotonic() < until, self.config.with_suffix(".log").read_text()
            time.sleep(0.02)

    def kill(self) -> None:
        """As a power failure does, as far as a process is concerned."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def collect_as_distribution_does(self) -> None:
        """Distribution's own collection, beside the registry that serves.

        It ends with 1 if a manifest is deleted while it marks; it is asked again the next time.
        """
        subprocess.run(
            [self.program, "garbage-collect", self.config], check=False, capture_output=True
        )

    def ask(
        self, method: str, path: str, body: bytes = b"", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """One request -> status (0: none came back), headers in lower case, body."""
        with self.in_flight.one():
            return self._ask_once(method, path, body, **headers)

    def _ask_once(
        self, method: str, path: str, body: bytes = b"", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        connection = self._connection()
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body or None, named)
            answer = connection.getresponse()
            fields = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, fields, answer.read()
        except (OSError, http.client.HTTPException):
            connection.close()  # the next request opens it again
            return 0, {}, b""

    def _connection(self) -> http.client.HTTPConnection:
        """One per thread, that stays open: a handshake costs more than what is asked."""
        if not hasattr(self._mine, "connection"):
            self._mine.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        found: http.client.HTTPConnection = self._mine.connection
        return found

    # -- what clients do ----------------------------------------------------------------------

    def push_blob(self, repository: str, content: bytes) -> bool:
        """As clients do: what is there is not sent again."""
        digest = digest_of(content)
        if self.ask("HEAD", f"/v2/{repository}/blobs/{digest}")[0] == 200:
            return True
        status, headers, _ = self.ask("POST", f"/v2/{repository}/blobs/uploads/")
        if status != 202:
            return False
        place = headers["location"].partition(str(self.port))[2]
        place += ("&" if "?" in place else "?") + f"digest={digest}"
        return self.ask("PUT", place, content)[0] == 201

    def push_manifest(
        self, repository: str, reference: str, content: bytes, kind: str = MANIFEST
    ) -> int:
        """The status: 201 if the push is acknowledged."""
        path = f"/v2/{repository}/manifests/{reference}"
        return self.ask("PUT", path, content, Content_Type=kind)[0]

    def push(self, repository: str, tag: str, *layers: bytes, config: bytes = b"{}") -> str:
        """An image -> its digest; it has to be acknowledged."""
        content = image(config, *layers)
        assert all(self.push_blob(repository, part) for part in (config, *layers))
        assert self.push_manifest(repository, tag, content) == 201
        return digest_of(content)

    def pull(self, repository: str, reference: str) -> str:
        """What is wrong with an image, "" for nothing: manifest and parts, read to their end."""
        accept = f"{MANIFEST}, {INDEX}"
        status, _, content = self.ask(
            "GET", f"/v2/{repository}/manifests/{reference}", Accept=accept
        )
        if status != 200:
            return f"{reference}: manifest {status}"
        document = json.loads(content)
        for child in document.get("manifests", []):
            if problem := self.pull(repository, child["digest"]):
                return f"{reference}: {problem}"
        parts = [*document.get("layers", []), document.get("config")]
        for part in (one for one in parts if one):
            status, _, found = self.ask("GET", f"/v2/{repository}/blobs/{part['digest']}")
            if status != 200 or digest_of(found) != part["digest"]:
                return f"{reference}: blob {part['digest']}: {status}, {len(found)} bytes"
        return ""

    def delete(self, repository: str, digest: str) -> int:
        return self.ask("DELETE", f"/v2/{repository}/manifests/{digest}")[0]


def configuration(data: Path, port: int) -> str:
    """Ours, without TLS and login, over another folder and port."""
    found: dict[str, Any] = yaml.safe_load(spec.config_yaml("00" * 32))
    found["storage"]["filesystem"]["rootdirectory"] = str(data)
    found["http"] = {"addr": f"127.0.0.1:{port}", "secret": "00" * 32}
    found["log"]["level"] = "warn"
    return str(yaml.safe_dump(found))


def digest_of(content: bytes) -> str:
    return f"sha256:{sha256(content).hexdigest()}"


def descriptor(content: bytes, kind: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": kind, "digest": digest_of(content), "size": len(content), **more}


def image(config: bytes, *layers: bytes, **more: Any) -> bytes:
    """An OCI image manifest."""
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(config, "application/vnd.oci.image.config.v1+json"),
            "layers": [
                descriptor(layer, "application/vnd.oci.image.layer.v1.tar") for layer in layers
            ],
            **more,
        }
    ).encode()


def index(*manifests: bytes) -> bytes:
    """An OCI index over image manifests."""
    listed = [
        descriptor(one, MANIFEST, platform={"os": "linux", "architecture": f"arm{i}"})
        for i, one in enumerate(manifests)
    ]
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}).encode()


def put_many(layout: Layout, count: int) -> None:
    """So many images of one repository, a tag each, as the registry would have stored them."""
    _put(layout.blob, b"{}")
    for number in range(count):
        digest = _put(layout.blob, image(b"{}", b"%d" % number))
        for link in (layout.tag_link("a", f"v{number}"), layout.revision_link("a", digest)):
            link.parent.mkdir(parents=True)
            link.write_text(digest)


def _put(place: Callable[[str], Path], content: bytes) -> str:
    digest = digest_of(content)
    place(digest).parent.mkdir(parents=True, exist_ok=True)
    place(digest).write_bytes(content)
    return digest
