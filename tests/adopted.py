"""Nodes on loopback that an operator's folder has adopted: real agents, certificates of its CA.

A node is a laid-out tree (tests.agent.conftest.Box); its agent a process of its own.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from agent.resident.home import AgentSettings, Home
from agent.wire.verbs import Call, named
from moorage.fleet.inventory import Target
from moorage.fleet.residents.residence import Residents
from moorage.fleet.ssh import routing
from moorage.fleet.ssh.routes import Route
from moorage.pki import certificates
from moorage.pki.authority import Authority
from moorage.pki.roster import Resident, Roster
from moorage.settings import CertsSettings, NodesSettings
from moorage.settings import Settings as Operators
from tests.agent.authority import Authority as RegistryAuthority
from tests.agent.conftest import Box
from tests.ports import free_port

IDENTITY = "1" * 32
ROOT = Path(__file__).resolve().parents[1]
_PROGRAM = """
import sys
from agent.wire import version
version.__version__ = sys.argv[2] or version.__version__
from agent.server import serve
sys.exit(serve.run(sys.argv[1]))
"""


def adopt(
    authority: Authority,
    root: Path,
    identity: str,
    address: str,
    port: int,
    *,
    begun: timedelta = timedelta(),
) -> Resident:
    """Key, certificate and settings below ``root``, as an adoption leaves them.

    ``begun``: when the certificate was made, from now; of a clock that is wrong, for instance.
    """
    home = Home(str(root))
    home.folder.mkdir(parents=True, mode=0o700)
    key = ec.generate_private_key(ec.SECP256R1())
    if begun:
        made = certificates.make_role(
            key.public_key(),
            ca=authority._ca,
            ca_key=authority._key,
            role=f"urn:moorage:node:{identity}",
            usage=ExtendedKeyUsageOID.SERVER_AUTH,
            days=90,
            now=datetime.now(UTC) + begun,
        )
        pem = certificates.certificate_pem(made).decode()
        serial, until = f"{made.serial_number:x}", int(made.not_valid_after_utc.timestamp())
    else:
        asked = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        request = asked.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        signed = authority.sign(request.decode(), identity)
        pem, serial, until = signed.pem, signed.serial, signed.until
    home.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    home.certificate.write_text(pem)
    home.authority.write_text(authority.pem)
    home.write_settings(AgentSettings(identity, address, port, until))
    return Resident(identity, port, serial, until)


class Agent:
    """The process of one node's agent; its log is ``root.log`` beside the tree.

    ``version``: what it takes itself for, "" for what it is.
    """

    def __init__(self, root: Path, address: str, port: int, version: str = "") -> None:
        self.root, self.address, self.port = root, address, port
        self.version = version
        self.log = root.with_suffix(".log")
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(self.root), self.version], stderr=log,
                cwd=ROOT, env=dict(os.environ),
            )  # fmt: skip
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection((self.address, self.port), 1).close()
                return
            except OSError:
                assert self.process.poll() is None, self.log.read_text()
                assert time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.05)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        finally:
            self.process.kill()
            self.process.wait()


def _make_ca(folder: Path, begun: timedelta) -> None:
    folder.mkdir(parents=True, mode=0o700)
    key = certificates.new_key("ec-p256")
    now = datetime.now(UTC) + begun
    made = certificates.make_ca(key, common_name="Moorage fleet CA", days=3650, now=now)
    (folder / "ca.key").write_bytes(certificates.key_pem(key))
    (folder / "ca.crt").write_bytes(certificates.certificate_pem(made))


class Folder:
    """An operator's folder and the node it has adopted, on 127.0.0.1 under the name node1."""

    def __init__(
        self,
        path: Path,
        *,
        begun: timedelta = timedelta(),
        ca_begun: timedelta = timedelta(),
        version: str = "",
    ) -> None:
        (path / "ssh_config").write_text("Host *\n  IdentityFile none\n  IdentityAgent none\n")
        self.path = path
        self.settings = Operators(
            certs=CertsSettings(dir=str(path / "certs")),
            nodes=NodesSettings(ssh_config=str(path / "ssh_config"), known_hosts=str(path / "k")),
        )
        self.box = Box(path / "node", RegistryAuthority().pem)
        self.box.write("/etc/hosts", b"127.0.0.1\tlocalhost\n")
        self.box.with_containerd()
        self.port = free_port()
        if ca_begun:
            _make_ca(path / "certs" / "fleet", ca_begun)
        authority = Authority.open(self.settings)
        found = adopt(authority, self.box.root, IDENTITY, "127.0.0.1", self.port, begun=begun)
        Roster(self.settings).put("127.0.0.1", found)
        self.agent = Agent(self.box.root, "127.0.0.1", self.port, version)

    @property
    def target(self) -> Target:
        return Target("node1", "127.0.0.1", port=self.port)  # no sshd there: HTTPS or nothing

    @property
    def route(self) -> Route:
        return routing.to(self.settings, [self.target])[0]

    def apply(self) -> None:
        """By the agent, which holds the node to it from then on."""
        with Residents(self.settings).line(self.route) as line:
            assert line is not None
            plan = json.dumps(self.box.document()).encode()
            answer = line.operate(Call(named("apply")), plan, lambda _: None, 60)
        assert answer.result is not None
        assert answer.result["status"] == "changed"


@contextmanager
def adopted(path: Path, **how: Any) -> Iterator[Folder]:
    """A :class:`Folder` whose agent is stopped at the end."""
    made = Folder(path, **how)
    try:
        yield made
    finally:
        made.agent.stop()


@contextmanager
def adopted_by_address(path: Path) -> Iterator[Folder]:
    """The same, its agent known by an address, as one is that is asked straight."""
    with adopted(path) as made:
        roster = Roster(made.settings)
        known = roster.residents()["127.0.0.1"]
        roster.put("127.0.0.1", replace(known, address="127.0.0.1"))
        yield made
