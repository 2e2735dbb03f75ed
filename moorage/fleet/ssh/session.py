"""One SSH connection to one node, through Fabric: strict about host keys, plain about failures.

Fabric opens Paramiko's client by way of the jump hosts before it, and keeps the chain together;
what runs on the node, what is sent there and every tunnel are channels of Paramiko's own transport.
"""

from __future__ import annotations

import contextlib
import logging
import select
import shlex
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from moorage.errors import MoorageError
from moorage.fleet.errand import faults, timeouts
from moorage.fleet.errand.errand import (
    ABSENT,
    Become,
    ErrandAnswer,
    Reply,
    absent,
    as_root,
    cold_words,
    pieces,
    warm_words,
)
from moorage.fleet.ssh import known_hosts, sockets
from moorage.fleet.ssh.keys import Offer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fabric import Config, Connection
    from paramiko import PKey, Transport

    from moorage.archive import AgentArchive
    from moorage.fleet.ssh.known_hosts import KnownKeys
    from moorage.fleet.ssh.routes import Route

_log = logging.getLogger("moorage.ssh")
# What paramiko says of a failure is told by its reason, once.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

# Seconds an sshd may take to greet, and to let us in (PAM, and DNS that does not answer).
_HANDSHAKE = 20
_LOGIN = 40
_KEEPALIVE = 15


class Unreachable(MoorageError):
    """The node could not be worked on because no session came about; nothing was changed there."""


@dataclass(frozen=True)
class NewKey:
    """A host key that nobody has vouched for yet."""

    route: Route
    kind: str
    blob: bytes

    @property
    def fingerprint(self) -> str:
        return known_hosts.fingerprint(self.blob)


class UnknownHostKey(Unreachable):
    """No known_hosts file has a key for the node. ``new`` is the one it shows."""

    def __init__(self, new: NewKey, *, by_authority: bool = False) -> None:
        route = new.route
        files = ", ".join(map(str, route.known_hosts)) or "the known_hosts files (there are none)"
        cause = f"{files}: no key for {_spelled(route)}"
        if by_authority:
            cause += " but @cert-authority, and host certificates are not read"
        super().__init__(
            "unknown-host-key",
            f"the host key of {route.name} is not known: {new.kind} {new.fingerprint}",
            cause=cause,
            cure="run this again with --learn-host-keys: it shows the key and asks"
            if known_hosts.can_learn(route.known_hosts)
            else "set nodes.known_hosts in invoke.yaml to a file; then the same with "
            "--learn-host-keys: it shows the key and asks",
            host=route.name,
        )
        self.new = new


class Session:
    """An open connection. Use :func:`connect`."""

    def __init__(self, route: Route, connection: Connection) -> None:
        self.route = route
        self._connection = connection
        self._transport: Transport = connection.transport
        self.stopped = False

    @property
    def transport(self) -> Transport:
        """For a tunnel to a port of the node."""
        return self._transport

    @property
    def local_address(self) -> str:
        """This machine's own address on the way to the node; "" through a jump host or proxy."""
        sock = self._transport.sock
        return str(sock.getsockname()[0]) if isinstance(sock, socket.socket) else ""

    def close(self) -> None:
        """Ends the session, from any thread. An agent at work there ends by itself."""
        self.stopped = True
        _close(self._connection)

    def errand(
        self,
        archive: AgentArchive,
        words: Sequence[str],
        plan: bytes,
        become: Become,
        on_event: Callable[[dict[str, Any]], None],
        patience: float,
        reply: Reply | None = None,
    ) -> ErrandAnswer:
        """Runs the agent with ``words`` and ``plan``; brings it first where it is not there.

        ``patience``: seconds of silence that are borne. ``reply``: what an event is answered with
        on the agent's standard input, which ends after it. The answer's status is the exit status,
        -1 where the connection broke. Raises MoorageError ``agent-silent``.
        """
        answer = ErrandAnswer(on_event, reply)
        # One that leaves nothing behind has left nothing here before.
        answer.status = ABSENT
        if "--once" not in words:
            warm = warm_words(archive.digest, words)
            answer.status = self._run(warm, (plan,), become, answer, patience)
        if absent(answer):
            answer = ErrandAnswer(on_event, reply)
            cold = cold_words(archive.digest, len(archive.content), words)
            stdin = (*pieces(archive.content), plan)
            answer.status = self._run(cold, stdin, become, answer, patience)
        return answer

    def program(
        self,
        words: str,
        stdin: Iterable[bytes],
        become: Become,
        on_event: Callable[[dict[str, Any]], None],
        patience: float,
    ) -> ErrandAnswer:
        """Runs shell ``words`` as root and feeds them ``stdin``. Returns as :meth:`errand` does."""
        answer = ErrandAnswer(on_event)
        answer.status = self._run(words, stdin, become, answer, patience)
        return answer

    def _run(
        self,
        words: str,
        stdin: Iterable[bytes],
        become: Become,
        answer: ErrandAnswer,
        patience: float,
    ) -> int:
        import secrets

        from paramiko import SSHException

        prompt = f"moorage-{secrets.token_hex(8)}:"
        try:
            channel = self._transport.open_session(timeout=patience)
            channel.exec_command(as_root(words, become, prompt))
        except (SSHException, OSError, EOFError):
            return -1
        with contextlib.closing(channel):
            return _converse(channel, stdin, become, prompt, answer, patience)


