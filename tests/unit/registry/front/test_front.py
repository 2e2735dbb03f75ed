"""The front on loopback: real HAProxy before a real Distribution. Who may do what, how long."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from moorage.errors import MoorageError, Refused
from moorage.registry import service
from moorage.registry.front import runtime
from moorage.registry.front.configuration import CONFIG
from moorage.registry.front.roles import User
from moorage.registry.logins import users
from moorage.registry.logins.credentials import Credentials, credentials
from moorage.settings import CertsSettings
from tests.loopback import Loopback, basic, loopback, ready
from tests.unit.elsewhere import registry_project

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DIGEST = "sha256:" + "0" * 64


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    """A front with one login of each kind; tests put back what they change."""
    with loopback(registry_project(tmp_path_factory.mktemp("front"))) as made:
        yield made


def login(front: Loopback, name: str, role: str, *patterns: str, expires: int = 0) -> Credentials:
    """A login of its own, in force."""
    user = User(name, role, patterns or ("**",), expires)
    users.remove(front.settings, name)
    made = Credentials(name, users.add(front.settings, user))
    front.apply()
    return made


def own(front: Loopback) -> Credentials:
    return credentials(front.settings)


def push_blob(front: Loopback, who: Credentials, repository: str, content: bytes) -> str:
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    status, headers, said = front.ask("POST", f"/v2/{repository}/blobs/uploads/", who)
    assert status == 202, said
    place = headers["location"].partition(f":{front.settings.registry.port}")[2]
    status, _, said = front.ask("PUT", f"{place}&digest={digest}", who, content)
    assert status == 201, said
    return digest


def push(front: Loopback, who: Credentials, repository: str, layer: bytes) -> str:
    """The manifest's digest of an image with one layer, tagged 1."""
    parts = [
        {"mediaType": "application/octet-stream", "digest": digest, "size": len(content)}
        for content in (b"{}", layer)
        for digest in [push_blob(front, who, repository, content)]
    ]
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": parts[0], "layers": parts[1:]}
    content = json.dumps(document).encode()
    status, headers, said = front.ask(
        "PUT", f"/v2/{repository}/manifests/1", who, content, {"Content-Type": MANIFEST}
    )
    assert status == 201, said
    return headers["docker-content-digest"]


# -- who is let in ---------------------------------------------------------------------------


def test_without_a_login_every_path_is_a_401_that_asks_for_one(front: Loopback) -> None:
    for path in ("/v2/", "/v2/_catalog", "/v2/a/manifests/1", f"/v2/a/blobs/{DIGEST}"):
        status, headers, body = front.ask("GET", path)
        assert status == 401
        assert headers["www-authenticate"] == 'Basic realm="Moorage"'
        assert json.loads(body)["errors"][0]["code"] == "UNAUTHORIZED"


@pytest.mark.parametrize(
    ("user", "password"),
    [("moorage", "wrong"), ("nobody", "right"), ("moorage!", "right"), ("", ""), ("m:", "x")],
)
def test_a_login_that_is_none_is_refused(front: Loopback, user: str, password: str) -> None:
    right = own(front).password
    given = Credentials(user, right if password == "right" else password)
    assert front.ask("GET", "/v2/", given)[0] == 401


def test_a_proof_of_another_user_does_not_let_in(front: Loopback) -> None:
    one = login(front, "one", "pull")
    login(front, "two", "admin")
    assert front.ask("GET", "/v2/", Credentials("two", one.password))[0] == 401
    assert front.ask("GET", "/v2/", Credentials("on", one.password))[0] == 401


@pytest.mark.parametrize("name", ["robot$ci", "a@b.example", "x+y", "A.b_c-d", "n" * 96])
def test_any_name_that_is_allowed_works(front: Loopback, name: str) -> None:
    assert front.ask("GET", "/v2/", login(front, name, "pull"))[0] == 200


def test_a_removed_login_is_out_within_a_second_on_an_open_connection_too(front: Loopback) -> None:
    who = login(front, "leaver", "pull")
    connection = front.connection()
    connection.request("GET", "/v2/", headers=basic(who))
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (200, b"{}")
    users.remove(front.settings, "leaver")
    started = time.monotonic()
    front.apply()
    connection.request("GET", "/v2/", headers=basic(who))
    assert connection.getresponse().status == 401
    assert time.monotonic() - started < 1
    connection.close()


