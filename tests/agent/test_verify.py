"""Proofs against real TLS servers, and what runtimes say when a pull fails."""

from __future__ import annotations

import base64
import http.server
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.formats.proposal import Proof
from agent.proof import verify
from agent.wire.faults import AgentError, TrustError
from agent.wire.plan import Plan, Registry, Verify
from agent.wire.troubles.told import classify
from tests.agent.authority import Authority
from tests.agent.words.certificates import own
from tests.ports import free_port

LOGIN = "Basic " + base64.b64encode(b"u:p").decode()


class Handler(http.server.BaseHTTPRequestHandler):
    """A registry of one image, with or without a login; ``pages`` are web pages in its place."""

    login = True
    pages: tuple[tuple[str, int], ...] = ()
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        page = dict(self.pages).get(self.path)
        if page is not None:
            self._answer(page, "text/html; charset=utf-8")
        elif self.path != "/v2/" and not self.path.startswith("/v2/app/manifests/"):
            self._answer(404)
        elif self.login and self.headers.get("Authorization") != LOGIN:
            self._answer(401)
        else:
            self._answer(200 if self.path in ("/v2/", "/v2/app/manifests/1") else 404)

    do_HEAD = do_GET

    def _answer(self, status: int, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.send_header("Content-Type", kind)
        if status == 401:
            self.send_header("WWW-Authenticate", 'Basic realm="x"')
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def authority() -> Authority:
    return Authority()


class Server:
    """A TLS server on loopback, with a certificate of one's choice, or none."""

    def __init__(
        self,
        pair: tuple[bytes, bytes] | None,
        folder: Path,
        login: bool = True,
        pages: tuple[tuple[str, int], ...] = (),
    ) -> None:
        handler = type("Handler", (Handler,), {"login": login, "pages": pages})
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        if pair is not None:
            (folder / "crt").write_bytes(pair[0])
            (folder / "key").write_bytes(pair[1])
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(folder / "crt", folder / "key")
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port: int = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def ask(port: int, ca: str, image: str | None = "app:1", password: str | None = "p") -> None:  # noqa: S107
    document: dict[str, object] = {
        "version": 1,
        "registry": {"host": "my.registry.io", "port": port, "ca": ca},
    }
    if image is not None:
        document["verify"] = {
            "image": f"my.registry.io:{port}/{image}",
            "username": "u" if password else None,
            "password": password,
        }
    verify.ask_registry(Plan.parse(json.dumps(document).encode()), "127.0.0.1")


def failure(port: int, ca: str, **more: str | None) -> AgentError:
    with pytest.raises(AgentError) as caught:
        ask(port, ca, **more)
    fault = caught.value.fault
    assert fault.cause
    assert fault.cure
    return caught.value


def test_a_right_registry_is_believed(authority: Authority, tmp_path: Path) -> None:
    with Server(authority.issue("my.registry.io"), tmp_path) as server:
        ask(server.port, authority.pem)
        ask(server.port, authority.pem, image=None)
    with Server(authority.issue("my.registry.io"), tmp_path, login=False) as server:
        ask(server.port, authority.pem, password=None)


@pytest.mark.parametrize(
    ("names", "days", "code"),
    [
        (("other.registry.io",), 30, "x509-wrong-name"),
        (("my.registry.io",), -1, "x509-expired"),
    ],
)
def test_a_wrong_certificate_is_a_matter_of_trust(
    authority: Authority, tmp_path: Path, names: tuple[str, ...], days: float, code: str
) -> None:
    with Server(authority.issue(*names, days=days), tmp_path) as server:
        error = failure(server.port, authority.pem)
    assert error.code == code
    assert isinstance(error, TrustError)


def test_an_intermediate_alone_is_trusted_as_go_trusts_it(
    authority: Authority, tmp_path: Path
) -> None:
    between = authority.intermediate()
    with Server(between.issue("my.registry.io"), tmp_path) as server:
        ask(server.port, between.pem)
        assert failure(server.port, authority.pem).code == "x509-unknown-authority"


def test_another_ca_is_a_matter_of_trust(authority: Authority, tmp_path: Path) -> None:
    with Server(Authority("evil").issue("my.registry.io"), tmp_path) as server:
        assert failure(server.port, authority.pem).code == "x509-unknown-authority"


@pytest.mark.parametrize(
    ("names", "common_name", "ends", "code"),
    [
        (("my.registry.io",), "", 9, ""),
        (("other.registry.io",), "", 9, "x509-wrong-name"),
        (("my.registry.io",), "", -1, "x509-expired"),
        ((), "my.registry.io", 9, "x509-wrong-name"),
    ],
)
def test_a_server_that_is_its_own_ca_is_judged_as_go_does(
    tmp_path: Path, names: tuple[str, ...], common_name: str, ends: int, code: str
) -> None:
    pair = own(names, ends, common_name)
    with Server(pair, tmp_path) as server:
        if code:
            assert failure(server.port, pair[0].decode()).code == code
        else:
            ask(server.port, pair[0].decode())


def test_plain_http_is_told_from_tls(authority: Authority, tmp_path: Path) -> None:
    with Server(None, tmp_path) as server:
        assert failure(server.port, authority.pem).code == "plain-http"


def test_login_and_image_are_told_apart(authority: Authority, tmp_path: Path) -> None:
    with Server(authority.issue("my.registry.io"), tmp_path) as server:
        wrong = failure(server.port, authority.pem, password="no")
        none = failure(server.port, authority.pem, password=None)
        missing = failure(server.port, authority.pem, image="app:2")
        not_there = failure(server.port, authority.pem, image="app@sha256:" + "0" * 64)
    assert (wrong.code, none.code) == ("login-refused", "login-refused")
    assert (missing.code, not_there.code) == ("image-missing", "image-missing")
    assert not isinstance(missing, TrustError)


@pytest.mark.parametrize(
    ("pages", "code"),
    [
        ((("/v2/", 200),), "not-a-registry"),
        ((("/v2/", 403),), "not-a-registry"),
        ((("/v2/", 404),), "not-a-registry"),
        ((("/v2/", 302),), "not-a-registry"),
        ((("/v2/", 429),), "rate-limit"),
        ((("/v2/app/manifests/1", 200),), "not-a-registry"),
        ((("/v2/app/manifests/1", 404),), "image-missing"),
        ((("/v2/app/manifests/1", 429),), "rate-limit"),
    ],
)
def test_a_page_is_no_answer_of_a_registry(
    authority: Authority, tmp_path: Path, pages: tuple[tuple[str, int], ...], code: str
) -> None:
    with Server(authority.issue("my.registry.io"), tmp_path, pages=pages) as server:
        error = failure(server.port, authority.pem)
    assert error.code == code
    assert not isinstance(error, TrustError)


def test_a_page_beside_a_401_is_a_login_that_nginx_asks_for(
    authority: Authority, tmp_path: Path
) -> None:
    with Server(authority.issue("my.registry.io"), tmp_path, pages=(("/v2/", 401),)) as server:
        assert failure(server.port, authority.pem).code == "login-refused"


def test_nothing_there_is_told_as_such(authority: Authority) -> None:
    port = free_port()
    error = failure(port, authority.pem)
    assert error.code == "registry-refused"
    assert str(port) in error.fault.cause


REGISTRY = Registry("my.registry.io")
PULL = 'rpc error: code = Unknown desc = failed to pull and unpack image "my.registry.io/a:401": '


@pytest.mark.parametrize(
    ("words", "code", "trust"),
    [
        ("tls: failed to verify certificate: x509: certificate signed by unknown authority",
         "x509-unknown-authority", True),
        ("x509: certificate is valid for a.io, not my.registry.io", "x509-wrong-name", True),
        ("x509: certificate relies on legacy Common Name field", "x509-wrong-name", True),
        ("x509: certificate has expired or is not yet valid: current time", "x509-expired", True),
        ('unable to read CA cert "/x/ca.crt": open', "ca-unreadable", True),
        ("http: server gave HTTP response to HTTPS client", "plain-http", True),
        ("dial tcp: lookup my.registry.io: no such host", "name-unresolved", False),
        ("dial tcp 10.0.0.1:443: connect: connection refused", "registry-refused", False),
        ("dial tcp 10.0.0.1:443: connect: no route to host", "no-route", False),
        ("dial tcp 10.0.0.1:443: i/o timeout", "registry-timeout", False),
        ("failed to authorize: unexpected status: 401 Unauthorized", "login-refused", False),
        ("unexpected status code [manifests 1]: 403 Forbidden", "access-denied", False),
        ("my.registry.io/a:401: not found", "image-missing", False),
        ("proxyconnect tcp: dial tcp 10.9.9.9:3128: connect: connection refused", "proxy", False),
        ("write /var/lib/x: no space left on device", "disk-full", False),
        ("no match for platform in manifest: not found", "wrong-platform", False),
        ('failed to do request: Head "https://my.registry.io/v2/a/manifests/1": Forbidden',
         "proxy", False),
        ('failed to do request: Head "https://my.registry.io/v2/a/manifests/1": EOF',
         "pull-failed", False),
        ("something entirely new", "pull-failed", False),
    ],
)  # fmt: skip
def test_a_runtimes_words_become_a_code_with_cause_and_cure(
    words: str, code: str, trust: bool
) -> None:
    error = classify(PULL + words, REGISTRY, "my.registry.io/a:401")
    assert error.code == code
    assert isinstance(error, TrustError) == trust
    assert words in error.fault.message
    assert error.fault.cure


@pytest.mark.parametrize(
    ("words", "typed"),
    [
        ('unable to load CA cert "/x/my CA.crt": open', "ls -l '/x/my CA.crt'; "),
        ("unable to load CA cert", "ls -l /etc/containerd/certs.d/my.registry.io; "),
    ],
)
def test_the_file_that_the_words_name_can_be_typed(words: str, typed: str) -> None:
    assert classify(PULL + words, REGISTRY).cure.startswith(typed)


# What this table has no row of its own for, and what it says then.
COARSER = {
    "x509-common-name": "x509-wrong-name",
    "x509-not-yet-valid": "x509-expired",
    "plain-to-https": "pull-failed",
}


def test_the_words_of_real_daemons_are_known() -> None:
    collected = Path(__file__).resolve().parent.parent / "k8s" / "messages.json"
    heard = json.loads(collected.read_text())
    assert len(heard) >= 4
    for runtime, rows in heard.items():
        for row in rows:
            wanted = COARSER.get(row["code"], row["code"])
            if runtime.startswith("docker") and wanted == "access-denied":
                wanted = "login-refused"  # Docker says the same of a login that is refused
            code = classify(row["words"], Registry("reg.test")).code
            assert code == wanted, (runtime, row["words"])


MISSING = (  # containerd 2.1.9, of a mirror that it does not trust and a registry that has none
    'failed to pull and unpack image "{0}": failed to resolve image: {0}: not found'
)


@pytest.mark.parametrize(
    ("ca", "more", "code"),
    [
        ("evil", "", ""),
        ("good", "", "x509-unknown-authority"),
        ("", "", "x509-unknown-authority"),
        ("nonsense", "", "ca-unreadable"),
        ("good", "skip_verify = true", ""),
        ("good", 'capabilities = ["push"]', ""),
        ("good", "capabilities = []", "x509-unknown-authority"),
    ],
)
def test_a_mirror_that_is_not_trusted_is_told_from_an_image_that_is_missing(
    authority: Authority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ca: str,
    more: str,
    code: str,
) -> None:
    from agent.clients.failures import CriError

    def with_cri(_socket: str, _ask: object) -> object:
        raise CriError(MISSING.format("localhost:1/app:2"), answered=True)

    monkeypatch.setattr(verify, "with_cri", with_cri)
    evil = Authority("evil")
    files = {"evil": evil.pem, "good": authority.pem, "nonsense": "no certificate"}
    with Server(evil.issue("localhost"), tmp_path) as mirror:
        folder = tmp_path / "certs.d" / "localhost:1"
        folder.mkdir(parents=True)
        named = f'ca = "{ca}.crt"' if ca else ""
        text = f'server = "https://localhost:1"\n[host."https://localhost:{mirror.port}"]\n'
        (folder / "hosts.toml").write_text(f"{text}{named}\n{more}\n")
        for name, pem in files.items():
            (folder / f"{name}.crt").write_text(pem)
        proof = Proof("cri", "/run/none", roots=(str(tmp_path / "certs.d"),))
        with pytest.raises(AgentError) as refused:
            verify.pull(proof, Registry("localhost", 1), Verify("localhost:1/app:2"), 5)
    fault = refused.value.fault
    assert fault.code == (code or "image-missing")
    assert "there is no image localhost:1/app:2" in fault.message
    assert (f"localhost:{mirror.port}" in fault.message) == bool(code)
    assert (f"{folder}/hosts.toml" in fault.cause) == bool(code)
    assert not isinstance(refused.value, TrustError)


@pytest.fixture
def silent(sockets: Path) -> Iterator[str]:
    """A socket that accepts and never answers."""
    path = str(sockets / "s")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        yield path


def test_a_runtime_that_does_not_answer_does_not_serve(silent: str, tmp_path: Path) -> None:
    assert not verify.cri_serves(str(tmp_path / "nothing"))
    assert not verify.cri_serves(silent)
    with pytest.raises(TrustError) as caught:
        verify.wait_for_cri(str(tmp_path / "nothing"), 0.3)
    assert caught.value.code == "cri-not-serving"


def test_a_runtime_that_has_not_seen_the_new_hosts_entry_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from agent.clients.failures import CriError

    unseen = CriError("dial tcp: lookup my.registry.io: no such host", answered=True)
    answers: list[object] = [unseen, "image"]
    pauses: list[float] = []

    def with_cri(_socket: str, _ask: object) -> object:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(verify, "with_cri", with_cri)
    monkeypatch.setattr("agent.proof.verify.time.sleep", pauses.append)
    registry = Registry(host="my.registry.io", port=443, address=None, ca="")
    verify.pull(Proof("cri", "/run/none"), registry, Verify(image="my.registry.io/a:1"), 5)
    assert pauses == [verify.HOSTS_CACHE_SECONDS]
    answers[:] = [unseen, unseen]
    with pytest.raises(AgentError) as refused:
        verify.pull(Proof("cri", "/run/none"), registry, Verify(image="my.registry.io/a:1"), 5)
    assert refused.value.code == "name-unresolved"
