"""Ansible inventories, INI and YAML: hosts, groups, and how to reach a host. Nothing else of them.

This is our own reading, for machines without ``ansible-inventory`` (``ansible_program`` asks that).
It reads the file alone: templates and encrypted values are left to whoever needs them, dynamic
inventories are not run, and ``group_vars/`` beside it is looked at for what would change the way to
a host, in which case it is refused.
Source: https://docs.ansible.com/ansible/latest/inventory_guide/intro_inventory.html
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from moorage.fleet.inventory import variables
from moorage.fleet.inventory.targets import ANSIBLE, Inventory, Target, bad, parsed

_RANGE = re.compile(r"\[([0-9]+|[A-Za-z]):([0-9]+|[A-Za-z])(?::([0-9]+))?\]")
MAX_HOSTS = 10_000


@dataclass
class _Group:
    hosts: dict[str, None] = field(default_factory=dict)  # in the file's order
    children: list[str] = field(default_factory=list)
    variables: dict[str, Any] = field(default_factory=dict)


@dataclass
class InventoryTree:
    """An inventory under construction."""

    source: str
    groups: dict[str, _Group] = field(default_factory=dict)
    # host -> its own variables; the order is that of the file
    hosts: dict[str, dict[str, Any]] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    passed_over: list[str] = field(default_factory=list)

    def group(self, name: str) -> _Group:
        return self.groups.setdefault(name, _Group())

    def add(self, group: str, pattern: str, own: Mapping[str, Any], line: int) -> None:
        for name in _expanded(pattern, self.source, line):
            self.hosts.setdefault(name, {}).update(own)
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
        found: list[Target] = []
        unusable: dict[str, str] = {}
        for host, own in self.hosts.items():
            target, why = self._target(host, own, above[host])
            found.append(target)
            if why:
                unusable[target.name] = why
        return Inventory(tuple(found), members, ANSIBLE, unusable)

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

    def _target(
        self, name: str, own: Mapping[str, Any], groups: Sequence[str]
    ) -> tuple[Target, str]:
        """``groups``: those it is in, from the top; the variables of the last win.

        With it why the host cannot be reached so, "" if it can.
        """
        values: dict[str, Any] = {}
        for group in groups:
            values.update(self.groups[group].variables)
        values.update(own)
        line = self.lines[name]
        target = parsed(name, self.source, line)
        try:
            return variables.applied(target, values), ""
        except variables.Unusable as problem:
            return target, f"{f'line {line}: ' if line else ''}{problem}"


_NAMED = re.compile(rb"\bansible_(?:ssh_)?(?:%s)\b" % b"|".join(
    (b"host", b"port", b"user", b"connection", b"private_key_file", b"executable",
     b"args", b"common_args", b"extra_args")
))  # fmt: skip
# A file of variables is a few kilobytes.
_LARGEST = 1 << 20


def require_alone(source: str) -> None:
    """Refuses an inventory if variables beside it, which are not read here, decide the way.

    Raises Refused (``bad-inventory``) with the file. What ansible-vault encrypted is passed over.
    """
    from moorage.files import user_path

    beside = user_path(source).parent
    for path in sorted(
        path for name in ("group_vars", "host_vars") for path in (beside / name).rglob("*")
    ):
        try:
            found = path.is_file() and _NAMED.search(path.read_bytes()[:_LARGEST])
        except OSError:
            continue
        if found:
            raise bad(
                source,
                0,
                f"{path} has {found[0].decode()}, and only Ansible reads what is beside a file",
                cure="install ansible-core (apt-get install ansible-core), which is asked then; or "
                "write it into the inventory itself",
            )


def read_ini(text: str, source: str) -> Inventory:
    """An inventory in Ansible's INI form. Raises Refused (``bad-inventory``) with the line."""
    tree = InventoryTree(source)
    section, kind = "ungrouped", "hosts"
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        if header := re.fullmatch(r"\[([^\]:]+)(?::(\w+))?\]\s*(?:[#;].*)?", line):
            section, kind = header[1].strip(), header[2] or "hosts"
            if kind not in ("hosts", "children", "vars"):
                raise bad(source, number, f"[{section}:{kind}] is not a section that Ansible knows")
            tree.group(section)
        elif kind == "children":
            tree.group(section).children.append(line.split()[0])
        elif kind == "vars":
            key, equals, value = line.partition("=")
            if not equals:
                raise bad(source, number, f"{line!r} is not key=value")
            _keep(tree.group(section).variables, key.strip(), _literal(value.strip()))
        else:
            name, own = _host_line(line, source, number)
            tree.add(section, name, own, number)
    return tree.finished()


