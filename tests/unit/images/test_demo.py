"""The demo image: built without a network, twice the same, and its failures told apart."""

from __future__ import annotations

import http.client
import io
import json
import tarfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.wire.plan import Registry
from agent.wire.troubles.told import classify
from moorage import images
from moorage.configuration import parsing
from moorage.docker import engine_faults, pulled
from moorage.errors import MoorageError, Refused
from moorage.images import wheels
from moorage.ui import UI

WORDS = Path(__file__).parents[2] / "agent" / "words"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ('Get "https://my.registry.io/v2/": x509: certificate signed by unknown authority',
         "x509-unknown-authority"),
        ("tls: failed to verify certificate: x509: certificate has expired", "x509-expired"),
        ("x509: certificate is valid for my.registry.io, not a.b", "x509-wrong-name"),
        ("remote error: tls: protocol version not supported", "tls-failed"),
        ("http: server gave HTTP response to HTTPS client", "plain-http"),
        ("no basic auth credentials", "login-refused"),
        ("unauthorized: authentication required", "login-refused"),
        ("denied: requested access to the resource is denied", "access-denied"),
        ("dial tcp: lookup my.registry.io: no such host", "name-unresolved"),
        ("proxyconnect tcp: dial tcp 10.0.0.1:3128: connect: connection refused", "proxy"),
        ("dial tcp 127.0.0.1:443: connect: connection refused", "registry-refused"),
        ("dial tcp 10.1.1.1:443: i/o timeout", "registry-timeout"),
        ("connect: no route to host", "no-route"),
        ("manifest for my.registry.io/a:1 not found: manifest unknown", "image-missing"),
        ("write /var/lib/docker/x: no space left on device", "disk-full"),
        ("missing key ca.key for client certificate ca.cert. CA certificates must use the "
         "extension .crt", "client-certificate"),
        ("toomanyrequests: You have reached your pull rate limit.", "rate-limit"),
        ("unknown: <!DOCTYPE html><html><head></head></html>", "not-a-registry"),
        ("error unmarshalling content: invalid character '<' looking for beginning of value",
         "not-a-registry"),
        ("open /var/lib/docker/tmp/x: permission denied", "engine-failed"),
        ("exec: \"unpigz\": executable file not found in $PATH", "engine-failed"),
        ('Head "https://my.registry.io/v2/proxy/denied/manifests/401": something new',
         "engine-failed"),
        ("something new", "engine-failed"),
    ],
)  # fmt: skip
def test_the_engines_words_get_a_code_and_a_cure(words: str, code: str) -> None:
    problem = engine_faults.explain(words, "my.registry.io", "pushing my.registry.io/a:1")
    assert problem.code == code
    assert words in problem.cause
    assert problem.cure


@pytest.mark.parametrize(
    "path", sorted(WORDS.glob("docker-*[0-9].json")), ids=lambda path: path.stem
)
def test_this_machine_s_engine_is_told_of_as_that_of_a_node(path: Path) -> None:
    registry = Registry("reg.test", 5000)
    codes = {row.code for row in engine_faults._ROWS}
    for situation, words in json.loads(path.read_text()).items():
        node = classify(words, registry, "reg.test:5000/app:1", runtime="docker").code
        here = engine_faults.explain(words, "reg.test:5000", "pulling").code
        # Here the login is known to be good: the registry was asked with it before the push.
        same = {node, "access-denied" if node == "login-refused" else node}
        assert here in (same if node in codes else {*same, "engine-failed"}), (situation, words)


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("registry:2", ("registry", "2")),
        ("registry", ("registry", "latest")),
        ("my.registry.io:5000/a/b", ("my.registry.io:5000/a/b", "latest")),
        ("my.registry.io:5000/a:1.2", ("my.registry.io:5000/a", "1.2")),
        ("a/b@sha256:00", ("a/b", "sha256:00")),
    ],
)
def test_a_reference_is_split_at_its_tag(reference: str, parts: tuple[str, str]) -> None:
    assert pulled.split(reference) == parts


def test_wheels_are_asked_for_no_newer_libc_than_the_bases() -> None:
    debian = wheels.Interpreter((3, 11), "aarch64", "2.36").platforms
    assert debian[0] == "manylinux_2_36_aarch64"
    assert "manylinux_2_17_aarch64" in debian
    assert wheels.Interpreter((3, 13), "x86_64", "").platforms[0] == "musllinux_1_2_x86_64"


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    from moorage.docker import engine

    config = parsing.parse({})
    engine.ensure(config, UI(yes=True).progress)
    client = engine.connect(config)
    yield client
    client.close()


