"""The store of images that Podman, Buildah and CRI-O share, read as files; no program is run.

https://github.com/containers/storage: ``images.json`` below a folder per driver, in the graph root
that storage.conf(5) names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from agent.edit.toml import TomlError, parse
from agent.node.tree import Tree

ROOT = "/var/lib/containers/storage"
_CONFIGS = ("/usr/share/containers/storage.conf", "/etc/containers/storage.conf")
_OF_A_USER = ".local/share/containers/storage"
_HEX = re.compile(r"[0-9a-f]{64}")


class UnreadStoreError(Exception):
    """A store that is there and cannot be read."""


def images(tree: Tree) -> tuple[str, ...]:
    """The names, digests and ids of all images, of root's store and of every user's.

    Raises UnreadStoreError with the file and why.
    """
    return tuple(
        dict.fromkeys(
            word
            for root in _roots(tree)
            for folder in tree.names(root)
            if folder.endswith("-images")
            for word in _listed(tree, f"{root}/{folder}/images.json")
        )
    )


def _roots(tree: Tree) -> Iterator[str]:
    yield ROOT
    yield from (root for path in _CONFIGS if (root := _graph_root(tree, path)))
    for home in _homes(tree):
        yield f"{home}/{_OF_A_USER}"
        if root := _graph_root(tree, f"{home}/.config/containers/storage.conf"):
            yield root


def _homes(tree: Tree) -> Iterator[str]:
    """Root's home too: storage.conf may name another store for its own containers."""
    content = tree.read("/etc/passwd").content or b""
    for line in content.decode("utf-8", "replace").splitlines():
        fields = line.split(":")
        if len(fields) == 7 and fields[5].startswith("/"):
            yield fields[5].rstrip("/")


def _graph_root(tree: Tree, path: str) -> str:
    try:
        said: Any = parse(tree.read(path).content or b"").get("storage")
    except TomlError as problem:
        raise UnreadStoreError(f"{path}: {problem}") from None
    root = said.get("graphroot") if isinstance(said, dict) else ""
    return root.rstrip("/") if isinstance(root, str) and root.startswith("/") else ""


def _listed(tree: Tree, path: str) -> Iterator[str]:
    file = tree.read(path)
    if file.content is None:
        if file.problem:
            raise UnreadStoreError(f"{path}: {file.problem}")
        return
    try:
        for image in json.loads(file.content or b"[]"):
            yield from map(str, image.get("names") or ())
            found = [image.get("id"), image.get("digest")]
            found += (image.get("big-data-digests") or {}).values()
            for word in filter(None, map(str, found)):
                yield f"sha256:{word}" if _HEX.fullmatch(word) else word
    except (ValueError, AttributeError, TypeError) as problem:
        raise UnreadStoreError(f"{path}: {problem}") from None
