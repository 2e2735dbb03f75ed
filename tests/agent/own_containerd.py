"""Namespaces of its own with this machine's containerd and a registry that asks for a certificate.

    unshare --mount --pid --net --fork --mount-proc python -m tests.agent.own_containerd STYLE

Writes one JSON object a step. Nothing outside the namespaces is touched: /etc/containerd, its state
and the agent's are file systems in memory. STYLE: ``folders`` (a ``config_path`` is set) or
``tables`` (1.x's ``registry.configs``, read at the start of containerd alone).
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import json
import socket
import ssl
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from agent.clients.cri import with_cri
from agent.clients.failures import CriError
from agent.wire.plan import Plan
from tests import distribution
from tests.agent.authority import Authority

NAME = "my.registry.io"
SOCKET = "/run/containerd/containerd.sock"
IN_MEMORY = ("/etc/containerd", "/var/lib/containerd", "/run/containerd", "/var/lib/moorage")
CRI = '[plugins."io.containerd.grpc.v1.cri"'
STYLES = {
    "folders": f'{CRI}.registry]\nconfig_path = "/etc/containerd/certs.d"\n',
    "tables": f'{CRI}.registry.configs."other.io".tls]\nca_file = "/etc/ssl/other.pem"\n',
}


def main(style: str) -> None:
    servers, clients = Authority("registry's CA"), Authority("clients' CA")
    served = servers.issue(NAME)
    with TemporaryDirectory() as name:
        folder = Path(name)
        _lay_out(folder, style)
        with distribution.serving(folder / "registry", served) as open_to_all:
            _push(open_to_all.port, servers)
        with distribution.serving(folder / "registry", served, client_ca=clients.pem) as asking:
            _steps(style, asking.port, servers.pem, clients)


def _steps(style: str, port: int, ca: str, clients: Authority) -> None:
    before = _files()
    without = _plan(port, ca, style)
    good = _plan(port, ca, style, clients)
    with _containerd():
        _tell("asked beforehand", agent=_agent("apply", without), same=_files() == before)
        without["options"]["preflight"] = False
        _tell("without", agent=_agent("apply", without))
    with _containerd():
        _tell("by itself", said=_pulled(without))
        _tell("taken away", agent=_agent("untrust", without), same=_files() == before)
        _tell("with", agent=_agent("apply", good), modes=_modes())
    with _containerd():
        _tell("proven", agent=_agent("verify", good), said=_pulled(good))
        _tell("again", agent=_agent("apply", good))
        other = _plan(port, ca, style, Authority("another"))
        other["options"]["preflight"] = False
        _tell("another's", agent=_agent("apply", other), said=_pulled(good))
        _tell("right again", agent=_agent("apply", good))
        _tell("at last", agent=_agent("untrust", without), same=_files() == before, kept=_kept())


def _tell(step: str, **more: Any) -> None:
    print(json.dumps({"step": step, **more}), flush=True)  # noqa: T201


def _lay_out(folder: Path, style: str) -> None:
    for path in IN_MEMORY:
        Path(path).mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", path], check=True)
    hosts = folder / "hosts"
    hosts.write_text("127.0.0.1 localhost\n")
    subprocess.run(["mount", "--bind", str(hosts), "/etc/hosts"], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    plain = f'version = 2\n{STYLES[style]}{CRI}.containerd]\nsnapshotter = "native"\n'
    Path("/etc/containerd/config.toml").write_text(plain)


@contextmanager
def _containerd() -> Iterator[None]:
    with Path("/var/lib/containerd/log").open("ab") as log:
        process = subprocess.Popen(["containerd"], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while subprocess.run(["ctr", "version"], capture_output=True, check=False).returncode:
            if time.monotonic() > deadline:
                raise RuntimeError(Path("/var/lib/containerd/log").read_text()[-2000:])
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait()


def _plan(port: int, ca: str, style: str, clients: Authority | None = None) -> dict[str, Any]:
    registry: dict[str, Any] = {"host": NAME, "port": port, "address": "127.0.0.1", "ca": ca}
    if clients is not None:
        certificate, key = clients.issue("node")
        registry["client"] = {"certificate": certificate.decode(), "key": key.decode()}
    return {
        "version": 1,
        "registry": registry,
        "parts": ["hosts", "containerd"],
        "verify": {"image": f"{NAME}:{port}/team/app:1"},
        "options": {"restart": style == "folders"},
    }


def _agent(verb: str, plan: Mapping[str, Any]) -> dict[str, Any]:
    """The agent's result, and whether any of its words gave the key away."""
    done = subprocess.run(
        [sys.executable, "-m", "agent", verb],
        input=json.dumps(plan).encode(),
        capture_output=True,
        check=False,
    )
    result = json.loads(done.stdout.splitlines()[-1])
    lines = plan["registry"].get("client", {"key": ""})["key"].splitlines()[1:-1]
    shown = [line for line in lines if line.encode() in done.stdout + done.stderr]
    error = result["error"] or {}
    return {
        "status": result["status"],
        "verified": result["verified"],
        "code": error.get("code", ""),
        "shown": shown,
    }