def _literal(value: str) -> Any:
    """A value as Ansible takes it: a Python literal, or else the text as it stands."""
    try:
        found = ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value
    return found if isinstance(found, str) else value


def _host_line(line: str, source: str, number: int) -> tuple[str, dict[str, Any]]:
    try:
        # Most lines are plain words, and shlex takes its time over each letter.
        plain = not set(line) & set("'\"\\#")
        name, *words = line.split() if plain else shlex.split(line, comments=True)
    except ValueError as problem:
        raise bad(source, number, f"{problem}") from None
    own: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise bad(source, number, f"{word!r} after the host is not key=value")
        _keep(own, key, _literal(value))
    return name, own


def _keep(own: dict[str, Any], key: str, value: Any) -> None:
    if key in variables.NAMES and value is not None:
        own[key] = value


def read_yaml(text: str, source: str) -> Inventory:
    """An inventory in Ansible's YAML form. Raises Refused (``bad-inventory``)."""
    import yaml

    try:
        document = yaml.load(text, Loader=_loader())  # noqa: S506 - SafeLoader and two tags
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        raise bad(source, mark.line + 1 if mark else 0, " ".join(str(problem).split())) from None
    groups = _section(document, source, "the inventory")
    if "plugin" in groups:
        raise bad(
            source,
            0,
            f"it is a dynamic inventory of the plugin {groups['plugin']}, which only Ansible runs",
            cure="install ansible-core (apt-get install ansible-core); then the same command again",
        )
    tree = InventoryTree(source)
    for name, body in groups.items():
        if body is None or isinstance(body, Mapping):
            _yaml_group(tree, str(name), body)
        else:  # as Ansible does
            tree.passed_over.append(f"{name!r}, whose keys were expected, not {body!r:.40}")
    if not tree.hosts and tree.passed_over:
        raise bad(source, 0, f"it names no host; skipped: {'; '.join(tree.passed_over[:3])}")
    return tree.finished()


def _loader() -> Any:
    """YAML as Ansible writes it: values may be encrypted, or marked as no template."""
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        pass

    for tag in ("!vault", "!vault-encrypted"):
        Loader.add_constructor(tag, lambda *_: variables.VaultValue())
    Loader.add_constructor("!unsafe", _unsafe)
    return Loader


def _unsafe(loader: Any, node: Any) -> Any:
    """The value below the tag; a list or a mapping may bear it too."""
    import yaml

    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_scalar(node)


def _yaml_group(tree: InventoryTree, name: str, body: Any) -> None:
    group = tree.group(name)
    for key, value in _section(body, tree.source, f"group {name}").items():
        if key not in ("hosts", "vars", "children"):
            # Ansible warns of it and goes on.
            tree.passed_over.append(f"the unknown key {key!r} of the group {name}")
            continue
        # A text stands for one key without a value.
        listed = {value: None} if isinstance(value, str) else value
        inner = _section(listed, tree.source, f"{name}.{key}")
        if key == "hosts":
            for host, given in inner.items():
                own: dict[str, Any] = {}
                for word, item in _section(given, tree.source, f"host {host}").items():
                    _keep(own, str(word), item)
                tree.add(name, str(host), own, 0)
        elif key == "vars":
            for word, item in inner.items():
                _keep(group.variables, str(word), item)
        else:
            for child, below in inner.items():
                if str(child) not in group.children:
                    group.children.append(str(child))
                _yaml_group(tree, str(child), below)


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
        raise bad(source, line, f"{match[0]} is not a range")
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
