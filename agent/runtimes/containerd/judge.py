"""Whether an edited configuration does what it should and nothing else, by containerd's own word.

The candidate is a copy of every file containerd reads, the edited ones as they will be, each import
pointing at its copy. `containerd config dump` of it is compared with the dump of what is there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from agent.edit import toml_edit
from agent.edit.change import SCRATCH, Change
from agent.edit.toml import at, parse
from agent.edit.utf8 import encoding
from agent.facts import Containerd
from agent.node.tree import Tree
from agent.runtimes.containerd import layers as _layers
from agent.runtimes.containerd.state import TABLES, place, read, registry_table
from agent.runtimes.containerd.strategies import choose
from agent.wire.plan import Registry


def candidate(found: Containerd, tree: Tree, changes: Sequence[Change]) -> dict[str, bytes]:
    """The files to dump, by name; `config.toml` is the first. Empty where none is edited.

    ``SCRATCH`` in them stands for the folder they will be in.
    """
    known = _layers.read(found, tree)
    after = {one.path: one.after for one in changes}
    if not any(after.get(layer.path) is not None for layer in known.all):
        return {}
    names = {layer.path: f"{number}.toml" for number, layer in enumerate(known.all)}
    names[known.main.path] = "config.toml"
    files = {}
    for layer in known.all:
        content = after.get(layer.path, layer.file.content) or b""
        if layer.imports:
            codec = encoding(content)
            text = content.decode(codec)
            entry = toml_edit.scan(text).entry(("imports",))
            if entry is not None:
                copies = json.dumps([f"{SCRATCH}/{names[path]}" for path in layer.imports])
                text = text[: entry.value] + copies + text[entry.value_end :]
            content = text.encode(codec)
        files[names[layer.path]] = content
    return files


def differs_in_trust_alone(before: bytes, after: bytes, registry: Registry) -> bool:
    """Whether two `config dump`s differ in the trust in a registry and nothing else.

    On 2.x `mirrors` may go where a `config_path` comes, and the other way round: they are moved.
    """
    old, new = parse(before), parse(after)
    moved = _moved(old, new) or _moved(new, old)
    for tables in (old, new):
        # 1.x lists the files themselves there, under the names they were given.
        tables.pop("imports", None)
        for keys in {*TABLES.values(), place(tables)}:
            _take_out(tables, (*keys, "config_path"))
            if moved:
                _take_out(tables, (*keys, "mirrors"))
            for spelled in registry.spellings:
                _take_out_ca(tables, (*keys, "configs", spelled.name, "tls"))
    return bool(_without_empty(old) == _without_empty(new))


def _take_out_ca(tables: dict[str, Any], keys: tuple[str, ...]) -> None:
    tls = at(tables, *keys)
    alone = isinstance(tls, dict) and not any(tls[key] for key in tls if key != "ca_file")
    _take_out(tables, keys if alone else (*keys, "ca_file"))


def counts(found: Containerd, after: bytes, registry: Registry) -> bool:
    """Whether a configuration makes this registry's trust count: it leaves nothing to edit."""
    merged = parse(after)
    state = read(found.version, merged)
    strategy = choose(state)
    if strategy.name == "classic-entry":
        tls = at(registry_table(merged), "configs", registry.name, "tls")
        return isinstance(tls, dict) and bool(tls.get("ca_file"))
    return bool(strategy.name == "folder")


def _moved(old: dict[str, Any], new: dict[str, Any]) -> bool:
    before, after = registry_table(old), registry_table(new)
    gone = bool(before.get("mirrors")) and not after.get("mirrors")
    return new.get("version", 0) >= 3 and gone and bool(after.get("config_path"))


def _without_empty(value: Any) -> Any:
    """Tables without empty tables: a dump tells `auth` of a registry as {} beside its `tls`."""
    if not isinstance(value, dict):
        return value
    inner = {key: _without_empty(one) for key, one in value.items()}
    return {key: one for key, one in inner.items() if one != {} and one is not None}


def _take_out(tables: dict[str, Any], keys: toml_edit.Keys) -> None:
    """Remove a value, and the tables that are empty without it."""
    inner = tables.get(keys[0])
    if len(keys) > 1 and isinstance(inner, dict):
        _take_out(inner, keys[1:])
    if len(keys) == 1 or inner == {}:
        tables.pop(keys[0], None)