def test_a_login_ends_by_itself_at_its_time(front: Loopback) -> None:
    end = int(time.time()) + 5
    who = login(front, "guest", "pull", expires=end)
    assert front.ask("GET", "/v2/", who)[0] == 200
    time.sleep(max(0, end + 0.5 - time.time()))
    status, _, body = front.ask("GET", "/v2/", who)
    assert (status, "the login guest has expired" in body.decode()) == (401, True)


def test_another_password_is_right_at_once_and_the_old_one_wrong(front: Loopback) -> None:
    old = login(front, "changing", "pull")
    new = Credentials("changing", users.change_password(front.settings, "changing"))
    front.apply()
    assert [front.ask("GET", "/v2/", one)[0] for one in (old, new)] == [401, 200]
    newer = Credentials(
        "changing", users.change_password(front.settings, "changing", keep_old=True)
    )
    front.apply()
    assert [front.ask("GET", "/v2/", one)[0] for one in (old, new, newer)] == [401, 200, 200]
    users.drop_old(front.settings, "changing")
    front.apply()
    assert [front.ask("GET", "/v2/", one)[0] for one in (new, newer)] == [401, 200]


def test_two_thousand_logins_are_put_in_force_as_a_whole(front: Loopback) -> None:
    before = users.read(front.settings)
    many = [User(f"u{number}", "pull", ("a/**", "b"), proofs=("A" * 64,)) for number in range(2000)]
    users.write(front.settings, [*before, *many])
    front.apply()
    assert front.ask("GET", "/v2/", own(front))[0] == 200
    users.write(front.settings, before)
    front.apply()


# -- what each role may ----------------------------------------------------------------------


def test_pull_reads_push_writes_admin_deletes(front: Loopback) -> None:
    reader, writer, admin = (login(front, f"a-{one}", one) for one in ("pull", "push", "admin"))
    layer = os.urandom(1000)
    digest = push(front, writer, "app", layer)
    assert front.ask("GET", "/v2/app/manifests/1", reader, None, {"Accept": MANIFEST})[0] == 200
    for method, path in (
        ("POST", "/v2/app/blobs/uploads/"),
        ("PUT", "/v2/app/manifests/1"),
        ("PATCH", "/v2/app/blobs/uploads/0"),
        ("DELETE", "/v2/app/blobs/uploads/0"),
        ("DELETE", f"/v2/app/manifests/{digest}"),
    ):
        status, _, body = front.ask(method, path, reader, b"")
        error = json.loads(body)["errors"][0]
        assert (status, error["code"]) == (403, "DENIED")
        assert error["message"] == "the login a-pull may pull app but not push"
    for path in (f"/v2/app/manifests/{digest}", f"/v2/app/blobs/{digest}"):
        status, _, body = front.ask("DELETE", path, writer)
        assert (status, "may not delete" in body.decode()) == (403, True)
    assert front.ask("DELETE", f"/v2/app/manifests/{digest}", admin)[0] == 202


def test_a_cancelled_upload_is_no_deletion(front: Loopback) -> None:
    writer = login(front, "canceller", "push")
    _, headers, _ = front.ask("POST", "/v2/app/blobs/uploads/", writer)
    place = headers["location"].partition(f":{front.settings.registry.port}")[2]
    assert front.ask("DELETE", place, writer)[0] == 204


@pytest.mark.parametrize(
    ("repository", "status"),
    [
        ("team-a/app", 202),
        ("team-a/deep/er", 202),
        ("base", 202),
        ("team-a", 403),
        ("team-ab/app", 403),
        ("base/more", 403),
        ("other", 403),
        ("x/team-a/app", 403),
        ("team-a%2Fapp", 202),
        ("%74eam-a/app", 202),
        ("team-a/../other", 404),
        ("team-a%2F..%2Fother", 404),
        ("team-a/%252e%252e/other", 404),
        ("team-a//app", 404),
        ("./team-a/app", 404),
        ("team-a/app%00", 404),
        ("team-a/app;x", 404),
        ("TEAM-A/app", 404),
    ],
)
def test_a_login_is_kept_to_its_repositories_however_the_path_is_written(
    front: Loopback, repository: str, status: int
) -> None:
    who = login(front, "limited", "push", "team-a/**", "base")
    assert front.ask("POST", f"/v2/{repository}/blobs/uploads/", who)[0] == status


@pytest.mark.parametrize(
    "path",
    [
        "/v2/other/manifests/team-a/manifests/1",
        "/v2/other/blobs/uploads/manifests/1",
        "/v2/team-a/x/../../other/tags/list",
        "/v2/other/tags/list?repository=team-a/x",
        "/v2/other/blobs/uploads/?from=team-a/x",
    ],
)
def test_a_word_of_the_api_in_a_name_is_part_of_the_name(front: Loopback, path: str) -> None:
    who = login(front, "limited", "admin", "team-a/**")
    assert front.ask("GET", path, who)[0] in (403, 404)