def _converse(
    channel: Any,
    stdin: Iterable[bytes],
    become: Become,
    prompt: str,
    answer: ErrandAnswer,
    patience: float,
) -> int:
    def send(chunks: Iterable[bytes], *, last: bool) -> None:
        # The other side may have ended already; why, its output and exit status tell.
        with contextlib.suppress(OSError, EOFError):
            channel.settimeout(patience)
            for chunk in chunks:
                channel.sendall(chunk)
            if last:
                channel.shutdown_write()

    asked = waiting = become.sudo and become.password is not None
    if not waiting:
        send(stdin, last=not answer.may_ask)
    said = ""
    poll = select.poll()
    poll.register(channel.fileno(), select.POLLIN)
    heard = time.monotonic()
    while True:
        if not poll.poll(min(patience, 1) * 1000):
            if time.monotonic() - heard > answer.patience(patience):
                raise MoorageError.of(faults.silent(answer.patience(patience)))
            if channel.closed or not channel.get_transport().is_active():
                break
            continue
        heard = time.monotonic()
        if channel.recv_stderr_ready():
            data = channel.recv_stderr(1 << 16)
            said = (said + data.decode(errors="replace"))[-1000:]
            answer.stderr(data.replace(prompt.encode(), b""))
            if asked and prompt in said:
                said = said.replace(prompt, "", 1)
                if not waiting:
                    # A second question: the password was wrong. One failed try locks no account.
                    answer.stderr(b"Sorry, try again.\n")
                    return 1
                waiting = False
                send(((become.password or "").encode() + b"\n",), last=False)
        elif channel.recv_ready():
            answer.stdout(channel.recv(1 << 16))
            if answer.too_much:
                return 1
            if asked and answer.is_root:
                asked = waiting = False
                send(stdin, last=not answer.may_ask)
                heard = time.monotonic()
            if (said_back := answer.reply()) is not None:
                send((said_back,), last=True)
        elif channel.eof_received or channel.closed:
            break
    answer.end()
    return _exit_status(channel)


def _exit_status(channel: Any) -> int:
    # It comes with, or just after, the end of the output; without one (-1) the line broke.
    channel.status_event.wait(5)
    return int(channel.exit_status)


@contextlib.contextmanager
def connect(route: Route) -> Iterator[Session]:
    """Opens a session and closes it at the end of the block.

    Raises Unreachable, with host, cause and cure, for whatever keeps us from one.
    """
    chain = _chain(route)
    try:
        for hop, connection in chain:
            _open(hop, connection)
            _log.info("ssh: a session with %s", _spelled(hop))
        yield Session(route, chain[-1][1])
    finally:
        _close(chain[-1][1])


def unknown_host_key(route: Route) -> NewKey | None:
    """The first key on the way (a jump host's, or the node's own) that no file knows.

    None where all are known. Raises Unreachable for anything else, a changed key too. Only jump
    hosts are logged in to.
    """
    chain = _chain(route, key_only=True)
    try:
        for hop, connection in chain:
            _open(hop, connection)
    except UnknownHostKey as unknown:
        return unknown.new
    except _KeyIsKnown:
        return None
    finally:
        _close(chain[-1][1])
    return None


class _KeyIsKnown(Exception):
    pass


def _chain(route: Route, *, key_only: bool = False) -> list[tuple[Route, Connection]]:
    """The connections to open, jump hosts first; each goes through the one before it."""
    from fabric import Connection

    chain: list[tuple[Route, Connection]] = []
    for hop in (*route.jumps, route):
        offer = Offer(hop)
        entries = known_hosts.read(hop.known_hosts)
        known = known_hosts.lookup(entries, hop.hostname, hop.port, alias=hop.alias)
        connection = Connection(
            host="placeholder",  # set below: Fabric would read an IPv6 address as host:port
            user=hop.user,
            port=hop.port,
            config=_no_configuration(),
            gateway=chain[-1][1] if chain else False,
            connect_timeout=hop.connect_timeout,
            connect_kwargs={
                "auth_strategy": offer,
                "transport_factory": partial(_transport, known),
                "banner_timeout": _HANDSHAKE,
                "auth_timeout": _LOGIN,
            },
        )
        connection.host = hop.hostname
        connection.client = _client(hop, known, key_only=key_only and hop is route)
        chain.append((hop, connection))
    return chain


