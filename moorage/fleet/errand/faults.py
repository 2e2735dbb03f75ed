"""Everything that can keep us from a node, each with its cause and the next command to type."""

from __future__ import annotations

import errno
import shlex
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from agent.wire.faults import Fault
from moorage.errors import MoorageError

NO_PYTHON = Fault(
    "no-python",
    "there is no python3 on the node",
    cause="the agent is a Python program and python3 is not on root's PATH",
    cure="install it there: apt-get install python3 (dnf install python3, apk add python3)",
)
OLD_PYTHON = Fault(
    "old-python",
    "the node's Python is too old",
    cause="the agent needs Python 3.9 or newer, and no python3 on root's PATH is",
    cure="install a newer one beside it, such as dnf install python3.11; it is found by that name",
)
STOPPED = Fault(
    "stopped",
    "not begun, because you stopped the run",
    cause="nothing was changed there",
    cure="run the same command again",
)
STOPPED_MIDWAY = Fault(
    "stopped-midway",
    "the line was cut while the agent was at work, because you stopped the run",
    cause="the agent ends what it does by itself: it finishes, or puts everything back",
    cure="run the same command again; it goes on from whatever it finds",
)


def halted(why: str) -> Fault:
    """For the hosts that a rollout did not come to, because too many before them failed."""
    return Fault(
        "not-begun",
        f"not begun: {why}",
        cause="the rollout stops before it spreads what fails; nothing was changed there",
        cure="mend what failed, then go on: the same command with --resume",
    )


NO_REGISTRY_ADDRESS = Fault(
    "no-registry-address",
    "the registry's address cannot be guessed for this node",
    cause="the node is reached through this machine's loopback or a link-local address, which "
    "means nothing to the node itself",
    cure="set registry.address in invoke.yaml to an address the node can reach",
)


def connection_lost(begun: bool) -> Fault:
    return Fault(
        "connection-lost",
        "the connection broke while the agent was at work"
        if begun
        else "the connection broke before the agent answered",
        cause="the network, the node's sshd, its agent or the node itself went away",
        cure="run the same command again; the agent finishes or puts back what it had begun",
    )


def of(problem: MoorageError) -> Fault:
    """What is said of a host whose work raised ``problem``: its result names the host itself."""
    return replace(problem.fault, host="")


def since(fault: Fault, message: str) -> Fault:
    """``fault``, and what has been the matter with the node since then."""
    return replace(fault, cause=f"{fault.cause}; since then: {message}")


def silent(seconds: float) -> Fault:
    return Fault(
        "agent-silent",
        f"the agent has said nothing for {seconds:.0f} s",
        cause="a service on the node hangs, or the node is out of memory or disk time",
        cure="look there with: systemctl list-jobs, journalctl -n 50; then run this again",
    )


def not_an_answer(what: str) -> Fault:
    return Fault(
        "bad-answer",
        "the node did not answer as the agent does",
        cause=what,
        cure="run the same command again; if it stays, send us the report of --json",
    )


def no_sudo(user: str) -> Fault:
    return Fault(
        "no-sudo",
        f"{user} is not root on the node, and there is no sudo",
        cause="trust is set up in /etc, which only root may write",
        cure="install sudo there, or connect as root: --hosts=root@NODE",
    )