def _pulled(plan: Mapping[str, Any]) -> str:
    """What containerd itself says of a pull; "" if it has pulled."""
    wanted = Plan.parse(json.dumps(plan).encode()).verify
    assert wanted is not None
    try:
        with_cri(SOCKET, lambda cri: cri.pull(wanted, 60))
    except CriError as problem:
        return problem.message
    return ""


def _files() -> dict[str, str]:
    paths = (path for path in Path("/etc/containerd").rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def _modes() -> dict[str, str]:
    return {path: oct(Path(path).stat().st_mode & 0o777) for path in _files()}


def _kept() -> list[str]:
    notes = (path for path in Path("/var/lib/moorage").rglob("*") if path.is_file())
    return [str(path) for path in notes if b"PRIVATE KEY" in path.read_bytes()]


def _push(port: int, servers: Authority) -> None:
    """An image of one file, by the registry's API."""
    line = http.client.HTTPSConnection("127.0.0.1", port)
    context = ssl.create_default_context(cadata=servers.pem)
    raw = socket.create_connection(("127.0.0.1", port))
    line.sock = context.wrap_socket(raw, server_hostname=NAME)

    def asked(method: str, path: str, body: bytes = b"", kind: str = "") -> Any:
        headers = {"Host": f"{NAME}:{port}", "Content-Type": kind or "application/octet-stream"}
        line.request(method, path, body, headers)
        answer = line.getresponse()
        answer.read()
        assert answer.status in (201, 202), (path, answer.status)
        return answer

    def blob(content: bytes, kind: str) -> dict[str, Any]:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        place = asked("POST", "/v2/team/app/blobs/uploads/").headers["Location"]
        asked("PUT", f"{place.partition(f':{port}')[2] or place}&digest={digest}", content)
        return {"digest": digest, "size": len(content), "mediaType": f"{docker}.{kind}"}

    docker = "application/vnd.docker"
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as layer:
        layer.addfile(tarfile.TarInfo("hello"))
    diff = f"sha256:{hashlib.sha256(tar.getvalue()).hexdigest()}"
    config = {"architecture": "amd64", "os": "linux", "config": {}}
    config["rootfs"] = {"type": "layers", "diff_ids": [diff]}
    kind = f"{docker}.distribution.manifest.v2+json"
    manifest = {
        "schemaVersion": 2,
        "mediaType": kind,
        "config": blob(json.dumps(config).encode(), "container.image.v1+json"),
        "layers": [blob(gzip.compress(tar.getvalue()), "image.rootfs.diff.tar.gzip")],
    }
    asked("PUT", "/v2/team/app/manifests/1", json.dumps(manifest).encode(), kind)


if __name__ == "__main__":
    main(sys.argv[1])
