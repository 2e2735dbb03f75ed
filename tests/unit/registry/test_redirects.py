"""Redirects, by a stand-in: a registry whose manifests lie elsewhere, as Pulp's and object stores'.

Two of its servers on loopback, with TLS; the second is another host to whoever asks.
"""

from __future__ import annotations

import contextlib
import http.server
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from agent.proof.verify import ask_registry
from agent.wire.plan import Plan, Registry, Verify
from moorage.errors import MoorageError
from moorage.images import asking
from moorage.images.asking import Asker
from moorage.pki import certificates
from moorage.pki import registry as pki
from moorage.references import parse
from moorage.registry import client, tls
from moorage.registry.logins import client_pair
from moorage.registry.logins.credentials import Credentials
from moorage.settings import NodesSettings, RegistrySettings, Settings
from tests.agent.authority import Authority
from tests.ports import free_port
from tests.unit.elsewhere import project

LOGIN = Credentials("robot", "a:pass word")
DIGEST = f"sha256:{'a' * 64}"
HERE, THERE = "localhost", "127.0.0.1"  # two hosts, though one machine
OTHER = "other.test"  # a further name of the registry


@dataclass
class Elsewhere:
    """``sends``: where the registry's answer to a manifest leads; "{name}" is its own name.
    ``realm``: who issues its tokens; nobody if empty. ``guarded``: the hosts that want one."""

    authority: Authority
    port: int = 0
    sends: str = ""
    realm: str = ""
    guarded: tuple[str, ...] = (HERE, THERE, OTHER)
    logins: list[tuple[str, str]] = field(default_factory=list)
    clients: list[tuple[str, bool]] = field(default_factory=list)

    @contextlib.contextmanager
    def running(self, folder: Path) -> Iterator[Elsewhere]:
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if not self.path.startswith("/token"):
                    self.do_HEAD()
                    return
                self._note()
                self.send_response(200)
                self.send_header("Content-Length", "14")
                self.end_headers()
                self.wfile.write(b'{"token": "T"}')

            def do_HEAD(self) -> None:
                self._note()
                wants = bool(server.realm) and server.logins[-1][0] in server.guarded
                if wants and self.headers.get("Authorization") != "Bearer T":
                    self.send_response(401)
                    self.send_header("WWW-Authenticate", f'Bearer realm="{server.realm}"')
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                kept = self.path.startswith("/kept/")
                self.send_response(200 if kept else 302)
                self.send_header("Content-Length", "0")
                if kept:
                    self.send_header("Docker-Content-Digest", DIGEST)
                else:
                    self.send_header("Location", server.sends)
                self.end_headers()

            def _note(self) -> None:
                host = self.headers["Host"].partition(":")[0]
                server.logins.append((host, self.headers.get("Authorization", "")))
                shown = self.connection.getpeercert(binary_form=True)
                server.clients.append((host, bool(shown)))

            def log_message(self, *_: Any) -> None:
                pass

        httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = httpd.server_address[1]
        crt, key = self.authority.issue(HERE, THERE, OTHER)
        (folder / "tls.crt").write_bytes(crt)
        (folder / "tls.key").write_bytes(key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        context.load_verify_locations(cadata=self.authority.pem)
        context.verify_mode = ssl.CERT_OPTIONAL  # it asks who comes, and takes anybody
        httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
        threading.Thread(target=httpd.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield self
        finally:
            httpd.shutdown()
            httpd.server_close()


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Elsewhere]:
    with Elsewhere(Authority()).running(tmp_path) as running:
        yield running


@pytest.fixture
def settings(elsewhere: Elsewhere, tmp_path: Path) -> Settings:
    chosen = RegistrySettings(host=HERE, port=elsewhere.port, external=True, address="127.0.0.1")
    made = project(tmp_path / "project", registry=chosen)
    pki.keep_external_ca(made, certificates.load_certificates(elsewhere.authority.pem.encode())[0])
    return made


def pooled(settings: Settings) -> str:
    """What the client with a pool of connections finds."""
    asker = Asker(
        {settings.registry_name: (LOGIN.user, LOGIN.password)},
        lambda _: (str(settings.ca_file),),
        present=lambda _, made: tls.present(settings, made),
        names=settings.nodes.names,
    )
    return asker.digest(parse(f"{settings.registry_name}/team/app:1"))


def digests(settings: Settings) -> list[str]:
    """What both of our clients find: the one with our own connections, and the one with a pool."""
    return [client.manifest_digest(settings, LOGIN, "team/app", "1"), pooled(settings)]


@pytest.mark.parametrize(
    "sends",
    ["/kept/app", "https://localhost:{port}/kept/app?token=1", "/kept/a b", "/kept/\xe9"],
)
def test_a_manifest_that_lies_elsewhere_at_the_registry_is_found(
    settings: Settings, elsewhere: Elsewhere, sends: str
) -> None:
    elsewhere.sends = sends.format(port=elsewhere.port)
    assert digests(settings) == [DIGEST, DIGEST]
    assert {host for host, _ in elsewhere.logins} == {HERE}


def test_a_login_does_not_go_along_to_another_host(
    settings: Settings, elsewhere: Elsewhere
) -> None:
    elsewhere.sends = f"https://{THERE}:{elsewhere.port}/kept/app"
    assert digests(settings) == [DIGEST, DIGEST]
    basic = client.basic(LOGIN)["Authorization"]
    assert elsewhere.logins == [(HERE, basic), (THERE, "")] * 2


def presenting(settings: Settings, elsewhere: Elsewhere, tmp_path: Path) -> Settings:
    """The same with a client's certificate."""
    for name, content in zip(("c.crt", "c.key"), elsewhere.authority.issue("me"), strict=True):
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
    shown = replace(
        settings.registry,
        client_cert=str(tmp_path / "c.crt"),
        client_key=str(tmp_path / "c.key"),
    )
    return replace(settings, registry=shown)


@pytest.mark.parametrize(
    ("host", "names", "shown"),
    [(HERE, (), True), (THERE, (), False), (THERE, (THERE,), True), (THERE, (OTHER,), False)],
)
def test_a_clients_certificate_is_shown_to_the_token_server_of_the_registrys_names_alone(
    settings: Settings,
    elsewhere: Elsewhere,
    tmp_path: Path,
    host: str,
    names: tuple[str, ...],
    shown: bool,
) -> None:
    settings = replace(settings, nodes=NodesSettings(names=names))
    elsewhere.realm = f"https://{host}:{elsewhere.port}/token"
    elsewhere.sends = "/kept/app"
    with_pair = presenting(settings, elsewhere, tmp_path)
    assert digests(with_pair) == [DIGEST, DIGEST]
    registry = Registry(
        HERE, elsewhere.port, THERE, elsewhere.authority.pem, client=client_pair.read(with_pair)
    )
    login = Verify(f"{settings.registry_name}/team/app:1", LOGIN.user, LOGIN.password)
    ask_registry(Plan(replace(registry, names=names), verify=login), THERE)
    assert {one for one in elsewhere.clients if one[0] == HERE} == {(HERE, True)}
    assert elsewhere.clients.count((host, shown)) >= 3
    assert (host, not shown) not in elsewhere.clients


def test_a_clients_certificate_does_not_go_along_to_another_host(
    settings: Settings, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    elsewhere.sends = f"https://{THERE}:{elsewhere.port}/kept/app"
    assert digests(presenting(settings, elsewhere, tmp_path)) == [DIGEST, DIGEST]
    assert elsewhere.clients == [(HERE, True), (THERE, False)] * 2


def test_a_clients_certificate_goes_along_to_another_name_of_the_registry_and_no_login_does(
    settings: Settings, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    elsewhere.sends = f"https://{THERE}:{elsewhere.port}/kept/app"
    named = replace(settings, nodes=NodesSettings(names=(THERE,)))
    assert digests(presenting(named, elsewhere, tmp_path)) == [DIGEST, DIGEST]
    assert elsewhere.clients == [(HERE, True), (THERE, True)] * 2
    assert [login for host, login in elsewhere.logins if host == THERE] == ["", ""]


@pytest.mark.parametrize("host", [HERE, THERE])
def test_a_redirect_away_from_tls_is_not_followed(
    settings: Settings, elsewhere: Elsewhere, host: str
) -> None:
    asked: list[str] = []

    class Plain(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Docker-Content-Digest", DIGEST)
            self.end_headers()

    with http.server.HTTPServer(("127.0.0.1", 0), Plain) as plain:
        threading.Thread(target=plain.serve_forever, args=(0.05,), daemon=True).start()
        elsewhere.sends = f"http://{host}:{plain.server_address[1]}/kept/app"
        assert (digests(settings), asked) == (["", ""], [])
        plain.shutdown()


@pytest.mark.parametrize(
    "sends",
    [
        *("/v2/again", "https://[bad/kept/app", "ftp://a/", "https://a..b/kept/app"),
        *(
            "https://.a/kept/app",
            f"https://{'a' * 64}/kept/app",
            "https://localhost:99999/kept/app",
        ),
    ],
)
def test_a_redirect_that_leads_nowhere_is_no_digest(
    settings: Settings, elsewhere: Elsewhere, sends: str
) -> None:
    """Round and round, and to no address at all."""
    elsewhere.sends = sends.format(port=elsewhere.port)
    assert digests(settings) == ["", ""]
    assert len(elsewhere.logins) <= 12


@pytest.mark.parametrize("host", [THERE, HERE, "[::1]"])
def test_a_place_that_does_not_answer_is_named(
    settings: Settings, elsewhere: Elsewhere, host: str
) -> None:
    """Also if it is another port of the registry's own host."""
    closed = free_port()
    elsewhere.sends = f"https://{host}:{closed}/kept/app"
    with pytest.raises(MoorageError) as refused:
        client.manifest_digest(settings, LOGIN, "team/app", "1")
    assert f"https://{host}:{closed}," in str(refused.value)
    assert refused.value.cure == f"ask whoever runs {settings.registry_name}"


@pytest.mark.parametrize(("address", "where"), [(THERE, THERE), ("auto", OTHER)])
def test_a_token_server_of_another_name_is_where_the_registry_is_or_where_its_name_leads(
    settings: Settings,
    elsewhere: Elsewhere,
    monkeypatch: pytest.MonkeyPatch,
    address: str,
    where: str,
) -> None:
    connect, asked = socket.create_connection, list[str]()

    def noted(place: tuple[str, int], timeout: float) -> socket.socket:
        asked.append(place[0])
        return connect((THERE, place[1]), timeout)

    monkeypatch.setattr("socket.create_connection", noted)
    elsewhere.realm = f"https://{OTHER}:{elsewhere.port}/token"
    elsewhere.sends = "/kept/app"
    registry = replace(settings.registry, address=address)
    named = replace(settings, registry=registry, nodes=NodesSettings(names=(OTHER,)))
    assert client.manifest_digest(named, LOGIN, "team/app", "1") == DIGEST
    assert asked[1] == where


def test_a_host_that_a_registry_sends_to_gets_no_login_by_asking_for_one(
    settings: Settings, elsewhere: Elsewhere
) -> None:
    elsewhere.sends = f"https://{THERE}:{elsewhere.port}/kept/app"
    elsewhere.realm, elsewhere.guarded = f"https://{THERE}:{elsewhere.port}/token", (THERE,)
    assert pooled(settings) == ""
    with pytest.raises(MoorageError):
        client.manifest_digest(settings, LOGIN, "team/app", "1")
    assert {login for host, login in elsewhere.logins if host == THERE} == {""}


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://Here.test:444/v2/", "here.test"),
        ("https://me@here.test", "here.test"),
        ("https://[2001:db8::1]:5000/", "2001:db8::1"),
    ],
)
def test_a_host_is_read_from_a_url(url: str, host: str) -> None:
    assert asking._host(url) == host


def test_a_backslash_in_a_redirect_is_escaped() -> None:
    assert (
        client.onward("https://here.test/v2/", 307, "/kept\\app") == "https://here.test/kept%5Capp"
    )
