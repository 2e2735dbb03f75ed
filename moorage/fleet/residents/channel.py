"""The line to a resident agent: HTTPS with both certificates, straight or through an SSH session.

Who answers is known by the role in its certificate (``urn:moorage:node:<id>``), as the roster has
it: neither names nor addresses are believed. What the agent says are the events of the errand.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from agent.wire.version import __version__
from moorage.errors import MoorageError
from moorage.fleet.errand import faults, timeouts
from moorage.fleet.errand.errand import ErrandAnswer
from moorage.output import ages
from moorage.pki.authority import AGENT_NAME

if TYPE_CHECKING:
    import http.client
    import ssl

    from agent.wire.verbs import Call
    from moorage.pki.authority import Authority
    from moorage.pki.roster import Resident

_log = logging.getLogger("moorage.agents")
Tell = Callable[[str], None]

CONNECT_SECONDS = 3.0
# A small node under load takes its time for the handshake; a closed port is told at once.
HANDSHAKE_SECONDS = 10.0
# From its adoption on an agent's service starts at the lowest priority: within a second, or many on
# a node at work. At its port a firewall may say the same as a service that starts, so that most of
# it is waited for in an SSH session.
SETTLE_SECONDS = 15.0
SETTLE_STRAIGHT_SECONDS = 4.0
_PAUSE = 0.1
# Most services serve before that, and nobody need read of it.
_LASTING = 1.0
# SSH_OPEN_CONNECT_FAILED, RFC 4254, section 5.1
_CONNECT_FAILED = 2
# An agent that serves at all sends its answer's head before its work begins.
HEAD_SECONDS = 30.0

# What an agent says of the operator's certificate (RFC 8446, section 6.2) -> why.
_ALERTS = {
    "unknown ca": "it was adopted with another fleet CA: from another folder, or before this one "
    "was made",
    "bad certificate": "the node's clock is behind this machine's: a certificate is valid from "
    "one hour before it was made",
    "certificate expired": "the node's clock is far ahead of this machine's: the operator's "
    "certificate is renewed a month before its end",
}


class NoAnswer(Exception):
    """No agent of ours answers there; another way may be tried.

    ``asked``: an operation had been asked for, and may yet be done.
    """

    asked = False


class NotListening(NoAnswer):
    """Nothing listens at the port: a service that is down, or one that is still starting."""


class RefusesUs(NoAnswer):
    """Our agent, by its certificate, closes the line before it answers: it does not take ours.

    TLS has an alert for it, and :meth:`Channel._closed` reads it; but asyncio ends a connection
    whose handshake failed without sending what OpenSSL has to say (asyncio.sslproto, CPython 3.11).
    """


class NotOurAgent(MoorageError):
    """Something answers with a certificate that is not the one of this node's agent."""


