"""A real API server on loopback for tests: etcd and kube-apiserver, no nodes, up in four seconds.

Tokens stand for users: ``admin`` may everything, ``reader`` is bound to nothing.
"""

from __future__ import annotations

import contextlib
import io
import os
import platform
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from moorage.settings import ROOT, Settings
from tests.ports import free_port

ADMIN, READER = "admin-token", "reader-token"


@dataclass(frozen=True)
class ApiServer:
    """A running one: its URL, its CA, and a kubeconfig with the contexts ``admin``, ``reader``."""

    url: str
    ca: Path
    kubeconfig: Path


def programs() -> tuple[str, str] | None:
    """etcd and kube-apiserver where both are at hand, else None."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "moorage"
    folder = cache / "kubernetes" / Settings().lab.kubernetes_version / machine
    path = f"{os.environ.get('MOORAGE_TEST_BINARIES', '')}:{folder}:{os.environ['PATH']}"
    server = shutil.which("kube-apiserver", path=path)
    etcd = shutil.which("etcd", path=path) or _from_the_lab()
    return (etcd, server) if etcd and server else None


def _from_the_lab() -> str | None:
    """Debian's etcd out of the image of the lab's control plane, where that was made before."""
    import docker

    kept = ROOT / "build" / "etcd"
    if kept.exists():
        return str(kept)
    try:
        client = docker.from_env(timeout=20)
        images = [image for image in client.images.list() if _is_control(image.tags)]
        if not images:
            return None
        container = client.containers.create(images[0], labels={"io.moorage.part": "lab"})
    except docker.errors.DockerException:
        return None
    try:
        parts, _ = container.get_archive("/usr/bin/etcd")
        with tarfile.open(fileobj=io.BytesIO(b"".join(parts))) as bundle:
            member = bundle.extractfile("etcd")
            assert member is not None
            kept.parent.mkdir(exist_ok=True)
            kept.write_bytes(member.read())
        kept.chmod(0o755)
    finally:
        container.remove(force=True)
    return str(kept)


def _is_control(tags: list[str]) -> bool:
    return any(tag.startswith("moorage/lab:cluster-") for tag in tags)


@contextlib.contextmanager
def running(folder: Path, etcd: str, server: str) -> Iterator[ApiServer]:
    """Both, from start to end; what they say is in ``folder``."""
    store, peer, port = free_port(), free_port(), free_port()
    tokens = folder / "tokens.csv"
    tokens.write_text(f"{ADMIN},admin,1,system:masters\n{READER},reader,2\n")
    subprocess.run(
        ["openssl", "genrsa", "-out", folder / "sa.key", "2048"], check=True, capture_output=True
    )
    started = []
    try:
        started.append(
            _start(
                folder / "etcd.log",
                [
                    etcd,
                    f"--data-dir={folder / 'etcd'}",
                    f"--listen-client-urls=http://127.0.0.1:{store}",
                    f"--advertise-client-urls=http://127.0.0.1:{store}",
                    f"--listen-peer-urls=http://127.0.0.1:{peer}",
                    f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
                    f"--initial-cluster=default=http://127.0.0.1:{peer}",
                    "--unsafe-no-fsync",
                ],
            )
        )
        started.append(
            _start(
                folder / "apiserver.log",
                [
                    server,
                    f"--etcd-servers=http://127.0.0.1:{store}",
                    "--bind-address=127.0.0.1",
                    f"--secure-port={port}",
                    f"--cert-dir={folder / 'certs'}",
                    f"--token-auth-file={tokens}",
                    "--authorization-mode=RBAC",
                    "--anonymous-auth=false",
                    "--service-account-issuer=https://kubernetes.default.svc",
                    f"--service-account-signing-key-file={folder / 'sa.key'}",
                    f"--service-account-key-file={folder / 'sa.key'}",
                    "--service-cluster-ip-range=10.96.0.0/24",
                    # No controller manager makes service accounts here.
                    "--disable-admission-plugins=ServiceAccount",
                    "--allow-privileged=true",
                ],
            )
        )
        url = f"https://127.0.0.1:{port}"
        found = ApiServer(url, folder / "certs" / "apiserver.crt", folder / "kubeconfig")
        found.kubeconfig.write_text(yaml.safe_dump(kubeconfig(found)))
        _wait(found, started[-1], folder / "apiserver.log")
        yield found
    finally:
        for process in reversed(started):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()


def kubeconfig(server: ApiServer) -> dict[str, object]:
    """A kubeconfig's document for it."""
    users = {"admin": ADMIN, "reader": READER}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "loopback",
                # apiserver's self-made certificate is its own CA.
                "cluster": {"server": server.url, "certificate-authority": str(server.ca)},
            }
        ],
        "users": [{"name": name, "user": {"token": token}} for name, token in users.items()],
        "contexts": [
            {"name": name, "context": {"cluster": "loopback", "user": name}} for name in users
        ],
        "current-context": "admin",
    }


def _start(log: Path, argv: list[str]) -> subprocess.Popen[bytes]:
    with log.open("wb") as out:
        return subprocess.Popen(argv, stdout=out, stderr=out, stdin=subprocess.DEVNULL)


def _wait(server: ApiServer, process: subprocess.Popen[bytes], log: Path) -> None:
    from moorage.cluster.login import access
    from moorage.errors import MoorageError

    deadline = time.monotonic() + 60
    while True:
        try:
            api = access.connect(Settings(), kubeconfig=str(server.kubeconfig))
            api.text("/readyz", "wait")
            if api.find("/api/v1/namespaces/default") is not None:
                return
        except MoorageError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(log.read_text()[-2000:]) from None
        time.sleep(0.2)
