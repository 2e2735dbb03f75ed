"""Where a runtime listens: by its own files where its command line does not say."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.clients import docker as docker_client
from agent.clients.docker import docker_info, docker_pull
from agent.clients.failures import EngineError
from agent.facts import containerd, docker
from agent.facts.daemons import Daemon, options
from agent.node.host import Done, Host
from agent.node.tree import Tree
from agent.wire.plan import Verify
from tests.agent.conftest import Box

VERIFY = Verify("my.registry.io/app:1")
OWN = "/run/dockershim.sock"


@pytest.mark.parametrize(
    ("config", "flags", "found"),
    [
        (f'version = 2\n[grpc]\n  address = "{OWN}"\n', "", OWN),
        (f"version = 4\n[plugins.'io.containerd.server.v1.grpc']\n address = '{OWN}'\n", "", OWN),
        # What is moved to a plugin counts; the old table in a file of version 4 does not.
        (
            f"version = 4\n[grpc]\n address = '/run/old.sock'\n"
            f"[plugins.'io.containerd.server.v1.grpc']\n address = '{OWN}'\n",
            "",
            OWN,
        ),
        (f'version = 2\n[grpc]\n  address = "{OWN}"\n', "--address /run/f.sock", "/run/f.sock"),
        (f'version = 2\n[grpc]\n  address = "{OWN}"\n', "-a=/run/f.sock", "/run/f.sock"),
        ('version = 2\n[grpc]\n  address = ""\n', "", containerd.CONTAINERD_SOCKET),
        ("version = 2\n", "", containerd.CONTAINERD_SOCKET),
    ],
)  # fmt: skip
def test_containerd_listens_where_its_own_dump_says(
    box: Box, config: str, flags: str, found: str
) -> None:
    box.with_containerd(config.encode())
    box.write(
        "/lib/systemd/system/containerd.service",
        f"[Service]\nExecStart=/usr/bin/containerd {flags}\n".encode(),
    )
    host = Host(str(box.root))
    assert [one.socket for one in containerd.find(host, Tree(str(box.root)))] == [found]


HOSTS = [
    ((), {}, docker.SOCKET),
    ((), {"hosts": ["unix:///run/own.sock"]}, "/run/own.sock"),
    ((), {"hosts": ["tcp://0.0.0.0:2375", "unix:///run/own.sock"]}, "/run/own.sock"),
    ((), {"hosts": ["tcp://127.0.0.1:2375"]}, "tcp://127.0.0.1:2375"),
    ((), {"hosts": ["tcp://127.0.0.1:2376"], "tlsverify": True}, docker.SOCKET),
    ((), {"hosts": "unix:///run/own.sock"}, docker.SOCKET),
    ((), [], docker.SOCKET),
    (("-H", "unix:///run/own.sock"), {}, "/run/own.sock"),
    (("-Hunix:///run/own.sock",), {}, "/run/own.sock"),
    (("--host=tcp://:2375", "--host", "unix:///run/own.sock"), {}, "/run/own.sock"),
    (("-H", "tcp://:2375", "--tlsverify"), {}, docker.SOCKET),
    (("-H", "fd://", "--containerd=/run/containerd/containerd.sock"), {}, docker.SOCKET),
]


@pytest.mark.parametrize(("flags", "said", "found"), HOSTS)
def test_docker_listens_where_its_flags_or_its_file_say(
    box: Box, flags: tuple[str, ...], said: object, found: str
) -> None:
    box.write("/etc/docker/daemon.json", b"\xef\xbb\xbf" + json.dumps(said).encode())
    daemon = Daemon(("/usr/bin/dockerd", *flags), unit="docker.service")
    host = Host(str(box.root))
    engine = docker.find(host, Tree(str(box.root)), (daemon,))[0]
    assert (engine.socket, engine.home) == (found, "")


def test_a_socket_that_systemd_holds_is_asked_of_systemd(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host(str(box.root))
    asked: list[list[str]] = []

    def told(argv: list[str], timeout: float = 20, *, brief: bool = False) -> Done:
        asked.append(argv)
        return Done(0, "Listen=/run/other.sock (Stream)\n", "")

    monkeypatch.setattr(Host, "systemd", property(lambda _: True))
    monkeypatch.setattr(host, "run", told)
    flags = ("-H", "fd://")
    assert docker._socket(host, Tree(str(box.root)), flags, docker.CONFIG) == "/run/other.sock"
    assert asked == [["systemctl", "show", "docker.socket", "-p", "Listen"]]


def test_an_option_that_is_repeated_is_read_in_each_of_its_spellings() -> None:
    argv = ("-H", "a", "--host=b", "-Hc", "--hosts", "d", "--host", "e", "-H=f", "-H")
    assert options(argv, "-H", "--host") == ("a", "b", "c", "e", "f", "")


def test_a_socket_that_nobody_serves_ends_a_pull_at_once(
    sockets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd holds docker.socket also where dockerd was told to listen elsewhere."""
    path = str(sockets / "dead.sock")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as held:
        held.bind(path)
        held.listen()
        monkeypatch.setattr(docker_client, "PING_SECONDS", 0.2)
        began = time.monotonic()
        with pytest.raises(EngineError, match="does not answer"):
            docker_pull(path, VERIFY, 300)
        assert time.monotonic() - began < 5


@pytest.fixture
def answering() -> Iterator[int]:
    """A stand-in for an engine at a port: it says yes to whatever is asked."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    line, _ = server.accept()
                    with line:
                        line.recv(65536)
                        line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}\n")

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]


def test_an_engine_that_listens_at_a_port_alone_is_asked_there(answering: int) -> None:
    docker_pull(f"tcp://0.0.0.0:{answering}", VERIFY, 5)
    assert docker_info(f"tcp://127.0.0.1:{answering}") == {}
    for address in ("tcp://127.0.0.1:1", "tcp://127.0.0.1:x", "/nowhere.sock"):
        with pytest.raises(EngineError, match="does not answer"):
            docker_pull(address, VERIFY, 5)
        assert docker_info(address) == {}
