"""The files a containerd reads: the one it is started with, and what that imports, in order.

The rules are those of ``LoadConfig`` and ``resolveImports`` (containerd's server/config/config.go),
measured on 1.6, 1.7 and 2.1: breadth first, each path once, the last one wins. On 1.x the last file
that has a plugin's table replaces the whole table; on 2.x tables are merged key by key.
"""

from __future__ import annotations

import fnmatch
import posixpath
from dataclasses import dataclass
from typing import Any, NamedTuple

from agent import toml_edit
from agent.facts import Containerd, File, Tree
from agent.resources.containerd.state import TABLES
from agent.toml import TomlError, at, parse


class Layer(NamedTuple):
    """One file: ``imports`` are the paths it leads to, resolved and in order."""

    path: str
    file: File
    tables: dict[str, Any]
    imports: tuple[str, ...]


@dataclass(frozen=True)
class Layers:
    """All files of one containerd, the one it is started with first."""

    major: int
    all: tuple[Layer, ...]

    @property
    def main(self) -> Layer:
        return self.all[0]

    @property
    def version(self) -> int | None:
        """The version that decides how tables are named: the last one told, None for none.

        2.x lifts a file without one, and of version 1, to version 3, leaving tables of version 2
        unread in it.
        """
        told = [one.tables.get("version") for one in self.all]
        least = 2 if self.major >= 2 else 1
        known = [one for one in told if isinstance(one, int) and one >= least]
        return known[-1] if known else None

    @property
    def table(self) -> toml_edit.Keys:
        """Where the registry table stands in these files."""
        unsaid = 3 if self.major >= 2 else 2 if says_nothing(self.main.tables) else 1
        return TABLES.get(self.version or unsaid, TABLES[2])

    @property
    def written(self) -> dict[str, Any]:
        """The registry table as the files have it, `mirrors` and `configs` of all of them."""
        merged: dict[str, Any] = {}
        tables = [TABLES[3], TABLES[2]] if self.major >= 2 and self.version == 2 else [self.table]
        for layer in self.all:
            for keys in tables:
                table = at(layer.tables, *keys)
                for name in ("mirrors", "configs"):
                    for host, said in (at(table or {}, name) or {}).items():
                        there = merged.setdefault(name, {}).setdefault(host, {})
                        there.update(said if isinstance(said, dict) else {})
        return merged

    def deciding(self, *keys: str) -> Layer:
        """The file in which ``registry.<keys>`` must be set for it to count."""
        plugin = self.table[:2]
        for layer in self.all[::-1]:
            wanted = (*self.table, *keys) if self.major >= 2 else plugin
            if at(layer.tables, *wanted) is not None:
                return layer
        return self.main


def read(containerd: Containerd, tree: Tree) -> Layers:
    """The files of a containerd that its own `config dump` has accepted."""
    pending = [containerd.config.path]
    seen: dict[str, Layer] = {}
    while pending:
        path = pending.pop(0)
        if path in seen:
            continue
        file = containerd.config if path == containerd.config.path else tree.read(path)
        try:
            tables = parse(file.content or b"")
        except TomlError:
            tables = {}
        imports = tuple(_resolved(containerd, tree, path, tables.get("imports")))
        seen[path] = Layer(path, file, tables, imports)
        pending.extend(imports)
    return Layers(containerd.version[0], tuple(seen.values()))


def _resolved(containerd: Containerd, tree: Tree, parent: str, imports: object) -> list[str]:
    found: list[str] = []
    for word in imports if isinstance(imports, list) else []:
        if not isinstance(word, str):
            continue
        # 1.6 looks a relative glob up where the service runs, which is the root folder.
        base = "/" if "*" in word and containerd.version < (1, 7) else posixpath.dirname(parent)
        path = posixpath.normpath(posixpath.join(base, word))
        found += _matches(tree, path) if "*" in path else [path]
    return found


def _matches(tree: Tree, pattern: str) -> list[str]:
    """Go's ``filepath.Glob``: a star crosses no slash, and matches a leading dot too."""
    found = ["/"]
    for part in pattern.strip("/").split("/"):
        if any(mark in part for mark in "*?["):
            there = [(folder, name) for folder in found for name in tree.names(folder)]
            found = [posixpath.join(f, n) for f, n in there if fnmatch.fnmatchcase(n, part)]
        else:
            found = [posixpath.join(folder, part) for folder in found]
    return sorted(path for path in found if tree.exists(path))


def says_nothing(tables: dict[str, Any]) -> bool:
    """Whether a file has no version and nothing whose meaning a version would change."""
    return not any(
        tables.get(key)
        for key in ("version", "plugins", "disabled_plugins", "required_plugins", "imports")
    )