class Channel:
    """One connection. Use :func:`straight` or :func:`through`; close it in the end.

    ``scrapable``: the agent's certificate has the name by which Prometheus verifies it.
    """

    def __init__(self, line: socket.socket, name: str, resident: Resident, context: ssl.SSLContext):
        import ssl

        self._name = name
        self._answered = False
        line.settimeout(HANDSHAKE_SECONDS)
        try:
            self._socket = context.wrap_socket(line, server_hostname="moorage-node")
        except ssl.SSLCertVerificationError as problem:
            line.close()
            raise _unverified(name, problem) from None
        except OSError as problem:
            line.close()
            raise NoAnswer(str(problem)) from None
        names = (self._socket.getpeercert() or {}).get("subjectAltName", ())
        if ("URI", f"urn:moorage:node:{resident.id}") not in names:
            self.close()
            raise _not_ours(name, "it is another node's")
        self.scrapable = ("DNS", AGENT_NAME) in names

    @property
    def local_address(self) -> str:
        return str(self._socket.getsockname()[0])

    def close(self) -> None:
        """From any thread; an operation at work there comes to its end."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def operate(
        self,
        call: Call,
        plan: bytes,
        on_event: Callable[[dict[str, Any]], None],
        patience: float,
    ) -> ErrandAnswer:
        """The errand over HTTPS: the same events; the status is 0, or -1 for a broken line.

        Raises MoorageError ``agent-silent`` where an agent has begun and then says nothing.
        """
        import http.client

        verb, answer = call.verb, ErrandAnswer(on_event)
        self._socket.settimeout(min(HEAD_SECONDS, patience))
        try:
            response = self._request(verb.method, call.target, plan if verb.plan else None)
            if response.status != 200:
                raise self._refusal(response.status, response.read(1 << 20))
            self._socket.settimeout(patience)
            while data := response.readline(1 << 22):
                answer.stdout(data)
                if answer.too_much:
                    break
                self._socket.settimeout(answer.patience(patience))
        except (OSError, http.client.HTTPException) as problem:
            if not answer.begun:
                closed = self._closed(problem)
                if isinstance(closed, NoAnswer):
                    closed.asked = True
                raise closed from None
            if _is_silence(problem):
                raise MoorageError.of(faults.silent(answer.patience(patience))) from None
            answer.status = -1
            return answer
        answer.end()
        # http.client takes a line that is closed between two chunks for a whole answer.
        answer.status = 0 if answer.result is not None or answer.words else -1
        return answer

    def ask(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> dict[str, Any]:
        """One JSON answer. Raises MoorageError with what the agent says, or NoAnswer."""
        import http.client

        self._socket.settimeout(60)
        try:
            response = self._request(method, path, body, **headers)
            content = response.read(1 << 22)
        except (OSError, http.client.HTTPException) as problem:
            raise self._closed(problem) from None
        if response.status != 200:
            raise self._refusal(response.status, content)
        document: dict[str, Any] = json.loads(content)
        return document

    def _request(
        self, method: str, path: str, body: bytes | None, **headers: str
    ) -> http.client.HTTPResponse:
        import http.client

        line = http.client.HTTPConnection("moorage-node")
        line.sock = self._socket
        # An agent that is newer than we are does nothing by our plans.
        names = {"Moorage-Operator": __version__}
        if body:
            names["Content-Type"] = "application/json"
        names.update({name.replace("_", "-"): value for name, value in headers.items()})
        line.request(method, path, body, names)
        answer = line.getresponse()
        _log.info("%s %s of the agent on %s: %d", method, path, self._name, answer.status)
        self._answered = True
        return answer

    def _closed(self, problem: Exception) -> NoAnswer | MoorageError:
        """In TLS 1.3 a refused client certificate shows in the first answer only."""
        import ssl

        if isinstance(problem, ssl.SSLError) and "ALERT" in (problem.reason or ""):
            alert = (problem.reason or "").rpartition("ALERT_")[2].lower().replace("_", " ")
            return MoorageError(
                "agent-refuses-us",
                f"the agent on {self._name} refuses the operator's certificate: {alert}",
                cause=_ALERTS.get(alert, _ALERTS["unknown ca"]),
                cure="compare the clocks (timedatectl); else adopt it again: "
                f"inv nodes.adopt --hosts={self._name}",
                host=self._name,
            )
        if not self._answered and isinstance(problem, ConnectionError | ssl.SSLEOFError):
            return RefusesUs(
                f"the agent on {self._name} closes the line unanswered: it is stopping, it was "
                "adopted with another fleet CA, or the clocks are far apart (timedatectl)"
            )
        return NoAnswer(str(problem))

    def _refusal(self, status: int, content: bytes) -> MoorageError:
        try:
            fault = json.loads(content)["error"]
            words = {name: str(fault[name]) for name in ("cause", "cure")}
            return MoorageError(str(fault["code"]), str(fault["message"]), host=self._name, **words)
        except (ValueError, KeyError, TypeError):
            return MoorageError(
                "not-an-answer",
                f"the agent on {self._name} answers {status} and no words",
                cause="it is of another version, or something else answers in its place",
                cure=f"inv nodes.adopt --hosts={self._name}",
                host=self._name,
            )


def unheard(_words: str) -> None:
    """Nobody hears of it."""


def awaited(
    connect: Callable[[], Channel],
    resident: Resident,
    seconds: float,
    tell: Tell = unheard,
) -> Channel:
    """The channel that ``connect`` opens. An agent that settles is waited for, ``seconds`` at most,
    and until ``SETTLE_SECONDS`` after its adoption. Raises as ``connect``.

    ``tell`` gets words of a wait that lasts.
    """
    began = time.time()
    until = min(began + seconds, resident.settling + SETTLE_SECONDS)
    told = False
    while True:
        try:
            return connect()
        except NotListening:
            now = time.time()
            if now >= until:
                raise
            if not told and now >= began + _LASTING:
                told = True
                since, left = ages.age(now - resident.settling), f"{until - now:.0f} s at most"
                tell(f"its agent, adopted {since} ago, does not serve yet; waiting {left}")
        time.sleep(_PAUSE)


def straight(name: str, address: str, resident: Resident, context: ssl.SSLContext) -> Channel:
    """Raises NoAnswer where the port is closed, NotOurAgent where another answers."""
    try:
        line = socket.create_connection((address, resident.port), CONNECT_SECONDS)
    except ConnectionRefusedError as problem:
        raise NotListening(str(problem)) from None
    except OSError as problem:
        raise NoAnswer(str(problem)) from None
    timeouts.prepare(line)
    return Channel(line, name, resident, context)


def through(name: str, transport: Any, resident: Resident, context: ssl.SSLContext) -> Channel:
    """The same over an open SSH transport, for a port that only the node itself can reach.

    TLS wants a socket of the system, so a pair of them stands in for the SSH channel.
    """
    from paramiko import ChannelException, SSHException

    try:
        tunnel = transport.open_channel(
            "direct-tcpip", ("127.0.0.1", resident.port), ("127.0.0.1", 0), timeout=10
        )
    except ChannelException as problem:
        kind = NotListening if problem.code == _CONNECT_FAILED else NoAnswer
        raise kind(str(problem)) from None
    except (SSHException, OSError, EOFError) as problem:
        raise NoAnswer(str(problem)) from None
    ours, theirs = socket.socketpair()
    ours.settimeout(20)
    for source, target in ((theirs, tunnel), (tunnel, theirs)):
        threading.Thread(target=_pump, args=(source, target), daemon=True).start()
    return Channel(ours, name, resident, context)


def _pump(source: Any, target: Any) -> None:
    with contextlib.suppress(OSError, EOFError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    for one in (source, target):
        with contextlib.suppress(OSError, EOFError):
            one.close()


def renew(channel: Channel, authority: Authority, resident: Resident) -> Resident:
    """A new key and certificate for the agent; it serves with them from the next connection on."""
    from dataclasses import replace

    asked = channel.ask("POST", "/v1/certificate-request", b"")
    made = authority.sign(str(asked["request"]), resident.id)
    document = json.dumps({"certificate": made.pem, "until": made.until}).encode()
    channel.ask("POST", "/v1/certificate", document)
    channel.scrapable = True
    return replace(resident, serial=made.serial, until=made.until)


def _is_silence(problem: Exception) -> bool:
    """A socket's own time-out has no number; the kernel's, for a dead line, is ETIMEDOUT."""
    return isinstance(problem, TimeoutError) and problem.errno is None


# <openssl/x509_vfy.h>
_NOT_YET_VALID = 9
_HAS_EXPIRED = 10


def _unverified(name: str, problem: ssl.SSLCertVerificationError) -> MoorageError:
    if problem.verify_code == _NOT_YET_VALID:
        return MoorageError(
            "clock-skew",
            f"the certificate of the agent on {name} is not valid yet by this machine's clock",
            cause="this clock is behind, or was ahead when the node was adopted: a certificate is "
            "valid from one hour before it was made",
            cure="set the clock (timedatectl set-ntp true), then run this again",
            host=name,
        )
    if problem.verify_code == _HAS_EXPIRED:
        return MoorageError(
            "agent-certificate-ended",
            f"the certificate of the agent on {name} has ended by this machine's clock",
            cause="the node was not visited for so long that its certificate was not renewed, or "
            "this clock is ahead",
            cure=f"compare the clocks (timedatectl); else over SSH: inv nodes.adopt --hosts={name}",
            host=name,
        )
    return _not_ours(name, problem.verify_message)


def _not_ours(name: str, why: str) -> NotOurAgent:
    return NotOurAgent(
        "not-our-agent",
        f"what answers on {name} is not the agent that was adopted there: {why}",
        cause="the node was reinstalled, or another machine has its address",
        cure=f"if that is right: inv nodes.forget --hosts={name}, then nodes.adopt again",
        host=name,
    )
