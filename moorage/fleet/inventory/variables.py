"""Ansible's variables of one host -> how it is reached, or why it cannot be. Pure.

Only what decides where a connection goes, as whom and with what is looked at. A value that cannot
be used (a template, an encrypted one, another kind of connection) is no reason to refuse the file:
it is one to refuse the host, if that is among the chosen. Source: the options of the connection
plugin ``ansible.builtin.ssh``.
"""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from moorage.errors import Refused
from moorage.fleet.inventory import targets
from moorage.fleet.inventory.targets import Target
from moorage.fleet.openssh import arguments

# Of two names for one thing Ansible goes by the latter.
_HOST = ("ansible_host", "ansible_ssh_host")
_PORT = ("ansible_port", "ansible_ssh_port")
_USER = ("ansible_user", "ansible_ssh_user")
_KEY = ("ansible_private_key_file", "ansible_ssh_private_key_file")
_TIMEOUT = ("ansible_timeout", "ansible_ssh_timeout")
_CONNECTION = ("ansible_connection",)
_PROGRAM = ("ansible_ssh_executable",)
_PROXY = ("ansible_paramiko_proxy_command",)
# In the order in which they stand on ssh's command line.
_ARGUMENTS = ("ansible_ssh_args", "ansible_ssh_common_args", "ansible_ssh_extra_args")
NAMES = frozenset(
    (*_HOST, *_PORT, *_USER, *_KEY, *_TIMEOUT, *_CONNECTION, *_PROGRAM, *_PROXY, *_ARGUMENTS)
)
# Connections that end at the host's sshd, whichever program makes them.
_BY_SSH = ("ssh", "smart", "paramiko", "paramiko_ssh")


class Unusable(ValueError):
    """The host cannot be reached as its variables say; the text says which, and why."""


class VaultValue:
    """The place of a value that ansible-vault has encrypted."""


def applied(target: Target, values: Mapping[str, Any]) -> Target:
    """``target`` as ``values`` have it reached. Raises Unusable."""
    connection = _text(values, _CONNECTION) or "ssh"
    if connection.removeprefix("ansible.builtin.") not in _BY_SSH:
        raise Unusable(f"ansible_connection is {connection}, and nodes are reached only by SSH")
    program = _text(values, _PROGRAM)
    if program and posixpath.basename(program) != "ssh":
        raise Unusable(f"ansible_ssh_executable is {program}, which is not run here")
    try:
        target = _addressed(target, values)
    except Refused as problem:
        raise Unusable(f"{problem.message}: {problem.cause}") from None
    options, config = _options(values)
    return replace(target, ssh_args=options, ssh_config=config)


def _addressed(target: Target, values: Mapping[str, Any]) -> Target:
    if host := _text(values, _HOST):
        target = replace(target, host=targets.parse(_bracketed(host)).host)
    if user := _text(values, _USER):
        target = replace(target, user=targets.parse(f"{user}@x").user)
    if port := _text(values, _PORT):
        target = replace(target, port=targets.parse(f"x:{port}").port)
    return target


def _bracketed(host: str) -> str:
    return f"[{host}]" if host.count(":") > 1 and not host.startswith("[") else host


def _options(values: Mapping[str, Any]) -> tuple[tuple[str, ...], str]:
    """What of them goes onto ssh's command line, as ``Keyword=value``, and the file of ``-F``."""
    options: list[str] = []
    config = ""
    if key := _text(values, _KEY):
        options.append(f"IdentityFile={arguments.quoted(key)}")
    if timeout := _text(values, _TIMEOUT):
        options.append(f"ConnectTimeout={timeout}")
    if command := _text(values, _PROXY):
        options.append(f"ProxyCommand={command}")
    for name in _ARGUMENTS:
        try:
            found = arguments.read(shlex.split(_text(values, (name,))))
        except ValueError as problem:  # Malformed, and shlex's own
            raise Unusable(f"{name}: {problem}") from None
        if found.rest or found.forwards:
            raise Unusable(f"{name} names another destination: {' '.join(found.rest) or '-W'}")
        options += found.options
        config = config or found.config
    return tuple(options), config


def _text(values: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """The last of them that is set, as text. Raises Unusable for one that cannot be read here."""
    found = ""
    for name in names:
        value = values.get(name)
        if isinstance(value, VaultValue):
            raise Unusable(f"{name} is encrypted by ansible-vault")
        if value is None or value == "":
            continue
        found = str(value)
        if "{{" in found or "{%" in found:
            raise Unusable(f"{name} is a template, which only a play fills in: {found}")
        if "\n" in found:
            raise Unusable(f"{name} has more than one line")
    return found
