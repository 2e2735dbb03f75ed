"""Ansible inventories, INI and YAML: hosts, groups, and how to reach a host. Nothing else of them.

Read: ``ansible_host``, ``ansible_port``, ``ansible_user`` (and the older ``ansible_ssh_*``) at
hosts and in group variables. Not read: ``group_vars/`` folders, dynamic inventories, templates.
Source: https://docs.ansible.com/ansible/latest/inventory_guide/intro_inventory.html
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from moorage.fleet.inventory.listing import Inventory, bad, parsed
from moorage.fleet.inventory.targets import Target

_KEYS = {
    "ansible_host": "host",
    "ansible_ssh_host": "host",
    "ansible_port": "port",
    "ansible_ssh_port": "port",
    "ansible_user": "user",
    "ansible_ssh_user": "user",
}
_RANGE = re.compile(r"\[([0-9]+|[A-Za-z]):([0-9]+|[A-Za-z])(?::([0-9]+))?\]")
MAX_HOSTS = 10_000


@dataclass
class _Group:
    hosts: dict[str, None] = field(default_factory=dict)  # in the file's order
    children: list[str] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)


@dataclass
class _Tree:
    """An inventory under construction."""

    source: str
    groups: dict[str, _Group] = field(default_factory=dict)
    # host -> its own variables; the order is that of the file
    hosts: dict[str, dict[str, str]] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)

    def group(self, name: str) -> _Group:
        return self.groups.setdefault(name, _Group())

    def add(self, group: str, pattern: str, variables: Mapping[str, str], line: int) -> None:
        for name in _expanded(pattern, self.source, line):
            self.hosts.setdefault(name, {}).update(variables)
            self.lines.setdefault(name, line)
            self.group(group).hosts[name] = None

    def finished(self) -> Inventory:
        for name, group in self.groups.items():
            for child in group.children:
                if child not in self.groups:
                    raise bad(self.source, 0, f"group {name} has an unknown child {child}")
        members = {name: tuple(dict.fromkeys(self._members(name, ()))) for name in self.groups}
        members["all"] = tuple(self.hosts)
        above: dict[str, list[str]] = {host: [] for host in self.hosts}
        for name in self._from_the_top():
            for host in members[name]:
                above[host].append(name)
        targets = tuple(self._target(host, own, above[host]) for host, own in self.hosts.items())
        return Inventory(targets, members)

    def _members(self, name: str, above: tuple[str, ...]) -> Iterator[str]:
        if name in above:
            raise bad(self.source, 0, f"group {name} is its own child ({' -> '.join(above)})")
        group = self.groups[name]
        yield from group.hosts
        for child in group.children:
            yield from self._members(child, (*above, name))

    def _depth(self, name: str) -> int:
        """How far below ``all``: a child's variables win over its parents'."""
        parents = [p for p, group in self.groups.items() if name in group.children]
        return 1 + max((self._depth(parent) for parent in parents), default=0)

    def _from_the_top(self) -> list[str]:
        return sorted(self.groups, key=lambda group: (group != "all", self._depth(group), group))

    def _target(self, name: str, own: Mapping[str, str], groups: Sequence[str]) -> Target:
        """``groups``: those it is in, from the top; the variables of the last win."""
        values: dict[str, str] = {}
        for group in groups:
            values.update(self.groups[group].variables)
        values.update(own)
        line = self.lines[name]
        target = parsed(name, self.source, line)
        for key, value in values.items():
            if "{{" in value:
                raise bad(self.source, line, f"{name}: {key} is a template: {value}")
            if key == "host":
                target = replace(target, host=parsed(value, self.source, line).host)
            elif key == "user":
                target = replace(target, user=parsed(f"{value}@x", self.source, line).user)
            elif key == "port":
                target = replace(target, port=parsed(f"x:{value}", self.source, line).port)
        return target


def read_ini(text: str, source: str) -> Inventory:
    """An inventory in Ansible's INI form. Raises Refused (``bad-inventory``) with the line."""
    tree = _Tree(source)
    section, kind = "ungrouped", "hosts"
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        if header := re.fullmatch(r"\[([^\]:]+)(?::(\w+))?\]\s*(?:[#;].*)?", line):
            section, kind = header[1].strip(), header[2] or "hosts"
            if kind not in ("hosts", "children", "vars"):
                raise bad(source, number, f"[{section}:{kind}] is no section Ansible knows")
            tree.group(section)
        elif kind == "children":
            tree.group(section).children.append(line.split()[0])
        elif kind == "vars":
            key, equals, value = line.partition("=")
            if not equals:
                raise bad(source, number, f"{line!r} is no key=value")
            _keep(tree.group(section).variables, key.strip(), _unquoted(value))
        else:
            name, variables = _host_line(line, source, number)
            tree.add(section, name, variables, number)
    return tree.finished()


