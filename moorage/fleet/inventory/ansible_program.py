"""Ansible's own answer: ``ansible-inventory --list``, for it reads more than the one file.

``group_vars/`` and ``host_vars/``, dynamic inventories, encrypted files: what it says of hosts is
what a play would go by. It is asked anew each time, for nothing tells what its answer hangs on.
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

from moorage import commands
from moorage.errors import MoorageError
from moorage.fleet.inventory import variables
from moorage.fleet.inventory.targets import ANSIBLE, Inventory, Target, bad, parsed

# It starts in a second or two; a dynamic inventory asks some cloud's API.
_SECONDS = 120


def ask(path: str) -> bytes | None:
    """What it says of the inventory at ``path``; None if there is none, or it does not work.

    Raises Refused (``bad-inventory``) with Ansible's own words if Ansible refuses.
    """
    program = shutil.which("ansible-inventory")
    if program is None or path == "-":
        return None
    words = [program, "--list", "-i", path]
    try:
        done = commands.run(words, env={"ANSIBLE_NOCOLOR": "1"}, timeout=_SECONDS, check=False)
    except MoorageError:
        return None
    if done.returncode == 0:
        return done.stdout
    said = commands.last_words(done.stderr)
    if "ERROR" not in said:
        return None  # an installation that is out of order
    raise bad(
        path,
        0,
        f"Ansible says: {said}",
        cure=f"ansible-inventory --list -i {shlex.quote(str(path))} shows it",
    )


def read(answer: bytes, source: str) -> Inventory:
    """The answer's hosts and groups, in Ansible's order. Raises Refused (``bad-inventory``)."""
    try:
        document: Any = json.loads(answer)
        groups = {
            str(name): body
            for name, body in document.items()
            if name != "_meta" and isinstance(body, Mapping)
        }
        hosts: Mapping[str, Any] = document["_meta"]["hostvars"]
        members = {name: tuple(dict.fromkeys(_members(groups, name))) for name in groups}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise bad(source, 0, f"ansible-inventory did not answer as it does: {problem}") from None
    found: list[Target] = []
    unusable: dict[str, str] = {}
    for name in dict.fromkeys([*members.get("all", ()), *hosts]):
        target = parsed(name, source, 0)
        values = {key: _plain(value) for key, value in (hosts.get(name) or {}).items()}
        try:
            target = variables.applied(target, values)
        except variables.Unusable as problem:
            unusable[name] = str(problem)
        found.append(target)
    members["all"] = tuple(target.name for target in found)
    return Inventory(tuple(found), members, ANSIBLE, unusable)


def _members(groups: Mapping[str, Any], name: str) -> Iterator[str]:
    body = groups.get(name) or {}
    for child in body.get("children") or ():
        yield from _members(groups, child)
    yield from body.get("hosts") or ()


def _plain(value: Any) -> Any:
    """Values that Ansible marks come as ``{"__ansible_vault": …}``, ``{"__ansible_unsafe": …}``."""
    if isinstance(value, Mapping):
        if "__ansible_vault" in value:
            return variables.VaultValue()
        return value.get("__ansible_unsafe", value)
    return value
