"""What images a node has: asked of real containerd, of stores as files, and of stand-ins."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from grpclib.const import Cardinality, Handler
from grpclib.server import Server, Stream

from agent.clients.cri_calls import Cri
from agent.clients.docker import docker_images
from agent.engine import images
from agent.facts import Containerd
from agent.node.host import Host
from agent.node.tree import File
from tests.agent import api_pb2 as api
from tests.agent.conftest import Box
from tests.debian import unpacked

ID, MANIFEST = "ab" * 32, "sha256:" + "cd" * 32
STORED = [
    {
        "id": ID,
        "digest": MANIFEST,
        "names": ["my.registry.io/app:1"],
        "big-data-digests": {"manifest": MANIFEST},
    }
]


def told(box: Box) -> dict[str, Any]:
    result = box.run(box.engine().images())
    assert result["status"] == "unchanged"
    events = json.loads(json.dumps(result["events"]))
    return next(one for one in events if one["event"] == "images")


def with_store(box: Box, at: str = "/var/lib/containers/storage", content: bytes = b"") -> Box:
    box.write("/usr/bin/podman", b"#!/bin/sh\n", 0o755)
    box.write(f"{at}/overlay-images/images.json", content or json.dumps(STORED).encode())
    return box


def test_a_node_without_a_runtime_has_no_image(box: Box) -> None:
    found = told(box)
    assert (found["names"], found["unasked"]) == ([], [])
    assert abs(found["time"] - time.time()) < 60


@pytest.mark.parametrize(
    ("at", "files"),
    [
        ("/var/lib/containers/storage", {}),
        ("/home/me/.local/share/containers/storage", {}),
        ("/srv/s", {"/etc/containers/storage.conf": b'[storage]\ngraphroot = "/srv/s/"\n'}),
        (
            "/srv/mine",
            {"/home/me/.config/containers/storage.conf": b'[storage]\ngraphroot = "/srv/mine"\n'},
        ),
    ],
)
def test_the_store_of_podman_is_read_wherever_it_is(
    box: Box, at: str, files: dict[str, bytes]
) -> None:
    box.write("/etc/passwd", b"root:x:0:0::/root:/bin/sh\nme:x:1000:1000::/home/me:/bin/sh\n")
    for path, content in files.items():
        box.write(path, content)
    found = told(with_store(box, at))
    assert found["names"] == ["my.registry.io/app:1", f"sha256:{ID}", MANIFEST]
    assert found["unasked"] == []


@pytest.mark.parametrize("content", [b"{", b"[1]", b'{"a": 1}', b'[{"names": 5}]'])
def test_a_store_that_cannot_be_read_is_told(box: Box, content: bytes) -> None:
    found = told(with_store(box, content=content))
    assert [one["part"] for one in found["unasked"]] == ["podman"]
    assert "images.json" in found["unasked"][0]["because"]


@pytest.mark.parametrize("part", ["containerd", "docker", "crio", "k3s"])
def test_a_runtime_that_cannot_be_asked_is_told(box: Box, part: str) -> None:
    if part == "containerd":
        box.with_containerd()
    elif part == "docker":
        box.with_docker()
    else:
        box.write(f"/usr/bin/{part}", b"#!/bin/sh\n", 0o755)
    assert [one["part"] for one in told(box)["unasked"]] == [part]


def test_a_containerd_that_does_not_run_may_start_what_it_has() -> None:
    idle = Containerd("/usr/bin/containerd", (1, 7, 0), None, File("", ""), None, running=False)
    assert list(images._of_containerd(Host("/"), idle)) == [
        images.Unasked("containerd", images.NOT_RUNNING)
    ]


# -- containerd ---------------------------------------------------------------------------------


@pytest.fixture
def containerd(tmp_path: Path, sockets: Path) -> Iterator[Containerd]:
    """A real one: Debian's, with all of it in a folder of its own."""
    if os.geteuid() != 0:
        pytest.skip("containerd runs as root")
    binary = shutil.which("containerd") or str(unpacked("containerd") / "usr/bin/containerd")
    config = tmp_path / "config.toml"
    config.write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
    path = str(sockets / "c.sock")
    words = ["--config", str(config), "--root", str(tmp_path / "r"), "--state", str(sockets / "s")]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([binary, *words, "--address", path], stdout=log, stderr=log)
    one = Containerd(binary, (1, 6, 20), None, File("", ""), None, socket=path)
    deadline = time.monotonic() + 30
    while isinstance(next(images._of_containerd(Host("/"), one), ""), images.Unasked):
        assert time.monotonic() < deadline, (tmp_path / "log").read_text()[-2000:]
        time.sleep(0.2)
    yield one
    process.terminate()
    process.wait(20)


