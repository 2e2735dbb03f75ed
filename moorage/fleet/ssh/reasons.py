"""Why no session came about: what paramiko and the socket raise -> a Fault. Pure."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING

from agent.wire.faults import Fault

if TYPE_CHECKING:
    from moorage.fleet.ssh.keys import Offer
    from moorage.fleet.ssh.routes import Route


def unreachable(route: Route, offer: Offer, problem: Exception) -> Fault:
    """The fault behind ``problem``, which ended the attempt to open ``route``."""
    from paramiko.ssh_exception import (
        AuthenticationException,
        ChannelException,
        IncompatiblePeer,
        NoValidConnectionsError,
        SSHException,
    )

    place = f"{route.hostname} port {route.port}"
    if route.proxy_command and not isinstance(problem, AuthenticationException):
        return Fault(
            "proxy-failed",
            f"the ProxyCommand for {route.name} leads to no SSH server",
            cause=f"{route.proxy_command}: {_words(problem)}",
            cure=f"try it by hand: ssh -v {route.target.host} true",
        )
    if isinstance(problem, socket.gaierror):
        return _name_not_found(route, problem)
    if isinstance(problem, AuthenticationException):
        return login_refused(route, offer)
    if isinstance(problem, ChannelException):
        return Fault(
            "jump-failed",
            f"the jump host could not reach {place}",
            cause=problem.text,
            cure=f"try it by hand: ssh -v {route.target.host} true",
        )
    if isinstance(problem, IncompatiblePeer):
        return Fault(
            "no-common-algorithm",
            f"{place} speaks an SSH too old or too new for us",
            cause=str(problem),
            cure="update the node's sshd, or see KexAlgorithms and HostKeyAlgorithms in its config",
        )
    if isinstance(problem, NoValidConnectionsError):
        problem = next(iter(problem.errors.values()))
    if isinstance(problem, TimeoutError) or "No existing session" in str(problem):
        return Fault(
            "timeout",
            f"{place} did not answer within {route.connect_timeout} s",
            cause="the node is down, its address is another one, or a firewall drops the packets",
            cure=f"ping {route.hostname}; a slow network: nodes.connect_timeout in invoke.yaml",
        )
    if isinstance(problem, OSError) and problem.errno is not None:
        return _socket(route, problem)
    if isinstance(problem, EOFError | SSHException):
        return _no_handshake(route, offer, problem)
    return Fault(
        "ssh-failed",
        f"no SSH session with {place} came about",
        cause=f"{type(problem).__name__}: {problem}",
        cure=f"try it by hand: ssh -v {_spelled(route)} true",
    )


def _words(problem: Exception) -> str:
    return " ".join(str(problem).split())


def _name_not_found(route: Route, problem: socket.gaierror) -> Fault:
    return Fault(
        "unknown-host",
        f"there is no host called {route.hostname}",
        cause=f"neither DNS nor /etc/hosts knows the name ({problem.strerror})",
        cure="correct the name in --hosts, or give its address there or in ~/.ssh/config",
    )


# errno -> code, what happened, cause, cure
_SOCKET = {
    errno.ECONNREFUSED: (
        "refused",
        "refuses connections",
        "no sshd listens there, or on another port",
        "on the node: systemctl status ssh sshd; another port: --hosts={hostname}:PORT",
    ),
    errno.ECONNRESET: (
        "closed",
        "closed the connection",
        "sshd has too many callers at once (MaxStartups), or a firewall interferes",
        "run this again, or lower nodes.parallel in invoke.yaml",
    ),
}
_NO_ROUTE = (
    "no-route",
    "cannot be reached",
    "{reason}",
    "ip route get {hostname}; then look at cable, VPN and the node's address",
)


def _socket(route: Route, problem: OSError) -> Fault:
    number = problem.errno or 0
    code, what, cause, cure = _SOCKET.get(number, _NO_ROUTE)
    words = {"name": route.name, "hostname": route.hostname, "reason": os.strerror(number)}
    return Fault(
        code,
        f"{route.hostname} port {route.port} {what}",
        cause=cause.format(**words),
        cure=cure.format(**words),
    )


def _no_handshake(route: Route, offer: Offer, problem: Exception) -> Fault:
    if offer.tried:  # sshd hung up in the middle of the login: MaxAuthTries, most of the time
        return login_refused(route, offer)
    return Fault(
        "no-ssh",
        f"{route.hostname} port {route.port} does not answer as an SSH server",
        cause=_words(problem) or "it closed the connection at once",
        cure=f"is that the right port? --hosts={route.hostname}:PORT; too many callers at once: "
        "lower nodes.parallel in invoke.yaml",
    )


def login_refused(route: Route, offer: Offer) -> Fault:
    """Which of the many reasons for a refused login it is, as far as a client can tell."""
    login = f"{route.user}@{route.hostname}"
    host = route.target.host
    by_hand = f"try it by hand: ssh -v {_spelled(route)} true"
    if offer.half_way:
        return Fault(
            "second-factor",
            f"{host} wants more than a key: {', '.join(offer.allowed)}",
            cause="its sshd has AuthenticationMethods with a second factor",
            cure=f"exempt {route.user} from it (Match User in sshd_config)",
        )
    if offer.allowed and "publickey" not in offer.allowed:
        return Fault(
            "no-key-login",
            f"{host} does not accept keys, only: {', '.join(offer.allowed)}",
            cause="its sshd has PubkeyAuthentication no",
            cure="allow keys in the node's sshd_config; Moorage logs in only with keys",
        )
    if offer.locked:
        return Fault(
            "key-locked",
            f"the key for {login} has a passphrase",
            cause=f"{offer.locked[0]} cannot be read without it, and no ssh-agent holds it",
            cure=f'eval "$(ssh-agent)"; ssh-add {offer.locked[0]}',
        )
    if offer.unreadable and not offer.tried:
        path, reason = offer.unreadable[0]
        return Fault(
            "bad-key",
            f"the key for {login} cannot be used",
            cause=f"{path}: {reason}",
            cure=f"correct IdentityFile for {host} in {route.source}",
        )
    if not offer.tried:
        return Fault(
            "no-key",
            f"there is no SSH key to log in to {host} with",
            cause="no IdentityFile is set, ~/.ssh has no key and no ssh-agent runs",
            cure=f"ssh-keygen -t ed25519, then: ssh-copy-id {_spelled(route)}",
        )
    keys = ", ".join(offer.tried)
    if route.user_is_guess:
        return Fault(
            "login-refused",
            f"{host} does not let {route.user} in",
            cause=f"no user was named, so your own name here was tried, with: {keys}",
            cure=f"name the user: --hosts=USER@{host}, or nodes.user in invoke.yaml",
        )
    return Fault(
        "login-refused",
        f"{host} does not let {route.user} in",
        cause=f"there is no such user there, or it has none of these keys: {keys}",
        cure=f"ssh-copy-id {_spelled(route)}, or another user: --hosts=USER@NODE; {by_hand}",
    )


def _spelled(route: Route) -> str:
    port = f"-p {route.port} " if route.port != 22 else ""
    return f"{port}{route.user}@{route.hostname}"
