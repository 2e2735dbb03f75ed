"""Nodes on loopback that an operator's folder has adopted: real agents, certificates of its CA.

A node is a laid-out tree (tests.agent.conftest.Box); its agent a process of its own.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from agent.server.home import Home, Settings
from moorage import certificates
from moorage.fleet.authority import Authority
from moorage.fleet.roster import Resident

ROOT = Path(__file__).resolve().parents[1]
_PROGRAM = "import sys; from agent.server import serve; sys.exit(serve.run(sys.argv[1]))"


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
    home.write_settings(Settings(identity, address, port, until))
    return Resident(identity, port, serial, until)


def free_port(address: str = "127.0.0.1") -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


class Agent:
    """The process of one node's agent; its log is ``root.log`` beside the tree."""

    def __init__(self, root: Path, address: str, port: int) -> None:
        self.root, self.address, self.port = root, address, port
        self.log = root.with_suffix(".log")
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(self.root)], stderr=log, cwd=ROOT,
                env=dict(os.environ),
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