def archive(name: str) -> tuple[bytes, str]:
    """An OCI image without layers as ``ctr images import`` takes it, and its digest."""
    kept: dict[str, bytes] = {}

    def blob(content: bytes, kind: str) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        kept[f"blobs/sha256/{digest}"] = content
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)}

    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}
    made = {
        "schemaVersion": 2,
        "config": blob(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"),
        "layers": [],
    }
    kind = "application/vnd.oci.image.manifest.v1+json"
    manifest = blob(json.dumps({**made, "mediaType": kind}).encode(), kind)
    manifest["annotations"] = {"io.containerd.image.name": name}
    kept["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [manifest]}).encode()
    kept["oci-layout"] = b'{"imageLayoutVersion": "1.0.0"}'
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as tar:
        for path, content in kept.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return written.getvalue(), str(manifest["digest"])


def test_real_containerd_tells_the_images_of_every_namespace(
    containerd: Containerd, tmp_path: Path
) -> None:
    assert list(images._of_containerd(Host("/"), containerd)) == []
    wanted = set()
    for space, name in (("k8s.io", "my.registry.io/app:1"), ("nerdctl", "my.registry.io/b:2")):
        content, digest = archive(name)
        (tmp_path / "image.tar").write_bytes(content)
        ctr = f"{Path(containerd.binary).parent}/ctr"
        words = ["-a", containerd.socket, "-n", space, "images", "import", "--no-unpack"]
        file = str(tmp_path / "image.tar")
        done = subprocess.run([ctr, *words, file], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        wanted |= {name, digest}
    found = set(images._of_containerd(Host("/"), containerd))
    assert wanted <= found
    assert not [one for one in found if isinstance(one, images.Unasked)]


# -- CRI and Docker -----------------------------------------------------------------------------


class Runtime:
    """A stand-in for a runtime behind CRI: one image, and a container of one whose tag moved."""

    def __mapping__(self) -> dict[str, Handler]:
        rows = {
            "ImageService/ListImages": (
                api.ListImagesRequest,
                api.ListImagesResponse(
                    images=[
                        api.Image(
                            id=f"sha256:{ID}", repo_tags=["r.io/a:1"],
                            repo_digests=[f"r.io/a@{MANIFEST}"],
                        )
                    ]
                ),
            ),
            "RuntimeService/ListContainers": (
                api.ListContainersRequest,
                api.ListContainersResponse(
                    containers=[api.Container(image=api.ImageSpec(image="r.io/old:1"))]
                ),
            ),
        }  # fmt: skip

        def answering(answer: Any) -> Any:
            async def handle(stream: Stream[Any, Any]) -> None:
                await stream.recv_message()
                await stream.send_message(answer)

            return handle

        return {
            f"/runtime.v1.{name}": Handler(
                answering(answer), Cardinality.UNARY_UNARY, request, type(answer)
            )
            for name, (request, answer) in rows.items()
        }


def test_cri_tells_its_images_and_what_its_containers_run(sockets: Path) -> None:
    async def session() -> tuple[str, ...]:
        server = Server([Runtime()])
        await server.start(path=str(sockets / "cri.sock"))
        try:
            with Cri(str(sockets / "cri.sock")) as cri:
                return await asyncio.to_thread(cri.images, 5)
        finally:
            server.close()
            await server.wait_closed()

    assert asyncio.run(session()) == (
        f"sha256:{ID}", "r.io/a:1", f"r.io/a@{MANIFEST}", "r.io/old:1",
    )  # fmt: skip


def docker(path: str, answers: dict[str, bytes]) -> threading.Thread:
    """A stand-in for Docker's API: each answer once, on one connection."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(1)

    def serve() -> None:
        line, _ = listener.accept()
        with listener, line:
            for _ in range(len(answers)):
                asked = line.recv(65536).split(b" ")[1].decode()
                body = answers[asked]
                line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread


def test_docker_tells_its_images_and_what_its_containers_run(sockets: Path) -> None:
    image = {"Id": f"sha256:{ID}", "RepoTags": None, "RepoDigests": [f"r.io/a@{MANIFEST}"]}
    running = {"Image": "r.io/old:1", "ImageID": "sha256:" + "ef" * 32}
    answers = {
        "/images/json?all=1": json.dumps([image]).encode(),
        "/containers/json?all=1": json.dumps([running]).encode(),
    }
    thread = docker(str(sockets / "d.sock"), answers)
    assert docker_images(str(sockets / "d.sock")) == (
        f"sha256:{ID}", f"r.io/a@{MANIFEST}", "r.io/old:1", "sha256:" + "ef" * 32,
    )  # fmt: skip
    thread.join(5)


def test_a_docker_that_does_not_answer_as_docker_does_was_not_asked(sockets: Path) -> None:
    assert docker_images(str(sockets / "none.sock")) is None
    docker(str(sockets / "d.sock"), {"/images/json?all=1": b'{"message": "no"}'})
    assert docker_images(str(sockets / "d.sock")) is None
