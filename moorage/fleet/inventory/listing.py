"""Inventories from files: one host a line, an OpenSSH configuration, or an Ansible inventory.

Which of them a file is, is told by what is in it: bytes in, :class:`Inventory` out. What those
bytes include, or leave to Ansible, is read beside them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from moorage.fleet.inventory.targets import (
    ANSIBLE,
    LINES,
    OPENSSH,
    Inventory,
    Target,
    bad,
    expanded,
    parsed,
)

MAX_BYTES = 8 << 20


def read(content: bytes, source: str, ask: Callable[[], bytes | None] = lambda: None) -> Inventory:
    """What ``content`` lists. ``ask``: what Ansible says of it, None if that cannot be had.

    Raises Refused (``bad-inventory``) with ``source`` and the line.
    """
    if len(content) > MAX_BYTES:
        raise bad(source, 0, f"it has more than {MAX_BYTES >> 20} MiB")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise bad(source, content[: problem.start].count(b"\n") + 1, "it is not UTF-8") from None
    kind = _kind(text, source)
    if kind == OPENSSH:
        from moorage.fleet.inventory import configuration

        found = configuration.read(text, source)
    elif kind == ANSIBLE:
        found = _ansible(text, source, ask)
    else:
        found = Inventory(tuple(_lines(text.splitlines(), source)))
    if not found.hosts:
        raise bad(source, 0, "it names no host")
    return found


def _kind(text: str, source: str) -> str:
    if _is_yaml(text, source):
        return ANSIBLE
    if _is_openssh(text):
        return OPENSSH
    sections = re.search(r"^\s*\[[\w.-]+(:\w+)?\]\s*([#;].*)?$", text, re.MULTILINE)
    return ANSIBLE if sections or "ansible_" in text else LINES


def _is_yaml(text: str, source: str) -> bool:
    start = re.match(r"(#.*\n|\s)*(---|[\w.-]+:\s*(#.*)?\n)", text)
    return source.endswith((".yaml", ".yml")) or start is not None


def _is_openssh(text: str) -> bool:
    """Whether some line begins a block or includes a file, as no other kind of file has it."""
    return (
        re.search(
            r"^[ \t]*(Host(\s+|\s*=\s*)\"?[^\s=]|Match(\s+|\s*=\s*)!?[A-Za-z]|Include\s+\S*[/*~.])",
            "" if "ansible_" in text else text,
            re.MULTILINE | re.IGNORECASE,
        )
        is not None
    )


def _ansible(text: str, source: str, ask: Callable[[], bytes | None]) -> Inventory:
    from moorage.fleet.inventory import ansible, ansible_program

    answer = ask()
    if answer is not None:
        found = ansible_program.read(answer, source)
        if found.hosts:
            return found  # else our own reading says, by line, what is wrong
    ansible.require_alone(source)
    if _is_yaml(text, source):
        return ansible.read_yaml(text, source)
    return ansible.read_ini(text, source)


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
