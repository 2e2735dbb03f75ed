"""The fleet: which hosts are meant.

``moorage.fleet.rollout.fleet`` has what is done on them, ``this_machine`` beside it what is done on
this machine, which is one of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from moorage.fleet.inventory import Target
    from moorage.fleet.inventory.selection import Selection
    from moorage.settings import Settings

__all__ = ["choose_hosts", "replace_operator", "unfinished"]


def choose_hosts(
    settings: Settings,
    hosts: str | None = None,
    selection: Selection | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> tuple[Target, ...]:
    """The hosts a command is about: what ``selection`` (or ``hosts``, its first part) says.

    Where it says nothing: those of the settings, else the lab's. ``tell``: gets what is to be said
    of hosts that are left out. Raises Refused for a bad or an empty list, and if there is nothing
    to choose from.
    """
    from dataclasses import replace

    from moorage.errors import Refused
    from moorage.fleet.inventory.selection import Selection, pick
    from moorage.fleet.ssh.routing import chosen, lab_hosts

    selection = selection or Selection(hosts)
    if not selection.names_any:
        if settings.nodes.hosts:
            selection = replace(selection, hosts=",".join(settings.nodes.hosts))
        elif (lab := lab_hosts(settings)) is not None:
            selection = replace(selection, hosts=",".join(lab.in_order))
        else:
            raise Refused(
                "no-hosts",
                "there is no host to work on",
                cause="--hosts was not given, nodes.hosts in invoke.yaml is empty, no lab is up",
                # The lab needs an engine here, and a registry of somebody else's needs none.
                cure="name your nodes: --hosts=node1,node2, or nodes.hosts in invoke.yaml"
                if settings.registry.external
                else "inv lab.up, or name your nodes: --hosts=node1,node2",
            )
    return chosen(settings, pick(selection, settings.nodes.groups, _bytes_of, _asked), tell)


def _asked(path: str) -> bytes | None:
    """What Ansible itself says of an inventory."""
    from moorage.fleet.inventory.ansible_program import ask

    return ask(path)


def _bytes_of(path: str) -> bytes:
    """A file of hosts, or standard input for ``-``. Raises Refused."""
    import sys

    from moorage.errors import Refused
    from moorage.files import user_path

    try:
        return sys.stdin.buffer.read() if path == "-" else user_path(path).read_bytes()
    except OSError as problem:
        raise Refused(
            "bad-inventory",
            f"{path}: the inventory cannot be read",
            cause=problem.strerror or str(problem),
            cure="give a file of hosts, an OpenSSH configuration, or an Ansible inventory",
            path=path,
        ) from None


def unfinished(settings: Settings, task: str) -> tuple[Target, ...]:
    """The hosts of the last ``trust``, ``untrust`` or ``undo`` that was stopped. Raises Refused."""
    from moorage.fleet.report import logbook

    return logbook.newest(logbook.folder(settings), f"{task} {settings.registry_name}").hosts


def replace_operator(settings: Settings) -> int:
    """A new key and certificate for the operator; returns its generation.

    Each agent refuses the earlier one from the first time on that it meets this one.
    """
    from moorage.pki.authority import Authority

    return Authority.open(settings).replace_operator()
