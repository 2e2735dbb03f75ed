"""The cluster's CA: kept whole in one file, and what it issues holds in real TLS."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import threading
from pathlib import Path

from cryptography import x509

from lab.kubernetes import authority, kubeconfig
from lab.kubernetes.authority import Pair


def test_the_second_run_finds_the_first_ones_ca(tmp_path: Path) -> None:
    path = tmp_path / "kubernetes" / "authority.pem"
    first = authority.ensure(path)
    again = authority.ensure(path)
    assert (first.pem, first.service_key) == (again.pem, again.service_key)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_damaged_file_is_no_ca_and_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "authority.pem"
    first = authority.ensure(path)
    whole = path.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 40):
        path.write_bytes(whole[:length])
        assert authority.load(path) is None
    assert authority.ensure(path).pem != first.pem


def test_keys_are_in_no_repr(tmp_path: Path) -> None:
    made = authority.ensure(tmp_path / "authority.pem")
    pair = made.client("system:node:lab1", "system:nodes")
    assert "PRIVATE" not in repr(made) + repr(pair)
    assert "PrivateKey" not in repr(made)


def test_user_and_groups_are_where_kubernetes_reads_them(tmp_path: Path) -> None:
    made = authority.ensure(tmp_path / "authority.pem")
    pair = made.client("system:node:lab1", "system:nodes")
    subject = x509.load_pem_x509_certificate(pair.certificate).subject
    words = {attribute.rfc4514_attribute_name: attribute.value for attribute in subject}
    assert words == {"O": "system:nodes", "CN": "system:node:lab1"}


def test_server_and_client_meet_in_tls(tmp_path: Path) -> None:
    made = authority.ensure(tmp_path / "authority.pem")
    server = made.server([kubeconfig.SERVER_NAME, "127.0.0.1"])
    client = made.client("admin", "system:masters")
    assert _greet(tmp_path, made, server, client) == "admin"


def test_a_kubeconfig_carries_its_identity_and_the_servers_name(tmp_path: Path) -> None:
    made = authority.ensure(tmp_path / "authority.pem")
    pair = made.client("admin", "system:masters")
    text = kubeconfig.render(server="https://172.17.0.2:6443", ca=made.pem, user="a", pair=pair)
    document = json.loads(text)
    cluster = document["clusters"][0]["cluster"]
    assert cluster["tls-server-name"] == kubeconfig.SERVER_NAME
    assert base64.b64decode(cluster["certificate-authority-data"]) == made.pem
    key = document["users"][0]["user"]["client-key-data"]
    assert base64.b64decode(key) == pair.key


def _greet(folder: Path, ca: authority.Authority, server: Pair, client: Pair) -> str:
    """Whom a real server sees when a real client comes with ``client``'s certificate."""

    def context(purpose: ssl.Purpose, name: str, pair: Pair) -> ssl.SSLContext:
        path = folder / name
        path.write_bytes(pair.certificate + pair.key)
        made = ssl.create_default_context(purpose, cadata=ca.pem.decode())
        made.load_cert_chain(path)
        return made

    serving = context(ssl.Purpose.CLIENT_AUTH, "server.pem", server)
    serving.verify_mode = ssl.CERT_REQUIRED
    asking = context(ssl.Purpose.SERVER_AUTH, "client.pem", client)
    seen: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            plain, _ = listener.accept()
            with serving.wrap_socket(plain, server_side=True) as connection:
                subject = dict(pair[0] for pair in connection.getpeercert()["subject"])  # type: ignore[index,misc]
                seen.append(str(subject["commonName"]))
                connection.sendall(b"hello")

        thread = threading.Thread(target=serve)
        thread.start()
        with (
            socket.create_connection(listener.getsockname()) as plain,
            asking.wrap_socket(plain, server_hostname=kubeconfig.SERVER_NAME) as connection,
        ):
            assert connection.recv(5) == b"hello"
        thread.join()
    return seen[0]
