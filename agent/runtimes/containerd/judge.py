"""Whether an edited configuration does what it should and nothing else, by containerd's own word.

The candidate is a copy of every file containerd reads, the edited ones as they will be, each import
pointing at its copy. `containerd config dump` of it is compared with the dump of what is there.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from copy import deepcopy
from functools import partial
from typing import Any

from agent.edit import toml_edit
from agent.edit.change import SCRATCH, Change
from agent.edit.toml import at, shared
from agent.edit.utf8 import encoding
from agent.facts import Containerd, Facts
from agent.formats.proposal import Trial
from agent.node.host import Done
from agent.node.tree import Tree
from agent.runtimes.containerd import layers as _layers
from agent.runtimes.containerd.config import TLS_FILES
from agent.runtimes.containerd.state import TABLES, place, read, registry_table
from agent.runtimes.containerd.strategies import choose
from agent.wire.faults import RefusedError
from agent.wire.plan import Registry


def judge(
    facts: Facts, changes: Sequence[Change], registry: Registry, applying: bool
) -> Iterator[Trial]:
    """Let each containerd of the node say what it makes of its new configuration.

    ``applying``: the edit has to make the registry's trust count.
    """
    for found in facts.containerds:
        files = candidate(found, facts.tree, changes)
        if files:
            words = (found.binary, "--config", f"{SCRATCH}/config.toml", "config", "dump")
            yield Trial(files, words, partial(_require_fit, found, registry, applying))


def _require_fit(found: Containerd, registry: Registry, applying: bool, done: Done) -> None:
    path = found.config.path
    if not done.ok:
        raise RefusedError(
            "candidate-refused",
            f"containerd refuses the edited {path}: {done.complaint}",
            cause="the edit does not fit the rest of the file",
            cure="nothing was changed; report this with the file, it is a defect of Moorage",
        )
    after = done.out.encode()
    fits = differs_in_trust_alone(found.merged or b"", after, registry)
    if not fits or (applying and not counts(found, after, registry)):
        raise RefusedError(
            "candidate-differs",
            f"the edited {path} would change more than the registry's trust"
            if not fits
            else f"the edit of {path} would have no effect",
            cause="a file named in `imports`, or another table, decides what is set there",
            cure=f"compare: {shlex.join((found.binary, '--config', path))} config dump",
        )


def candidate(found: Containerd, tree: Tree, changes: Sequence[Change]) -> dict[str, bytes]:
    """The files to dump, by name; `config.toml` is the first. Empty if none is edited.

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
    old, new = deepcopy(shared(before)), deepcopy(shared(after))
    moved = _moved(old, new) or _moved(new, old)
    for tables in (old, new):
        # 1.x lists the files themselves there, under the names they were given.
        tables.pop("imports", None)
        for keys in {*TABLES.values(), place(tables)}:
            _take_out(tables, (*keys, "config_path"))
            if moved:
                _take_out(tables, (*keys, "mirrors"))
            for spelled in registry.spellings:
                _take_out_files(tables, (*keys, "configs", spelled.name, "tls"))
    return bool(_without_empty(old) == _without_empty(new))


def _take_out_files(tables: dict[str, Any], keys: tuple[str, ...]) -> None:
    tls = at(tables, *keys)
    alone = isinstance(tls, dict) and not any(tls[key] for key in tls if key not in TLS_FILES)
    for one in [keys] if alone else [(*keys, key) for key in TLS_FILES]:
        _take_out(tables, one)


def counts(found: Containerd, after: bytes, registry: Registry) -> bool:
    """Whether a configuration makes this registry's trust count: it leaves nothing to edit."""
    merged = shared(after)
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
