"""What the journey does to the registry itself: pushes, pulls all along, another checkout."""

from __future__ import annotations

import hashlib
import json
import shutil
import ssl
import subprocess
import threading
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.message import Message
from pathlib import Path
from typing import NamedTuple

from tests.e2e.machine import ROOT, good, start

REGISTRY = "https://my.registry.io"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_OF_DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
_INDEX = "application/vnd.oci.image.index.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"


def ask(method: str, place: str, login: str, body: bytes | None = None, kind: str = "") -> str:
    """One request on a connection of its own, by the CA that is handed out now -> Location."""
    return str(asked(method, place, login, body, kind).get("Location", ""))


def asked(
    method: str,
    place: str,
    login: str,
    body: bytes | None = None,
    kind: str = "",
    accept: str = _MANIFEST,
) -> Message:
    """The same -> all headers."""
    context = ssl.create_default_context(cafile=str(ROOT / "certs" / "ca.crt"))
    url = place if place.startswith("https:") else REGISTRY + place
    headers = {"Authorization": f"Basic {b64encode(login.encode()).decode()}"}
    headers |= {"Accept": accept} | ({"Content-Type": kind} if kind else {})
    request = urllib.request.Request(url, body, headers, method=method)
    with urllib.request.urlopen(request, context=context, timeout=30) as answer:
        answer.read()
        return answer.headers  # type: ignore[no-any-return]


def status(method: str, place: str, login: str) -> int:
    """What the registry answers."""
    try:
        ask(method, place, login)
    except urllib.error.HTTPError as refused:
        return refused.code
    return 200


def login(name: str, *options: str) -> str:
    """A login of that name, as user:password."""
    return f"{name}:{good('users.add', name, *options).document['password']}"


def push(repository: str, tag: str, login: str, layer: bytes, **config: str) -> Described:
    """An image of one layer; returns what an index says of it."""
    parts = []
    for content in (json.dumps({"of": tag, **config}).encode(), layer):
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        place = ask("POST", f"/v2/{repository}/blobs/uploads/", login, b"")
        place += ("&" if "?" in place else "?") + f"digest={digest}"
        ask("PUT", place, login, content, "application/octet-stream")
        parts.append({"mediaType": _LAYER, "size": len(content), "digest": digest})
    document = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": parts[0], "layers": parts[1:]}
    body = json.dumps(document).encode()
    ask("PUT", f"/v2/{repository}/manifests/{tag}", login, body, _MANIFEST)
    return Described(_MANIFEST, f"sha256:{hashlib.sha256(body).hexdigest()}", len(body))


class Described(NamedTuple):
    """A manifest, as an index lists it."""

    kind: str
    digest: str
    size: int


def described(repository: str, tag: str, login: str) -> Described:
    """An image that is there, whoever pushed it."""
    accept = f"{_MANIFEST}, {_OF_DOCKER}"
    headers = asked("HEAD", f"/v2/{repository}/manifests/{tag}", login, accept=accept)
    size = int(headers["Content-Length"])
    return Described(headers["Content-Type"], headers["Docker-Content-Digest"], size)


def index(repository: str, tag: str, login: str, members: Mapping[str, Described]) -> None:
    """An index of images by their platforms, as ``linux/amd64``, in this order."""
    rows = [
        {
            "mediaType": one.kind,
            "digest": one.digest,
            "size": one.size,
            "platform": dict(zip(("os", "architecture"), platform.split("/"), strict=True)),
        }
        for platform, one in members.items()
    ]
    document = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": rows}
    place = f"/v2/{repository}/manifests/{tag}"
    ask("PUT", place, login, json.dumps(document).encode(), _INDEX)


@contextmanager
def pulls(path: str, login: str) -> Iterator[list[str]]:
    """Pulls all along, each by a handshake of its own, and the nodes' own pulls beside them.

    Yields what failed.
    """
    failed: list[str] = []
    count, over = [0, 0], threading.Event()

    def by_http() -> None:
        while not over.is_set():
            try:
                ask("GET", path, login)
                count[0] += 1
            except OSError as problem:
                failed.append(f"{path}: {problem}")
            over.wait(0.02)

    def by_nodes() -> None:
        while not over.is_set():
            verify = start("nodes.verify")
            assert verify.stderr is not None
            words = verify.stderr.read()
            count[1] += 1
            if verify.wait():
                failed.append(words)

    threads = [threading.Thread(target=one) for one in (by_http, by_http, by_nodes)]
    for one in threads:
        one.start()
    try:
        yield failed
    finally:
        over.set()
        for one in threads:
            one.join()
    assert count[0] > 20, count
    assert count[1] > 0, count


def restored(at: Path, passphrase: Path, folder: Path, path: str) -> dict[str, object]:
    """A backup put in place in another checkout, which has nothing; its document."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    for name in listed.split("\0"):
        if name.partition("/")[0] in ("agent", "moorage", "lab", "serve_hostname", "tasks.py"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    words = ["registry.restore", str(at), f"--passphrase-file={passphrase}", "--yes", "--json"]
    done = subprocess.run(
        [ROOT / ".venv" / "bin" / "python", "-P", "-m", "moorage.program.start", *words],
        cwd=folder, env={"PATH": path, "HOME": str(folder), "PYTHONPATH": str(folder)},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads(done.stdout))


def operator() -> str:
    """The operator's login, as user:password."""
    found = good("registry.status", "--show-password").document
    return f"{found['user']}:{found['password']}"
