"""What is ours on a node by its own marks, if the agent's notes are lost.

Every line we add ends in a mark, every file we write begins with one, and a CA beside another's
files has a name of its own: so trust can be taken away without any memory of having set it up.
"""

from __future__ import annotations

from agent.edit import toml_edit
from agent.edit.change import Change, change
from agent.edit.toml import TomlError, parse
from agent.edit.utf8 import encoding
from agent.facts import Facts
from agent.formats import client_files, hosts_toml
from agent.formats.hosts_toml import COMMENT, PART
from agent.node.tree import Tree
from agent.runtimes.containerd import config, layers
from agent.runtimes.containerd.state import registry_table
from agent.wire.plan import Registry


def find(facts: Facts, registry: Registry, fallback: str) -> tuple[Change, ...]:
    """The changes that take away what is ours for a registry, and what only served it.

    ``fallback`` is the folder of registries that we make where there was none.
    """
    changes: dict[str, Change] = {}
    for found in facts.containerds:
        path = registry_table(parse(found.merged or b"")).get("config_path") or fallback
        roots = ["/" + root.strip("/") for root in path.split(":") if root]
        for root in dict.fromkeys([*roots, fallback]):
            for spelled in registry.spellings:
                for name in hosts_toml.names(spelled.name):
                    for one in _in_folder(facts.tree, f"{root}/{name}", spelled):
                        changes[one.path] = one
        # The one setting that serves all registries goes with the last of them.
        alone = not any(_others(facts.tree, root, registry) for root in roots)
        known = layers.read(found, facts.tree)
        for layer in known.all:
            try:
                codec = encoding(layer.file.content or b"")
                text = (layer.file.content or b"").decode(codec)
                for keys in config.classic_keys(known, registry):
                    text = toml_edit.release(text, COMMENT, keys)
                if alone:
                    text = toml_edit.release(config.uncommented(text), COMMENT)
            except (UnicodeDecodeError, TomlError, ValueError):
                continue
            if layer.file.content is not None:
                for one in change(PART, layer.file, text.encode(codec)):
                    changes[one.path] = one
    return tuple(changes.values())


def _in_folder(tree: Tree, place: str, registry: Registry) -> tuple[Change, ...]:
    changes: list[Change] = []
    hosts = tree.read(f"{place}/hosts.toml")
    content = hosts.content
    wholes = (None, client_files.paths(place))
    if content in [hosts_toml.own(registry, f"{place}/{hosts_toml.CA}", one) for one in wholes]:
        changes += change(PART, hosts, None)
        changes += change(PART, tree.read(f"{place}/{hosts_toml.CA}"), None)
    elif content is not None:
        changes += change(PART, hosts, hosts_toml.without_ours(hosts.path, content))
    changes += change(PART, tree.read(f"{place}/{hosts_toml.BESIDE}"), None)
    changes += client_files.forgotten(PART, tree, place)
    return tuple(changes)


def _others(tree: Tree, root: str, registry: Registry) -> bool:
    names = {name for one in registry.spellings for name in hosts_toml.names(one.name)}
    return any(name not in names and tree.names(f"{root}/{name}") for name in tree.names(root))