# Words of sudo (and sudo-rs) under LC_ALL=C -> what they mean. {user} is the login.
_SUDO_SAYS: tuple[tuple[tuple[str, ...], Fault], ...] = (
    (
        (
            "a password is required",
            "a terminal is required",
            "interactive authentication is required",
        ),
        Fault(
            "sudo-needs-password",
            "sudo on the node wants the password of {user}",
            cause="it is not allowed without (no NOPASSWD), and none was given",
            cure="give it with --ask-sudo-password",
        ),
    ),
    (
        ("incorrect password", "Sorry, try again", "incorrect authentication"),
        Fault(
            "wrong-sudo-password",
            "sudo on the node did not accept the password of {user}",
            cause="it was mistyped, or it is another one on this node",
            cure="try again with --ask-sudo-password, and with only the hosts that share it",
        ),
    ),
    (
        ("not in the sudoers file", "may not run sudo", "not allowed to execute", "I'm sorry"),
        Fault(
            "sudo-refused",
            "{user} may not use sudo on the node",
            cause="no rule of its sudoers allows it",
            cure="as root there: usermod -aG sudo {user} (wheel on RHEL), or connect as root",
        ),
    ),
    (
        ("must have a tty", "no tty present"),
        Fault(
            "sudo-wants-tty",
            "sudo on the node works on a terminal only",
            cause="its sudoers has Defaults requiretty",
            cure="as root there, in visudo: Defaults:{user} !requiretty",
        ),
    ),
    (
        # cloud-init's forced command for root
        ("Please login as the user",),
        Fault(
            "wrong-user",
            "the node does not let {user} work",
            cause="it says: {words}",
            cure="connect as that user: --hosts=USER@NODE, or nodes.user in invoke.yaml",
        ),
    ),
    (
        ("This account is currently not available", "nologin"),
        Fault(
            "wrong-user",
            "the login of {user} has no shell on the node",
            cause="it says: {words}",
            cure="connect as another user: --hosts=USER@NODE, or nodes.user in invoke.yaml",
        ),
    ),
    (
        ("No space left on device",),
        Fault(
            "no-room",
            "the disk of the node is full",
            cause="it says: {words}",
            cure="make room there: df -h, docker system prune, journalctl --vacuum-size=100M",
        ),
    ),
)


SUDO_CODES = frozenset(
    ("sudo-needs-password", "wrong-sudo-password", "sudo-refused", "sudo-wants-tty")
)


def from_words(words: str, status: int, user: str) -> Fault:
    """The fault behind an errand that ended with ``status`` and only these last words."""
    for signs, fault in _SUDO_SAYS:
        if any(sign in words for sign in signs):
            told = " ".join(words.split())[-300:]
            return Fault(
                fault.code,
                fault.message.format(user=user),
                cause=fault.cause.format(user=user, words=told),
                cure=fault.cure.format(user=user),
            )
    return Fault(
        "agent-died",
        f"the agent ended with code {status} and no result",
        cause="\n".join(words.splitlines()[-4:]) or "it said nothing",
        cure="run the same command again; if it stays, try there by hand: sudo python3 --version",
    )


# errno -> code, message, cure
_NOT_INSTALLED: dict[int, tuple[str, str, str]] = {
    errno.ENOSPC: (
        "no-room",
        "there is no room for the agent on the node",
        "make room there: df -h /var/lib, docker system prune, journalctl --vacuum-size=100M",
    ),
    errno.EDQUOT: ("no-room", "root's disk quota on the node is used up", "raise it, or make room"),
    errno.EROFS: (
        "read-only-disk",
        "the node's disk is mounted read-only",
        "see why: dmesg | tail; then: mount -o remount,rw /",
    ),
    errno.EPERM: (
        "unsafe-folder",
        "the agent's folder on the node is not root's alone",
        "see who made it: ls -ld /var/lib/moorage /var/lib/moorage/agent; then remove it",
    ),
    errno.EBADMSG: (
        "bad-transfer",
        "the agent's archive arrived damaged",
        "run the same command again",
    ),
}


def not_installed(event: Mapping[str, Any]) -> Fault:
    """What the bootstrap on the node told when it could not put the archive in place."""
    number = event.get("errno")
    path = str(event.get("path", ""))[:200]
    known = _NOT_INSTALLED.get(number) if isinstance(number, int) else None
    code, message, cure = known or (
        "not-installed",
        "the agent could not be put in place on the node",
        f"try there by hand: sudo touch {shlex.quote(f'{path}/x')}",
    )
    reason = _strerror(number)
    return Fault(code, message, cause=f"{path}: {reason}", cure=cure)


def _strerror(number: object) -> str:
    import os

    return os.strerror(number) if isinstance(number, int) else "unknown error"
