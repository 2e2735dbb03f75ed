"""A client's certificate and key as files: which are ours, and how they come into a folder.

In a folder that is read as Docker reads it, each ``*.cert`` with its ``*.key`` is presented to a
registry that asks for one (:mod:`agent.formats.folder_pairs` has the sources); elsewhere a
runtime's own file names the two. Go passes over what stands before a PEM block (encoding/pem), so
ours begin with a line by which they are known again. Of several pairs Go presents the first that a
server's list of CAs allows.
"""

from __future__ import annotations

import re

from agent.edit.change import HEADER, Change, Ledger, Owned, change
from agent.node.tree import File, Tree
from agent.wire.faults import RefusedError
from agent.wire.plan import Registry

_HEADER = HEADER.encode()
USUAL, BESIDE = "client", "moorage-client"  # the second where another's have the usual name
_KEY_MODE = 0o600
_BODY = re.compile(rb"-----BEGIN [A-Z0-9 ]+-----.*?-----END [A-Z0-9 ]+-----", re.DOTALL)


def paths(place: str, stem: str = USUAL) -> tuple[str, str]:
    """The certificate's file and the key's."""
    return f"{place}/{stem}.cert", f"{place}/{stem}.key"


def is_one(path: str) -> bool:
    """Whether a file of ours is half of a pair."""
    return path.endswith((".cert", ".key"))


def is_ours(file: File) -> bool:
    """Whether a file's first line says that it is ours."""
    return (file.content or b"").startswith(_HEADER)


def strip(owned: Owned, content: bytes) -> bytes | None:
    """Half of a pair that others edited since: what is not ours, gone if nothing else is in it."""
    kept = content
    for block in _BODY.findall(owned.after or b""):
        kept = kept.replace(block, b"")
    rest = kept.replace(_HEADER, b"")
    return rest if rest.strip() else None


def named(part: str, tree: Tree, place: str, stem: str, registry: Registry) -> tuple[Change, ...]:
    """The changes that put the pair into two files that a runtime's own file names."""
    client = registry.client
    if client is None:
        return ()
    cert, key = paths(place, stem)
    wanted = ((cert, client.certificate, 0o644), (key, client.key, _KEY_MODE))
    return tuple(
        one
        for path, text, mode in wanted
        for one in change(part, tree.read(path), _HEADER + text.encode("ascii"), mode)
    )


def in_folder(
    part: str, tree: Tree, place: str, registry: Registry, owned: Ledger
) -> tuple[Change, ...]:
    """The changes that put the pair into a folder whose every ``*.cert`` is presented."""
    if registry.client is None:
        return withdrawn(part, tree, place, owned)
    if _is_there(tree, place, registry):
        return ()
    return named(part, tree, place, stem(tree, place, owned), registry)


def chosen(tree: Tree, place: str, registry: Registry, owned: Ledger) -> tuple[str, str] | None:
    """The two files that have the pair in such a folder, or will have it; None without a pair."""
    if registry.client is None:
        return None
    others = _is_there(tree, place, registry)
    return paths(place, others or stem(tree, place, owned))


def stem(tree: Tree, place: str, owned: Ledger) -> str:
    """The name that the pair gets in a folder: the usual one unless another's file has it."""
    files = [tree.read(path) for path in paths(place)]
    theirs = any(one.content is not None and one.path not in owned for one in files)
    return BESIDE if theirs and not all(map(is_ours, files)) else USUAL


def withdrawn(
    part: str, tree: Tree, place: str, owned: Ledger, stems: tuple[str, ...] = (USUAL, BESIDE)
) -> tuple[Change, ...]:
    """What takes a pair of ours out of a folder, if it is as we left it."""
    found: list[Change] = []
    for path in (path for stem in stems for path in paths(place, stem)):
        mine = owned.get(path)
        file = tree.read(path) if mine is not None else None
        if mine is not None and file is not None and file.content in (mine.after, None):
            found += change(part, file, mine.before)
    return tuple(found)


def forgotten(part: str, tree: Tree, place: str) -> tuple[Change, ...]:
    """What takes away a pair that only its first line shows to be ours."""
    files = [tree.read(path) for path in (*paths(place), *paths(place, BESIDE))]
    return tuple(one for file in filter(is_ours, files) for one in change(part, file, None))


def holds(file: File, pem: str) -> bool:
    """Whether a file holds the blocks of a PEM text, whatever stands between them."""
    there = set(map(_bare, _BODY.findall(file.content or b"")))
    return {_bare(one) for one in _BODY.findall(pem.encode("ascii"))} <= there


def require_same(tree: Tree, files: tuple[str, str], registry: Registry, told_by: str) -> None:
    """Refuse another's pair, of two files that ``told_by`` names, unless it is the registry's.

    For runtimes that are told of one pair alone. Raises RefusedError (``client-pair-foreign``).
    """
    pair, (cert, key) = registry.client, files
    fits = pair is not None and holds(tree.read(cert), pair.certificate)
    if pair is not None and not (fits and holds(tree.read(key or cert), pair.key)):
        raise RefusedError(
            "client-pair-foreign",
            f"{told_by} has another certificate presented to {registry.name}: {cert}",
            cause="someone else configured this registry here, and one pair is all that counts",
            cure=f"take cert_file and key_file out of {told_by}, then run again",
        )


def _is_there(tree: Tree, place: str, registry: Registry) -> str:
    """The name of a pair in a folder that is the registry's already, ours or not; "" for none."""
    client = registry.client
    for name in tree.names(place):
        if client is not None and name.endswith(".cert"):
            cert, key = paths(place, name[: -len(".cert")])
            if holds(tree.read(cert), client.certificate) and holds(tree.read(key), client.key):
                return name[: -len(".cert")]
    return ""


def _bare(block: bytes) -> bytes:
    return b"".join(block.split())
