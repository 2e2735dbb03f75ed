"""Edits of containerd's own configuration: as text, proved by parsing, marked as ours."""

from __future__ import annotations

import copy
import re
from typing import Any

from agent.edit import toml_edit
from agent.edit.change import Change, change, readable
from agent.edit.toml import at, parse
from agent.edit.utf8 import encoding
from agent.formats.hosts_toml import COMMENT, PART
from agent.runtimes.containerd.layers import Layer, Layers, says_nothing
from agent.runtimes.containerd.state import TABLES
from agent.wire.faults import RefusedError
from agent.wire.plan import Registry

MOVED = "# Moorage moved: "
# What 1.x is told of a registry's TLS beside `registry.mirrors`.
TLS_FILES = ("ca_file", "cert_file", "key_file")


class Drafts:
    """The files of one containerd while they are being edited in memory."""

    def __init__(self, layers: Layers) -> None:
        self._layers = layers
        self._texts: dict[str, str] = {}

    def set(self, table: toml_edit.Keys, key: str, value: str) -> None:
        """Set ``table.key`` in the file where it counts, or refuse what cannot be edited safely."""
        inner = table[len(self._layers.table) :]
        layer = self._layers.deciding(*inner, key)
        table = (*self._layers.table_in(layer), *inner)
        text = self._text(layer)
        if layer is self._layers.main and says_nothing(layer.tables):
            text = self._with_version(text)
        expected = _with(parse(text.encode("utf-8")), table, key, value)
        try:
            edited = toml_edit.set_string(text, table, key, value, COMMENT)
            result: dict[str, Any] | None = parse(edited.encode("utf-8"))
        except ValueError:
            result = None
        if result is None or result != expected:
            raise _not_understood(layer, table, f'{key} = "{value}"')
        self._texts[layer.path] = edited

    def release(self, table: toml_edit.Keys, key: str) -> bool:
        """Take ``table.key`` of ours back. Returns whether nothing of ours is there any more."""
        inner = table[len(self._layers.table) :]
        layer = self._layers.deciding(*inner, key)
        keys = (*self._layers.table_in(layer), *inner, key)
        there, text = self._text(layer), toml_edit.release(self._text(layer), COMMENT, keys)
        if text != there:
            self._texts[layer.path] = text
        was, now = (at(parse(one.encode("utf-8")), *keys) for one in (there, text))
        return was is None or now != was

    def move_mirrors(self) -> None:
        """Turn every `mirrors` table that counts into comments, line by line."""
        for layer in self._layers.all:
            text = self._text(layer)
            for table in self._layers.tables_in(layer):
                text = _commented(text, (*table, "mirrors"))
                if at(parse(text.encode("utf-8")), *table, "mirrors"):
                    raise _not_understood(layer, table, "mirrors = …")
            if text != self._text(layer):
                self._texts[layer.path] = text

    def changes(self) -> tuple[Change, ...]:
        return tuple(
            one
            for layer in self._layers.all
            if layer.path in self._texts
            for one in change(PART, layer.file, self._texts[layer.path].encode(_codec(layer)))
        )

    def _text(self, layer: Layer) -> str:
        there = self._texts.get(layer.path)
        return (readable(layer.file) or b"").decode(_codec(layer)) if there is None else there

    def _with_version(self, text: str) -> str:
        version = 2 if self._layers.major < 2 else 3
        newline = "\r\n" if "\r\n" in text else "\n"
        return f"version = {version}{newline}{text}"


def without_ours(content: bytes, before: bytes | None) -> bytes:
    """A configuration file that others edited since, without what is ours in it.

    ``before`` is the file as it was; it is asked only for values within an inline table.
    """
    codec = encoding(content)
    text = uncommented(content.decode(codec))
    text = toml_edit.release(text, COMMENT)
    if before is not None:
        for table in TABLES.values():
            old = before.decode(codec, "replace")
            text = toml_edit.unset_inline(text, table, "config_path", old)
    return text.encode(codec)


def classic_table(layers: Layers, registry: Registry) -> toml_edit.Keys:
    """Where containerd 1.x looks for a registry's CA without a `config_path`."""
    return (*layers.table, "configs", registry.name, "tls")


def classic_keys(layers: Layers, registry: Registry) -> list[toml_edit.Keys]:
    """What is ours there of a registry, in each spelling of its name."""
    tables = [classic_table(layers, spelled) for spelled in registry.spellings]
    return [(*table, key) for table in tables for key in TLS_FILES]


def uncommented(text: str) -> str:
    """The lines we turned into comments as they were."""
    return re.sub(rf"^{re.escape(MOVED)}", "", text, flags=re.MULTILINE)


def _commented(text: str, table: toml_edit.Keys) -> str:
    layout = toml_edit.scan(text)
    spans = []
    for header in layout.headers:
        if header.keys[: len(table)] == table:
            later = [one.start for one in layout.headers if one.start > header.start]
            spans.append((header.start, min(later, default=len(text))))
    for entry in layout.entries:
        if entry.keys[: len(table)] == table:
            spans.append((entry.start, entry.end))
    lines = text.split("\n")
    inside = [False] * len(lines)
    for start, end in spans:
        first = text.count("\n", 0, start)
        for number in range(first, first + text.rstrip("\n").count("\n", start, end - 1) + 1):
            inside[number] = True
    return "\n".join(
        MOVED + line if ours and line.strip() else line for line, ours in zip(lines, inside)
    )


def _codec(layer: Layer) -> str:
    return encoding(layer.file.content or b"")


def _with(tables: dict[str, Any], table: toml_edit.Keys, key: str, value: str) -> dict[str, Any]:
    expected = copy.deepcopy(tables)
    inner: Any = expected
    for part in table:
        inner = inner.setdefault(part, {}) if isinstance(inner, dict) else {}
    if isinstance(inner, dict):
        inner[key] = value
    return expected


def _not_understood(layer: Layer, table: toml_edit.Keys, wanted: str) -> RefusedError:
    return RefusedError(
        "config-not-understood",
        f"{layer.path} is written in a way that cannot be edited safely",
        cause=f"[{'.'.join(table)}] cannot be changed in it without rewriting other lines",
        cure=f"set {wanted} in it by hand, then run again",
    )