def _no_configuration() -> Config:
    """The route says everything; Fabric is not to read a configuration beside it.

    A connection each: it writes into its own as it is made, and a thread that reads one meanwhile
    finds nothing in it.
    """
    from fabric import Config
    from paramiko import SSHConfig

    return Config(ssh_config=SSHConfig())


def _client(route: Route, known: KnownKeys, *, key_only: bool) -> Any:
    from paramiko import MissingHostKeyPolicy, SSHClient

    class Strict(MissingHostKeyPolicy):  # type: ignore[misc]
        # The client has no keys of its own, so every key comes to be judged here.
        def missing_host_key(self, client: object, hostname: str, key: PKey) -> None:
            judge(route, known, key.get_name(), key.asbytes())
            if key_only:
                raise _KeyIsKnown

    client = SSHClient()
    client.set_missing_host_key_policy(Strict())
    return client


def _transport(known: KnownKeys, sock: Any, **options: Any) -> Transport:
    from paramiko import Transport

    if isinstance(sock, socket.socket):
        timeouts.prepare(sock)
    transport = Transport(sock, **options)
    # A server has a key of each kind; it shall show one of the kind we know, as ssh(1) asks it to.
    kinds = {entry.kind for entry in known.keys}
    security = transport.get_security_options()
    security.key_types = sorted(security.key_types, key=lambda kind: _plain(kind) not in kinds)
    # AES-GCM authenticates while it encrypts: the others cost a MAC of each packet on both sides,
    # and are at hand for a server that has none of it (RFC 5647, OpenSSH's PROTOCOL).
    security.ciphers = sorted(security.ciphers, key=lambda cipher: "-gcm@" not in cipher)
    return transport


def _plain(algorithm: str) -> str:
    return "ssh-rsa" if algorithm.startswith("rsa-sha2-") else algorithm


def judge(route: Route, known: KnownKeys, kind: str, blob: bytes) -> None:
    """Passes a host key that is known. Raises UnknownHostKey, or Unreachable for a wrong one."""
    shown = known_hosts.fingerprint(blob)
    spelled = _spelled(route)
    if known.is_revoked(blob):
        raise Unreachable(
            "revoked-host-key",
            f"{route.name} shows a host key that is marked @revoked: {shown}",
            cause="somebody has declared that key stolen: this may not be your node",
            cure="give the node a new host key, or look into your known_hosts file",
            host=route.name,
        )
    if known.has(blob):
        return
    if known.keys:
        expected = ", ".join(sorted({known_hosts.fingerprint(key.blob) for key in known.keys}))
        raise Unreachable(
            "changed-host-key",
            f"THE HOST KEY OF {route.name} HAS CHANGED. Somebody may be listening in between",
            cause=f"it shows {kind} {shown}, and known_hosts says {expected}",
            cure="if you know why it changed (a reinstalled node): "
            f"ssh-keygen -R '{spelled}'{_in_file(route)}, then again with --learn-host-keys",
            host=route.name,
        )
    raise UnknownHostKey(NewKey(route, kind, blob), by_authority=bool(known.authorities))


def _spelled(route: Route) -> str:
    if route.alias or route.port == 22:
        return route.alias or route.hostname
    return f"[{route.hostname}]:{route.port}"


def _in_file(route: Route) -> str:
    from pathlib import Path

    from moorage.files import user_path

    first = route.known_hosts[0] if route.known_hosts else Path()
    usual = user_path("~/.ssh/known_hosts")
    return "" if first == usual else f" -f {shlex.quote(str(first))}"


def _open(route: Route, connection: Connection) -> None:
    """Opens one hop. Raises Unreachable, and lets the verdict on a host key pass."""
    from moorage.fleet.ssh import reasons

    try:
        if not connection.gateway and (own := sockets.own(route)) is not None:
            connection.connect_kwargs["sock"] = own
        connection.open()
    except (Unreachable, _KeyIsKnown):
        raise
    except Exception as problem:  # paramiko's, the socket's, and what cryptography makes of it
        offer = connection.connect_kwargs["auth_strategy"]
        fault = reasons.unreachable(route, offer, problem)
        raise Unreachable.of(fault, host=route.name) from None
    connection.transport.set_keepalive(_KEEPALIVE)


def _close(connection: Any) -> None:
    """Closes the connection and those of its jump hosts, whatever state they are in."""
    while connection and not isinstance(connection, str):
        with contextlib.suppress(Exception):
            connection.client.close()
        connection = connection.gateway
