"""One host as users write it: ``node1``, ``admin@node2:2222``, ``[fd00::3]:22`` -> Target. Pure."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from moorage.errors import Refused, require_types
from moorage.fleet.inventory import ranges

# Aliases of ~/.ssh/config may hold '_', which host names may not; ssh(1) itself takes both.
_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?\.?")
# useradd(8) and Active Directory logins; never a leading '-', which ssh would take for an option.
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@\\+-]{0,127}\$?")
# What a program's command line takes as one word that is no option.
_WORD = re.compile(r"(?!-)[^\s\0]+")
_PORT_OPTION = re.compile(r"port[\s=]", re.IGNORECASE)
_JUMP_OPTION = re.compile(r"\s*proxy(jump|command)(?:\s*=\s*|\s+)(.*?)\s*", re.IGNORECASE)
_EXAMPLE = "node1,admin@node2,10.0.0.3:2222,[fd00::3]:22"


@dataclass(frozen=True)
class Target:
    """One node as the user named it.

    ``name`` is what the user typed and how results call the node. ``user`` is "" and ``port`` is 0
    where nothing was said: then settings and the OpenSSH configuration decide. ``ssh_args``: what
    an inventory says beside, each as ``ssh -o`` takes it. ``ssh_config``: the inventory itself, if
    it is an OpenSSH configuration and not the one that is read anyway.
    """

    name: str
    host: str
    user: str = ""
    port: int = 0
    ssh_args: tuple[str, ...] = ()
    ssh_config: str = ""

    @property
    def place(self) -> tuple[str, int]:
        """What two names for one host have in common."""
        return self.host.lower().rstrip("."), self.port

    @property
    def way(self) -> tuple[str, ...]:
        """What an inventory says of how to get there, beside user and port."""
        return (*self.ssh_args, self.ssh_config) if self.ssh_args or self.ssh_config else ()

    @property
    def told_apart_by(self) -> tuple[tuple[str, int], tuple[str, ...]]:
        """What two names have in common that lead to one machine for sure; through two jump hosts,
        one place is two machines."""
        return self.place, self.way

    @property
    def usual_port(self) -> bool:
        """Whether nothing was said of the port, so that the SSH configuration alone decides."""
        return not self.port and not any(map(_PORT_OPTION.match, self.ssh_args))

    @property
    def jump(self) -> str:
        """What an inventory says of the machine before the node, as ``ProxyJump=bastion``; "" if
        nothing: then the SSH configuration decides by the host's name. The first one counts."""
        said = next(filter(None, map(_JUMP_OPTION.fullmatch, self.ssh_args)), None)
        return "" if said is None else f"Proxy{said[1].capitalize()}={said[2]}"


LINES, OPENSSH, ANSIBLE = "lines", "openssh", "ansible"


@dataclass(frozen=True)
class Inventory:
    """Hosts in the order of the source, and its groups by name, each as names of hosts.

    ``unusable``: host -> why it cannot be reached as the source says.
    """

    hosts: tuple[Target, ...]
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    kind: str = LINES
    unusable: Mapping[str, str] = field(default_factory=dict)


def parse_hosts(text: str) -> tuple[Target, ...]:
    """``a,user@b:2222,[fd00::3]`` -> Targets in the order given. Raises Refused (``bad-hosts``)."""
    return parse_names(text.split(",") if text.strip() else ())


def parse_names(names: Sequence[str]) -> tuple[Target, ...]:
    """Names -> Targets. Raises Refused if there is none, one is bad, or one stands twice."""
    return targets_of([name.strip() for name in names])


def targets_of(hosts: Sequence[str | Target]) -> tuple[Target, ...]:
    """The same for hosts of which some are Targets already, with an address under a name."""
    if not hosts:
        raise Refused(
            "no-hosts",
            "no host was given",
            cause="the list of hosts is empty",
            cure=f"name them, as in --hosts={_EXAMPLE}",
        )
    targets = tuple(host if isinstance(host, Target) else parse(host) for host in hosts)
    seen: dict[object, Target] = {}
    for target in targets:
        key = target.told_apart_by
        if key in seen:
            raise given_twice(seen[key].name, target.name)
        seen[key] = target
    return targets