def test_only_who_may_read_everything_lists_everything(front: Loopback) -> None:
    assert front.ask("GET", "/v2/_catalog", login(front, "all", "pull"))[0] == 200
    some = login(front, "some", "admin", "team-a/**")
    status, _, body = front.ask("GET", "/v2/_catalog", some)
    assert (status, "may not list all" in body.decode()) == (403, True)


FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("query", "body", "kind"),
    [
        ("?mount={digest}&from=secret", "", ""),
        ("?from=secret&mount={digest}", "", ""),
        ("?mount={digest}&fr%6fm=secret", "", ""),
        ("?mount={digest}&from=team-a/app&from=secret", "", ""),
        ("?from=secret&mount={digest}&from=team-a/app", "", ""),
        ("?mount={digest}&from=s%65cret", "", ""),
        ("?mount={digest}&from=team-a/../secret", "", ""),
        ("", "mount={digest}&from=secret", FORM),
        ("?x=1", "mount={digest}&from=secret", FORM + "; charset=utf-8"),
    ],
)
def test_a_blob_of_another_repository_cannot_be_mounted(
    front: Loopback, query: str, body: str, kind: str
) -> None:
    digest = push_blob(front, own(front), "secret", b"what nobody else shall read")
    who = login(front, "limited", "push", "team-a/**")
    status, _, said = front.ask(
        "POST",
        f"/v2/team-a/thief/blobs/uploads/{query.format(digest=digest)}",
        who,
        body.format(digest=digest).encode(),
        {"Content-Type": kind} if kind else None,
    )
    assert status == 202, said  # an upload begins, as the specification has it
    assert front.ask("HEAD", f"/v2/team-a/thief/blobs/{digest}", who)[0] == 404


@pytest.mark.parametrize("source", ["team-a/app", "team-a%2Fapp"])
def test_a_blob_of_a_granted_repository_is_mounted(front: Loopback, source: str) -> None:
    who = login(front, "limited", "push", "team-a/**")
    digest = push_blob(front, who, "team-a/app", b"shared " + source.encode())
    path = f"/v2/team-a/heir/blobs/uploads/?mount={digest}&from={source}"
    assert front.ask("POST", path, who)[0] == 201
    assert front.ask("HEAD", f"/v2/team-a/heir/blobs/{digest}", who)[0] == 200


def test_no_password_is_in_the_log_or_in_the_map(front: Loopback) -> None:
    who = login(front, "logged", "push")
    push(front, who, "app", b"x")
    front.ask("DELETE", f"/v2/app/manifests/{DIGEST}", who)
    said = front.log("front") + front.log("registry")
    kept = (service.etc(front.settings) / "logins.map").read_text()
    for secret in (who.password, basic(who)["Authorization"].removeprefix("Basic ")):
        assert secret not in said
        assert secret not in kept
    assert "logged" in front.log("front")


# -- while things change ---------------------------------------------------------------------


def test_requests_wait_while_the_registry_is_started_again(front: Loopback) -> None:
    who = own(front)
    path = f"/v2/held/manifests/{push(front, who, 'held', os.urandom(1000))}"
    front.stop("registry")
    got: list[int] = []

    def pull() -> None:
        got.append(front.ask("GET", path, who, None, {"Accept": MANIFEST})[0])

    def upload() -> None:
        got.append(front.ask("POST", "/v2/held/blobs/uploads/", who)[0])

    waiting = [threading.Thread(target=one) for one in [pull] * 20 + [upload] * 5]
    for one in waiting:
        one.start()
    time.sleep(2)
    assert got == []
    front.start("registry")
    for one in waiting:
        one.join(30)
    assert sorted(got) == [200] * 20 + [202] * 5


