"""The files a containerd reads: the one it is started with, and what that imports, in order.

The rules are those of ``LoadConfig`` and ``resolveImports`` (containerd's server/config/config.go),
measured on 1.6, 1.7, 2.1 and 2.3: breadth first, each path once, the last one wins. On 1.x the last
file that has a plugin's table replaces the whole table; on 2.x tables are merged key by key. Up to
2.2 one version counts for all files, the last one told; from 2.3 on each file is read by its own.
"""

from __future__ import annotations

import fnmatch
import posixpath
from typing import Any, NamedTuple

from agent.edit import toml_edit
from agent.edit.toml import TomlError, at, parse, shared
from agent.facts import Containerd
from agent.node.tree import File, Tree
from agent.runtimes.containerd.state import TABLES, place


class Layer(NamedTuple):
    """One file: ``imports`` are the paths it leads to, resolved and in order."""

    path: str
    file: File
    tables: dict[str, Any]
    imports: tuple[str, ...]


class Layers(NamedTuple):
    """All files of one containerd, the one it is started with first.

    ``apart``: each is read by its own version. ``newest`` is where versions after 3 have the
    registry table, by containerd's own dump.
    """

    major: int
    all: tuple[Layer, ...]
    apart: bool = False
    newest: toml_edit.Keys = TABLES[3]

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
        return self._table_of(self.version or unsaid)

    def table_in(self, layer: Layer) -> toml_edit.Keys:
        """Where the registry table is to be said in one of these files.

        Of two that are read in one file, the older one replaces the other whole.
        """
        if self.major < 2:
            return self.table
        there = [keys for keys in self.tables_in(layer) if at(layer.tables, *keys) is not None]
        said = layer.tables.get("version") if self.apart else self.version
        usual = self._table_of(said if isinstance(said, int) and said > 1 else 3)
        return there[-1] if there else usual

    def tables_in(self, layer: Layer) -> list[toml_edit.Keys]:
        """The registry tables that are read in one of these files; the last one wins."""
        if self.major < 2:
            return [self.table]
        said = layer.tables.get("version") if self.apart else self.version
        version = said if isinstance(said, int) else 0 if self.apart else 3
        if version > 3:
            return [self.newest]
        first = max(version, 1) if self.apart else max(version, 2)
        return [TABLES[number] for number in (3, 2, 1) if number >= first]

    @property
    def unread(self) -> tuple[Layer, Layer] | None:
        """A file of version 2 whose tables of CRI a newer file keeps from being read, and that one.

        So it is from 2.0 to 2.2; 2.3 does not start with them.
        """
        if self.major < 2 or (self.version or 0) < 3:
            return None
        newer = next(one for one in self.all if one.tables.get("version") == self.version)
        old = TABLES[2][:2]
        lost = (
            one
            for one in self.all
            if one.tables.get("version") == 2
            and at(one.tables, *old)
            and (not self.apart or one is self.main)
        )
        first = next(lost, None)
        return None if first is None else (first, newer)

    @property
    def written(self) -> dict[str, Any]:
        """The registry table as the files have it, `mirrors` and `configs` of all of them."""
        merged: dict[str, Any] = {}
        for layer in self.all:
            for keys in self.tables_in(layer):
                table = at(layer.tables, *keys)
                for name in ("mirrors", "configs"):
                    for host, said in (at(table or {}, name) or {}).items():
                        there = merged.setdefault(name, {}).setdefault(host, {})
                        there.update(said if isinstance(said, dict) else {})
        return merged

    def deciding(self, *keys: str) -> Layer:
        """The file in which ``registry.<keys>`` must be set for it to count."""
        for layer in self.all[::-1]:
            wanted = (
                [(*table, *keys) for table in self.tables_in(layer)]
                if self.major >= 2
                else [self.table[:2]]
            )
            if any(at(layer.tables, *one) is not None for one in wanted):
                return layer
        return self.main

    def _table_of(self, version: int) -> toml_edit.Keys:
        return self.newest if version > 3 else TABLES.get(version, TABLES[2])


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
    dump = shared(containerd.merged or b"")
    newest = place(dump) if containerd.version[0] >= 2 and dump else TABLES[3]
    apart = containerd.version >= (2, 3)
    return Layers(containerd.version[0], tuple(seen.values()), apart, newest)


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
