"""The hosts that a runtime asks for a registry's images before the registry itself.

They stand in ``hosts.toml`` files (https://github.com/containerd/containerd/blob/main/docs/hosts.md).
containerd 2.1 and newer passes over a mirror that fails and tells what the last host said, so a
mirror that is not trusted looks like an image that is missing. 1.x tells of the mirror.
"""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit

from agent.edit.toml import TomlError, parse
from agent.formats.hosts_toml import DEFAULT, names
from agent.node.tree import Tree
from agent.wire.plan import Registry


class AskedMirror(NamedTuple):
    """A host that is asked before the registry: ``path`` names it, ``cas`` are its CA files."""

    host: Registry
    path: str
    cas: tuple[str, ...] = ()


def before(tree: Tree, roots: tuple[str, ...], registry: Registry) -> tuple[AskedMirror, ...]:
    """The mirrors of a registry in the first folder that counts, in the order of its file."""
    for folder in (f"{root}/{name}" for root in roots for name in (*names(registry.name), DEFAULT)):
        path = f"{folder}/hosts.toml"
        content = tree.read(path).content
        if content is not None:
            return _mirrors(path, content, registry)
        if tree.names(folder):
            return ()
    return ()


def pem(tree: Tree, asked: AskedMirror) -> str:
    """The CA certificates that the runtime has for a host."""
    found = (tree.read(path).content or b"" for path in asked.cas)
    return "\n".join(content.decode("ascii", "replace") for content in found)


def _mirrors(path: str, content: bytes, registry: Registry) -> tuple[AskedMirror, ...]:
    try:
        tables = parse(content).get("host")
    except TomlError:
        return ()
    found = []
    for url, table in tables.items() if isinstance(tables, dict) else ():
        host = _host(url)
        if host is None or host.name == registry.name or not isinstance(table, dict):
            continue
        capable = table.get("capabilities") or ("resolve",)  # an empty list is as none: all
        if "resolve" in capable and not table.get("skip_verify"):
            found.append(AskedMirror(host, path, _paths(path, table.get("ca"))))
    return tuple(found)


def _host(url: str) -> Registry | None:
    """Where a URL leads, or None for one that is not of HTTPS."""
    try:
        parts = urlsplit(url)
        port = parts.port or 443
    except ValueError:
        return None
    usable = parts.scheme == "https" and parts.hostname
    return Registry(parts.hostname, port) if usable and parts.hostname else None


def _paths(path: str, given: object) -> tuple[str, ...]:
    """The files of a ``ca``: a path or a list of them, seen from the file's own folder."""
    folder = path.rpartition("/")[0]
    listed = given if isinstance(given, list) else [given]
    return tuple(
        one if one.startswith("/") else f"{folder}/{one}" for one in listed if isinstance(one, str)
    )