@pytest.fixture(scope="module")
def image(client: Any) -> Iterator[str]:
    config = parsing.parse({"image": {"tag": "tested"}})
    first = images.build(config, client, UI().progress)
    second = images.build(config, client, UI().progress)
    assert second.image_id == first.image_id
    assert not second.changed
    yield first.reference
    client.images.remove(first.reference, force=True)


@pytest.fixture
def container(client: Any, image: str) -> Iterator[Any]:
    started = client.containers.run(
        image,
        detach=True,
        hostname="quay",
        environment={"DELAY": "0.5"},
        ports={"8080/tcp": ("127.0.0.1", None)},
        labels={"io.moorage.part": "image-test"},
    )
    try:
        yield started
    finally:
        started.remove(force=True)


def url(container: Any) -> str:
    container.reload()
    port = container.ports["8080/tcp"][0]["HostPort"]
    address = f"http://127.0.0.1:{port}"
    for _ in range(100):
        try:
            urllib.request.urlopen(f"{address}/healthz", timeout=2).read()
        except OSError:
            time.sleep(0.1)
        else:
            return address
    raise AssertionError(container.logs().decode())


@pytest.mark.engine
def test_it_answers_its_host_name_and_is_nobody(container: Any) -> None:
    with urllib.request.urlopen(f"{url(container)}/", timeout=5) as answer:
        assert answer.read() == b"quay\n"
    assert container.exec_run(["id", "-u"]).output.strip() == b"65532"


@pytest.mark.engine
def test_sigterm_answers_the_open_request_and_ends_it(container: Any) -> None:
    address = url(container)
    client = http.client.HTTPConnection(address.removeprefix("http://"), timeout=20)
    client.request("GET", "/")
    with urllib.request.urlopen(f"{address}/healthz", timeout=20) as later:
        assert later.read() == b"ok\n"  # connections are read in turn: the first one is open
    container.kill(signal="SIGTERM")
    # The engine would answer late, not early: a stop that hung shows as a time-out here.
    assert container.wait(timeout=5)["StatusCode"] == 0
    assert client.getresponse().read() == b"quay\n"
    client.close()


@pytest.mark.engine
def test_no_secret_is_in_the_image(client: Any, image: str) -> None:
    words = json.dumps(client.images.get(image).attrs) + json.dumps(
        client.images.get(image).history()
    )
    assert "password" not in words.lower()


@pytest.mark.engine
def test_a_base_without_python_is_refused(client: Any, image: str) -> None:
    bare = bare_image(client)
    config = parsing.parse({"image": {"base": bare, "tag": "bare"}})
    try:
        with pytest.raises(Refused) as refused:
            images.build(config, client, UI().progress)
    finally:
        client.images.remove(bare, force=True)
    assert refused.value.code == "unfit-base"
    assert not client.images.list(name=config.image_reference)


def bare_image(client: Any) -> str:
    """An image with one empty file in it."""
    empty = io.BytesIO()
    with tarfile.open(fileobj=empty, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("nothing"))
    answer = client.api.import_image_from_data(empty.getvalue(), "moorage/bare", "test")
    assert "sha256" in str(answer)
    return "moorage/bare:test"


class Engine:
    """Stands in for an engine whose resolver still holds the old /etc/hosts."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)

    def attempt(self) -> str:
        code = self.answers.pop(0)
        if code:
            raise MoorageError(code, "it failed")
        return "sha256:digest"


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    pauses: list[float] = []
    monkeypatch.setattr("moorage.images.time.sleep", pauses.append)
    return pauses


def test_a_name_just_made_is_asked_again_once_the_engines_cache_is_old(slept: list[float]) -> None:
    here = parsing.parse({"registry": {"host": "localhost"}})
    engine = Engine("name-unresolved", "")
    assert images._once_the_name_is_known(here, engine.attempt) == "sha256:digest"
    assert slept == [5.5]


@pytest.mark.parametrize(
    ("host", "code"), [("localhost", "login-refused"), ("nowhere.invalid", "name-unresolved")]
)
def test_nothing_else_is_tried_twice(host: str, code: str, slept: list[float]) -> None:
    elsewhere = parsing.parse({"registry": {"host": host}})
    with pytest.raises(MoorageError) as problem:
        images._once_the_name_is_known(elsewhere, Engine(code).attempt)
    assert problem.value.code == code
    assert slept == []
