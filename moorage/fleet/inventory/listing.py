"""Inventories from files: one host a line, an OpenSSH configuration, or an Ansible inventory.

Which of them a file is, is told by what is in it. Pure: bytes in, :class:`Inventory` out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from moorage.errors import Refused
from moorage.fleet.inventory import ranges, targets
from moorage.fleet.inventory.targets import Target

MAX_BYTES = 8 << 20


@dataclass(frozen=True)
class Inventory:
    """Hosts in the order of the source, and its groups by name, each as names of hosts."""

    hosts: tuple[Target, ...]
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def read(content: bytes, source: str) -> Inventory:
    """What ``content`` lists. Raises Refused (``bad-inventory``) with ``source`` and the line."""
    if len(content) > MAX_BYTES:
        raise bad(source, 0, f"it has more than {MAX_BYTES >> 20} MiB")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise bad(source, content[: problem.start].count(b"\n") + 1, "it is not UTF-8") from None
    if re.search(r"^\s*Host\s+\S", text, re.MULTILINE | re.IGNORECASE):
        found = _openssh(text, source)
    elif source.endswith((".yaml", ".yml")) or re.match(
        r"(#.*\n|\s)*(---|[\w.-]+:\s*(#.*)?\n)", text
    ):
        from moorage.fleet.inventory import ansible

        found = ansible.read_yaml(text, source)
    elif (
        re.search(r"^\s*\[[\w.-]+(:\w+)?\]\s*([#;].*)?$", text, re.MULTILINE) or "ansible_" in text
    ):
        from moorage.fleet.inventory import ansible

        found = ansible.read_ini(text, source)
    else:
        found = Inventory(tuple(_lines(text.splitlines(), source)))
    if not found.hosts:
        raise bad(source, 0, "it names no host")
    return found


def _lines(lines: Iterable[str], source: str) -> Iterable[Target]:
    """One host or range a line; ``#`` begins a comment."""
    seen = set()
    for number, line in enumerate(lines, 1):
        for word in line.partition("#")[0].split():
            for name in expanded(word, source, number):
                target = parsed(name, source, number)
                if target not in seen:
                    seen.add(target)
                    yield target


def _openssh(text: str, source: str) -> Inventory:
    """The hosts an ssh_config(5) names without a pattern; what it says of them, SSH will read."""
    import io

    from paramiko import SSHConfig
    from paramiko.ssh_exception import ConfigParseError

    try:
        names = SSHConfig.from_file(io.StringIO(text)).get_hostnames()
    except (ConfigParseError, ValueError) as problem:
        raise bad(source, 0, str(problem)) from None
    order = {name: place for place, name in enumerate(re.split(r"\s+", text))}
    plain = sorted((n for n in names if not re.search(r"[*?!]", n)), key=lambda n: order.get(n, 0))
    return Inventory(tuple(parsed(name, source, 0) for name in plain))


def expanded(word: str, source: str, line: int) -> list[str]:
    try:
        return ranges.expand(word)
    except Refused as problem:
        raise bad(source, line, f"{problem.message}: {problem.cause}") from None


def parsed(name: str, source: str, line: int) -> Target:
    """One host of a file. Raises Refused with the file and the line."""
    try:
        return targets.parse(name)
    except Refused as problem:
        raise bad(source, line, f"{problem.message}: {problem.cause}") from None


def bad(source: str, line: int, cause: str) -> Refused:
    place = f"{source}, line {line}" if line else source
    return Refused(
        "bad-inventory",
        f"{place}: the inventory cannot be read",
        cause=cause,
        cure="one host a line, an OpenSSH configuration, or an Ansible inventory (INI or YAML)",
        path=source,
    )