def _unquoted(value: str) -> str:
    try:
        return "".join(shlex.split(value, comments=True))
    except ValueError:
        return value.strip()


def _host_line(line: str, source: str, number: int) -> tuple[str, dict[str, str]]:
    try:
        # Most lines are plain words, and shlex takes its time over each letter.
        plain = not set(line) & set("'\"\\#")
        name, *words = line.split() if plain else shlex.split(line, comments=True)
    except ValueError as problem:
        raise bad(source, number, f"{problem}") from None
    variables: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise bad(source, number, f"{word!r} after the host is no key=value")
        _keep(variables, key, value)
    return name, variables


def _keep(variables: dict[str, str], key: str, value: Any) -> None:
    if key in _KEYS and value is not None:
        variables[_KEYS[key]] = str(value)


def read_yaml(text: str, source: str) -> Inventory:
    """An inventory in Ansible's YAML form. Raises Refused (``bad-inventory``)."""
    import yaml

    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        raise bad(source, mark.line + 1 if mark else 0, " ".join(str(problem).split())) from None
    tree = _Tree(source)
    for name, body in _section(document, source, "the inventory").items():
        _yaml_group(tree, str(name), body)
    return tree.finished()


def _yaml_group(tree: _Tree, name: str, body: Any) -> None:
    group = tree.group(name)
    for key, value in _section(body, tree.source, f"group {name}").items():
        inner = _section(value, tree.source, f"{name}.{key}")
        if key == "hosts":
            for host, variables in inner.items():
                own: dict[str, str] = {}
                for word, item in _section(variables, tree.source, f"host {host}").items():
                    _keep(own, str(word), item)
                tree.add(name, str(host), own, 0)
        elif key == "vars":
            for word, item in inner.items():
                _keep(group.variables, str(word), item)
        elif key == "children":
            for child, below in inner.items():
                if child not in group.children:
                    group.children.append(str(child))
                _yaml_group(tree, str(child), below)
        else:
            raise bad(tree.source, 0, f"group {name} has an unknown key {key!r}")


def _section(value: Any, source: str, place: str) -> Mapping[Any, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise bad(source, 0, f"{place}: expected keys, not {value!r}")
    return value


def _expanded(pattern: str, source: str, line: int) -> list[str]:
    """Ansible's own ranges, ``db-[a:f]`` and ``node[01:16:2]``, both ends included."""
    match = _RANGE.search(pattern)
    if match is None:
        return [pattern]
    first, last, step = match[1], match[2], int(match[3] or 1)
    if first.isdigit() != last.isdigit() or step < 1:
        raise bad(source, line, f"{match[0]} is no range")
    if first.isdigit():
        middle = [str(n).zfill(len(first)) for n in range(int(first), int(last) + 1, step)]
    else:
        middle = [chr(n) for n in range(ord(first), ord(last) + 1, step)]
    if not middle or len(middle) > MAX_HOSTS:
        raise bad(source, line, f"{match[0]} is empty, or of more than {MAX_HOSTS} hosts")
    head, tail = pattern[: match.start()], pattern[match.end() :]
    names = [f"{head}{one}{rest}" for one in middle for rest in _expanded(tail, source, line)]
    if len(names) > MAX_HOSTS:
        raise bad(source, line, f"{pattern} stands for more than {MAX_HOSTS} hosts")
    return names
