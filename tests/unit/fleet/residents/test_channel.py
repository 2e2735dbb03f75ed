"""What the channel makes of an agent that breaks off or falls silent; a TLS server stands in."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agent.wire.verbs import Call, named
from moorage.archive import AgentArchive
from moorage.errors import MoorageError
from moorage.fleet.errand import errand
from moorage.fleet.residents import channel
from moorage.fleet.rollout import fleet
from moorage.fleet.rollout.operation import Operation
from moorage.pki.authority import Authority
from moorage.pki.roster import Resident, Roster
from moorage.settings import NodesSettings
from moorage.ui import UI
from tests.agent.fleet import NODE_ID, SERVER, Fleet
from tests.unit.elsewhere import project

STATUS = Call(named("status"))
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
Talk = Callable[[ssl.SSLSocket], None]


def chunk(content: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(content), content)


ALIVE = chunk(b'{"event": "alive"}\n')


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Callable[[Talk], channel.Channel]]:
    """Serves one connection by ``talk``, and gives the operator's end of it."""
    fleet = Fleet(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(fleet.issue("node", f"urn:moorage:node:{NODE_ID}", SERVER))
    listener = socket.create_server(("127.0.0.1", 0))
    opened: list[channel.Channel] = []

    def start(talk: Talk) -> channel.Channel:
        def serve() -> None:
            raw, _ = listener.accept()
            with context.wrap_socket(raw, server_side=True) as line:
                line.recv(65536)
                talk(line)

        threading.Thread(target=serve, daemon=True).start()
        resident = Resident(NODE_ID, listener.getsockname()[1], "", 0)
        operator = fleet.client(fleet.issue("operator"))
        opened.append(channel.straight("node", "127.0.0.1", resident, operator))
        return opened[-1]

    yield start
    for one in opened:
        one.close()
    listener.close()


def status(line: channel.Channel) -> int:
    return line.operate(STATUS, b"", lambda _: None, 20).status


def test_a_line_that_is_closed_between_two_chunks_is_a_broken_one(
    agent: Callable[[Talk], channel.Channel],
) -> None:
    assert status(agent(lambda line: line.sendall(HEAD + chunk(b'{"event": "facts"}\n')))) == -1


def test_a_line_that_is_closed_inside_of_one_is_too(
    agent: Callable[[Talk], channel.Channel],
) -> None:
    assert status(agent(lambda line: line.sendall(HEAD + ALIVE + b'20\r\n{"event":'))) == -1


def test_words_that_are_no_events_are_a_whole_answer_and_explained(
    agent: Callable[[Talk], channel.Channel],
) -> None:
    line = agent(lambda line: line.sendall(HEAD + chunk(b"hello there\n") + b"0\r\n\r\n"))
    answer = line.operate(STATUS, b"", lambda _: None, 20)
    assert answer.status == 0
    fault = errand.host_result("node", answer, "root").error
    assert fault is not None
    assert "hello there" in fault.cause


def test_an_agent_with_a_pulse_that_falls_silent_is_not_waited_for_as_one_that_pulls(
    agent: Callable[[Talk], channel.Channel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errand, "PULSE_SECONDS", 0.3)
    over = threading.Event()

    def hang(line: ssl.SSLSocket) -> None:
        line.sendall(HEAD + ALIVE + chunk(b'{"event": "cha'))
        over.wait(20)

    began = time.monotonic()
    with pytest.raises(MoorageError) as caught:
        status(agent(hang))
    over.set()
    assert caught.value.code == "agent-silent"
    assert time.monotonic() - began < 5


def test_one_that_takes_the_request_and_never_begins_is_no_agent(
    agent: Callable[[Talk], channel.Channel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "HEAD_SECONDS", 0.3)
    over = threading.Event()

    def hang(_line: ssl.SSLSocket) -> None:
        over.wait(20)

    with pytest.raises(channel.NoAnswer) as caught:
        status(agent(hang))
    over.set()
    assert caught.value.asked


def test_a_port_that_is_closed_was_asked_for_nothing(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    with pytest.raises(channel.NoAnswer) as caught:
        channel.straight("node", "127.0.0.1", Resident(NODE_ID, 9, "", 0), fleet.client(None))
    assert not caught.value.asked


@pytest.mark.parametrize(("word", "code"), [("untrust", "connection-lost"), ("status", "refused")])
def test_a_node_that_froze_with_our_request_is_not_called_untouched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, code: str
) -> None:
    """Its agent took the request, and neither answers nor lets us in over SSH any more."""
    monkeypatch.setattr(channel, "HEAD_SECONDS", 0.3)
    (tmp_path / "ssh_config").write_text("Host node\n  HostName 127.0.0.1\n  Port 9\n")
    nodes = NodesSettings(ssh_config=str(tmp_path / "ssh_config"), retries=0)
    settings = project(tmp_path, nodes=nodes)
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    pem = request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    made = Authority.open(settings).sign(pem.decode(), NODE_ID)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (tmp_path / "node.pem").write_bytes(made.pem.encode() + private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "node.pem")
    monkeypatch.setattr(
        "moorage.archive.errand_archive", lambda _: AgentArchive(tmp_path / "none", "0")
    )
    taken: list[ssl.SSLSocket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        Roster(settings).put("node", Resident(NODE_ID, port, made.serial, made.until))

        def take() -> None:
            taken.append(context.wrap_socket(listener.accept()[0], server_side=True))

        threading.Thread(target=take, daemon=True).start()
        report = fleet.Fleet(settings, UI()).carry_out(Operation(named(word)), ["node"])
    for line in taken:
        line.close()
    error = report.hosts[0].error
    assert error is not None
    assert error.code == code
    assert "refuses connections" in (error.message + error.cause)