def given_twice(first: str, second: str) -> Refused:
    """The refusal for one node under two names, or one name typed twice."""
    same = first == second
    return Refused(
        "host-twice",
        f"{first} is given twice" if same else f"{first} and {second} are the same host",
        cause="a host is worked on once in a run",
        cure=f"take {second} out of the list",
        host=first,
    )


def parse(name: str) -> Target:
    """One word -> Target. Raises Refused (``bad-hosts``)."""
    if not name:
        raise _bad("", "there is nothing between two commas")
    user, at, rest = name.rpartition("@")
    if at and not _USER.fullmatch(user):
        raise _bad(name, f"{user!r} is not a user name")
    if "://" in name:
        raise _bad(name, "a host has no scheme such as ssh://")
    host, port = _split_port(name, rest)
    return Target(name=name, host=host, user=user, port=port)


def _split_port(name: str, rest: str) -> tuple[str, int]:
    if rest.startswith("["):
        address, bracket, tail = rest[1:].partition("]")
        if not bracket or (tail and not tail.startswith(":")):
            raise _bad(name, "an IPv6 address with a port is written [address]:port")
        if not _is_address(address, 6):
            raise _bad(name, f"{address!r} is not an IPv6 address")
        return address, _port(name, tail[1:]) if tail else 0
    if _is_address(rest, 6):  # bare, so without a port
        return rest, 0
    host, colon, port = rest.partition(":")
    if re.fullmatch(r"[0-9.]+", host) and not _is_address(host, 4):
        raise _bad(name, f"{host!r} looks like an IPv4 address and is not one")
    if not _NAME.fullmatch(host):
        raise _bad(name, f"{host!r} is not a host name")
    return host, _port(name, port) if colon else 0


def _port(name: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise _bad(name, f"a port is a number from 1 to 65535, not {text!r}")
    return int(text)


def _is_address(text: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(text).version == version
    except ValueError:
        return False


def _bad(name: str, cause: str) -> Refused:
    return Refused(
        "bad-hosts",
        f"{name!r} is not a host" if name else "the list of hosts has an empty place",
        cause=cause,
        cure=f"write hosts as in --hosts={_EXAMPLE}",
    )


def target_of(document: Mapping[str, Any]) -> Target:
    """A Target as ``asdict`` wrote it into a file of ours, each type as it was.

    Raises ValueError, KeyError, TypeError or AttributeError for anything else.
    """
    options = document.get("ssh_args", ())
    made = Target(**{**document, "ssh_args": tuple(options)})
    require_types(made)
    texts = (made.name, made.host, made.user, made.ssh_config, *options)
    if isinstance(options, str) or not all(isinstance(text, str) for text in options):
        raise TypeError(f"{document!r} is not a host")
    words = filter(None, (made.host, made.user))
    if not (made.name and made.host and all(map(_WORD.fullmatch, words))):
        raise ValueError(f"{made.name!r} is not a host")
    if not 0 <= made.port <= 65535:
        raise ValueError(f"{made.port!r} is not a port")
    if any(b"\0" in os.fsencode(text) for text in texts):
        raise ValueError(f"the way to {made.name!r} has a NUL in it")
    for shown in (made.name, made.host, made.user):
        shown.encode()
    return made


def expanded(word: str, source: str, line: int) -> list[str]:
    try:
        return ranges.expand(word)
    except Refused as problem:
        raise bad(source, line, f"{problem.message}: {problem.cause}") from None


def parsed(name: str, source: str, line: int) -> Target:
    """One host of a file. Raises Refused with the file and the line."""
    try:
        return parse(name)
    except Refused as problem:
        raise bad(source, line, f"{problem.message}: {problem.cause}") from None


def bad(source: str, line: int, cause: str, cure: str = "") -> Refused:
    place = f"{source}, line {line}" if line else source
    return Refused(
        "bad-inventory",
        f"{place}: the inventory cannot be read",
        cause=cause,
        cure=cure
        or "one host per line, an OpenSSH configuration, or an Ansible inventory (INI or YAML)",
        path=source,
    )