@contextmanager
def ending(place: Path) -> Iterator[list[str]]:
    """Stands in for a registry that ends: the second request on a connection meets a closed one.

    Yields the methods that it was asked by.
    """
    heard: list[str] = []

    class Once(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            for answered in (True, False):
                head = self.rfile.readline()
                if not head:
                    return  # a look whether it is there
                while self.rfile.readline() not in (b"\r\n", b""):
                    pass
                heard.append(head.split()[0].decode())
                if answered:
                    self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads, block_on_close = True, False  # the front keeps connections open

    place.unlink(missing_ok=True)
    with Server(str(place), Once) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield heard
        finally:
            server.shutdown()
            place.unlink()


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_what_meets_a_registrys_end_goes_again_if_it_only_reads(
    front: Loopback, method: str
) -> None:
    path = "/v2/app/blobs/uploads/" if method == "POST" else "/v2/app/tags/list"
    headers = basic(own(front))
    front.stop("registry")
    with ending(service.run(front.settings) / "registry.sock") as heard:
        connection = front.connection()
        connection.request("GET", "/v2/", None, headers)
        assert connection.getresponse().read() == b"{}"
        connection.request(method, path, None, headers)
        if method == "POST":  # who writes is told of the end, and knows best what to do
            with pytest.raises(http.client.RemoteDisconnected):
                connection.getresponse()
        else:
            assert connection.getresponse().status == 200
        connection.close()
    assert heard == ["GET", *([method] if method == "POST" else [method, method])]
    front.start("registry")
    ready(front)


def test_a_certificate_is_exchanged_while_pulls_go_on(front: Loopback) -> None:
    who, layer = own(front), os.urandom(2_000_000)
    digest = push_blob(front, who, "pulled", layer)
    path, failed, whole, served = f"/v2/pulled/blobs/{digest}", [], [], set()
    stop = threading.Event()

    def pull() -> None:
        while not stop.is_set():
            try:
                connection = front.connection()
                connection.request("GET", path, headers=basic(who))
                served.add(connection.sock.getpeercert(True))
                whole.append(connection.getresponse().read() == layer)
                connection.close()
            except (OSError, http.client.HTTPException) as problem:
                failed.append(problem)

    pullers = [threading.Thread(target=pull) for _ in range(int(os.environ.get("PULLERS", "8")))]
    for one in pullers:
        one.start()
    for _ in range(int(os.environ.get("ROTATIONS", "10"))):
        front.renew()
        time.sleep(0.2)
    stop.set()
    for one in pullers:
        one.join(60)
    assert failed == []
    assert all(whole)
    assert len(served) > 3


def test_an_open_connection_outlives_a_new_certificate(front: Loopback) -> None:
    connection = front.connection()
    for _ in range(3):
        connection.request("GET", "/v2/", headers=basic(own(front)))
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"{}")
        socket_before = connection.sock
        front.renew()
        assert connection.sock is socket_before
    connection.close()


def test_a_pair_that_does_not_match_is_refused_and_the_old_one_goes_on(front: Loopback) -> None:
    certs = front.settings.certs_dir
    before = (certs / "registry.key").read_bytes()
    leaf = (certs / "registry.crt").read_bytes()
    (certs / "registry.key").write_bytes((certs / "ca.key").read_bytes())
    try:
        with pytest.raises(Refused) as refused:
            service.put_pair(front.settings)
        assert refused.value.code == "certificate-refused"
    finally:
        (certs / "registry.key").write_bytes(before)
    assert (certs / "registry.crt").read_bytes() == leaf
    assert front.ask("GET", "/v2/", own(front))[0] == 200
    front.renew()  # no half transaction is left behind


def test_a_front_that_is_away_is_told_as_such(tmp_path: Path) -> None:
    settings = replace(registry_project(tmp_path), certs=CertsSettings())
    for attempt in (
        lambda: runtime.ask(service.run(settings), "show info"),
        lambda: service.put_pair(settings),
    ):
        with pytest.raises(MoorageError) as failed:
            attempt()
        assert (failed.value.code, failed.value.cure) == ("front-silent", "inv registry.up")


def test_a_worker_that_a_reload_leaves_ends_with_its_last_download(front: Loopback) -> None:
    """By hand, on a download of 43 s over a reload: whole, and cut after 30 s with that option."""
    assert "hard-stop-after" not in Path(front.etc, CONFIG).read_text()


def test_the_front_ends_when_its_downloads_have(front: Loopback) -> None:
    layer = os.urandom(30_000_000)
    digest = push_blob(front, own(front), "big", layer)
    connection = front.connection()
    connection.request("GET", f"/v2/big/blobs/{digest}", headers=basic(own(front)))
    answer = connection.getresponse()
    begun = answer.read(100_000)
    program = front.running["front"]
    program.send_signal(signal.SIGUSR1)
    time.sleep(1)
    assert begun + answer.read() == layer
    connection.close()
    assert program.wait(20) == 0
    front.start("front")
    deadline = time.monotonic() + 10
    while not runtime.answers(service.run(front.settings)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
